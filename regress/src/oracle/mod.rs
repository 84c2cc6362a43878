//! The redo oracle: replays a log through `strata-redo` and compares every page that a record touches with the image that
//! Postgres put into the record (`wal_consistency_checking`), masked; at the end, the whole model with a cluster's files.
//!
//! What it stands for is invariant PS-1. Postgres checks itself this way in `verifyBackupPageConsistency`
//! (`src/backend/access/transam/xlogrecovery.c`); this one is stricter: row lock bits and visibility map bits are compared
//! (traps W10, V8), a page that is missing is a mismatch, and relation files are compared after the last record (G20).
//!
//! `Model` is the state, `Oracle` drives it record by record, `Report` counts. It does no I/O but reading the first data
//! directory. `regress/redo-oracle` holds the workload and the tests.

pub mod compare;
mod files;
mod model;
mod report;
mod variant;

use anyhow::{Context as _, Result};
use strata_pgwal::{DecodedRecord, RawRecord, record, rmgr};
use strata_redo::image::ImageView;
use strata_redo::mask::vm::Bits;
use strata_redo::{Page, PageId};

pub use files::{FilesReport, compare_files};
pub use model::{Model, ReplayError, TABLESPACE_FOLDER};
pub use report::{Mismatch, Report, TypeCounts};

/// Replays records and compares.
pub struct Oracle {
    pub model: Model,
    pub report: Report,
}

impl Oracle {
    pub fn new(model: Model) -> Oracle {
        Oracle { model, report: Report::default() }
    }

    /// Replays one record and compares what it made.
    pub fn step(&mut self, raw: &RawRecord) -> Result<()> {
        let record = record::decode(raw)?;
        self.replay(&record)?;
        self.compare(&record)
    }

    /// Does what the record says. What cannot be done is a mismatch.
    pub fn replay(&mut self, record: &DecodedRecord) -> Result<()> {
        self.report.saw(record);
        let effects = strata_redo::effects(record)
            .with_context(|| format!("effects of the record at {}", record.lsn))?;
        for effect in &effects {
            match self.model.perform(effect, record.end_lsn) {
                Ok(()) => {}
                Err(ReplayError::Io(error)) => return Err(error.into()),
                Err(error) => self.report.mismatch(record, None, error.to_string()),
            }
        }
        Ok(())
    }

    /// Compares the pages of a record that was replayed with the images that it carries.
    pub fn compare(&mut self, record: &DecodedRecord) -> Result<()> {
        for block in &record.blocks {
            let page = PageId { rel: block.rel, block: block.block };
            let Some(image) = &block.image else {
                self.report.without_image(record);
                continue;
            };
            if image.apply {
                self.report.restored(record);
                self.model.note_restored(page, image);
                continue;
            }
            let mut primary: Page = [0; strata_common::BLOCK_BYTES];
            ImageView::from(image).restore(&mut primary, record.end_lsn)?;
            self.report.compared(record);
            let bits = if self.model.lost_bits(page) { Bits::Subset } else { Bits::Equal };
            let Some(replayed) = self.model.page(page)? else {
                self.report.mismatch(record, Some(page), "the page is missing after redo".to_owned());
                continue;
            };
            let is_map = block.rel.fork == strata_common::ForkNumber::VisibilityMap;
            let by_heap = matches!(record.rmid, rmgr::HEAP | rmgr::HEAP2);
            let difference = if is_map && by_heap {
                compare::map_pages(replayed, &primary, bits)
            } else {
                compare::pages(record.rmid, page.block, replayed, &primary)
            };
            if let Some(text) = difference {
                self.report.mismatch(record, Some(page), text);
            }
        }
        Ok(())
    }
}
