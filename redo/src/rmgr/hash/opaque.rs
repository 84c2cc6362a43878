//! The special space of a hash page (`HashPageOpaqueData` in `src/include/access/hash.h`).

use strata_common::BLOCK_BYTES;

use crate::Page;
use crate::error::Fault;
use crate::page::{self, set_u16_at, set_u32_at, u16_at};

/// Bits of `hasho_flag`: the page's type, then the state of a bucket.
pub mod flag {
    pub const UNUSED: u16 = 0;
    pub const OVERFLOW: u16 = 1 << 0;
    pub const BITMAP: u16 = 1 << 2;
    pub const META: u16 = 1 << 3;
    pub const NEEDS_SPLIT_CLEANUP: u16 = 1 << 6;
    pub const HAS_DEAD_TUPLES: u16 = 1 << 7;
}

const BYTES: usize = 16;
/// Where the special space of a hash page lies.
pub const AT: usize = BLOCK_BYTES - BYTES;
const PREV_AT: usize = AT;
const NEXT_AT: usize = AT + 4;
const BUCKET_AT: usize = AT + 8;
const FLAGS_AT: usize = AT + 12;
const PAGE_ID_AT: usize = AT + 14;

/// `InvalidBlockNumber` and `InvalidBucket`.
pub const NO_BLOCK: u32 = u32::MAX;
pub const NO_BUCKET: u32 = u32::MAX;
/// `HASHO_PAGE_ID`.
const PAGE_ID: u16 = 0xff80;

/// What is to be written into the special space of a fresh page.
#[derive(Clone, Copy)]
pub struct Opaque {
    /// Of a bucket's first page: the highest bucket when the bucket was split last.
    pub prev: u32,
    pub next: u32,
    pub bucket: u32,
    pub flags: u16,
}

/// Makes the page empty with this special space (`_hash_initbuf`).
pub fn init(page: &mut Page, opaque: Opaque) {
    page::init(page, BYTES);
    set_u32_at(page, PREV_AT, opaque.prev);
    set_u32_at(page, NEXT_AT, opaque.next);
    set_u32_at(page, BUCKET_AT, opaque.bucket);
    set_u16_at(page, FLAGS_AT, opaque.flags);
    set_u16_at(page, PAGE_ID_AT, PAGE_ID);
}

/// The special space is where a hash page has it.
pub fn check(page: &Page) -> Result<(), Fault> {
    if usize::from(page::special(page)) == AT {
        return Ok(());
    }
    let (lower, upper, special) = (page::lower(page), page::upper(page), page::special(page));
    Err(Fault::PagePointers { lower, upper, special })
}

pub fn set_prev(page: &mut Page, prev: u32) -> Result<(), Fault> {
    check(page)?;
    set_u32_at(page, PREV_AT, prev);
    Ok(())
}

pub fn set_next(page: &mut Page, next: u32) -> Result<(), Fault> {
    check(page)?;
    set_u32_at(page, NEXT_AT, next);
    Ok(())
}

pub fn set_flags(page: &mut Page, flags: u16) -> Result<(), Fault> {
    check(page)?;
    set_u16_at(page, FLAGS_AT, flags);
    Ok(())
}

pub fn clear_flags(page: &mut Page, flags: u16) -> Result<(), Fault> {
    set_flags(page, u16_at(page, FLAGS_AT) & !flags)
}
