//! Commit timestamps: pages begin as zeros and go when they are old. Times come with commits.
//!
//! Postgres: `commit_ts_redo` in `src/backend/access/transam/commit_ts.c`.

use strata_pgwal::DecodedRecord;

use super::clog::page_number;
use super::slru_pages::zero_page;
use crate::effect::{Effect, SlruEffect};
use crate::error::EffectError;
use crate::slru::SlruKind;
use crate::wire::Parts;

const ZERO_PAGE: u8 = 0x00;
const TRUNCATE: u8 = 0x10;

pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let mut parts = Parts::new(&record.main_data, "commit_ts record");
    match record.rmgr_info() {
        ZERO_PAGE => out.push(zero_page(SlruKind::CommitTs, page_number(record, &mut parts)?)),
        TRUNCATE => {
            let first_kept_page = page_number(record, &mut parts)?;
            let xid = parts.u32().map_err(|_| EffectError::malformed(record, "main data is cut short"))?;
            out.push(Effect::OldestCommitTs { xid });
            out.push(Effect::Slru(SlruEffect::Truncate { kind: SlruKind::CommitTs, first_kept_page }));
        }
        info => return Err(EffectError::unknown(record.rmid, info)),
    }
    Ok(())
}
