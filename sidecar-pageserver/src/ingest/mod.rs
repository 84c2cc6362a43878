//! From log records to keys and values: the one place that says what a record means for what is stored.
//!
//! Records come in log order from one task, so that sizes are always those before the record. `redo::effects` tells what
//! a record does; this module turns relation, database, SLRU and counter effects into puts, and passes page changes on
//! untouched. A record is all or nothing: after an error the caller throws this state away and resumes from what storage
//! has (log is read again; putting the same values twice is harmless). Every record moves `lsn`, whatever it does (G11).

mod at_once;
pub mod batch;
pub mod control;
mod database;
pub mod incoming;
mod relation;
mod slru;
mod statistics;
#[cfg(test)]
pub(crate) mod testkit;

use std::collections::HashMap;
use std::sync::Arc;

use strata_common::{ForkNumber, Lsn, Term};
use strata_pgwal::FullTransactionId;
use strata_redo::effect::{Effect, SlruEffect};
use strata_redo::slru::{COMMIT_TS_XACTS_PER_PAGE, SlruKind};

use crate::core::key::Key;
use crate::ingest::batch::{Batch, Counts};
use crate::ingest::control::{Changed, ControlState};
use crate::keyspace::values::BadValue;
use crate::keyspace::{self, ControlPart};
use crate::sizes::Sizes;
use crate::store::{Store, StoreError};
use crate::view::{View, ViewError};

