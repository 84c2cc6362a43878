//! Btree: every record type of `src/backend/access/nbtree/nbtxlog.c` (layouts in `src/include/access/nbtxlog.h`).
//!
//! A record touches up to five pages; each is redone on its own from the record and, at most, the block **numbers** of
//! the other references (W16). What Postgres's redo does for hot standby conflicts only (REUSE_PAGE) changes no page.
//! Neither vacuum cycle ids nor marks of dead entries come from the log (W8, W11).

mod dedup;
mod delete;
mod opaque;
mod split;
pub(super) mod tuple;
mod unlink;

#[cfg(test)]
mod btree_test;

use strata_pgwal::DecodedRecord;

use self::opaque::{Opaque, flag};
use super::{Redo, push_page};
use crate::Page;
use crate::change::{Keep, RecordChange};
use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::page::{self, AddItem};
use crate::wire::{Parts, u16_at, u32_at};

/// Record types: the high four bits of `xl_info`.
pub mod info {
    pub const INSERT_LEAF: u8 = 0x00;
    pub const INSERT_UPPER: u8 = 0x10;
    pub const INSERT_META: u8 = 0x20;
    pub const SPLIT_L: u8 = 0x30;
    pub const SPLIT_R: u8 = 0x40;
    pub const INSERT_POST: u8 = 0x50;
    pub const DEDUP: u8 = 0x60;
    pub const DELETE: u8 = 0x70;
    pub const UNLINK_PAGE: u8 = 0x80;
    pub const UNLINK_PAGE_META: u8 = 0x90;
    pub const NEWROOT: u8 = 0xA0;
    pub const MARK_PAGE_HALFDEAD: u8 = 0xB0;
    pub const VACUUM: u8 = 0xC0;
    pub const REUSE_PAGE: u8 = 0xD0;
    pub const META_CLEANUP: u8 = 0xE0;
}

/// Number of a page's high key, if it has one.
const HIGH_KEY: u16 = 1;

/// What a btree record does: every page that it refers to changes, and nothing else.
pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    match record.rmgr_info() {
        info::REUSE_PAGE => Ok(()),
        info::INSERT_LEAF..=info::META_CLEANUP => {
            record.blocks.iter().try_for_each(|block| push_page(record, block, Keep::ALL, out))
        }
        other => Err(EffectError::unknown(record.rmid, other)),
    }
}

/// Redoes one page of a record.
pub fn apply(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    apply_reference(page, &redo.change)?;
    page::set_lsn(page, redo.lsn);
    Ok(())
}

fn apply_reference(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    match (change.info, change.id) {
        (info::INSERT_LEAF | info::INSERT_UPPER | info::INSERT_META, 0) => {
            opaque::check(page)?;
            insert(page, item_number(change)?, change.data)
        }
        (info::INSERT_POST, 0) => insert_and_split_posting(page, change),
        (info::SPLIT_L, 0) => split::left(page, change, split::NewItem::Left),
        (info::SPLIT_R, 0) => split::left(page, change, split::NewItem::Right),
        (info::SPLIT_L | info::SPLIT_R, 1) => split::right(page, change),
        (info::SPLIT_L | info::SPLIT_R, 2) => split::next(page, change),
        (info::INSERT_UPPER | info::INSERT_META | info::NEWROOT, 1) | (info::SPLIT_L | info::SPLIT_R, 3) => {
            opaque::check(page)?;
            opaque::clear_flag(page, flag::INCOMPLETE_SPLIT);
            Ok(())
        }
        (info::DEDUP, 0) => dedup::apply(page, change),
        (info::VACUUM, 0) => delete::apply(page, change, delete::Counts::of_vacuum(change.main)?),
        (info::DELETE, 0) => delete::apply(page, change, delete::Counts::of_delete(change.main)?),
        (info::MARK_PAGE_HALFDEAD, 0) => unlink::half_dead_leaf(page, change),
        (info::MARK_PAGE_HALFDEAD, 1) => unlink::half_dead_parent(page, change),
        (info::UNLINK_PAGE | info::UNLINK_PAGE_META, 0) => unlink::target(page, change),
        (info::UNLINK_PAGE | info::UNLINK_PAGE_META, 1) => unlink::left_sibling(page, change),
        (info::UNLINK_PAGE | info::UNLINK_PAGE_META, 2) => unlink::right_sibling(page, change),
        (info::UNLINK_PAGE | info::UNLINK_PAGE_META, 3) => unlink::leaf(page, change),
        (info::NEWROOT, 0) => new_root(page, change),
        (info::INSERT_META | info::NEWROOT, 2) | (info::UNLINK_PAGE_META, 4) | (info::META_CLEANUP, 0) => {
            opaque::restore_meta(page, change.data)
        }
        _ => Err(Fault::Unknown),
    }
}

/// `xl_btree_insert`.
fn item_number(change: &RecordChange<'_>) -> Result<u16, Fault> {
    u16_at(change.main, 0, "xl_btree_insert")
}

/// INSERT_POST: the new tuple's row identifier belongs inside the posting list before it, and swaps places with its last.
fn insert_and_split_posting(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    opaque::check(page)?;
    let number = item_number(change)?;
    let mut data = Parts::new(change.data, "a tuple that splits a posting list");
    let place = data.u16()?;
    let mut new_tuple = data.rest().to_vec();
    let posting = item_mut(page, number.wrapping_sub(1))?;
    tuple::swap_posting(&mut new_tuple, posting, place)?;
    insert(page, number, &new_tuple)
}

/// NEWROOT, reference 0: an empty leaf, or two downlinks.
fn new_root(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    let level = u32_at(change.main, 4, "xl_btree_newroot")?;
    let leaf = if level == 0 { flag::LEAF } else { 0 };
    let none = opaque::NO_BLOCK;
    opaque::init(page, Opaque { prev: none, next: none, level, flags: flag::ROOT | leaf });
    if level > 0 { restore_items(page, change.data) } else { Ok(()) }
}

/// Puts the tuples of a page back (`_bt_restore_page`): `tuples` is a copy of its tuple space, the last item first.
fn restore_items(page: &mut Page, mut tuples: &[u8]) -> Result<(), Fault> {
    let mut last_first = Vec::with_capacity(tuples.len() / 16);
    while !tuples.is_empty() {
        last_first.push(tuple::take_first(&mut tuples)?);
    }
    last_first.iter().rev().try_for_each(|tuple| append(page, tuple))
}

/// Block number of another reference, which the record must have.
fn other_block(change: &RecordChange<'_>, id: u8) -> Result<u32, Fault> {
    let block = change.other_block(id).ok_or(Fault::Mismatch("a reference to another block is missing"))?;
    Ok(block.0)
}

/// The tuple of item `number`.
fn item(page: &Page, number: u16) -> Result<&[u8], Fault> {
    Ok(&page[page::stored_item(page, number)?.range()])
}

/// The tuple of item `number`, to be changed in place.
fn item_mut(page: &mut Page, number: u16) -> Result<&mut [u8], Fault> {
    let span = page::stored_item(page, number)?;
    Ok(&mut page[span.range()])
}

/// Adds `tuple` as item `number`; that item and those behind it move one number up.
fn insert(page: &mut Page, number: u16, tuple: &[u8]) -> Result<(), Fault> {
    page::add_item(page, tuple, AddItem::IndexBefore(number)).map(|_| ())
}

/// Adds `tuple` behind the last item.
fn append(page: &mut Page, tuple: &[u8]) -> Result<(), Fault> {
    insert(page, page::item_count(page) + 1, tuple)
}
