//! One record taken in: at once, as long as nothing has to be asked of storage, which is nearly always; else the rest of it waits.
//!
//! Waiting is what costs: a function that may wait carries its state about. So each effect is tried first by a function that cannot, and
//! the first one that needs an answer of storage makes the rest of its record `Unfinished`, which the caller completes before it hands
//! over another record or flushes. Whichever way a record goes, all of it is taken in or, after an error, nothing.

use bytes::Bytes;
use strata_common::{ForkNumber, Lsn};
use strata_pgwal::FullTransactionId;
use strata_redo::effect::{CheckpointKind, Effect};

use crate::core::key::VALUE_BYTES_MAX;
use crate::ingest::control::{Changed, ControlState};
use crate::ingest::incoming::{Head, Incoming, Place};
use crate::ingest::relation::is_map_image;
use crate::ingest::{Ingest, IngestError, cannot};
use crate::keyspace::values::{present, tombstone};
use crate::keyspace::{self, AuxFile};
use crate::store::Store;

/// A record of which a part is taken in.
#[must_use]
pub struct Unfinished {
    begun: Begun,
    /// Asks storage.
    next: Effect,
    rest: Vec<Effect>,
}

/// What is remembered from a record's first effect to its last.
struct Begun {
    place: Place,
    statistics: Option<Bytes>,
    changed: Changed,
    is_shutdown: bool,
    /// How many values the batch had, and the state before the record, in case that it fails.
    values: usize,
    before: Before,
}

enum Before {
    /// Only the next transaction id may have moved.
    Counter(FullTransactionId),
    State(Box<ControlState>),
}

impl<S: Store> Ingest<S> {
    /// Takes in all of `incoming`; the caller has flushed before a record that wants it. After [`IngestError::Record`] nothing of
    /// that record is in the batch, and what came before it can still be flushed.
    pub async fn records(&mut self, mut incoming: Incoming) -> Result<(), IngestError> {
        while !incoming.is_empty() {
            if let Some(unfinished) = self.record_at_once(&mut incoming)? {
                self.complete(unfinished).await?;
            }
        }
        Ok(())
    }

    /// Takes in the first record of `incoming`; what it gives back must be completed before anything else. After an error
    /// `incoming` is of no use any more.
    pub fn record_at_once(&mut self, incoming: &mut Incoming) -> Result<Option<Unfinished>, IngestError> {
        let Some(head) = incoming.heads.next() else { return Ok(None) };
        let (end, effects) = (head.place.end, head.effects);
        let begun = self.begin(head, &incoming.effects.as_slice()[..effects]);
        for taken in 0..effects {
            let effect = incoming.effects.next().expect("a record's effects come with it");
            match self.effect_at_once(end, effect) {
                Ok(None) => {}
                Ok(Some(next)) => {
                    let rest = incoming.effects.by_ref().take(effects - taken - 1).collect();
                    return Ok(Some(Unfinished { begun, next, rest }));
                }
                Err(error) => return Err(self.undo(begun, error)),
            }
        }
        self.finish(begun)?;
        Ok(None)
    }

    /// The rest of a record.
    pub async fn complete(&mut self, unfinished: Unfinished) -> Result<(), IngestError> {
        let Unfinished { begun, next, rest } = unfinished;
        for effect in std::iter::once(next).chain(rest) {
            if let Err(error) = self.effect(begun.place.end, effect).await {
                return Err(self.undo(begun, error));
            }
        }
        self.finish(begun)
    }

    fn begin(&mut self, head: Head, effects: &[Effect]) -> Begun {
        let Head { place, xid, statistics, .. } = head;
        let values = self.batch.count();
        let before = if effects.iter().any(ControlState::is_concerned_by) {
            Before::State(Box::new(self.control.clone()))
        } else {
            Before::Counter(self.control.checkpoint.next_xid)
        };
        self.control.see_xid(xid);
        let (mut changed, mut is_shutdown) = (Changed::default(), false);
        for effect in effects.iter().filter(|effect| ControlState::is_concerned_by(effect)) {
            let tracked = self.control.control_file.settings.track_commit_timestamp;
            let one = self.control.apply(effect);
            changed.mark |= one.mark;
            changed.checkpoint |= one.checkpoint;
            changed.control_file |= one.control_file;
            is_shutdown |= matches!(effect, Effect::Checkpoint { kind: CheckpointKind::Shutdown, .. });
            if let Effect::ParameterChange(parameters) = effect
                && parameters.track_commit_timestamp
                && !tracked
            {
                self.commit_ts_begins(place.end);
            }
        }
        Begun { place, statistics, changed, is_shutdown, values, before }
    }

