//! GiST: every record type of `src/backend/access/gist/gistxlog.c` (layouts in `src/include/access/gistxlog.h`).
//!
//! A split writes all its pages at once; its downlinks follow in a later record, which also ends the left half's FOLLOW_RIGHT and
//! sets its node sequence number to the end of that record. No image shows these two, so that redo goes on after an image was restored
//! (W16). PAGE_REUSE concerns hot standby conflicts only and ASSIGN_LSN nothing at all: neither changes a page.

mod opaque;

#[cfg(test)]
mod gist_test;

use strata_common::Lsn;
use strata_pgwal::{DecodedBlock, DecodedRecord};

use self::opaque::{NO_BLOCK, flag};
use super::index_tuple;
use super::{Redo, push_page, push_page_beyond_image};
use crate::Page;
use crate::change::{Keep, RecordChange};
use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::page;
use crate::wire::{Parts, u16_list};

/// Record types: the high four bits of `xl_info`.
pub mod info {
    pub const PAGE_UPDATE: u8 = 0x00;
    pub const DELETE: u8 = 0x10;
    pub const PAGE_REUSE: u8 = 0x20;
    pub const PAGE_SPLIT: u8 = 0x30;
    pub const PAGE_DELETE: u8 = 0x60;
    pub const ASSIGN_LSN: u8 = 0x70;
}

/// Block of the root (`GIST_ROOT_BLKNO`).
const ROOT_BLOCK: u32 = 0;

/// Whether reference `id` is the left half of a split whose downlinks the record inserts.
fn is_left_child(info: u8, id: u8) -> bool {
    matches!((info, id), (info::PAGE_UPDATE, 1) | (info::PAGE_SPLIT, 0))
}

/// What a GiST record does: every page that it refers to changes, and nothing else.
pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let info = record.rmgr_info();
    match info {
        info::PAGE_REUSE | info::ASSIGN_LSN => Ok(()),
        info::PAGE_UPDATE | info::DELETE | info::PAGE_SPLIT | info::PAGE_DELETE => {
            record.blocks.iter().try_for_each(|block| push(record, info, block, out))
        }
        other => Err(EffectError::unknown(record.rmid, other)),
    }
}

fn push(
    record: &DecodedRecord,
    info: u8,
    block: &DecodedBlock,
    out: &mut Vec<Effect>,
) -> Result<(), EffectError> {
    if is_left_child(info, block.id) {
        return push_page_beyond_image(record, block, Keep { main_bytes: 0, data: false }, out);
    }
    push_page(record, block, Keep::ALL, out)
}

/// Redoes one page of a record.
pub fn apply(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let change = &redo.change;
    if change.image.is_some() && !is_left_child(change.info, change.id) {
        // The image was the last word.
        return Ok(());
    }
    match (change.info, change.id) {
        (info::PAGE_UPDATE, 1) | (info::PAGE_SPLIT, 0) => {
            opaque::check(page)?;
            opaque::set_nsn(page, redo.lsn);
            opaque::clear_flags(page, flag::FOLLOW_RIGHT);
        }
        (info::PAGE_UPDATE, 0) => update(page, change)?,
        (info::DELETE, 0) => delete_dead(page, change)?,
        (info::PAGE_SPLIT, _) => split_page(page, redo)?,
        (info::PAGE_DELETE, 0 | 1) => delete_page(page, change)?,
        _ => return Err(Fault::Unknown),
    }
    page::set_lsn(page, redo.lsn);
    Ok(())
}

/// PAGE_UPDATE, reference 0: tuples go, tuples come. One for one is a replacement in place.
fn update(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    opaque::check(page)?;
    let mut main = Parts::new(change.main, "gistxlogPageUpdate");
    let (delete_count, insert_count) = (main.u16()?, main.u16()?);
    let mut data = Parts::new(change.data, "the data of a gistxlogPageUpdate");
    let deleted = u16_list(data.take(usize::from(delete_count) * 2)?);
    if let (1, 1, Some(number)) = (delete_count, insert_count, deleted.clone().next()) {
        return page::index_tuple_overwrite(page, number, index_tuple::only(data.rest())?);
    }
    if delete_count > 0 {
        page::index_multi_delete(page, deleted)?;
        if opaque::is_leaf(page) {
            opaque::add_flags(page, flag::TUPLES_DELETED);
        }
    }
    index_tuple::append_all(page, data.rest(), insert_count.into())
}

/// DELETE, reference 0: dead tuples leave a leaf before an insertion.
fn delete_dead(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    opaque::check(page)?;
    let mut main = Parts::new(change.main, "gistxlogDelete");
    main.take(4)?; // the conflict horizon
    let count = main.u16()?;
    main.take(2)?; // whether the relation is a catalog, padding
    page::index_multi_delete(page, u16_list(main.take(usize::from(count) * 2)?))?;
    opaque::clear_flags(page, flag::HAS_GARBAGE);
    opaque::add_flags(page, flag::TUPLES_DELETED);
    Ok(())
}

/// `gistxlogPageSplit`.
struct Split {
    right_link: u32,
    nsn: Lsn,
    is_leaf: bool,
    page_count: u16,
    mark_follow_right: bool,
}

impl Split {
    fn parse(main: &[u8]) -> Result<Split, Fault> {
        let mut fields = Parts::new(main, "gistxlogPageSplit");
        let right_link = fields.u32()?;
        fields.take(4)?; // padding: a GistNSN is aligned to 8
        let nsn = Lsn(u64::from(fields.u32()?) | u64::from(fields.u32()?) << 32);
        let is_leaf = fields.u8()? != 0;
        fields.take(1)?; // padding
        Ok(Split {
            right_link,
            nsn,
            is_leaf,
            page_count: fields.u16()?,
            mark_follow_right: fields.u8()? != 0,
        })
    }
}

/// PAGE_SPLIT, references 1 and up: the pages that one page became, from left to right. If that page was the root, it comes first
/// and holds the downlinks of the others.
fn split_page(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let split = Split::parse(redo.change.main)?;
    let id = redo.change.id;
    if u16::from(id) > split.page_count {
        return Err(Fault::Unknown);
    }
    let is_root = redo.page_id.block.0 == ROOT_BLOCK;
    let of_root = redo.required_block(1)?.0 == ROOT_BLOCK;
    let is_last = u16::from(id) == split.page_count;
    let mut flags = if split.is_leaf && !is_root { flag::LEAF } else { 0 };
    if !is_last && !of_root && split.mark_follow_right {
        flags |= flag::FOLLOW_RIGHT;
    }
    opaque::init(page, flags);
    let mut data = Parts::new(redo.change.data, "a page of a gistxlogPageSplit");
    let count = data.u32()?;
    index_tuple::append_all(page, data.rest(), count)?;
    opaque::set_right_link(
        page,
        match () {
            () if is_root => NO_BLOCK,
            () if is_last => split.right_link,
            () => redo.required_block(id + 1)?.0,
        },
    );
    opaque::set_nsn(page, split.nsn);
    Ok(())
}

/// PAGE_DELETE: reference 0 is the empty leaf that goes, 1 its parent, which loses the downlink.
fn delete_page(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    opaque::check(page)?;
    let mut main = Parts::new(change.main, "gistxlogPageDelete");
    let delete_xid = u64::from(main.u32()?) | u64::from(main.u32()?) << 32;
    if change.id == 1 {
        return page::index_tuple_delete(page, main.u16()?);
    }
    if !page::is_empty(page) {
        return Err(Fault::Mismatch("a GiST page that is not empty cannot be deleted"));
    }
    opaque::set_deleted(page, delete_xid);
    Ok(())
}
