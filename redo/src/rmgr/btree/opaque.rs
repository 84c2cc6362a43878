//! The special space of a btree page and the metapage (`BTPageOpaqueData`, `BTMetaPageData` in `src/include/access/nbtree.h`).

use strata_common::BLOCK_BYTES;

use crate::Page;
use crate::error::Fault;
use crate::page;

/// Bits of `btpo_flags`.
pub mod flag {
    pub const LEAF: u16 = 1 << 0;
    pub const ROOT: u16 = 1 << 1;
    pub const DELETED: u16 = 1 << 2;
    pub const META: u16 = 1 << 3;
    pub const HALF_DEAD: u16 = 1 << 4;
    pub const HAS_GARBAGE: u16 = 1 << 6;
    pub const INCOMPLETE_SPLIT: u16 = 1 << 7;
    pub const HAS_FULLXID: u16 = 1 << 8;
}

/// "No sibling" (`P_NONE`): block 0 is the metapage and nobody's sibling.
pub const NO_BLOCK: u32 = 0;

pub const OPAQUE_BYTES: usize = 16;
/// Where the special space of a btree page lies.
const OPAQUE_AT: usize = BLOCK_BYTES - OPAQUE_BYTES;
const PREV_AT: usize = OPAQUE_AT;
const NEXT_AT: usize = OPAQUE_AT + 4;
const LEVEL_AT: usize = OPAQUE_AT + 8;
const FLAGS_AT: usize = OPAQUE_AT + 12;
const CYCLE_ID_AT: usize = OPAQUE_AT + 14;

/// What identifies a metapage (`BTREE_MAGIC`), and the end of its data in the page.
const META_MAGIC: u32 = 0x0005_3162;
const META_END: u16 = page::HEADER_BYTES as u16 + 48;
/// Bytes of `xl_btree_metadata`, padding included.
const METADATA_BYTES: usize = 28;

/// What is to be written into the special space of a fresh page; the cycle id is 0.
#[derive(Clone, Copy)]
pub struct Opaque {
    pub prev: u32,
    pub next: u32,
    pub level: u32,
    pub flags: u16,
}

fn set_u32(page: &mut Page, at: usize, value: u32) {
    page[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Makes the page empty with this special space (`_bt_pageinit`).
pub fn init(page: &mut Page, opaque: Opaque) {
    page::init(page, OPAQUE_BYTES);
    set_prev(page, opaque.prev);
    set_next(page, opaque.next);
    set_u32(page, LEVEL_AT, opaque.level);
    set_flags(page, opaque.flags);
}

/// Makes the page empty with the special space of `old` (`PageGetTempPageCopySpecial`).
pub fn init_like(page: &mut Page, old: &Page) {
    page::init(page, OPAQUE_BYTES);
    page[OPAQUE_AT..].copy_from_slice(&old[OPAQUE_AT..]);
}

/// Refuses a page that is no btree page.
pub fn check(page: &Page) -> Result<(), Fault> {
    if usize::from(page::special(page)) != OPAQUE_AT {
        return Err(Fault::Mismatch("not a btree page"));
    }
    Ok(())
}

/// Whether the page is the last of its level, and so has no high key.
pub fn is_rightmost(page: &Page) -> bool {
    page[NEXT_AT..NEXT_AT + 4] == NO_BLOCK.to_le_bytes()
}

/// Number of the first item that is not the high key (`P_FIRSTDATAKEY`).
pub fn first_data_item(page: &Page) -> u16 {
    if is_rightmost(page) { 1 } else { 2 }
}

pub fn set_prev(page: &mut Page, block: u32) {
    set_u32(page, PREV_AT, block);
}

pub fn set_next(page: &mut Page, block: u32) {
    set_u32(page, NEXT_AT, block);
}

pub fn flags(page: &Page) -> u16 {
    u16::from_le_bytes([page[FLAGS_AT], page[FLAGS_AT + 1]])
}

pub fn set_flags(page: &mut Page, flags: u16) {
    page[FLAGS_AT..FLAGS_AT + 2].copy_from_slice(&flags.to_le_bytes());
}

pub fn clear_flag(page: &mut Page, flag: u16) {
    set_flags(page, flags(page) & !flag);
}

pub fn clear_cycle_id(page: &mut Page) {
    page[CYCLE_ID_AT..CYCLE_ID_AT + 2].fill(0);
}

/// Writes the deletion's transaction id into an empty page (`BTPageSetDeleted`).
pub fn set_deleted(page: &mut Page, safe_xid: u64) {
    page[page::HEADER_BYTES..page::HEADER_BYTES + 8].copy_from_slice(&safe_xid.to_le_bytes());
    page::set_lower(page, page::HEADER_BYTES as u16 + 8);
    page::set_upper(page, page::special(page));
    set_flags(page, flags(page) & !flag::HALF_DEAD | flag::DELETED | flag::HAS_FULLXID);
}

/// Makes the metapage anew from `xl_btree_metadata` (`_bt_restore_meta`).
pub fn restore_meta(page: &mut Page, metadata: &[u8]) -> Result<(), Fault> {
    if metadata.len() != METADATA_BYTES {
        return Err(Fault::Mismatch("metadata of a btree has the wrong length"));
    }
    init(page, Opaque { prev: 0, next: 0, level: 0, flags: flag::META });
    let meta = &mut page[page::HEADER_BYTES..usize::from(META_END)];
    meta[..4].copy_from_slice(&META_MAGIC.to_le_bytes());
    // Version, root, level, fast root, fast level, pages that the last cleanup left.
    meta[4..28].copy_from_slice(&metadata[..24]);
    meta[32..40].copy_from_slice(&(-1.0_f64).to_le_bytes());
    meta[40] = metadata[24];
    page::set_lower(page, META_END);
    Ok(())
}
