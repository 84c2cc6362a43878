//! Multixacts: where each one's members begin, and the members.
//!
//! Postgres: `multixact_redo` in `src/backend/access/transam/multixact.c`. Creating one sets its own offset and, since
//! 17.11 and the matching minors of other majors, that of the next one, which is where its members end. The next one may
//! be on a page that an older minor has not zeroed yet (its ZERO_OFF_PAGE follows): that page is then zeroed here, by the
//! rule that an SLRU page without a beginning reads as zeros, and the later zeroing leaves what this record wrote.
//! Multixact ids and member offsets both wrap, the latter even inside one record (S11).

use strata_pgwal::DecodedRecord;
use strata_pgwal::fullxid::xid_precedes;

use super::clog::page_number;
use super::slru_pages::{changed_page, zero_page};
use crate::effect::{Effect, SlruEffect};
use crate::error::{EffectError, Fault};
use crate::slru::{
    MULTI_MEMBERS_PER_PAGE, MULTI_OFFSETS_PER_PAGE, MultiMember, PAGES_PER_SEGMENT, SlruKind,
    encode_begin_offsets, encode_multi_members, encode_multi_offsets,
};
use crate::wire::Parts;

const ZERO_OFFSETS_PAGE: u8 = 0x00;
const ZERO_MEMBERS_PAGE: u8 = 0x10;
const CREATE: u8 = 0x20;
const TRUNCATE: u8 = 0x30;

/// Lowest multixact id (`FirstMultiXactId`).
const FIRST_MULTI: u32 = 1;
/// Highest status of a member (`MultiXactStatusUpdate`).
const STATUS_MAX: u32 = 5;
const MEMBER_BYTES: usize = 8;

pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let mut parts = Parts::new(&record.main_data, "multixact record");
    match record.rmgr_info() {
        ZERO_OFFSETS_PAGE => {
            let page = page_number(record, &mut parts)?;
            out.push(changed_page(SlruKind::MultiXactOffsets, page, encode_begin_offsets(first_entry(page))));
        }
        ZERO_MEMBERS_PAGE => {
            out.push(zero_page(SlruKind::MultiXactMembers, page_number(record, &mut parts)?));
        }
        CREATE => create(record, out)?,
        TRUNCATE => truncate(record, out)?,
        info => return Err(EffectError::unknown(record.rmid, info)),
    }
    Ok(())
}

/// The first entry of an offsets page that a multixact can have.
fn first_entry(page: u64) -> u16 {
    if page == 0 { FIRST_MULTI as u16 } else { 0 }
}

fn create(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let malformed = |what| EffectError::malformed(record, what);
    let mut parts = Parts::new(&record.main_data, "xl_multixact_create");
    let mut word = || parts.u32().map_err(|_: Fault| malformed("main data is cut short"));
    let (multi, offset, count) = (word()?, word()?, word()?);
    let stored = parts
        .take((count as usize).saturating_mul(MEMBER_BYTES))
        .map_err(|_| malformed("there are fewer members than it says"))?;
    let mut members = Vec::with_capacity(count as usize);
    for member in stored.chunks_exact(MEMBER_BYTES) {
        let field =
            |at: usize| u32::from_le_bytes([member[at], member[at + 1], member[at + 2], member[at + 3]]);
        let status = field(4);
        if status > STATUS_MAX {
            return Err(malformed("a member has a status that does not exist"));
        }
        members.push(MultiMember { xid: field(0), status: status as u8 });
    }
    push_offsets(multi, offset, count, out);
    push_members(offset, &members, out);
    out.push(Effect::NextMultiAtLeast { multi: multi.wrapping_add(1), offset: offset.wrapping_add(count) });
    let later = |latest: u32, member: &MultiMember| {
        if xid_precedes(latest, member.xid) { member.xid } else { latest }
    };
    let latest = members.iter().fold(record.xid, later);
    if latest != record.xid {
        out.push(Effect::NextXidPast(latest));
    }
    Ok(())
}

/// Its own beginning, and its end, which is the next one's beginning. Offset 0 is never used.
fn push_offsets(multi: u32, offset: u32, count: u32, out: &mut Vec<Effect>) {
    let next = multi.wrapping_add(1).max(FIRST_MULTI);
    let end = offset.wrapping_add(count).max(1);
    let page = |multi: u32| u64::from(multi / MULTI_OFFSETS_PER_PAGE);
    let entry = |multi: u32| (multi % MULTI_OFFSETS_PER_PAGE) as u16;
    let mut push = |page: u64, offsets: &[(u16, u32)]| {
        out.push(changed_page(SlruKind::MultiXactOffsets, page, encode_multi_offsets(offsets)));
    };
    if page(multi) == page(next) {
        push(page(multi), &[(entry(multi), offset), (entry(next), end)]);
    } else {
        push(page(multi), &[(entry(multi), offset)]);
        push(page(next), &[(entry(next), end)]);
    }
}

fn push_members(offset: u32, members: &[MultiMember], out: &mut Vec<Effect>) {
    let mut offset = offset;
    let mut left = members;
    while !left.is_empty() {
        let first = offset % MULTI_MEMBERS_PER_PAGE;
        // The last page of all ends early, where offsets wrap.
        let before_wrap = u64::from(u32::MAX - offset) + 1;
        let room = u64::from(MULTI_MEMBERS_PER_PAGE - first).min(before_wrap) as usize;
        let (here, rest) = left.split_at(room.min(left.len()));
        let page = u64::from(offset / MULTI_MEMBERS_PER_PAGE);
        let bytes = encode_multi_members(first as u16, here);
        out.push(changed_page(SlruKind::MultiXactMembers, page, bytes));
        offset = offset.wrapping_add(here.len() as u32);
        left = rest;
    }
}

fn truncate(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let mut parts = Parts::new(&record.main_data, "xl_multixact_truncate");
    let mut word = || parts.u32().map_err(|_| EffectError::malformed(record, "main data is cut short"));
    let database = word()?;
    let _first_gone = word()?;
    let oldest = word()?;
    let (members_from, members_to) = (word()?, word()?);
    out.push(Effect::OldestMulti { multi: oldest, database });
    let segment = |offset: u32| u64::from(offset / MULTI_MEMBERS_PER_PAGE) / PAGES_PER_SEGMENT;
    let (from_segment, to_segment) = (segment(members_from), segment(members_to));
    if from_segment != to_segment {
        let kind = SlruKind::MultiXactMembers;
        out.push(Effect::Slru(SlruEffect::DropSegments { kind, from_segment, to_segment }));
    }
    // One back: the page of the oldest one itself may not exist yet.
    let before = if oldest == FIRST_MULTI { u32::MAX } else { oldest.wrapping_sub(1) };
    let first_kept_page = u64::from(before / MULTI_OFFSETS_PER_PAGE);
    out.push(Effect::Slru(SlruEffect::Truncate { kind: SlruKind::MultiXactOffsets, first_kept_page }));
    Ok(())
}

#[cfg(test)]
#[path = "multixact_test.rs"]
mod tests;
