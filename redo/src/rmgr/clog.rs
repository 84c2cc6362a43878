//! The transaction status log: its pages begin as zeros and go when they are old. Statuses come with transactions' ends.
//!
//! Postgres: `clog_redo` in `src/backend/access/transam/clog.c`. A truncation moves the oldest transaction id at once (G16).

use strata_pgwal::DecodedRecord;

use super::slru_pages::zero_page;
use crate::effect::{Effect, SlruEffect};
use crate::error::{EffectError, Fault};
use crate::slru::SlruKind;
use crate::wire::Parts;

pub const ZERO_PAGE: u8 = 0x00;
pub const TRUNCATE: u8 = 0x10;

pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let mut parts = Parts::new(&record.main_data, "clog record");
    let cut_short = |_: Fault| EffectError::malformed(record, "main data is cut short");
    match record.rmgr_info() {
        ZERO_PAGE => out.push(zero_page(SlruKind::Clog, page_number(record, &mut parts)?)),
        TRUNCATE => {
            let first_kept_page = page_number(record, &mut parts)?;
            let xid = parts.u32().map_err(cut_short)?;
            let database = parts.u32().map_err(cut_short)?;
            out.push(Effect::OldestXid { xid, database });
            out.push(Effect::Slru(SlruEffect::Truncate { kind: SlruKind::Clog, first_kept_page }));
        }
        info => return Err(EffectError::unknown(record.rmid, info)),
    }
    Ok(())
}

/// An SLRU page number, which Postgres 17 logs as a signed word of 64 bits.
pub(super) fn page_number(record: &DecodedRecord, parts: &mut Parts<'_>) -> Result<u64, EffectError> {
    let number = parts.i64().map_err(|_| EffectError::malformed(record, "main data is cut short"))?;
    // Entry numbers have 32 bits, so that page numbers have fewer.
    match u32::try_from(number) {
        Ok(page) => Ok(u64::from(page)),
        Err(_) => Err(EffectError::malformed(record, "page number out of range")),
    }
}
