//! From numbered entries to changes of SLRU pages: one change a page, since a record changes a page once (G3).

use strata_pgwal::DecodedRecord;

use crate::effect::{Effect, PageValue, SlruEffect};
use crate::error::EffectError;
use crate::slru::{
    CLOG_XACTS_PER_PAGE, COMMIT_TS_XACTS_PER_PAGE, SlruKind, SlruPage, XidStatus, encode_clog_status,
    encode_commit_ts, encode_zero,
};

/// A page begins as zeros.
pub fn zero_page(kind: SlruKind, page: u64) -> Effect {
    change(kind, page, PageValue::Change { bytes: encode_zero(), will_init: true })
}

/// A change that needs the page's old content.
pub fn changed_page(kind: SlruKind, page: u64, bytes: bytes::Bytes) -> Effect {
    change(kind, page, PageValue::Change { bytes, will_init: false })
}

fn change(kind: SlruKind, page: u64, value: PageValue) -> Effect {
    Effect::Slru(SlruEffect::Page { page: SlruPage { kind, page }, value })
}

/// All of `xids` get `status`.
pub fn clog_status(
    record: &DecodedRecord,
    status: XidStatus,
    xids: impl Iterator<Item = u32>,
    out: &mut Vec<Effect>,
) -> Result<(), EffectError> {
    for (page, entries) in by_page(record, xids, CLOG_XACTS_PER_PAGE)? {
        out.push(changed_page(SlruKind::Clog, page, encode_clog_status(status, &entries)));
    }
    Ok(())
}

/// All of `xids` get this commit timestamp.
pub fn commit_ts(
    record: &DecodedRecord,
    micros: i64,
    origin: u16,
    xids: impl Iterator<Item = u32>,
    out: &mut Vec<Effect>,
) -> Result<(), EffectError> {
    for (page, entries) in by_page(record, xids, COMMIT_TS_XACTS_PER_PAGE)? {
        out.push(changed_page(SlruKind::CommitTs, page, encode_commit_ts(micros, origin, &entries)));
    }
    Ok(())
}

/// Entries by page. Transaction ids come in ascending order, so that few pages are open at a time.
fn by_page(
    record: &DecodedRecord,
    xids: impl Iterator<Item = u32>,
    per_page: u32,
) -> Result<Vec<(u64, Vec<u16>)>, EffectError> {
    let mut pages: Vec<(u64, Vec<u16>)> = Vec::with_capacity(1);
    for xid in xids {
        let (page, entry) = (u64::from(xid / per_page), (xid % per_page) as u16);
        match pages.iter_mut().rev().find(|(number, _)| *number == page) {
            Some((_, entries)) => entries.push(entry),
            None => pages.push((page, vec![entry])),
        }
    }
    let too_many = pages.iter().any(|(_, entries)| entries.len() > per_page as usize);
    if too_many {
        return Err(EffectError::malformed(record, "more transactions than a page has entries"));
    }
    Ok(pages)
}
