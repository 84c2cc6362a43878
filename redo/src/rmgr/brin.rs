//! BRIN: every record type of `src/backend/access/brin/brin_xlog.c` (layouts in `src/include/access/brin_xlog.h`).
//!
//! An index has a metapage, revmap pages (an array of tuple identifiers, one for each range of heap blocks) and regular
//! pages with one tuple for each range. Tuples keep their numbers, so that deleting leaves an unused line pointer. The page
//! layouts are those of `src/include/access/brin_page.h`. BRIN_EVACUATE_PAGE never comes from the log (see the mask).

use strata_common::{BLOCK_BYTES, BlockNumber};
use strata_pgwal::DecodedRecord;

use super::{Redo, References, push_page};
use crate::Page;
use crate::change::{Keep, RecordChange};
use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::page::{self, AddItem, HEADER_BYTES, set_u16_at, set_u32_at, u16_at};
use crate::wire::Parts;

/// Record types (`XLOG_BRIN_*`), under `OPERATION_MASK`.
pub mod info {
    pub const CREATE_INDEX: u8 = 0x00;
    pub const INSERT: u8 = 0x10;
    pub const UPDATE: u8 = 0x20;
    pub const SAMEPAGE_UPDATE: u8 = 0x30;
    pub const REVMAP_EXTEND: u8 = 0x40;
    pub const DESUMMARIZE: u8 = 0x50;
    /// `XLOG_BRIN_OPMASK`.
    pub const OPERATION_MASK: u8 = 0x70;
    /// With INSERT and UPDATE: the page of the new tuple is made anew.
    pub const INIT_PAGE: u8 = 0x80;
}

/// What the last two bytes of a page say (`BRIN_PAGETYPE_*`).
mod page_type {
    pub const META: u16 = 0xf091;
    pub const REVMAP: u16 = 0xf092;
    pub const REGULAR: u16 = 0xf093;
}

const SPECIAL_BYTES: usize = 8;
const TYPE_AT: usize = BLOCK_BYTES - 2;

/// `BrinMetaPageData`.
mod meta {
    pub const MAGIC: u32 = 0xa810_9cfa;
    pub const MAGIC_AT: usize = super::HEADER_BYTES;
    pub const VERSION_AT: usize = MAGIC_AT + 4;
    pub const RANGE_BLOCKS_AT: usize = MAGIC_AT + 8;
    pub const LAST_REVMAP_AT: usize = MAGIC_AT + 12;
    pub const END: u16 = MAGIC_AT as u16 + 16;
}

/// Bytes of a tuple identifier in a revmap page, and how many a page has (`REVMAP_PAGE_MAXITEMS`).
const TID_BYTES: usize = 6;
const REVMAP_ITEMS: u32 = ((BLOCK_BYTES - HEADER_BYTES - SPECIAL_BYTES) / TID_BYTES) as u32;
/// A tuple identifier that points nowhere (`ItemPointerSetInvalid`).
const NO_TID: [u8; TID_BYTES] = [0xff, 0xff, 0xff, 0xff, 0, 0];

/// What a BRIN record does: every page that it refers to changes.
pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let references = match record.rmgr_info() & info::OPERATION_MASK {
        info::CREATE_INDEX | info::SAMEPAGE_UPDATE => References::exactly(0b1),
        info::INSERT | info::REVMAP_EXTEND | info::DESUMMARIZE => References::exactly(0b11),
        info::UPDATE => References::exactly(0b111),
        _ => return Err(EffectError::unknown(record.rmid, record.rmgr_info())),
    };
    references.check(record)?;
    record.blocks.iter().try_for_each(|block| push_page(record, block, Keep::ALL, out))
}

/// Redoes one page of a record.
pub fn apply(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let change = &redo.change;
    let operation = change.info & info::OPERATION_MASK;
    redo.check_init(is_made_anew(change, operation))?;
    match (operation, change.id) {
        (info::CREATE_INDEX, 0) => create(page, change.main)?,
        (info::INSERT, 0) => insert(page, change, Insert::parse(change.main)?)?,
        (info::UPDATE, 0) => insert(page, change, Update::parse(change.main)?.insert)?,
        (info::INSERT, 1) => point(page, Insert::parse(change.main)?, redo)?,
        (info::UPDATE, 1) => point(page, Update::parse(change.main)?.insert, redo)?,
        (info::UPDATE, 2) => {
            page::index_tuple_delete_no_compact(page, Update::parse(change.main)?.old_offset)?
        }
        (info::SAMEPAGE_UPDATE, 0) => {
            let offset = Parts::new(change.main, "xl_brin_samepage_update").u16()?;
            page::index_tuple_overwrite(page, offset, change.data)?;
        }
        (info::REVMAP_EXTEND, 0) => extend_meta(page, redo)?,
        (info::REVMAP_EXTEND, 1) => init(page, page_type::REVMAP),
        (info::DESUMMARIZE, 0) => {
            let Desummarize { place, .. } = Desummarize::parse(change.main)?;
            set_revmap_item(page, place, NO_TID)?;
        }
        (info::DESUMMARIZE, 1) => {
            page::index_tuple_delete_no_compact(page, Desummarize::parse(change.main)?.old_offset)?;
        }
        _ => return Err(Fault::Unknown),
    }
    page::set_lsn(page, redo.lsn);
    Ok(())
}

