//! Hash indexes: every record type of `src/backend/access/hash/hash_xlog.c` (layouts in `src/include/access/hash_xlog.h`).
//!
//! An index has a metapage, bucket pages with chains of overflow pages, and bitmap pages that say which overflow pages are
//! taken. A record touches up to seven pages; each is redone on its own from the record and the block **numbers** of the
//! other references (W16). Two types go on after an image, because the flags of a bucket that splits are not in it.
//! Some references are there for their lock only: Postgres neither changes nor images them.

mod bucket;
mod meta;
mod opaque;

#[cfg(test)]
mod hash_test;

use strata_common::BLOCK_BYTES;
use strata_pgwal::{DecodedBlock, DecodedRecord};

use self::opaque::{Opaque, flag};
use super::{Redo, References, page_id, push_image, push_page, push_page_beyond_image, restored};
use crate::Page;
use crate::change::Keep;
use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::page::{self, AddItem, HEADER_BYTES};
use crate::wire::{Parts, u16_at, u32_at};

/// Record types (`XLOG_HASH_*`): the high four bits of `xl_info`.
pub mod info {
    pub const INIT_META_PAGE: u8 = 0x00;
    pub const INIT_BITMAP_PAGE: u8 = 0x10;
    pub const INSERT: u8 = 0x20;
    pub const ADD_OVFL_PAGE: u8 = 0x30;
    pub const SPLIT_ALLOCATE_PAGE: u8 = 0x40;
    pub const SPLIT_PAGE: u8 = 0x50;
    pub const SPLIT_COMPLETE: u8 = 0x60;
    pub const MOVE_PAGE_CONTENTS: u8 = 0x70;
    pub const SQUEEZE_PAGE: u8 = 0x80;
    pub const DELETE: u8 = 0x90;
    pub const SPLIT_CLEANUP: u8 = 0xA0;
    pub const UPDATE_META_PAGE: u8 = 0xB0;
    pub const VACUUM_ONE_PAGE: u8 = 0xC0;
}

/// Bytes of `xl_hash_vacuum_one_page` before the item numbers.
const VACUUM_ONE_PAGE_BYTES: usize = 8;

/// Which references a record type has; `None` for a type that Postgres 17 does not have.
fn references(info: u8) -> Option<References> {
    Some(match info {
        info::INIT_META_PAGE | info::SPLIT_PAGE | info::SPLIT_CLEANUP | info::UPDATE_META_PAGE => {
            References::exactly(0b1)
        }
        info::INIT_BITMAP_PAGE | info::INSERT | info::SPLIT_COMPLETE | info::VACUUM_ONE_PAGE => {
            References::exactly(0b11)
        }
        info::SPLIT_ALLOCATE_PAGE => References::exactly(0b111),
        info::ADD_OVFL_PAGE => References { required: 0b1_0011, allowed: 0b1_1111 },
        info::MOVE_PAGE_CONTENTS => References { required: 0b110, allowed: 0b111 },
        info::SQUEEZE_PAGE => References { required: 0b10_0100, allowed: 0b111_1111 },
        info::DELETE => References { required: 0b10, allowed: 0b11 },
        _ => return None,
    })
}

/// What a hash record does: most pages that it refers to change.
pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let info = record.rmgr_info();
    let Some(references) = references(info) else {
        return Err(EffectError::unknown(record.rmid, info));
    };
    references.check(record)?;
    record.blocks.iter().try_for_each(|block| push_share(record, block, out))
}

fn push_share(
    record: &DecodedRecord,
    block: &DecodedBlock,
    out: &mut Vec<Effect>,
) -> Result<(), EffectError> {
    match (record.rmgr_info(), block.id) {
        (info::SPLIT_PAGE, _) => push_image(record, block, out),
        // The primary bucket page, for its cleanup lock.
        (info::MOVE_PAGE_CONTENTS | info::SQUEEZE_PAGE | info::DELETE, 0) => {
            if let Some(value) = restored(record, block)? {
                out.push(Effect::Page { page: page_id(block), value });
            }
            Ok(())
        }
        (info, id) if goes_on_after_image(info, id) => push_page_beyond_image(record, block, Keep::ALL, out),
        (info::VACUUM_ONE_PAGE, 1) => {
            push_page(record, block, Keep { main_bytes: VACUUM_ONE_PAGE_BYTES, data: false }, out)
        }
        _ => push_page(record, block, Keep::ALL, out),
    }
}

fn goes_on_after_image(info: u8, id: u8) -> bool {
    matches!((info, id), (info::SPLIT_ALLOCATE_PAGE, 0) | (info::SPLIT_COMPLETE, 0 | 1))
}

