//! One file per resource manager: what its records do (`effects`), and to a page (`apply`).
//!
//! What they share is here: turning a block reference into an effect, and the view that `apply` works from.

pub mod brin;
pub mod btree;
pub mod clog;
pub mod commit_ts;
pub mod dbase;
pub mod generic;
pub mod gin;
pub mod gist;
pub mod hash;
pub mod heap;
pub mod heap2;
mod heap_page;
mod heap_tuple;
mod index_tuple;
pub mod logicalmsg;
pub mod multixact;
pub mod relmap;
pub mod replorigin;
pub mod seq;
mod slru_pages;
pub mod smgr;
pub mod spgist;
pub mod standby;
pub mod tblspc;
pub mod xact;
pub mod xlog;

use strata_common::{BlockNumber, Lsn};
use strata_pgwal::{DecodedBlock, DecodedRecord};

use crate::change::{Keep, RecordChange, encode_record};
use crate::effect::{Effect, PageId, PageValue};
use crate::error::{EffectError, Fault};
use crate::image::ImageView;

/// A record's share in one page, while it is applied.
#[derive(Clone, Copy, Debug)]
pub struct Redo<'a> {
    pub page_id: PageId,
    /// End of the record: what `pd_lsn` becomes.
    pub lsn: Lsn,
    pub change: RecordChange<'a>,
}

impl Redo<'_> {
    /// Block number of the record's reference `id`, this page's own included.
    #[inline]
    pub fn block(&self, id: u8) -> Option<BlockNumber> {
        if id == self.change.id { Some(self.page_id.block) } else { self.change.other_block(id) }
    }

    /// As `block`, for a reference that the record must have.
    #[inline]
    pub fn required_block(&self, id: u8) -> Result<BlockNumber, Fault> {
        self.block(id).ok_or(Fault::Mismatch("the record lacks a block reference that it must have"))
    }

    /// Whether the reference says what the record's own data says: that the page is made anew, or that it is not. Postgres
    /// refuses a difference too (`XLogReadBufferForRedoExtended`); here it would build on a page that nobody has read.
    pub fn check_init(&self, made_anew: bool) -> Result<(), Fault> {
        if self.change.will_init == made_anew {
            return Ok(());
        }
        Err(Fault::Mismatch("reference and record disagree on whether the page is made anew"))
    }
}

/// Which block references a type of record has, one bit for each id.
#[derive(Clone, Copy, Debug)]
pub struct References {
    pub required: u8,
    pub allowed: u8,
}

impl References {
    /// All of `ids`, and no others.
    pub const fn exactly(ids: u8) -> References {
        References { required: ids, allowed: ids }
    }

    /// A reference that redo knows nothing of would become a change that no page read can apply: it is refused at ingest.
    pub fn check(self, record: &DecodedRecord) -> Result<(), EffectError> {
        let bit = |id: u8| 1u8.checked_shl(u32::from(id)).unwrap_or(0);
        let mut seen = 0;
        for block in &record.blocks {
            if self.allowed & bit(block.id) == 0 {
                return Err(EffectError::malformed(
                    record,
                    "a block reference that such a record does not have",
                ));
            }
            seen |= bit(block.id);
        }
        if self.required & !seen != 0 {
            return Err(EffectError::malformed(record, "a block reference is missing"));
        }
        Ok(())
    }
}

/// Reference `id`, which the record must have.
pub fn required(record: &DecodedRecord, id: u8) -> Result<&DecodedBlock, EffectError> {
    record.block(id).ok_or_else(|| EffectError::malformed(record, "a block reference is missing"))
}

/// The page restored from an image with APPLY, if `block` carries one.
pub fn restored(record: &DecodedRecord, block: &DecodedBlock) -> Result<Option<PageValue>, EffectError> {
    let Some(image) = block.image.as_ref().filter(|image| image.apply) else { return Ok(None) };
    match ImageView::from(image).to_page(record.end_lsn) {
        Ok(page) => Ok(Some(PageValue::Image(page))),
        Err(source) => Err(EffectError::Image { name: record.name(), lsn: record.lsn, id: block.id, source }),
    }
}

/// The page of `block` changes: to its image if it carries one with APPLY, which is then the last word, else by redo, which
/// reads what `keep` says.
pub fn push_page(
    record: &DecodedRecord,
    block: &DecodedBlock,
    keep: Keep,
    out: &mut Vec<Effect>,
) -> Result<(), EffectError> {
    let value = match restored(record, block)? {
        Some(image) => image,
        None => PageValue::Change { bytes: encode_record(record, block, keep), will_init: block.will_init },
    };
    out.push(Effect::Page { page: page_id(block), value });
    Ok(())
}

/// As `push_page` for records whose redo goes on after the image was restored: the image travels inside the change (W16).
pub fn push_page_beyond_image(
    record: &DecodedRecord,
    block: &DecodedBlock,
    keep: Keep,
    out: &mut Vec<Effect>,
) -> Result<(), EffectError> {
    // Restored once here, so that a broken image is refused at ingest and not when the page is read.
    let has_image = restored(record, block)?.is_some();
    let bytes = encode_record(record, block, keep);
    let value = PageValue::Change { bytes, will_init: block.will_init || has_image };
    out.push(Effect::Page { page: page_id(block), value });
    Ok(())
}

/// The page of `block` becomes its image: a record of this type must carry one (W16).
pub fn push_image(
    record: &DecodedRecord,
    block: &DecodedBlock,
    out: &mut Vec<Effect>,
) -> Result<(), EffectError> {
    let Some(value) = restored(record, block)? else {
        return Err(EffectError::malformed(record, "the image of a page is missing"));
    };
    out.push(Effect::Page { page: page_id(block), value });
    Ok(())
}

/// Which page a block reference names.
pub fn page_id(block: &DecodedBlock) -> PageId {
    PageId { rel: block.rel, block: block.block }
}

#[cfg(test)]
mod small_test;
