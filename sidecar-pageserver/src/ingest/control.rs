//! The counters and settings that a compute starts from, as of the last record: struct CheckPoint, `pg_control`, and where
//! the last record lies (S6, S3, G16).
//!
//! Recovery's rules: `xlog_redo` in `src/backend/access/transam/xlog.c`, `ApplyWalRecord` in `xlogrecovery.c`. Pure.

use bytes::Bytes;
use strata_common::{Lsn, Term};
use strata_pgwal::checkpoint::CHECKPOINT_BYTES;
use strata_pgwal::fullxid::{multixact_precedes, xid_precedes};
use strata_pgwal::{CheckPoint, ControlFile, FullTransactionId};
use strata_redo::effect::{CheckpointKind, Effect, ParameterChange};

use crate::keyspace::values::{BadValue, MARK_BYTES, Mark};

/// From 1970-01-01 to 2000-01-01, Postgres's epoch, microseconds (`src/include/datatype/timestamp.h`).
pub const POSTGRES_EPOCH_UNIX_MICROS: i64 = 946_684_800_000_000;

/// Version 1 had no term.
const STATE_VERSION: u8 = 2;

/// What of `pg_control` is not padding (`sizeof(ControlFileData)`).
const CONTROL_BYTES: usize = 296;

/// What of the control state a record changed, beyond the counters that every mark holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    pub checkpoint: bool,
    pub control_file: bool,
    /// The record is one that a branch may begin after without reading more log: it gets a mark.
    pub mark: bool,
}

/// The state as of `lsn`, the end of the last record.
#[derive(Clone, PartialEq, Debug)]
pub struct ControlState {
    pub lsn: Lsn,
    pub checkpoint: CheckPoint,
    pub control_file: ControlFile,
    pub mark: Mark,
    /// No log up to here is of a later term; computes of earlier ones have been beaten (SK-2). Of this timeline alone: a branch begins anew.
    pub log_term: Term,
}

impl ControlState {
    /// State as stored: `checkpoint` may be older than `mark`, whose counters win.
    pub fn from_stored(
        lsn: Lsn,
        checkpoint: CheckPoint,
        control_file: ControlFile,
        mark: Mark,
    ) -> ControlState {
        let checkpoint = CheckPoint {
            next_xid: FullTransactionId(mark.next_xid),
            next_oid: mark.next_oid,
            next_multi: mark.next_multi,
            next_multi_offset: mark.next_multi_offset,
            newest_commit_ts_xid: mark.newest_commit_ts_xid,
            ..checkpoint
        };
        ControlState { lsn, checkpoint, control_file, mark, log_term: Term::ZERO }
    }

