//! Pages of the SLRUs (clog, multixact, commit timestamps): entries set by number within a page.
//!
//! These pages have no header and no LSN. A record that sets entries is split by page at ingest; the stored change holds the
//! entry numbers and values, so that applying it needs nothing else. Layouts: `clog.c`, `multixact.c` and `commit_ts.c` in
//! `src/backend/access/transam/`.

use std::fmt;

use bytes::Bytes;
use strata_common::BLOCK_BYTES;

use crate::Page;
use crate::change::{CHANGE_VERSION, ChangeError, kind};
use crate::error::Fault;
use crate::wire::{Parts, u16_list};

/// Transactions per page of the clog (`CLOG_XACTS_PER_PAGE`).
pub const CLOG_XACTS_PER_PAGE: u32 = (BLOCK_BYTES * 4) as u32;
/// Multixacts per page of offsets (`MULTIXACT_OFFSETS_PER_PAGE`).
pub const MULTI_OFFSETS_PER_PAGE: u32 = (BLOCK_BYTES / 4) as u32;
/// Members per page (`MULTIXACT_MEMBERS_PER_PAGE`): groups of four status bytes and four transaction ids.
pub const MULTI_MEMBERS_PER_PAGE: u32 = (BLOCK_BYTES / MEMBER_GROUP_BYTES * MEMBERS_PER_GROUP) as u32;
/// Transactions per page of commit timestamps (`COMMIT_TS_XACTS_PER_PAGE`).
pub const COMMIT_TS_XACTS_PER_PAGE: u32 = (BLOCK_BYTES / COMMIT_TS_BYTES) as u32;
/// Pages per segment file (`SLRU_PAGES_PER_SEGMENT`).
pub const PAGES_PER_SEGMENT: u64 = 32;

const MEMBERS_PER_GROUP: usize = 4;
const MEMBER_GROUP_BYTES: usize = 4 + 4 * MEMBERS_PER_GROUP;
const COMMIT_TS_BYTES: usize = 10;
/// Bytes of a member in a stored change: transaction id and status.
const STORED_MEMBER_BYTES: usize = 5;
/// Bytes of an offset in a stored change: entry and value.
const STORED_OFFSET_BYTES: usize = 6;

/// The SLRUs that are kept remotely.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum SlruKind {
    Clog = 0,
    MultiXactOffsets = 1,
    MultiXactMembers = 2,
    CommitTs = 3,
}

impl SlruKind {
    pub const ALL: [SlruKind; 4] =
        [SlruKind::Clog, SlruKind::MultiXactOffsets, SlruKind::MultiXactMembers, SlruKind::CommitTs];

    /// Folder of its segment files below the data directory.
    pub fn folder(self) -> &'static str {
        match self {
            SlruKind::Clog => "pg_xact",
            SlruKind::MultiXactOffsets => "pg_multixact/offsets",
            SlruKind::MultiXactMembers => "pg_multixact/members",
            SlruKind::CommitTs => "pg_commit_ts",
        }
    }
}

/// One page of an SLRU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlruPage {
    pub kind: SlruKind,
    /// Number of the page, from the entry number divided by the entries per page.
    pub page: u64,
}

impl fmt::Display for SlruPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} of {}", self.page, self.kind.folder())
    }
}

/// Status of a transaction in the clog (`src/include/access/clog.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum XidStatus {
    Committed = 1,
    Aborted = 2,
    SubCommitted = 3,
}

/// A member of a multixact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MultiMember {
    pub xid: u32,
    /// `MultiXactStatus`.
    pub status: u8,
}

