//! The standard page layout: header, line pointers, items, special space; and what Postgres does to it, byte for byte.
//!
//! Postgres: `src/include/storage/bufpage.h`, `itemid.h` and `src/backend/storage/page/bufpage.c`. Pages come from storage and may
//! be damaged, so every offset is checked before use; the checks are those of Postgres and, where it trusts the page,
//! stricter. Offsets of items ("offset numbers") count from 1, as in Postgres.

mod add;
mod compact;
mod index;
mod line;

pub use add::{AddItem, add_item, reserve_item};
pub use compact::{repair_fragmentation, truncate_line_pointers};
pub use index::{
    index_multi_delete, index_tuple_delete, index_tuple_delete_no_compact, index_tuple_overwrite,
};
pub use line::{LinePointer, LineState};
use strata_common::{BLOCK_BYTES, Lsn};

use crate::Page;
use crate::error::Fault;

/// Bytes of the page header (`SizeOfPageHeaderData`).
pub const HEADER_BYTES: usize = 24;
/// Bytes of a line pointer (`ItemIdData`).
pub const LINE_POINTER_BYTES: usize = 4;
/// Most line pointers on a heap page (`MaxHeapTuplesPerPage`).
pub const HEAP_TUPLES_MAX: u16 = ((BLOCK_BYTES - HEADER_BYTES) / (24 + LINE_POINTER_BYTES)) as u16;
/// Most line pointers on an index page (`MaxIndexTuplesPerPage`).
pub const INDEX_TUPLES_MAX: u16 = ((BLOCK_BYTES - HEADER_BYTES) / (16 + LINE_POINTER_BYTES)) as u16;

/// `pd_pagesize_version`: page size and layout version 4.
const SIZE_AND_VERSION: u16 = BLOCK_BYTES as u16 | 4;

mod at {
    pub const FLAGS: usize = 10;
    pub const LOWER: usize = 12;
    pub const UPPER: usize = 14;
    pub const SPECIAL: usize = 16;
    pub const SIZE_AND_VERSION: usize = 18;
    pub const PRUNE_XID: usize = 20;
}

/// Bits of `pd_flags`.
pub mod flag {
    pub const HAS_FREE_LINES: u16 = 0x0001;
    pub const PAGE_FULL: u16 = 0x0002;
    pub const ALL_VISIBLE: u16 = 0x0004;
}

/// Rounds up to a multiple of 8 (`MAXALIGN`).
#[inline]
pub const fn align(bytes: usize) -> usize {
    (bytes + 7) & !7
}