/// Why a record was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// This version cannot go on here; another one may (the timeline parks).
    #[error("record {name} at {lsn}: {reason}")]
    Record { name: String, lsn: Lsn, reason: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("stored state: {0}")]
    Value(#[from] BadValue),
    #[error(transparent)]
    View(#[from] ViewError),
}

/// Puts one timeline's log into its store.
pub struct Ingest<S> {
    store: Arc<S>,
    sizes: Arc<Sizes>,
    control: ControlState,
    slrus: slru::SlruSegments,
    init_forks: relation::InitForks,
    /// Positions of replication origins that this process has seen.
    origins: HashMap<u16, Lsn>,
    batch: Batch,
    counts: Counts,
    /// `control.lsn` when storage last had everything.
    flushed: Lsn,
    /// The last record left a mark already.
    marked: bool,
    /// Statistics that the last record brought (S12).
    statistics: Option<bytes::Bytes>,
}

impl<S: Store> Ingest<S> {
    /// Goes on after the record that `control` is the state of; everything up to there is in `store`.
    pub async fn resume(
        store: Arc<S>,
        sizes: Arc<Sizes>,
        control: ControlState,
    ) -> Result<Ingest<S>, IngestError> {
        let slrus = slru::SlruSegments::load(&*store, control.lsn).await?;
        let flushed = control.lsn;
        let (batch, counts) = (Batch::default(), Counts::default());
        let (init_forks, origins) = (relation::InitForks::default(), HashMap::new());
        Ok(Ingest {
            store,
            sizes,
            control,
            slrus,
            init_forks,
            origins,
            batch,
            counts,
            flushed,
            marked: true,
            statistics: None,
        })
    }

    /// Nothing is here that storage does not have: going on with this is the same as resuming from `control`.
    pub fn is_at(&self, control: &ControlState) -> bool {
        // It may have heard of a later term already, whose log has not come yet.
        let log_term = self.control.log_term;
        let same = self.control == ControlState { log_term, ..control.clone() };
        self.flushed == self.control.lsn && self.batch.count() == 0 && same
    }

    /// State as of the last record taken in.
    pub fn control(&self) -> &ControlState {
        &self.control
    }

    /// What comes next is of a term up to `term`.
    pub fn see_term(&mut self, term: Term) {
        self.control.log_term = self.control.log_term.max(term);
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Everything up to here is in storage.
    pub fn flushed(&self) -> Lsn {
        self.flushed
    }

    /// Enough has come together for a `flush`.
    pub fn wants_flush(&self) -> bool {
        self.batch.is_full()
    }

    fn put_control(&mut self, changed: Changed) {
        let lsn = self.control.lsn;
        if changed.checkpoint {
            let bytes = bytes::Bytes::copy_from_slice(&self.control.checkpoint.encode());
            self.batch.image(lsn, keyspace::control(ControlPart::CheckPoint), bytes);
        }
        if changed.control_file {
            self.batch.image(
                lsn,
                keyspace::control(ControlPart::ControlFile),
                self.control.control_file_bytes(),
            );
        }
        self.marked = changed.mark;
        if changed.mark {
            self.batch.image(lsn, keyspace::mark(), self.control.mark.encode());
        }
    }

    /// Hands everything to storage. The last record gets a mark, whatever it is: a log that ends here can be gone on from.
    pub async fn flush(&mut self) -> Result<(), IngestError> {
        if !self.marked {
            self.batch.image(self.control.lsn, keyspace::mark(), self.control.mark.encode());
            self.marked = true;
        }
        self.put_batch()?;
        self.store.finish(self.control.lsn, &self.control.encode()).await?;
        self.flushed = self.control.lsn;
        Ok(())
    }

    /// Hands over what there is, maybe in the middle of a record: nothing of that can be read before `flush`.
    fn put_batch(&mut self) -> Result<(), IngestError> {
        let values = self.batch.take();
        self.counts.values += values.len() as u64;
        Ok(self.store.put(values)?)
    }

    /// Storage as it is before the record at hand; only after the flush that `Incoming::wants_flush_before` asks for (G15).
    fn view_before(&self) -> View<S> {
        assert!(self.flushed == self.control.lsn, "records that look at whole databases come after a flush");
        View::new(self.store.clone(), self.flushed)
    }

    fn put_image(&mut self, lsn: Lsn, key: Key, bytes: bytes::Bytes) {
        self.batch.image(lsn, key, bytes);
    }

    async fn effect(&mut self, lsn: Lsn, effect: Effect) -> Result<(), IngestError> {
        match self.effect_at_once(lsn, effect)? {
            None => Ok(()),
            Some(asks) => self.effect_that_asks(lsn, asks).await,
        }
    }

    /// What `effect_at_once` gave back: storage has to be asked for something that is not in memory.
    async fn effect_that_asks(&mut self, lsn: Lsn, effect: Effect) -> Result<(), IngestError> {
        match effect {
            Effect::Page { page, value } => self.page(lsn, page, value).await,
            Effect::ClearVmBits { heap, heap_block, bits } => {
                let size = self.size(heap.fork(ForkNumber::VisibilityMap)).await?;
                self.clear_vm_bits(lsn, heap, heap_block, bits, size);
                Ok(())
            }
            Effect::RelCreate(rel) => self.create(lsn, rel).await,
            Effect::RelTruncate { rel, blocks, forks } => self.truncate(lsn, rel, blocks, forks).await,
            Effect::RelDrop(rel) => self.drop_relation(lsn, rel).await,
            Effect::DatabaseCopy { from, to } => self.copy_database(lsn, from, to).await,
            Effect::DatabaseDrop(database) => self.drop_database(lsn, database).await,
            Effect::OriginAdvance { origin, remote_lsn, backward, .. } => {
                // `replorigin_advance` in `origin.c`: an older position counts only if it is meant.
                if backward || self.origin(origin).await? < remote_lsn {
                    let bytes = bytes::Bytes::copy_from_slice(&remote_lsn.0.to_le_bytes());
                    self.origins.insert(origin, remote_lsn);
                    self.put_image(lsn, keyspace::origin(origin), bytes);
                }
                Ok(())
            }
            other => unreachable!("{other:?} asks storage nothing"),
        }
    }

    /// How far a replication origin is before the record at hand.
    async fn origin(&mut self, origin: u16) -> Result<Lsn, IngestError> {
        if let Some(known) = self.origins.get(&origin) {
            return Ok(*known);
        }
        // Not seen since the start, so storage has it.
        let stored = View::new(self.store.clone(), self.flushed).value(keyspace::origin(origin)).await?;
        let lsn = match stored {
            None => Lsn::INVALID,
            Some(bytes) => {
                let raw = bytes.first_chunk::<8>().filter(|_| bytes.len() == 8);
                let raw = raw.ok_or(BadValue { what: "replication origin", length: bytes.len() })?;
                Lsn(u64::from_le_bytes(*raw))
            }
        };
        self.origins.insert(origin, lsn);
        Ok(lsn)
    }

    fn slru(&mut self, lsn: Lsn, effect: SlruEffect) {
        let tracked = self.control.control_file.settings.track_commit_timestamp;
        match effect {
            // Commit records say their times whether or not they are kept.
            SlruEffect::Page { page, .. } if page.kind == SlruKind::CommitTs && !tracked => {}
            SlruEffect::Page { page, value } => self.slrus.page(&mut self.batch, lsn, page, value),
            SlruEffect::Truncate { kind, first_kept_page } => {
                self.slrus.truncate(&mut self.batch, lsn, kind, first_kept_page);
            }
            SlruEffect::DropSegments { kind, from_segment, to_segment } => {
                self.slrus.drop_range(&mut self.batch, lsn, kind, from_segment, to_segment);
            }
        }
    }

    /// Two-phase files carry the epoch in 17 (S10).
    fn full_xid(&self, xid: u32) -> FullTransactionId {
        self.control.checkpoint.next_xid.full_id_of_earlier(xid)
    }

    /// `ActivateCommitTs` in `commit_ts.c`: tracking begins with a page for the next transaction.
    fn commit_ts_begins(&mut self, lsn: Lsn) {
        let page = self.control.checkpoint.next_xid.xid() / COMMIT_TS_XACTS_PER_PAGE;
        self.slrus.ensure(&mut self.batch, lsn, SlruKind::CommitTs, page);
    }
}

/// Effects that look at everything a database has.
fn is_wholesale(effect: &Effect) -> bool {
    matches!(effect, Effect::DatabaseCopy { .. } | Effect::DatabaseDrop(_))
}

/// This version cannot take in the record at hand, which `Ingest::record` names.
fn cannot(reason: String) -> IngestError {
    IngestError::Record { name: String::new(), lsn: Lsn::INVALID, reason }
}

#[cfg(test)]
#[path = "ingest_test.rs"]
mod tests;
