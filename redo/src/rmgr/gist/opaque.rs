//! The special space of a GiST page and the content of a deleted one (`GISTPageOpaqueData`, `GISTDeletedPageContents` in
//! `src/include/access/gist.h`).

use strata_common::{BLOCK_BYTES, Lsn};

use crate::Page;
use crate::error::Fault;
use crate::page;

/// Bits of the flags.
pub mod flag {
    pub const LEAF: u16 = 1 << 0;
    pub const DELETED: u16 = 1 << 1;
    pub const TUPLES_DELETED: u16 = 1 << 2;
    pub const FOLLOW_RIGHT: u16 = 1 << 3;
    pub const HAS_GARBAGE: u16 = 1 << 4;
}

/// "No page to the right" (`InvalidBlockNumber`).
pub const NO_BLOCK: u32 = u32::MAX;

const OPAQUE_BYTES: usize = 16;
/// Where the special space of a GiST page lies.
const OPAQUE_AT: usize = BLOCK_BYTES - OPAQUE_BYTES;
/// The node sequence number: the log position of the page's last split, kept as `pd_lsn` is.
const NSN_AT: usize = OPAQUE_AT;
const RIGHT_LINK_AT: usize = OPAQUE_AT + 8;
const FLAGS_AT: usize = OPAQUE_AT + 12;
const PAGE_ID_AT: usize = OPAQUE_AT + 14;
/// What marks a page as GiST's (`GIST_PAGE_ID`).
const PAGE_ID: u16 = 0xff81;

/// Makes the page empty (`gistinitpage`).
pub fn init(page: &mut Page, flags: u16) {
    page::init(page, OPAQUE_BYTES);
    set_right_link(page, NO_BLOCK);
    page::set_u16_at(page, FLAGS_AT, flags);
    page::set_u16_at(page, PAGE_ID_AT, PAGE_ID);
}

/// Refuses a page that is no GiST page.
pub fn check(page: &Page) -> Result<(), Fault> {
    if usize::from(page::special(page)) != OPAQUE_AT || page::u16_at(page, PAGE_ID_AT) != PAGE_ID {
        return Err(Fault::Mismatch("not a GiST page"));
    }
    Ok(())
}

pub fn is_leaf(page: &Page) -> bool {
    flags(page) & flag::LEAF != 0
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

pub fn set_nsn(page: &mut Page, nsn: Lsn) {
    page::set_u32_at(page, NSN_AT, (nsn.0 >> 32) as u32);
    page::set_u32_at(page, NSN_AT + 4, nsn.0 as u32);
}

/// Marks an empty page deleted, with the transaction id that it may not be used again before (`GistPageSetDeleted`).
pub fn set_deleted(page: &mut Page, delete_xid: u64) {
    add_flags(page, flag::DELETED);
    let content = page::HEADER_BYTES..page::HEADER_BYTES + 8;
    page::set_lower(page, content.end as u16);
    page[content].copy_from_slice(&delete_xid.to_le_bytes());
}
