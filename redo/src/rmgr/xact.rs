//! Commits, aborts and prepared transactions: final states in the clog, commit timestamps, dropped relations.
//!
//! Postgres: `xact_redo` in `src/backend/access/transam/xact.c`, the parsers of `src/backend/access/rmgrdesc/xactdesc.c` and
//! `src/include/access/xact.h`. On the primary a commit whose subtransactions lie on several clog pages passes through
//! SUB_COMMITTED, so that no reader sees half of it; a record is one step here, only the final state is left.

use bytes::Bytes;
use strata_common::{Lsn, RelTag};
use strata_pgwal::DecodedRecord;
use strata_pgwal::fullxid::xid_precedes;

use super::slru_pages::{clog_status, commit_ts};
use crate::effect::{Effect, TwoPhaseEnd};
use crate::error::{EffectError, Fault};
use crate::slru::XidStatus;
use crate::wire::Parts;

const OPERATION: u8 = 0x70;
const COMMIT: u8 = 0x00;
const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
const ASSIGNMENT: u8 = 0x50;
const INVALIDATIONS: u8 = 0x60;
/// A word that says which parts follow (`XLOG_XACT_HAS_INFO`).
const HAS_INFO: u8 = 0x80;

/// Bits of that word (`XACT_XINFO_*`).
mod part {
    pub const DATABASE: u32 = 1 << 0;
    pub const SUBXACTS: u32 = 1 << 1;
    pub const RELATIONS: u32 = 1 << 2;
    pub const INVALIDATIONS: u32 = 1 << 3;
    pub const TWO_PHASE: u32 = 1 << 4;
    pub const ORIGIN: u32 = 1 << 5;
    pub const GID: u32 = 1 << 7;
    pub const DROPPED_STATS: u32 = 1 << 8;
}

const REL_LOCATOR_BYTES: usize = 12;
const STATS_ITEM_BYTES: usize = 12;
const INVALIDATION_BYTES: usize = 16;
/// `TWOPHASE_MAGIC` of Postgres 17.
const TWO_PHASE_MAGIC: u32 = 0x57F9_4534;
/// `xl_xact_prepare`, aligned.
const PREPARE_HEADER_BYTES: usize = 72;
/// Progress of this origin is not tracked (`DoNotReplicateId`).
const DO_NOT_REPLICATE: u16 = u16::MAX;

/// What a transaction's end says, of commit and abort alike.
struct Ending<'a> {
    /// Microseconds since 2000-01-01 UTC.
    micros: i64,
    /// Little-endian transaction ids.
    subxacts: &'a [u8],
    /// `RelFileLocator`s.
    relations: &'a [u8],
    /// The prepared transaction that ends.
    two_phase: Option<u32>,
    /// Position and time at the node that this change came from.
    origin: Option<(Lsn, i64)>,
}

/// What a record of the transaction manager does.
pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    match record.info & OPERATION {
        operation @ (COMMIT | COMMIT_PREPARED | ABORT | ABORT_PREPARED) => end(record, operation, out),
        PREPARE => prepare(record, out),
        // A standby's bookkeeping; what counts is in the commit record.
        ASSIGNMENT | INVALIDATIONS => Ok(()),
        _ => Err(EffectError::unknown(record.rmid, record.info)),
    }
}

fn end(record: &DecodedRecord, operation: u8, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let commits = matches!(operation, COMMIT | COMMIT_PREPARED);
    let prepared = matches!(operation, COMMIT_PREPARED | ABORT_PREPARED);
    let ending = parse_ending(&record.main_data, record.info, commits)
        .map_err(|_| EffectError::malformed(record, "the parts of a transaction's end are cut short"))?;
    let xid = match (prepared, ending.two_phase) {
        (false, _) => record.xid,
        (true, Some(xid)) => xid,
        (true, None) => return Err(EffectError::malformed(record, "no prepared transaction is named")),
    };
    if xid == 0 {
        return Err(EffectError::malformed(record, "no transaction is named"));
    }
    let subxacts = || words(ending.subxacts);
    let latest = subxacts().fold(xid, |latest, sub| if xid_precedes(latest, sub) { sub } else { latest });
    if latest != record.xid {
        out.push(Effect::NextXidPast(latest));
    }
    let all = std::iter::once(xid).chain(subxacts());
    if commits {
        let micros = ending.origin.map_or(ending.micros, |(_, micros)| micros);
        commit_ts(record, micros, record.origin.unwrap_or(0), all.clone(), out)?;
    }
    let status = if commits { XidStatus::Committed } else { XidStatus::Aborted };
    clog_status(record, status, all, out)?;
    let committed = commits.then(|| subxacts().last().unwrap_or(xid));
    out.push(Effect::CommitTime { xid, micros: ending.micros, committed });
    push_origin(record, ending.origin.map(|(lsn, _)| lsn), out)?;
    out.extend(locators(ending.relations).map(Effect::RelDrop));
    if prepared {
        let end = if commits { TwoPhaseEnd::Committed } else { TwoPhaseEnd::Aborted };
        out.push(Effect::TwoPhaseFinish { xid, end });
    }
    Ok(())
}