/// A change of an SLRU page, borrowed from its encoded bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlruChange<'a> {
    /// The page begins as zeros.
    Zero,
    /// `entries` (little-endian `u16` each) get this status.
    ClogStatus { status: u8, entries: &'a [u8] },
    /// Six bytes each: entry (`u16`) and offset (`u32`).
    MultiOffsets { offsets: &'a [u8] },
    /// The page begins as zeros, but for entry `first`: the record before may have set it already (`multixact.rs`).
    MultiOffsetsBegin { first: u16 },
    /// Members from entry `first` on, five bytes each: transaction id and status.
    MultiMembers { first: u16, members: &'a [u8] },
    /// `entries` (little-endian `u16` each) get this time (microseconds since 2000-01-01 UTC) and origin.
    CommitTs { micros: i64, origin: u16, entries: &'a [u8] },
}

impl<'a> SlruChange<'a> {
    pub(crate) fn decode(kind: u8, parts: &mut Parts<'a>) -> Result<SlruChange<'a>, Fault> {
        let change = match kind {
            kind::SLRU_ZERO => SlruChange::Zero,
            kind::CLOG_STATUS => SlruChange::ClogStatus { status: parts.u8()?, entries: list(parts, 2)? },
            kind::MULTI_OFFSETS => SlruChange::MultiOffsets { offsets: list(parts, STORED_OFFSET_BYTES)? },
            kind::MULTI_OFFSETS_BEGIN => SlruChange::MultiOffsetsBegin { first: parts.u16()? },
            kind::MULTI_MEMBERS => {
                SlruChange::MultiMembers { first: parts.u16()?, members: list(parts, STORED_MEMBER_BYTES)? }
            }
            kind::COMMIT_TS => {
                SlruChange::CommitTs { micros: parts.i64()?, origin: parts.u16()?, entries: list(parts, 2)? }
            }
            other => return Err(ChangeError::Kind(other).into()),
        };
        Ok(change)
    }

    /// The SLRU that it is for, or `None` if any.
    fn kind(&self) -> Option<SlruKind> {
        match self {
            SlruChange::Zero => None,
            SlruChange::ClogStatus { .. } => Some(SlruKind::Clog),
            SlruChange::MultiOffsets { .. } | SlruChange::MultiOffsetsBegin { .. } => {
                Some(SlruKind::MultiXactOffsets)
            }
            SlruChange::MultiMembers { .. } => Some(SlruKind::MultiXactMembers),
            SlruChange::CommitTs { .. } => Some(SlruKind::CommitTs),
        }
    }

    pub(crate) fn apply(&self, page: &mut Page, kind: SlruKind) -> Result<(), Fault> {
        if self.kind().is_some_and(|own| own != kind) {
            return Err(ChangeError::WrongPage.into());
        }
        match *self {
            SlruChange::Zero => {
                page.fill(0);
                Ok(())
            }
            SlruChange::ClogStatus { status, entries } => set_statuses(page, status, entries),
            SlruChange::MultiOffsets { offsets } => set_offsets(page, offsets),
            SlruChange::MultiOffsetsBegin { first } => begin_offsets(page, first.into()),
            SlruChange::MultiMembers { first, members } => set_members(page, first.into(), members),
            SlruChange::CommitTs { micros, origin, entries } => set_times(page, micros, origin, entries),
        }
    }
}

fn list<'a>(parts: &mut Parts<'a>, item_bytes: usize) -> Result<&'a [u8], Fault> {
    let count = usize::from(parts.u16()?);
    parts.take(count * item_bytes)
}

fn beyond_page(entry: usize, per_page: u32) -> Result<(), Fault> {
    if entry < per_page as usize { Ok(()) } else { Err(Fault::Mismatch("SLRU entry beyond its page")) }
}

/// `TransactionIdSetStatusBit` as recovery does it.
fn set_statuses(page: &mut Page, status: u8, entries: &[u8]) -> Result<(), Fault> {
    if status > XidStatus::SubCommitted as u8 {
        return Err(Fault::Mismatch("transaction status out of range"));
    }
    for entry in u16_list(entries).map(usize::from) {
        beyond_page(entry, CLOG_XACTS_PER_PAGE)?;
        let shift = entry % 4 * 2;
        let byte = &mut page[entry / 4];
        let current = *byte >> shift & 3;
        if status == XidStatus::SubCommitted as u8 && current == XidStatus::Committed as u8 {
            continue;
        }
        *byte = *byte & !(3 << shift) | status << shift;
    }
    Ok(())
}

fn set_offsets(page: &mut Page, offsets: &[u8]) -> Result<(), Fault> {
    for item in offsets.chunks_exact(STORED_OFFSET_BYTES) {
        let entry = usize::from(u16::from_le_bytes([item[0], item[1]]));
        beyond_page(entry, MULTI_OFFSETS_PER_PAGE)?;
        page[entry * 4..entry * 4 + 4].copy_from_slice(&item[2..]);
    }
    Ok(())
}

fn begin_offsets(page: &mut Page, first: usize) -> Result<(), Fault> {
    beyond_page(first, MULTI_OFFSETS_PER_PAGE)?;
    page[..first * 4].fill(0);
    page[first * 4 + 4..].fill(0);
    Ok(())
}

fn set_members(page: &mut Page, first: usize, members: &[u8]) -> Result<(), Fault> {
    for (entry, item) in (first..).zip(members.chunks_exact(STORED_MEMBER_BYTES)) {
        beyond_page(entry, MULTI_MEMBERS_PER_PAGE)?;
        let group = entry / MEMBERS_PER_GROUP * MEMBER_GROUP_BYTES;
        let in_group = entry % MEMBERS_PER_GROUP;
        let xid = group + 4 + 4 * in_group;
        page[xid..xid + 4].copy_from_slice(&item[..4]);
        page[group + in_group] = item[4];
    }
    Ok(())
}

fn set_times(page: &mut Page, micros: i64, origin: u16, entries: &[u8]) -> Result<(), Fault> {
    for entry in u16_list(entries).map(usize::from) {
        beyond_page(entry, COMMIT_TS_XACTS_PER_PAGE)?;
        let at = entry * COMMIT_TS_BYTES;
        page[at..at + 8].copy_from_slice(&micros.to_le_bytes());
        page[at + 8..at + 10].copy_from_slice(&origin.to_le_bytes());
    }
    Ok(())
}

fn begin(kind: u8, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + capacity);
    out.extend([CHANGE_VERSION, kind]);
    out
}

/// A page has at most 32,768 entries, so that a count always fits.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend(u16::try_from(count).expect("a change sets entries of one page").to_le_bytes());
}