fn is_made_anew(info: u8, id: u8) -> bool {
    matches!(
        (info, id),
        (info::INIT_META_PAGE | info::INIT_BITMAP_PAGE, 0)
            | (info::ADD_OVFL_PAGE, 0 | 3)
            | (info::SPLIT_ALLOCATE_PAGE, 1)
    )
}

/// Redoes one page of a record, after its image was restored if it has one.
pub fn apply(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let (info, id) = (redo.change.info, redo.change.id);
    if redo.change.image.is_some() && !goes_on_after_image(info, id) {
        return Ok(());
    }
    redo.check_init(is_made_anew(info, id))?;
    if apply_reference(page, redo)? == Touched::Yes {
        page::set_lsn(page, redo.lsn);
    }
    Ok(())
}

/// Whether the page changed, and its LSN moves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touched {
    Yes,
    No,
}

fn apply_reference(page: &mut Page, redo: &Redo<'_>) -> Result<Touched, Fault> {
    let change = &redo.change;
    let main = change.main;
    match (change.info, change.id) {
        (info::INIT_META_PAGE, 0) => meta::init(page, main)?,
        (info::INIT_BITMAP_PAGE, 0) => init_bitmap(page, u16_at(main, 0, "xl_hash_init_bitmap_page")?)?,
        (info::INIT_BITMAP_PAGE, 1) => meta::add_first_bitmap(page)?,
        (info::INSERT, 0) => {
            opaque::check(page)?;
            let offset = u16_at(main, 0, "xl_hash_insert")?;
            page::add_item(page, change.data, AddItem::IndexBefore(offset))?;
        }
        (info::INSERT, 1) => meta::add_tuples(page, 1.0)?,
        (info::ADD_OVFL_PAGE, 0) => {
            let prev = redo.required_block(1)?.0;
            let bucket = u32_at(change.data, 0, "number of a bucket")?;
            opaque::init(page, Opaque { prev, next: opaque::NO_BLOCK, bucket, flags: flag::OVERFLOW });
        }
        (info::ADD_OVFL_PAGE, 1) => opaque::set_next(page, redo.required_block(0)?.0)?,
        (info::ADD_OVFL_PAGE, 2) => set_bit(page, change.data, Bit::Taken)?,
        (info::ADD_OVFL_PAGE, 3) => init_bitmap(page, u16_at(main, 0, "xl_hash_add_ovfl_page")?)?,
        (info::ADD_OVFL_PAGE, 4) => meta::add_overflow_page(page, redo)?,
        (info::SPLIT_ALLOCATE_PAGE, 0) => {
            let split = Split::parse(main)?;
            opaque::set_flags(page, split.old_flags)?;
            opaque::set_prev(page, split.new_bucket)?;
        }
        (info::SPLIT_ALLOCATE_PAGE, 1) => {
            let Split { new_bucket, new_flags, .. } = Split::parse(main)?;
            let (prev, next) = (new_bucket, opaque::NO_BLOCK);
            opaque::init(page, Opaque { prev, next, bucket: new_bucket, flags: new_flags });
        }
        (info::SPLIT_ALLOCATE_PAGE, 2) => meta::split(page, &Split::parse(main)?, change.data)?,
        (info::SPLIT_PAGE, 0) => return Err(Fault::Mismatch("a split without the page's image")),
        (info::SPLIT_COMPLETE, 0) => opaque::set_flags(page, u16_at(main, 0, "xl_hash_split_complete")?)?,
        (info::SPLIT_COMPLETE, 1) => opaque::set_flags(page, u16_at(main, 2, "xl_hash_split_complete")?)?,
        (info::MOVE_PAGE_CONTENTS, 1) => {
            let count = u16_at(main, 0, "xl_hash_move_page_contents")?;
            bucket::add_tuples(page, count, change.data)?;
        }
        (info::MOVE_PAGE_CONTENTS, 2) => bucket::delete(page, change.data)?,
        (info::SQUEEZE_PAGE, _) => return squeeze(page, redo),
        (info::DELETE, 1) => {
            bucket::delete(page, change.data)?;
            if Parts::new(main, "xl_hash_delete").u8()? != 0 {
                opaque::clear_flags(page, flag::HAS_DEAD_TUPLES)?;
            }
        }
        (info::SPLIT_CLEANUP, 0) => opaque::clear_flags(page, flag::NEEDS_SPLIT_CLEANUP)?,
        (info::UPDATE_META_PAGE, 0) => meta::set_tuples(page, main)?,
        (info::VACUUM_ONE_PAGE, 0) => {
            let count = usize::from(u16_at(main, 4, "xl_hash_vacuum_one_page")?);
            let offsets = main.get(VACUUM_ONE_PAGE_BYTES..).and_then(|rest| rest.get(..2 * count));
            bucket::delete(page, offsets.ok_or(Fault::Short { what: "items to delete" })?)?;
            opaque::clear_flags(page, flag::HAS_DEAD_TUPLES)?;
        }
        (info::VACUUM_ONE_PAGE, 1) => {
            meta::add_tuples(page, -f64::from(u16_at(main, 4, "xl_hash_vacuum_one_page")?))?;
        }
        _ => return Err(Fault::Unknown),
    }
    Ok(Touched::Yes)
}

