//! GIN: every record type of `src/backend/access/gin/ginxlog.c` (layouts in `src/include/access/ginxlog.h`).
//!
//! A GIN index is a tree of keys ("entry tree"), a tree of row identifiers for each key that has many ("posting tree",
//! `data_page`), a list of pages with rows not yet sorted in ("pending list"), and the metapage. Splits and the vacuum of an
//! entry page come as images (W16). The metapage is made anew by each record that changes it.

mod data_page;
mod opaque;
mod posting_list;

#[cfg(test)]
mod gin_test;
#[cfg(test)]
mod posting_list_test;

use strata_pgwal::DecodedRecord;

use self::opaque::{META_BYTES, NO_BLOCK, flag};
use super::index_tuple;
use super::{Redo, push_image, push_page};
use crate::Page;
use crate::change::{Keep, RecordChange};
use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::page::{self, AddItem};
use crate::wire::{Parts, u32_at};

/// Record types: the high four bits of `xl_info`.
pub mod info {
    pub const CREATE_PTREE: u8 = 0x10;
    pub const INSERT: u8 = 0x20;
    pub const SPLIT: u8 = 0x30;
    pub const VACUUM_PAGE: u8 = 0x40;
    pub const DELETE_PAGE: u8 = 0x50;
    pub const UPDATE_META_PAGE: u8 = 0x60;
    pub const INSERT_LISTPAGE: u8 = 0x70;
    pub const DELETE_LISTPAGE: u8 = 0x80;
    pub const VACUUM_DATA_LEAF_PAGE: u8 = 0x90;
}

/// Flags of INSERT.
mod insert_flag {
    pub const IS_DATA: u16 = 0x01;
    pub const IS_LEAF: u16 = 0x02;
}

/// Offsets in `ginxlogUpdateMeta`.
mod update_meta {
    pub const META: usize = 16;
    pub const NEW_RIGHT_LINK: usize = 76;
    pub const TUPLE_COUNT: usize = 80;
    pub const BYTES: usize = 84;
}

/// What of a record the page of reference `id` needs; `None` for a page that must come as an image.
fn keep(info: u8, id: u8) -> Option<Keep> {
    let main = |main_bytes| Some(Keep { main_bytes, data: false });
    match (info, id) {
        // The left half of a split of a child, whose split is complete.
        (info::INSERT, 1) | (info::SPLIT, 3) => main(0),
        (info::SPLIT, _) | (info::VACUUM_PAGE, _) => None,
        (info::INSERT, _) => Some(Keep { main_bytes: 10, data: true }),
        (info::VACUUM_DATA_LEAF_PAGE, _) => Some(Keep { main_bytes: 0, data: true }),
        (info::DELETE_PAGE, _) => main(12),
        (info::UPDATE_META_PAGE, 0) => main(update_meta::META + META_BYTES),
        (info::UPDATE_META_PAGE, _) => Some(Keep { main_bytes: update_meta::BYTES, data: true }),
        (info::INSERT_LISTPAGE, _) => Some(Keep { main_bytes: 8, data: true }),
        (info::DELETE_LISTPAGE, 0) => main(META_BYTES),
        (info::DELETE_LISTPAGE, _) => main(0),
        _ => Some(Keep::ALL),
    }
}

/// What a GIN record does: every page that it refers to changes, and nothing else.
pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let info = record.rmgr_info();
    if info == 0 || info > info::VACUUM_DATA_LEAF_PAGE {
        return Err(EffectError::unknown(record.rmid, info));
    }
    record.blocks.iter().try_for_each(|block| match keep(info, block.id) {
        Some(keep) => push_page(record, block, keep, out),
        None => push_image(record, block, out),
    })
}

/// Redoes one page of a record.
pub fn apply(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    apply_reference(page, &redo.change)?;
    page::set_lsn(page, redo.lsn);
    Ok(())
}

fn apply_reference(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    match (change.info, change.id) {
        (info::CREATE_PTREE, 0) => data_page::create(page, change.main),
        (info::INSERT, 0) => insert(page, change),
        (info::INSERT, 1) | (info::SPLIT, 3) => {
            opaque::check(page)?;
            opaque::clear_flags(page, flag::INCOMPLETE_SPLIT);
            Ok(())
        }
        (info::VACUUM_DATA_LEAF_PAGE, 0) => data_page::recompress(page, change.data),
        (info::DELETE_PAGE, 0..=2) => delete_page(page, change),
        (info::UPDATE_META_PAGE, 0) => {
            opaque::restore_meta(page, meta(change.main, update_meta::META)?);
            Ok(())
        }
        (info::UPDATE_META_PAGE, 1) => update_tail(page, change),
        (info::INSERT_LISTPAGE, 0) => list_page(page, change),
        (info::DELETE_LISTPAGE, 0) => {
            opaque::restore_meta(page, meta(change.main, 0)?);
            Ok(())
        }
        (info::DELETE_LISTPAGE, _) => {
            opaque::init(page, flag::DELETED);
            Ok(())
        }
        _ => Err(Fault::Unknown),
    }
}