#[inline]
pub fn u16_at(page: &Page, at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

#[inline]
pub fn set_u16_at(page: &mut Page, at: usize, value: u16) {
    page[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

#[inline]
pub fn u32_at(page: &Page, at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

#[inline]
pub fn set_u32_at(page: &mut Page, at: usize, value: u32) {
    page[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// `pd_lsn`: two halves, the high one first.
#[inline]
pub fn lsn(page: &Page) -> Lsn {
    Lsn(u64::from(u32_at(page, 0)) << 32 | u64::from(u32_at(page, 4)))
}

#[inline]
pub fn set_lsn(page: &mut Page, lsn: Lsn) {
    set_u32_at(page, 0, (lsn.0 >> 32) as u32);
    set_u32_at(page, 4, lsn.0 as u32);
}

#[inline]
pub fn flags(page: &Page) -> u16 {
    u16_at(page, at::FLAGS)
}

#[inline]
pub fn set_flags(page: &mut Page, flags: u16) {
    set_u16_at(page, at::FLAGS, flags);
}

/// Sets bits of `pd_flags`.
#[inline]
pub fn add_flags(page: &mut Page, bits: u16) {
    set_flags(page, flags(page) | bits);
}

/// Clears bits of `pd_flags`.
#[inline]
pub fn clear_flags(page: &mut Page, bits: u16) {
    set_flags(page, flags(page) & !bits);
}

#[inline]
pub fn lower(page: &Page) -> u16 {
    u16_at(page, at::LOWER)
}

#[inline]
pub fn set_lower(page: &mut Page, lower: u16) {
    set_u16_at(page, at::LOWER, lower);
}

#[inline]
pub fn upper(page: &Page) -> u16 {
    u16_at(page, at::UPPER)
}

#[inline]
pub fn set_upper(page: &mut Page, upper: u16) {
    set_u16_at(page, at::UPPER, upper);
}

#[inline]
pub fn special(page: &Page) -> u16 {
    u16_at(page, at::SPECIAL)
}

#[inline]
pub fn prune_xid(page: &Page) -> u32 {
    u32_at(page, at::PRUNE_XID)
}

#[inline]
pub fn set_prune_xid(page: &mut Page, xid: u32) {
    set_u32_at(page, at::PRUNE_XID, xid);
}

/// Whether the page was never initialized (`PageIsNew`).
#[inline]
pub fn is_new(page: &Page) -> bool {
    upper(page) == 0
}

/// Whether the page has no line pointers (`PageIsEmpty`).
#[inline]
pub fn is_empty(page: &Page) -> bool {
    usize::from(lower(page)) <= HEADER_BYTES
}

/// Makes an empty page with `special_bytes` of special space (`PageInit`).
pub fn init(page: &mut Page, special_bytes: usize) {
    let special = BLOCK_BYTES - align(special_bytes);
    assert!(special >= HEADER_BYTES, "special space leaves room for the header");
    page.fill(0);
    set_lower(page, HEADER_BYTES as u16);
    set_upper(page, special as u16);
    set_u16_at(page, at::SPECIAL, special as u16);
    set_u16_at(page, at::SIZE_AND_VERSION, SIZE_AND_VERSION);
}

/// `pd_lower`, `pd_upper` and `pd_special` after checking their order, as every function that moves items does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pointers {
    pub lower: usize,
    pub upper: usize,
    pub special: usize,
}

/// The page's pointers, in order and inside the page.
#[inline]
pub fn pointers(page: &Page) -> Result<Pointers, Fault> {
    let (lower, upper, special) = (lower(page), upper(page), special(page));
    if usize::from(lower) < HEADER_BYTES
        || lower > upper
        || upper > special
        || usize::from(special) > BLOCK_BYTES
    {
        return Err(Fault::PagePointers { lower, upper, special });
    }
    Ok(Pointers { lower: lower.into(), upper: upper.into(), special: special.into() })
}

/// As `pointers`, and the special space is aligned.
#[inline]
pub fn aligned_pointers(page: &Page) -> Result<Pointers, Fault> {
    let pointers = pointers(page)?;
    if pointers.special != align(pointers.special) {
        let (lower, upper, special) = (lower(page), upper(page), special(page));
        return Err(Fault::PagePointers { lower, upper, special });
    }
    Ok(pointers)
}

/// Number of line pointers (`PageGetMaxOffsetNumber`), at most what a page has room for.
#[inline]
pub fn item_count(page: &Page) -> u16 {
    let lower = usize::from(lower(page)).min(BLOCK_BYTES);
    (lower.saturating_sub(HEADER_BYTES) / LINE_POINTER_BYTES) as u16
}

/// Line pointer `offset`, which must be one of the page's.
#[inline]
pub fn line(page: &Page, offset: u16) -> Result<LinePointer, Fault> {
    let count = item_count(page);
    if offset == 0 || offset > count {
        return Err(Fault::NoLinePointer { offset, count });
    }
    Ok(LinePointer(u32_at(page, line_at(offset))))
}

/// Replaces line pointer `offset`, which must be one of the page's.
#[inline]
pub fn set_line(page: &mut Page, offset: u16, line: LinePointer) -> Result<(), Fault> {
    let count = item_count(page);
    if offset == 0 || offset > count {
        return Err(Fault::NoLinePointer { offset, count });
    }
    set_u32_at(page, line_at(offset), line.0);
    Ok(())
}

/// Where line pointer `offset` (from 1) lies in the page.
#[inline]
fn line_at(offset: u16) -> usize {
    HEADER_BYTES + (usize::from(offset) - 1) * LINE_POINTER_BYTES
}

/// Where a stored item lies. It is inside the page, beyond the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ItemSpan {
    pub at: usize,
    pub length: usize,
}

impl ItemSpan {
    #[inline]
    pub fn range(self) -> std::ops::Range<usize> {
        self.at..self.at + self.length
    }
}

/// Where the item of line pointer `offset` lies; the pointer must have storage, dead or alive.
#[inline]
pub fn stored_item(page: &Page, offset: u16) -> Result<ItemSpan, Fault> {
    let line = line(page, offset)?;
    if !line.has_storage() {
        return Err(Fault::ItemNotNormal { offset });
    }
    span(line, offset)
}

/// Where the item of line pointer `offset` lies; the pointer must be normal (`ItemIdIsNormal`).
#[inline]
pub fn normal_item(page: &Page, offset: u16) -> Result<ItemSpan, Fault> {
    let line = line(page, offset)?;
    if line.state() != LineState::Normal {
        return Err(Fault::ItemNotNormal { offset });
    }
    span(line, offset)
}

#[inline]
fn span(line: LinePointer, offset: u16) -> Result<ItemSpan, Fault> {
    let (at, length) = (line.at(), line.length());
    if usize::from(at) < HEADER_BYTES || usize::from(at) + usize::from(length) > BLOCK_BYTES {
        return Err(Fault::ItemOutside { offset, at, length });
    }
    Ok(ItemSpan { at: at.into(), length: length.into() })
}

#[cfg(test)]
#[path = "model_test.rs"]
mod model;
#[cfg(test)]
#[path = "page_test.rs"]
mod tests;