fn put_entries(out: &mut Vec<u8>, entries: &[u16]) {
    put_count(out, entries.len());
    entries.iter().for_each(|entry| out.extend(entry.to_le_bytes()));
}

/// Encodes `SlruChange::Zero`; store it with `will_init`.
pub fn encode_zero() -> Bytes {
    Bytes::from_static(&[CHANGE_VERSION, kind::SLRU_ZERO])
}

/// Encodes `SlruChange::ClogStatus`: transaction ids modulo `CLOG_XACTS_PER_PAGE`.
pub fn encode_clog_status(status: XidStatus, entries: &[u16]) -> Bytes {
    let mut out = begin(kind::CLOG_STATUS, 3 + 2 * entries.len());
    out.push(status as u8);
    put_entries(&mut out, entries);
    Bytes::from(out)
}

/// Encodes `SlruChange::MultiOffsets`: pairs of entry (multixact id modulo `MULTI_OFFSETS_PER_PAGE`) and offset.
pub fn encode_multi_offsets(offsets: &[(u16, u32)]) -> Bytes {
    let mut out = begin(kind::MULTI_OFFSETS, 2 + STORED_OFFSET_BYTES * offsets.len());
    put_count(&mut out, offsets.len());
    for (entry, offset) in offsets {
        out.extend(entry.to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    Bytes::from(out)
}

/// Encodes `SlruChange::MultiOffsetsBegin`.
pub fn encode_begin_offsets(first: u16) -> Bytes {
    let mut out = begin(kind::MULTI_OFFSETS_BEGIN, 2);
    out.extend(first.to_le_bytes());
    Bytes::from(out)
}

/// Encodes `SlruChange::MultiMembers`: members from entry `first` (member offset modulo `MULTI_MEMBERS_PER_PAGE`) on.
pub fn encode_multi_members(first: u16, members: &[MultiMember]) -> Bytes {
    let mut out = begin(kind::MULTI_MEMBERS, 4 + STORED_MEMBER_BYTES * members.len());
    out.extend(first.to_le_bytes());
    put_count(&mut out, members.len());
    for member in members {
        out.extend(member.xid.to_le_bytes());
        out.push(member.status);
    }
    Bytes::from(out)
}

/// Encodes `SlruChange::CommitTs`: transaction ids modulo `COMMIT_TS_XACTS_PER_PAGE`.
pub fn encode_commit_ts(micros: i64, origin: u16, entries: &[u16]) -> Bytes {
    let mut out = begin(kind::COMMIT_TS, 12 + 2 * entries.len());
    out.extend(micros.to_le_bytes());
    out.extend(origin.to_le_bytes());
    put_entries(&mut out, entries);
    Bytes::from(out)
}

#[cfg(test)]
#[path = "slru_test.rs"]
mod tests;