/// SQUEEZE_PAGE: tuples of an overflow page move to an earlier page of the chain, and it leaves the chain.
fn squeeze(page: &mut Page, redo: &Redo<'_>) -> Result<Touched, Fault> {
    let change = &redo.change;
    let squeeze = Squeeze::parse(change.main)?;
    match change.id {
        1 => {
            if squeeze.tuples > 0 {
                bucket::add_tuples(page, squeeze.tuples, change.data)?;
            }
            if squeeze.written_is_previous {
                opaque::set_next(page, squeeze.next)?;
            }
            // Otherwise it is there for its lock.
            let touched = squeeze.tuples > 0 || squeeze.written_is_previous;
            return Ok(if touched { Touched::Yes } else { Touched::No });
        }
        2 => {
            let (prev, next) = (opaque::NO_BLOCK, opaque::NO_BLOCK);
            opaque::init(page, Opaque { prev, next, bucket: opaque::NO_BUCKET, flags: flag::UNUSED });
        }
        3 if !squeeze.written_is_previous => opaque::set_next(page, squeeze.next)?,
        4 => opaque::set_prev(page, squeeze.previous)?,
        5 => set_bit(page, change.data, Bit::Free)?,
        6 => meta::set_first_free(page, u32_at(change.data, 0, "first free overflow page")?)?,
        _ => return Err(Fault::Unknown),
    }
    Ok(Touched::Yes)
}

/// `xl_hash_squeeze_page`.
struct Squeeze {
    previous: u32,
    next: u32,
    tuples: u16,
    /// The page that the tuples go to comes right before the page that leaves the chain.
    written_is_previous: bool,
}

impl Squeeze {
    fn parse(main: &[u8]) -> Result<Squeeze, Fault> {
        let mut fields = Parts::new(main, "xl_hash_squeeze_page");
        let (previous, next, tuples) = (fields.u32()?, fields.u32()?, fields.u16()?);
        let _written_is_primary = fields.u8()?;
        Ok(Squeeze { previous, next, tuples, written_is_previous: fields.u8()? != 0 })
    }
}

/// `xl_hash_split_allocate_page`.
struct Split {
    new_bucket: u32,
    old_flags: u16,
    new_flags: u16,
    /// What of the metapage changes: `meta::SPLIT_*`.
    meta_changes: u8,
}

impl Split {
    fn parse(main: &[u8]) -> Result<Split, Fault> {
        let mut fields = Parts::new(main, "xl_hash_split_allocate_page");
        let (new_bucket, old_flags, new_flags) = (fields.u32()?, fields.u16()?, fields.u16()?);
        Ok(Split { new_bucket, old_flags, new_flags, meta_changes: fields.u8()? })
    }
}

/// A fresh bitmap page of `bytes` bytes: all overflow pages count as taken until they exist (`_hash_initbitmapbuffer`).
fn init_bitmap(page: &mut Page, bytes: u16) -> Result<(), Fault> {
    let end = HEADER_BYTES + usize::from(bytes);
    if end > opaque::AT {
        return Err(Fault::Mismatch("a bitmap is larger than a page"));
    }
    let (prev, next) = (opaque::NO_BLOCK, opaque::NO_BLOCK);
    opaque::init(page, Opaque { prev, next, bucket: opaque::NO_BUCKET, flags: flag::BITMAP });
    page[HEADER_BYTES..end].fill(0xff);
    page::set_lower(page, end as u16);
    Ok(())
}

/// What a bit of a bitmap page says of an overflow page.
#[derive(Clone, Copy)]
enum Bit {
    Free,
    Taken,
}

/// Sets or clears the bit whose number is `data`, counted in little-endian words and so in bytes.
fn set_bit(page: &mut Page, data: &[u8], to: Bit) -> Result<(), Fault> {
    opaque::check(page)?;
    let number = u32_at(data, 0, "bit of an overflow page")?;
    let at = HEADER_BYTES + (number / 8) as usize;
    if at >= opaque::AT {
        return Err(Fault::Mismatch("a bit lies beyond the bitmap"));
    }
    let bit = 1 << (number % 8);
    match to {
        Bit::Taken => page[at] |= bit,
        Bit::Free => page[at] &= !bit,
    }
    Ok(())
}

const _: () = assert!(opaque::AT + 16 == BLOCK_BYTES);
