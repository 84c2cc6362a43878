//! Redo of Postgres 17's log: what a record does (`effects`), and what a change does to a page (`apply`).
//!
//! Ingest calls `effects` once per record and stores page values by (page, LSN); a read finds the page's last image and calls
//! `apply` for each change after it. No redo needs another page's content (W16), so that pages are rebuilt on their own
//! and in parallel. Pure: no I/O, clock, random or state; the authority is Postgres's source, and the proof is the page
//! that Postgres itself produced (PS-1).
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed"))]

pub mod change;
#[cfg(test)]
mod damage;
pub mod effect;
pub mod error;
pub mod fsm;
pub mod image;
pub mod mask;
pub mod page;
pub mod pglz;
pub mod rmgr;
pub mod slru;
pub mod slru_order;
#[cfg(test)]
pub(crate) mod testing;
pub mod vm;
pub mod wire;

use strata_common::{BLOCK_BYTES, ForkNumber, Guard, Lsn};
use strata_pgwal::DecodedRecord;
use strata_pgwal::rmgr as rmid;

pub use change::PageChange;
pub use effect::{Effect, PageId, PageRef, PageValue};
pub use error::{EffectError, Fault, RedoError};
pub use slru::{SlruKind, SlruPage};

use change::{ChangeError, RecordChange};
use rmgr::Redo;

/// A page of a relation or of an SLRU.
pub type Page = [u8; BLOCK_BYTES];

/// Everything that `record` does, in order.
pub fn effects(record: &DecodedRecord) -> Result<Vec<Effect>, EffectError> {
    let mut out = Vec::with_capacity(record.blocks.len() + 1);
    effects_into(record, &mut out)?;
    Ok(out)
}

/// As `effects`, appended to `out`. After an error `out` may hold a part of them.
pub fn effects_into(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    effects_of(record, out)?;
    #[cfg(test)]
    damage::of_record(record);
    Ok(())
}

fn effects_of(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    match record.rmid {
        rmid::XLOG => rmgr::xlog::effects(record, out),
        rmid::XACT => rmgr::xact::effects(record, out),
        rmid::SMGR => rmgr::smgr::effects(record, out),
        rmid::CLOG => rmgr::clog::effects(record, out),
        rmid::DBASE => rmgr::dbase::effects(record, out),
        rmid::TBLSPC => rmgr::tblspc::effects(record, out),
        rmid::MULTIXACT => rmgr::multixact::effects(record, out),
        rmid::RELMAP => rmgr::relmap::effects(record, out),
        rmid::STANDBY => rmgr::standby::effects(record, out),
        rmid::COMMIT_TS => rmgr::commit_ts::effects(record, out),
        rmid::REPLORIGIN => rmgr::replorigin::effects(record, out),
        rmid::LOGICALMSG => rmgr::logicalmsg::effects(record),
        rmid::HEAP2 => rmgr::heap2::effects(record, out),
        rmid::HEAP => rmgr::heap::effects(record, out),
        rmid::BTREE => rmgr::btree::effects(record, out),
        rmid::GIN => rmgr::gin::effects(record, out),
        rmid::GIST => rmgr::gist::effects(record, out),
        rmid::SEQ => rmgr::seq::effects(record, out),
        rmid::HASH => rmgr::hash::effects(record, out),
        rmid::SPGIST => rmgr::spgist::effects(record, out),
        rmid::BRIN => rmgr::brin::effects(record, out),
        rmid::GENERIC => rmgr::generic::effects(record, out),
        unknown => Err(EffectError::unknown(unknown, record.info)),
    }
}