fn push_origin(
    record: &DecodedRecord,
    remote: Option<Lsn>,
    out: &mut Vec<Effect>,
) -> Result<(), EffectError> {
    let Some(remote_lsn) = remote else { return Ok(()) };
    let Some(origin) = record.origin.filter(|&origin| origin != 0) else {
        return Err(EffectError::malformed(record, "progress of an origin without the origin"));
    };
    if origin != DO_NOT_REPLICATE {
        out.push(Effect::OriginAdvance { origin, remote_lsn, local_lsn: record.end_lsn, backward: false });
    }
    Ok(())
}

/// `ParseCommitRecord`, `ParseAbortRecord`. Dropped statistics and invalidations concern no page.
fn parse_ending(main: &[u8], info: u8, commits: bool) -> Result<Ending<'_>, Fault> {
    let mut parts = Parts::new(main, "end of a transaction");
    let micros = parts.i64()?;
    let present = if info & HAS_INFO != 0 { parts.u32()? } else { 0 };
    let has = |bit: u32| present & bit != 0;
    let mut ending = Ending { micros, subxacts: &[], relations: &[], two_phase: None, origin: None };
    if has(part::DATABASE) {
        parts.take(8)?;
    }
    if has(part::SUBXACTS) {
        ending.subxacts = counted(&mut parts, 4)?;
    }
    if has(part::RELATIONS) {
        ending.relations = counted(&mut parts, REL_LOCATOR_BYTES)?;
    }
    if has(part::DROPPED_STATS) {
        counted(&mut parts, STATS_ITEM_BYTES)?;
    }
    if commits && has(part::INVALIDATIONS) {
        counted(&mut parts, INVALIDATION_BYTES)?;
    }
    if has(part::TWO_PHASE) {
        ending.two_phase = Some(parts.u32()?);
        if has(part::GID) {
            while parts.u8()? != 0 {}
        }
    }
    if has(part::ORIGIN) {
        ending.origin = Some((Lsn(parts.i64()? as u64), parts.i64()?));
    }
    Ok(ending)
}

/// Items behind a 32-bit count.
fn counted<'a>(parts: &mut Parts<'a>, item_bytes: usize) -> Result<&'a [u8], Fault> {
    let count = parts.u32()? as usize;
    parts.take(count.saturating_mul(item_bytes))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + Clone + '_ {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

fn locators(bytes: &[u8]) -> impl Iterator<Item = RelTag> + '_ {
    bytes.chunks_exact(REL_LOCATOR_BYTES).map(|locator| {
        let mut fields = words(locator);
        let mut next = || fields.next().unwrap_or(0);
        RelTag { tablespace: next(), database: next(), relation: next() }
    })
}

/// The record's main data is what Postgres keeps in `pg_twophase` until the transaction ends.
fn prepare(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let parsed = parse_prepare(&record.main_data)
        .map_err(|_| EffectError::malformed(record, "the header of a prepared transaction is cut short"))?;
    let Prepared { magic, xid, subxacts, origin_lsn } = parsed;
    if magic != TWO_PHASE_MAGIC || xid == 0 {
        return Err(EffectError::malformed(record, "the header of a prepared transaction is not one"));
    }
    let latest =
        words(subxacts).fold(xid, |latest, sub| if xid_precedes(latest, sub) { sub } else { latest });
    if latest != record.xid {
        out.push(Effect::NextXidPast(latest));
    }
    let from_elsewhere = record.origin.is_some_and(|origin| origin != 0);
    push_origin(record, from_elsewhere.then_some(origin_lsn), out)?;
    out.push(Effect::TwoPhasePrepare { xid, data: Bytes::clone(&record.main_data) });
    Ok(())
}

struct Prepared<'a> {
    magic: u32,
    xid: u32,
    subxacts: &'a [u8],
    origin_lsn: Lsn,
}

fn parse_prepare(main: &[u8]) -> Result<Prepared<'_>, Fault> {
    let mut parts = Parts::new(main, "xl_xact_prepare");
    let mut header = Parts::new(parts.take(PREPARE_HEADER_BYTES)?, "xl_xact_prepare");
    let magic = header.u32()?;
    header.take(4)?;
    let xid = header.u32()?;
    header.take(16)?;
    let subxact_count = header.u32()? as usize;
    header.take(22)?;
    let gid_bytes = usize::from(header.u16()?);
    let origin_lsn = Lsn(header.i64()? as u64);
    parts.take(gid_bytes.next_multiple_of(8))?;
    let subxacts = parts.take(subxact_count.saturating_mul(4))?;
    Ok(Prepared { magic, xid, subxacts, origin_lsn })
}

#[cfg(test)]
#[path = "xact_test.rs"]
mod tests;