fn is_made_anew(change: &RecordChange<'_>, operation: u8) -> bool {
    match (operation, change.id) {
        (info::CREATE_INDEX, 0) | (info::REVMAP_EXTEND, 1) => true,
        (info::INSERT | info::UPDATE, 0) => change.info & info::INIT_PAGE != 0,
        _ => false,
    }
}

/// `brin_page_init`.
fn init(page: &mut Page, page_type: u16) {
    page::init(page, SPECIAL_BYTES);
    set_u16_at(page, TYPE_AT, page_type);
}

/// Which range's item of the revmap is meant: the range that begins at `heap_block`.
#[derive(Clone, Copy)]
struct RevmapPlace {
    range_blocks: u32,
    heap_block: u32,
}

/// `xl_brin_insert`.
#[derive(Clone, Copy)]
struct Insert {
    place: RevmapPlace,
    offset: u16,
}

impl Insert {
    fn parse(main: &[u8]) -> Result<Insert, Fault> {
        let mut fields = Parts::new(main, "xl_brin_insert");
        let heap_block = fields.u32()?;
        let range_blocks = fields.u32()?;
        Ok(Insert { place: RevmapPlace { range_blocks, heap_block }, offset: fields.u16()? })
    }
}

/// `xl_brin_update`: the insertion follows the old tuple's number and two bytes of padding.
struct Update {
    old_offset: u16,
    insert: Insert,
}

impl Update {
    fn parse(main: &[u8]) -> Result<Update, Fault> {
        let mut fields = Parts::new(main, "xl_brin_update");
        let old_offset = fields.u16()?;
        fields.take(2)?;
        Ok(Update { old_offset, insert: Insert::parse(fields.rest())? })
    }
}

/// `xl_brin_desummarize`.
struct Desummarize {
    place: RevmapPlace,
    old_offset: u16,
}

impl Desummarize {
    fn parse(main: &[u8]) -> Result<Desummarize, Fault> {
        let mut fields = Parts::new(main, "xl_brin_desummarize");
        let range_blocks = fields.u32()?;
        let heap_block = fields.u32()?;
        Ok(Desummarize { place: RevmapPlace { range_blocks, heap_block }, old_offset: fields.u16()? })
    }
}

/// CREATE_INDEX: the metapage (`brin_metapage_init`). There is no revmap page yet.
fn create(page: &mut Page, main: &[u8]) -> Result<(), Fault> {
    let mut fields = Parts::new(main, "xl_brin_createidx");
    let range_blocks = fields.u32()?;
    let version = fields.u16()?;
    init(page, page_type::META);
    set_u32_at(page, meta::MAGIC_AT, meta::MAGIC);
    set_u32_at(page, meta::VERSION_AT, version.into());
    set_u32_at(page, meta::RANGE_BLOCKS_AT, range_blocks);
    set_u32_at(page, meta::LAST_REVMAP_AT, 0);
    page::set_lower(page, meta::END);
    Ok(())
}

/// Reference 0 of INSERT and UPDATE: the new tuple, at its number.
fn insert(page: &mut Page, change: &RecordChange<'_>, insert: Insert) -> Result<(), Fault> {
    if change.will_init {
        init(page, page_type::REGULAR);
    }
    page::add_item(page, change.data, AddItem::IndexAt(insert.offset))?;
    Ok(())
}

/// Reference 1 of INSERT and UPDATE: the range's item of the revmap points to the new tuple.
fn point(page: &mut Page, insert: Insert, redo: &Redo<'_>) -> Result<(), Fault> {
    let BlockNumber(block) = redo.required_block(0)?;
    let mut tid = NO_TID;
    if insert.offset != 0 {
        tid[0..2].copy_from_slice(&((block >> 16) as u16).to_le_bytes());
        tid[2..4].copy_from_slice(&(block as u16).to_le_bytes());
        tid[4..6].copy_from_slice(&insert.offset.to_le_bytes());
    }
    set_revmap_item(page, insert.place, tid)
}

/// `brinSetHeapBlockItemptr`.
fn set_revmap_item(page: &mut Page, place: RevmapPlace, tid: [u8; TID_BYTES]) -> Result<(), Fault> {
    if u16_at(page, TYPE_AT) != page_type::REVMAP {
        return Err(Fault::Mismatch("the page is not one of a range map"));
    }
    let Some(range) = place.heap_block.checked_div(place.range_blocks) else {
        return Err(Fault::Mismatch("ranges of no blocks"));
    };
    let at = HEADER_BYTES + (range % REVMAP_ITEMS) as usize * TID_BYTES;
    page[at..at + TID_BYTES].copy_from_slice(&tid);
    Ok(())
}

/// Reference 0 of REVMAP_EXTEND: the metapage names the new revmap page. `pd_lower` is set again, because indexes made
/// before Postgres 11 have it wrong.
fn extend_meta(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let target = Parts::new(redo.change.main, "xl_brin_revmap_extend").u32()?;
    if redo.required_block(1)? != BlockNumber(target) {
        return Err(Fault::Mismatch("the record names two different pages for the range map"));
    }
    set_u32_at(page, meta::LAST_REVMAP_AT, target);
    page::set_lower(page, meta::END);
    Ok(())
}

#[cfg(test)]
#[path = "brin_test.rs"]
mod tests;