/// Applies an encoded change of a record that ends at `lsn` to a page of a relation. A page that does not exist yet is one
/// of zeros. After an error the page's content is undefined.
///
/// As in Postgres, a page whose LSN is already at `lsn` or later is left alone, unless the change restores or initializes it.
pub fn apply(page: &mut Page, page_id: PageId, lsn: Lsn, change: &[u8]) -> Result<(), RedoError> {
    #[cfg(test)]
    let before = *page;
    let applied = PageChange::decode(change).and_then(|change| apply_change(page, page_id, lsn, change));
    #[cfg(test)]
    damage::of_change(&before, page_id, lsn, change, applied.is_ok());
    applied.map_err(|fault| RedoError::new(PageRef::Rel(page_id), lsn, change, fault))
}

/// Applies an encoded change of a record that ends at `lsn` to a page of an SLRU.
pub fn apply_slru(page: &mut Page, page_id: SlruPage, lsn: Lsn, change: &[u8]) -> Result<(), RedoError> {
    #[cfg(test)]
    let before = *page;
    let applied = PageChange::decode(change).and_then(|change| apply_slru_change(page, page_id, change));
    #[cfg(test)]
    damage::of_slru_change(&before, page_id, change, applied.is_ok());
    applied.map_err(|fault| RedoError::new(PageRef::Slru(page_id), lsn, change, fault))
}

fn apply_slru_change(page: &mut Page, page_id: SlruPage, change: PageChange<'_>) -> Result<(), Fault> {
    match change {
        PageChange::Slru(slru) => slru.apply(page, page_id.kind),
        _ => Err(ChangeError::WrongPage.into()),
    }
}

fn apply_change(page: &mut Page, page_id: PageId, lsn: Lsn, change: PageChange<'_>) -> Result<(), Fault> {
    let PageId { rel, block } = page_id;
    match change {
        PageChange::Record(change) => apply_record(page, Redo { page_id, lsn, change }),
        PageChange::VmClear { heap_block, bits }
            if rel.fork == ForkNumber::VisibilityMap && vm::page_of(heap_block) == block =>
        {
            vm::clear(page, heap_block, bits);
            Ok(())
        }
        PageChange::VmTruncateTail { heap_blocks } if rel.fork == ForkNumber::VisibilityMap => {
            vm::truncate_tail(page, block, heap_blocks)
        }
        PageChange::FsmTruncateTail { heap_blocks } if rel.fork == ForkNumber::FreeSpaceMap => {
            fsm::truncate_tail(page, block, heap_blocks)
        }
        _ => Err(ChangeError::WrongPage.into()),
    }
}

/// The decisions of `XLogReadBufferForRedoExtended` in `src/backend/access/transam/xlogutils.c`, then the resource manager's.
fn apply_record(page: &mut Page, redo: Redo<'_>) -> Result<(), Fault> {
    let RecordChange { image, will_init, rmid, .. } = redo.change;
    if let Some(image) = image {
        image.restore(page, redo.lsn)?;
        // Only GiST and hash have records that go on after an image (W16).
        if !matches!(rmid, rmid::GIST | rmid::HASH) || !Guard::BeyondImage.holds() {
            return Ok(());
        }
    } else if !will_init {
        if page::is_new(page) && redo.page_id.rel.fork != ForkNumber::VisibilityMap {
            return Err(Fault::PageIsNew);
        }
        if redo.lsn <= page::lsn(page) {
            return Ok(());
        }
    }
    match rmid {
        rmid::HEAP2 => rmgr::heap2::apply(page, &redo),
        rmid::HEAP => rmgr::heap::apply(page, &redo),
        rmid::BTREE => rmgr::btree::apply(page, &redo),
        rmid::GIN => rmgr::gin::apply(page, &redo),
        rmid::GIST => rmgr::gist::apply(page, &redo),
        rmid::SEQ => rmgr::seq::apply(page, &redo),
        rmid::HASH => rmgr::hash::apply(page, &redo),
        rmid::SPGIST => rmgr::spgist::apply(page, &redo),
        rmid::BRIN => rmgr::brin::apply(page, &redo),
        rmid::GENERIC => rmgr::generic::apply(page, &redo),
        _ => Err(Fault::Unknown),
    }
}

#[cfg(test)]
#[path = "apply_test.rs"]
mod tests;
