//! Mistakes in a copy of the log, one of each kind, as a redo that is wrong would make them: the comparison must find each in its place.
//!
//! A record is replaced by one that does nothing, of the same length and under the same checksum; or one byte of a row is another.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use strata_common::{ForkNumber, Lsn, RelFork};
use strata_pgwal::page_header::WalPageHeader;
use strata_pgwal::record::decode;
use strata_pgwal::record_header::record_crc;
use strata_pgwal::write::RecordSpec;
use strata_pgwal::{DecodedRecord, RawRecord, SegmentBytes, rmgr};
use strata_redo::effect::{Effect, SlruEffect};
use strata_redo::{SlruKind, effects};
use strata_regress::wal_files::LogBytes;

use crate::compare::{Difference, Place};

/// The row that `workload` inserts last.
const ROW: &[u8] = b"the planted row";
/// Where the checksum lies in a record's header.
const CRC_AT: usize = 20;

pub struct Mistake {
    what: &'static str,
    place: Place,
}

/// The bytes of `log` with mistakes in them. Each is the last of its kind, so that nothing later covers it.
pub fn plant(log: &LogBytes, records: &[RawRecord]) -> Result<(Vec<Mistake>, Bytes)> {
    let mut bytes = log.bytes.to_vec();
    let mut mistakes: BTreeMap<&'static str, Place> = BTreeMap::new();
    for raw in records.iter().rev() {
        let record = decode(raw)?;
        let Some((what, place)) = kind(&record)?.filter(|(what, _)| !mistakes.contains_key(what)) else {
            continue;
        };
        let changed =
            if what == "a byte of a row" { Some(with_other_byte(raw)?) } else { nothing(raw, record.prev) };
        let Some(changed) = changed else { continue };
        overwrite(&mut bytes, log.start, raw.lsn, &changed);
        mistakes.insert(what, place);
    }
    ensure!(mistakes.len() == 6, "the log offers {:?} to be planted only", mistakes.keys());
    let mistakes = mistakes.into_iter().map(|(what, place)| Mistake { what, place }).collect();
    Ok((mistakes, bytes.into()))
}

/// What would be seen if redo left the record out, and where.
fn kind(record: &DecodedRecord) -> Result<Option<(&'static str, Place)>> {
    if record.rmid == rmgr::HEAP && record.blocks.iter().any(|block| contains(&block.data, ROW)) {
        let block = &record.blocks[0];
        return Ok(Some(("a byte of a row", Place::Page(block.rel, block.block))));
    }
    let found = effects(record)?.into_iter().find_map(|effect| match effect {
        Effect::RelTruncate { rel, .. } => Some(("a truncation", Place::Size(rel.fork(ForkNumber::Main)))),
        Effect::RelMap { database, .. } => Some(("a relation map", Place::RelMap(database))),
        Effect::TwoPhasePrepare { xid, .. } => Some(("a prepared transaction", Place::TwoPhase(xid.into()))),
        // Not one that says more than who committed.
        Effect::Slru(SlruEffect::Page { page, .. })
            if page.kind == SlruKind::Clog && record.rmid == rmgr::XACT && record.main_data.len() < 64 =>
        {
            Some(("a commit", Place::Slru(page)))
        }
        Effect::Page { page, .. } if record.rmid == rmgr::HEAP2 && is_map(page.rel) => {
            (record.rmgr_info() & 0x70 == 0x40)
                .then_some(("a bit of the map", Place::Page(page.rel, page.block)))
        }
        _ => None,
    });
    Ok(found)
}

fn is_map(rel: RelFork) -> bool {
    rel.fork == ForkNumber::VisibilityMap
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A record that does nothing, as long as `raw`; `None` if there is none of its length.
fn nothing(raw: &RawRecord, prev: Lsn) -> Option<Bytes> {
    let noop =
        |length| RecordSpec::plain(rmgr::XLOG, rmgr::xlog_info::NOOP, vec![0; length].into()).encode(prev);
    // The length of its data takes one byte or four.
    [26, 29]
        .into_iter()
        .filter_map(|around| raw.bytes.len().checked_sub(around))
        .map(noop)
        .find(|bytes| bytes.len() == raw.bytes.len())
}

fn with_other_byte(raw: &RawRecord) -> Result<Bytes> {
    let mut bytes = raw.bytes.to_vec();
    let at = bytes.windows(ROW.len()).position(|window| window == ROW).context("the row is in the record")?;
    bytes[at] ^= 1;
    let crc = record_crc(&bytes);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes.into())
}

/// Puts a record over one of the same length, around page headers.
fn overwrite(log: &mut [u8], start: Lsn, at: Lsn, record: &[u8]) {
    let mut at = at;
    for byte in record {
        if at.page_offset() == 0 {
            at = at + WalPageHeader::bytes_at(at, SegmentBytes::DEFAULT) as u64;
        }
        log[(at - start) as usize] = *byte;
        at = at + 1;
    }
}

/// Every mistake was found where it was planted.
pub fn expect(mistakes: &[Mistake], found: &[Difference]) -> Result<()> {
    for mistake in mistakes {
        let is_found = found.iter().any(|difference| difference.place == mistake.place);
        let shown: Vec<String> = found.iter().map(|found| found.place.to_string()).collect();
        ensure!(is_found, "{} at {} was not found, but {shown:?}", mistake.what, mistake.place);
    }
    Ok(())
}