/// `GinMetaPageData` at `at` of the main data.
fn meta(main: &[u8], at: usize) -> Result<&[u8; META_BYTES], Fault> {
    main.get(at..).and_then(<[u8]>::first_chunk).ok_or(Fault::Short { what: "GinMetaPageData" })
}

/// INSERT, reference 0. The main data of an insertion above the leaves ends in the halves of the child that was split.
fn insert(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    let mut main = Parts::new(change.main, "ginxlogInsert");
    let flags = main.u16()?;
    let mut right_child = None;
    if flags & insert_flag::IS_LEAF == 0 {
        main.take(4)?;
        right_child = main.take(4)?.first_chunk().copied();
    }
    match (flags & insert_flag::IS_DATA != 0, right_child) {
        (true, None) => data_page::recompress(page, change.data),
        (true, Some(right_child)) => data_page::insert_item(page, right_child, change.data),
        (false, right_child) => insert_entry(page, right_child, change.data),
    }
}

/// A tuple of the entry tree goes in, or takes another's place; above the leaves the tuple that was there leads to the right half
/// of the child from now on. `record` is a `ginxlogInsertEntry`.
fn insert_entry(page: &mut Page, right_child: Option<[u8; 4]>, record: &[u8]) -> Result<(), Fault> {
    opaque::check_kind(page, if right_child.is_none() { flag::LEAF } else { 0 })?;
    let mut record = Parts::new(record, "ginxlogInsertEntry");
    let number = record.u16()?;
    let replaces = record.u8()? != 0;
    record.take(1)?; // padding
    let tuple = index_tuple::only(record.rest())?;
    if let Some(right_child) = right_child {
        let span = page::stored_item(page, number)?;
        let Some(tid) = page[span.range()].get_mut(..posting_list::TID_BYTES) else {
            return Err(Fault::TupleTooShort { offset: number, length: span.length as u16 });
        };
        tid[..4].copy_from_slice(&right_child);
        tid[4..].fill(0);
    }
    if replaces {
        page::index_tuple_delete(page, number)?;
    }
    page::add_item(page, tuple, AddItem::IndexBefore(number)).map(|_| ())
}

/// DELETE_PAGE: reference 0 is the page of a posting tree that goes, 1 its parent, 2 its left neighbour.
fn delete_page(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    let mut main = Parts::new(change.main, "ginxlogDeletePage");
    let parent_item = main.u16()?;
    main.take(2)?; // padding
    let right_link = main.u32()?;
    let delete_xid = main.u32()?;
    if change.id == 1 {
        return data_page::delete_item(page, parent_item);
    }
    opaque::check(page)?;
    if opaque::flags(page) & flag::DATA == 0 {
        return Err(Fault::Mismatch("the record is for another kind of GIN page"));
    }
    if change.id == 2 {
        opaque::set_right_link(page, right_link);
    } else {
        opaque::add_flags(page, flag::DELETED);
        // GIN keeps the id of the transaction before which the page may not be used again here.
        page::set_prune_xid(page, delete_xid);
    }
    Ok(())
}

/// UPDATE_META_PAGE, reference 1: the last page of the pending list gets a row's tuples, or a page behind it.
fn update_tail(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    opaque::check(page)?;
    let tuple_count = u32_at(change.main, update_meta::TUPLE_COUNT, "ginxlogUpdateMeta")?;
    if tuple_count as i32 > 0 {
        index_tuple::append_all(page, change.data, tuple_count)?;
        let rows = opaque::max_off(page).checked_add(1);
        opaque::set_max_off(
            page,
            rows.ok_or(Fault::Mismatch("a page of the pending list with too many rows"))?,
        );
    } else {
        opaque::set_right_link(page, u32_at(change.main, update_meta::NEW_RIGHT_LINK, "ginxlogUpdateMeta")?);
    }
    Ok(())
}

/// INSERT_LISTPAGE: a new page of the pending list. The last page of a row's pages holds one row, the others a part of it.
fn list_page(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    let right_link = u32_at(change.main, 0, "ginxlogInsertListPage")?;
    let tuple_count = u32_at(change.main, 4, "ginxlogInsertListPage")?;
    let is_last = right_link == NO_BLOCK;
    opaque::init(page, if is_last { flag::LIST | flag::LIST_FULLROW } else { flag::LIST });
    opaque::set_right_link(page, right_link);
    opaque::set_max_off(page, u16::from(is_last));
    index_tuple::append_all(page, change.data, tuple_count)
}
