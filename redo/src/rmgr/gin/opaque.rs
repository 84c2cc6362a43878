//! The special space of a GIN page and the metapage (`GinPageOpaqueData`, `GinMetaPageData` in
//! `src/include/access/ginblock.h`).

use strata_common::BLOCK_BYTES;

use crate::Page;
use crate::error::Fault;
use crate::page;

/// Bits of the flags.
pub mod flag {
    pub const DATA: u16 = 1 << 0;
    pub const LEAF: u16 = 1 << 1;
    pub const DELETED: u16 = 1 << 2;
    pub const META: u16 = 1 << 3;
    pub const LIST: u16 = 1 << 4;
    pub const LIST_FULLROW: u16 = 1 << 5;
    pub const INCOMPLETE_SPLIT: u16 = 1 << 6;
    pub const COMPRESSED: u16 = 1 << 7;
}

/// "No page to the right" (`InvalidBlockNumber`).
pub const NO_BLOCK: u32 = u32::MAX;

const OPAQUE_BYTES: usize = 8;
/// Where the special space of a GIN page lies.
pub const OPAQUE_AT: usize = BLOCK_BYTES - OPAQUE_BYTES;
const RIGHT_LINK_AT: usize = OPAQUE_AT;
const MAX_OFF_AT: usize = OPAQUE_AT + 4;
const FLAGS_AT: usize = OPAQUE_AT + 6;

/// Bytes of `GinMetaPageData`, padding included.
pub const META_BYTES: usize = 56;

/// Makes the page empty (`GinInitPage`).
pub fn init(page: &mut Page, flags: u16) {
    page::init(page, OPAQUE_BYTES);
    page::set_u16_at(page, FLAGS_AT, flags);
    set_right_link(page, NO_BLOCK);
}

/// Makes the metapage of its data, as it lies in the record.
pub fn restore_meta(page: &mut Page, meta: &[u8; META_BYTES]) {
    init(page, flag::META);
    let end = page::HEADER_BYTES + META_BYTES;
    page[page::HEADER_BYTES..end].copy_from_slice(meta);
    page::set_lower(page, end as u16);
}

/// Refuses a page without GIN's special space.
pub fn check(page: &Page) -> Result<(), Fault> {
    if usize::from(page::special(page)) != OPAQUE_AT {
        return Err(Fault::Mismatch("not a GIN page"));
    }
    Ok(())
}

/// As `check`, and the page must be of the posting tree or not, a leaf or not, as `wanted` says of `DATA` and `LEAF`.
pub fn check_kind(page: &Page, wanted: u16) -> Result<(), Fault> {
    check(page)?;
    if flags(page) & (flag::DATA | flag::LEAF) != wanted {
        return Err(Fault::Mismatch("the record is for another kind of GIN page"));
    }
    Ok(())
}

pub fn flags(page: &Page) -> u16 {
    page::u16_at(page, FLAGS_AT)
}

pub fn add_flags(page: &mut Page, bits: u16) {
    page::set_u16_at(page, FLAGS_AT, flags(page) | bits);
}

pub fn clear_flags(page: &mut Page, bits: u16) {
    page::set_u16_at(page, FLAGS_AT, flags(page) & !bits);
}

pub fn set_right_link(page: &mut Page, block: u32) {
    page::set_u32_at(page, RIGHT_LINK_AT, block);
}

/// Posting items of an internal page of a posting tree, or row identifiers of an uncompressed leaf, or heap rows of a
/// page of the pending list.
pub fn max_off(page: &Page) -> u16 {
    page::u16_at(page, MAX_OFF_AT)
}

pub fn set_max_off(page: &mut Page, count: u16) {
    page::set_u16_at(page, MAX_OFF_AT, count);
}