    /// For storage, which gives it back where the log is read on from.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![STATE_VERSION];
        out.extend_from_slice(&self.lsn.0.to_le_bytes());
        out.extend_from_slice(&self.log_term.0.to_le_bytes());
        out.extend_from_slice(&self.mark.encode());
        out.extend_from_slice(&self.checkpoint.encode());
        out.extend_from_slice(&self.control_file_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<ControlState, BadValue> {
        let bad = || BadValue { what: "control state", length: bytes.len() };
        let (version, rest) = bytes.split_first().ok_or_else(bad)?;
        let (lsn, rest) = rest.split_first_chunk::<8>().ok_or_else(bad)?;
        let (term, rest) = match version {
            1 => (&[0; 8], rest),
            _ => rest.split_first_chunk::<8>().ok_or_else(bad)?,
        };
        let (mark, rest) = rest.split_first_chunk::<MARK_BYTES>().ok_or_else(bad)?;
        let (checkpoint, control_file) = rest.split_first_chunk::<CHECKPOINT_BYTES>().ok_or_else(bad)?;
        if !(1..=STATE_VERSION).contains(version) || control_file.len() != CONTROL_BYTES {
            return Err(bad());
        }
        Ok(ControlState {
            lsn: Lsn(u64::from_le_bytes(*lsn)),
            log_term: Term(u64::from_le_bytes(*term)),
            mark: Mark::decode(mark)?,
            checkpoint: CheckPoint::parse(checkpoint).map_err(|_| bad())?,
            control_file: ControlFile::parse(control_file).map_err(|_| bad())?,
        })
    }

    /// The record's own transaction id pushes the next one; called before its effects.
    pub fn see_xid(&mut self, xid: u32) {
        self.checkpoint.next_xid = self.checkpoint.next_xid.advanced_past(xid);
    }

    /// The record from `start` to `end` is done; `prev` is its link back.
    pub fn finish_record(&mut self, start: Lsn, end: Lsn, prev: Lsn, shutdown_checkpoint: bool) {
        self.lsn = end;
        self.mark = Mark {
            record_lsn: start,
            prev_record_lsn: prev,
            shutdown_checkpoint,
            latest_commit_unix_micros: self.mark.latest_commit_unix_micros,
            next_xid: self.checkpoint.next_xid.0,
            next_oid: self.checkpoint.next_oid,
            next_multi: self.checkpoint.next_multi,
            next_multi_offset: self.checkpoint.next_multi_offset,
            newest_commit_ts_xid: self.checkpoint.newest_commit_ts_xid,
        };
    }

    /// Whether `apply` may change anything: what nearly every record does is none of its business.
    pub fn is_concerned_by(effect: &Effect) -> bool {
        !matches!(effect, Effect::Page { .. } | Effect::ClearVmBits { .. } | Effect::Slru(_))
    }

    /// Applies what of `effect` concerns the control state; other effects change nothing here.
    pub fn apply(&mut self, effect: &Effect) -> Changed {
        let before = self.checkpoint;
        let mut changed = Changed::default();
        match effect {
            Effect::Checkpoint { kind, checkpoint } => {
                match kind {
                    CheckpointKind::Shutdown => self.shutdown_checkpoint(checkpoint),
                    CheckpointKind::Online => self.online_checkpoint(checkpoint),
                }
                changed.mark = true;
                changed.checkpoint = true;
            }
            Effect::EndOfRecovery { .. } | Effect::TwoPhasePrepare { .. } | Effect::TwoPhaseFinish { .. } => {
                changed.mark = true;
            }
            Effect::CommitTime { xid, micros, committed } => {
                let unix_micros = micros.saturating_add(POSTGRES_EPOCH_UNIX_MICROS);
                self.mark.latest_commit_unix_micros = self.mark.latest_commit_unix_micros.max(unix_micros);
                if let Some(newest) = committed {
                    self.commit_ts(*xid, *newest);
                }
                changed.mark = true;
            }
            Effect::NextOid(oid) => self.checkpoint.next_oid = *oid,
            Effect::NextXidPast(xid) => self.see_xid(*xid),
            Effect::RunningXacts { next_xid, .. } => self.see_xid(next_xid.wrapping_sub(1)),
            Effect::NextMultiAtLeast { multi, offset } => self.next_multi_at_least(*multi, *offset),
            Effect::OldestXid { xid, database } => {
                self.checkpoint.oldest_xid = *xid;
                self.checkpoint.oldest_xid_db = *database;
            }
            Effect::OldestMulti { multi, database } => self.oldest_multi(*multi, *database),
            Effect::OldestCommitTs { xid } => {
                if *xid == 0 {
                    self.checkpoint.newest_commit_ts_xid = 0;
                }
                if *xid == 0 || xid_precedes(self.checkpoint.oldest_commit_ts_xid, *xid) {
                    self.checkpoint.oldest_commit_ts_xid = *xid;
                }
            }
            Effect::FullPageWrites(on) => self.checkpoint.full_page_writes = *on,
            Effect::ParameterChange(parameters) => {
                self.parameters(parameters);
                changed.control_file = true;
            }
            _ => {}
        }
        changed.checkpoint |= rarely_changing(&before) != rarely_changing(&self.checkpoint);
        changed
    }

    fn shutdown_checkpoint(&mut self, record: &CheckPoint) {
        self.checkpoint = *record;
    }

    fn online_checkpoint(&mut self, record: &CheckPoint) {
        let own = &mut self.checkpoint;
        // nextOid of an online checkpoint may be stale; NEXTOID records are exact.
        own.next_xid = own.next_xid.max(record.next_xid);
        if xid_precedes(own.oldest_xid, record.oldest_xid) {
            own.oldest_xid = record.oldest_xid;
            own.oldest_xid_db = record.oldest_xid_db;
        }
        own.redo = record.redo;
        own.time = record.time;
        own.wal_level = record.wal_level;
        own.full_page_writes = record.full_page_writes;
        own.oldest_active_xid = record.oldest_active_xid;
        own.oldest_commit_ts_xid = record.oldest_commit_ts_xid;
        own.newest_commit_ts_xid = record.newest_commit_ts_xid;
        self.next_multi_at_least(record.next_multi, record.next_multi_offset);
        self.oldest_multi(record.oldest_multi, record.oldest_multi_db);
    }

    /// `MultiXactAdvanceNextMXact`.
    fn next_multi_at_least(&mut self, multi: u32, offset: u32) {
        if multixact_precedes(self.checkpoint.next_multi, multi) {
            self.checkpoint.next_multi = multi;
        }
        if multixact_precedes(self.checkpoint.next_multi_offset, offset) {
            self.checkpoint.next_multi_offset = offset;
        }
    }

    /// `MultiXactAdvanceOldest`.
    fn oldest_multi(&mut self, multi: u32, database: u32) {
        if multixact_precedes(self.checkpoint.oldest_multi, multi) {
            self.checkpoint.oldest_multi = multi;
            self.checkpoint.oldest_multi_db = database;
        }
    }

    /// `TransactionTreeSetCommitTsData` in `commit_ts.c`.
    fn commit_ts(&mut self, xid: u32, newest: u32) {
        if self.control_file.settings.track_commit_timestamp {
            if xid_precedes(self.checkpoint.newest_commit_ts_xid, newest) {
                self.checkpoint.newest_commit_ts_xid = newest;
            }
            if self.checkpoint.oldest_commit_ts_xid == 0 {
                self.checkpoint.oldest_commit_ts_xid = xid;
            }
        }
    }

    /// Commit timestamps begin or end with the setting (`ActivateCommitTs`, `DeactivateCommitTs` in `commit_ts.c`).
    fn parameters(&mut self, parameters: &ParameterChange) {
        let settings = &mut self.control_file.settings;
        let tracked = settings.track_commit_timestamp;
        settings.max_connections = parameters.max_connections;
        settings.max_worker_processes = parameters.max_worker_processes;
        settings.max_wal_senders = parameters.max_wal_senders;
        settings.max_prepared_xacts = parameters.max_prepared_xacts;
        settings.max_locks_per_xact = parameters.max_locks_per_xact;
        settings.wal_level = parameters.wal_level;
        settings.wal_log_hints = parameters.wal_log_hints;
        settings.track_commit_timestamp = parameters.track_commit_timestamp;
        self.checkpoint.wal_level = parameters.wal_level;
        if tracked == parameters.track_commit_timestamp {
            return;
        }
        let first = if parameters.track_commit_timestamp { self.checkpoint.next_xid.xid() } else { 0 };
        self.checkpoint.oldest_commit_ts_xid = first;
        self.checkpoint.newest_commit_ts_xid = first;
    }

    /// `pg_control` with the settings and counters as of here. It still says what state the server was in when it was
    /// imported; a base backup makes it "shut down".
    pub fn control_file_bytes(&self) -> Bytes {
        Bytes::from(ControlFile { checkpoint_copy: self.checkpoint, ..self.control_file }.encode())
            .slice(..CONTROL_BYTES)
    }
}

/// The parts of a checkpoint that marks do not hold.
fn rarely_changing(checkpoint: &CheckPoint) -> CheckPoint {
    CheckPoint {
        next_xid: FullTransactionId(0),
        next_oid: 0,
        next_multi: 0,
        next_multi_offset: 0,
        newest_commit_ts_xid: 0,
        ..*checkpoint
    }
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
