//! The special space of an SP-GiST page (`SpGistPageOpaqueData` in `src/include/access/spgist_private.h`).
//!
//! Its counters are 16 bits wide and wrap as they do in Postgres: whatever the primary counted, the replayed page says too.

use strata_common::BLOCK_BYTES;

use crate::Page;
use crate::error::Fault;
use crate::page::{self, set_u16_at, u16_at};

/// Bits of `flags`.
const LEAF: u16 = 1 << 2;
const NULLS: u16 = 1 << 3;

const BYTES: usize = 8;
const AT: usize = BLOCK_BYTES - BYTES;
const FLAGS_AT: usize = AT;
const REDIRECTS_AT: usize = AT + 2;
const PLACEHOLDERS_AT: usize = AT + 4;
const PAGE_ID_AT: usize = AT + 6;
/// `SPGIST_PAGE_ID`.
const PAGE_ID: u16 = 0xff82;

/// What kind of tuples a page has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Inner,
    Leaf,
}

/// Makes the page empty (`SpGistInitPage`). `nulls` is a flag of the record: the page is one of the tree of nulls.
pub fn init(page: &mut Page, kind: Kind, nulls: u8) {
    page::init(page, BYTES);
    let leaf = if kind == Kind::Leaf { LEAF } else { 0 };
    set_u16_at(page, FLAGS_AT, leaf | if nulls != 0 { NULLS } else { 0 });
    set_u16_at(page, PAGE_ID_AT, PAGE_ID);
}

/// The special space is where an SP-GiST page has it.
pub fn check(page: &Page) -> Result<(), Fault> {
    if usize::from(page::special(page)) == AT {
        return Ok(());
    }
    let (lower, upper, special) = (page::lower(page), page::upper(page), page::special(page));
    Err(Fault::PagePointers { lower, upper, special })
}

/// Counts more redirects, or fewer.
pub fn add_redirects(page: &mut Page, by: i32) {
    add(page, REDIRECTS_AT, by);
}

/// Counts more placeholders, or fewer.
pub fn add_placeholders(page: &mut Page, by: i32) {
    add(page, PLACEHOLDERS_AT, by);
}

fn add(page: &mut Page, at: usize, by: i32) {
    set_u16_at(page, at, u16_at(page, at).wrapping_add(by as u16));
}
