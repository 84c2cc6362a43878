//! The control file of a timeline: what an acceptor has promised and may not forget (`FORMAT.md`).
//!
//! It is replaced as a whole, atomically and durably (SK-5), and has a checksum: a damaged one is never half believed, its
//! timeline is refused instead, because a forgotten vote can elect two proposers of one term.

use std::path::Path;

use bytes::{Buf, BufMut};
use strata_common::{
    Incarnation, Lsn, MembershipGeneration, NodeId, SystemId, TenantId, TenantTimelineId, Term, TermHistory,
    TermStart, TimelineId,
};
use strata_pgwal::SegmentBytes;
use strata_proto::quorum::{Candidate, LogFacts, Member, Membership};

use super::disk::{self, Disk};
use crate::core::DurableState;

/// Name of the file in a timeline's folder.
pub const CONTROL_FILE: &str = "control";

const MAGIC: &[u8; 8] = b"STRATASK";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("control file: {0}")]
    Io(#[from] std::io::Error),
    #[error("control file is damaged: {0}")]
    Damaged(&'static str),
    #[error("control file has format {found}, this program reads {VERSION}")]
    Version { found: u32 },
    #[error("control file belongs to timeline {found}")]
    Foreign { found: TenantTimelineId },
}

/// Writes the control file; durable on return.
pub fn save(disk: &dyn Disk, dir: &Path, id: TenantTimelineId, state: &DurableState) -> std::io::Result<()> {
    disk::replace_file(disk, dir, CONTROL_FILE, &encode(id, state))
}

/// Reads the control file of timeline `id`.
pub fn load(disk: &dyn Disk, dir: &Path, id: TenantTimelineId) -> Result<DurableState, ControlError> {
    let bytes = disk::read_file(disk, &dir.join(CONTROL_FILE))?;
    let (found, state) = decode(&bytes)?;
    if found == id { Ok(state) } else { Err(ControlError::Foreign { found }) }
}

/// The file's bytes.
pub fn encode(id: TenantTimelineId, state: &DurableState) -> Vec<u8> {
    let mut payload = Vec::with_capacity(256);
    payload.put_slice(&id.tenant.0);
    payload.put_slice(&id.timeline.0);
    payload.put_slice(&state.incarnation.0);
    payload.put_u64_le(state.facts.system_id.0);
    payload.put_u32_le(state.facts.pg_version_num);
    payload.put_u32_le(state.facts.wal_segment_bytes);
    payload.put_u64_le(state.start_lsn.0);
    payload.put_u64_le(state.oldest_lsn.0);
    payload.put_u64_le(state.commit_lsn.0);
    payload.put_u64_le(state.term.0);
    payload.put_u8(u8::from(state.vote.is_some()));
    payload.put_slice(&state.vote.unwrap_or(Candidate([0; 16])).0);
    payload.put_u32_le(state.membership.generation.0);
    payload.put_u32_le(count(state.membership.members.len()));
    for member in &state.membership.members {
        payload.put_u64_le(member.node.0);
        payload.put_slice(&member.incarnation.0);
    }
    payload.put_u32_le(count(state.history.0.len()));
    for entry in &state.history.0 {
        payload.put_u64_le(entry.term.0);
        payload.put_u64_le(entry.lsn.0);
    }
    let mut file = Vec::with_capacity(HEADER_BYTES + payload.len() + CHECKSUM_BYTES);
    file.put_slice(MAGIC);
    file.put_u32_le(VERSION);
    file.put_u32_le(count(payload.len()));
    file.put_slice(&payload);
    file.put_u32_le(crc32c::crc32c(&file));
    file
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a control file has far less than 4 GiB")
}

/// Reads a file's bytes back; they are checked first.
pub fn decode(file: &[u8]) -> Result<(TenantTimelineId, DurableState), ControlError> {
    if file.len() < HEADER_BYTES + CHECKSUM_BYTES {
        return Err(ControlError::Damaged("it is too short"));
    }
    if !file.starts_with(MAGIC) {
        return Err(ControlError::Damaged("it does not begin as one"));
    }
    let (content, mut checksum) = file.split_at(file.len() - CHECKSUM_BYTES);
    if checksum.get_u32_le() != crc32c::crc32c(content) {
        return Err(ControlError::Damaged("its checksum is wrong"));
    }
    let mut header = &content[MAGIC.len()..HEADER_BYTES];
    let (found, length) = (header.get_u32_le(), header.get_u32_le());
    if found != VERSION {
        return Err(ControlError::Version { found });
    }
    let payload = &content[HEADER_BYTES..];
    if payload.len() != length as usize {
        return Err(ControlError::Damaged("its length is wrong"));
    }
    decode_payload(payload).ok_or(ControlError::Damaged("its fields do not fit its length"))?
}

/// `None`: the bytes end too early or too late.
fn decode_payload(mut from: &[u8]) -> Option<Result<(TenantTimelineId, DurableState), ControlError>> {
    let from = &mut from;
    let tenant = TenantId(bytes16(from)?);
    let timeline = TimelineId(bytes16(from)?);
    let incarnation = Incarnation(bytes16(from)?);
    let facts = LogFacts {
        system_id: SystemId(from.try_get_u64_le().ok()?),
        pg_version_num: from.try_get_u32_le().ok()?,
        wal_segment_bytes: from.try_get_u32_le().ok()?,
    };
    let start_lsn = Lsn(from.try_get_u64_le().ok()?);
    let oldest_lsn = Lsn(from.try_get_u64_le().ok()?);
    let commit_lsn = Lsn(from.try_get_u64_le().ok()?);
    let term = Term(from.try_get_u64_le().ok()?);
    let has_vote = from.try_get_u8().ok()? == 1;
    let candidate = Candidate(bytes16(from)?);
    let generation = MembershipGeneration(from.try_get_u32_le().ok()?);
    let mut members = Vec::new();
    for _ in 0..from.try_get_u32_le().ok()? {
        let node = NodeId(from.try_get_u64_le().ok()?);
        members.push(Member { node, incarnation: Incarnation(bytes16(from)?) });
    }
    let mut history = TermHistory::default();
    for _ in 0..from.try_get_u32_le().ok()? {
        let term = Term(from.try_get_u64_le().ok()?);
        history.0.push(TermStart { term, lsn: Lsn(from.try_get_u64_le().ok()?) });
    }
    if !from.is_empty() {
        return None;
    }
    if SegmentBytes::new(u64::from(facts.wal_segment_bytes)).is_err() {
        return Some(Err(ControlError::Damaged("its segment size is impossible")));
    }
    if start_lsn > oldest_lsn || oldest_lsn > commit_lsn {
        return Some(Err(ControlError::Damaged("its positions are out of order")));
    }
    let vote = has_vote.then_some(candidate);
    let membership = Membership { generation, members };
    let state = DurableState {
        incarnation,
        membership,
        facts,
        start_lsn,
        oldest_lsn,
        term,
        vote,
        history,
        commit_lsn,
    };
    Some(Ok((TenantTimelineId { tenant, timeline }, state)))
}

fn bytes16(from: &mut &[u8]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    from.try_copy_to_slice(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