    fn finish(&mut self, mut begun: Begun) -> Result<(), IngestError> {
        // Good only if nothing lies between them and the end of a clean stop.
        let statistics = std::mem::replace(&mut self.statistics, begun.statistics.take());
        if let Some(file) = statistics.filter(|_| begun.is_shutdown) {
            self.put_image(begun.place.end, keyspace::aux(AuxFile::PgStat), file);
        }
        if let Some(bytes) = self.batch.largest_after(begun.values).filter(|bytes| *bytes > VALUE_BYTES_MAX) {
            let reason = format!("it makes a value of {bytes} bytes, {VALUE_BYTES_MAX} are possible");
            return Err(self.undo(begun, cannot(reason)));
        }
        let Place { start, end, prev, .. } = begun.place;
        self.control.finish_record(start, end, prev, begun.is_shutdown);
        self.counts.records += 1;
        self.put_control(begun.changed);
        Ok(())
    }

    /// As if the record had not come; gives the error its name.
    fn undo(&mut self, begun: Begun, error: IngestError) -> IngestError {
        match begun.before {
            Before::Counter(next_xid) => self.control.checkpoint.next_xid = next_xid,
            Before::State(control) => self.control = *control,
        }
        self.batch.cut(begun.values);
        match error {
            IngestError::Record { reason, .. } => {
                IngestError::Record { name: begun.place.name(), lsn: begun.place.start, reason }
            }
            other => other,
        }
    }

    /// Takes in one effect, or gives it back if storage has to be asked for something.
    pub(super) fn effect_at_once(&mut self, lsn: Lsn, effect: Effect) -> Result<Option<Effect>, IngestError> {
        match effect {
            Effect::Page { page, value } => {
                let known = self.sizes.newest(page.rel).filter(|_| !is_map_image(page, &value));
                let Some(size) = known else { return Ok(Some(Effect::Page { page, value })) };
                self.put_page(lsn, page, value, size.blocks)?;
            }
            Effect::ClearVmBits { heap, heap_block, bits } => {
                let Some(size) = self.sizes.newest(heap.fork(ForkNumber::VisibilityMap)) else {
                    return Ok(Some(effect));
                };
                self.clear_vm_bits(lsn, heap, heap_block, bits, size.blocks);
            }
            Effect::RelCreate(_)
            | Effect::RelTruncate { .. }
            | Effect::RelDrop(_)
            | Effect::DatabaseCopy { .. }
            | Effect::DatabaseDrop(_)
            | Effect::OriginAdvance { .. } => return Ok(Some(effect)),
            Effect::DatabaseCreate(database) => {
                self.put_image(lsn, keyspace::database(database.tablespace, database.database), present());
            }
            Effect::TablespaceCreate { tablespace, .. } => {
                self.put_image(lsn, keyspace::tablespace(tablespace), present());
            }
            Effect::TablespaceDrop { tablespace } => {
                self.put_image(lsn, keyspace::tablespace(tablespace), tombstone());
            }
            Effect::RelMap { database, map } => {
                self.put_image(lsn, keyspace::rel_map(database.tablespace, database.database), map);
            }
            Effect::Slru(slru) => self.slru(lsn, slru),
            Effect::TwoPhasePrepare { xid, data } => {
                let mut file = Vec::with_capacity(data.len() + 4);
                file.extend_from_slice(&data);
                file.extend_from_slice(&crc32c::crc32c(&data).to_le_bytes());
                self.put_image(lsn, keyspace::two_phase(self.full_xid(xid).0), file.into());
            }
            Effect::TwoPhaseFinish { xid, .. } => {
                self.put_image(lsn, keyspace::two_phase(self.full_xid(xid).0), tombstone());
            }
            Effect::OriginDrop { origin } => {
                self.origins.insert(origin, Lsn::INVALID);
                self.put_image(lsn, keyspace::origin(origin), tombstone());
            }
            Effect::LogicalMapping { .. } => self.counts.effects_not_kept += 1,
            // Counters and settings: `ControlState` has them.
            Effect::CommitTime { .. }
            | Effect::Checkpoint { .. }
            | Effect::EndOfRecovery { .. }
            | Effect::NextOid(_)
            | Effect::NextXidPast(_)
            | Effect::NextMultiAtLeast { .. }
            | Effect::OldestXid { .. }
            | Effect::OldestMulti { .. }
            | Effect::OldestCommitTs { .. }
            | Effect::ParameterChange(_)
            | Effect::FullPageWrites(_)
            | Effect::RunningXacts { .. } => {}
        }
        Ok(None)
    }
}
