//! The log's own records: full-page images, checkpoints, counters, settings.
//!
//! Postgres: `xlog_redo` in `src/backend/access/transam/xlog.c`. FPI and FPI_FOR_HINT hold up to 32 blocks. A FOR_HINT record
//! may hold none, if it was made with full_page_writes off: then there is nothing to do.

use strata_pgwal::CheckPoint;
use strata_pgwal::DecodedRecord;
use strata_pgwal::rmgr::xlog_info;

use super::{page_id, restored};
use crate::effect::{CheckpointKind, Effect, ParameterChange, SlruEffect};
use crate::error::{EffectError, Fault};
use crate::slru::{PAGES_PER_SEGMENT, SlruKind};
use crate::wire::{Parts, u8_at, u32_at};

/// What a record of the log itself does.
pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let info = record.rmgr_info();
    let cut_short = |_: Fault| EffectError::malformed(record, "main data is cut short");
    match info {
        xlog_info::FPI | xlog_info::FPI_FOR_HINT => images(record, out)?,
        xlog_info::CHECKPOINT_SHUTDOWN => out.push(checkpoint(record, CheckpointKind::Shutdown)?),
        xlog_info::CHECKPOINT_ONLINE => out.push(checkpoint(record, CheckpointKind::Online)?),
        xlog_info::NEXTOID => {
            out.push(Effect::NextOid(u32_at(&record.main_data, 0, "nextoid").map_err(cut_short)?));
        }
        xlog_info::PARAMETER_CHANGE => {
            parameter_change(parameters(&record.main_data).map_err(cut_short)?, out);
        }
        xlog_info::FPW_CHANGE => {
            let on = u8_at(&record.main_data, 0, "full_page_writes").map_err(cut_short)? != 0;
            out.push(Effect::FullPageWrites(on));
        }
        xlog_info::END_OF_RECOVERY => {
            out.push(end_of_recovery(&record.main_data).map_err(cut_short)?);
        }
        xlog_info::NOOP
        | xlog_info::SWITCH
        | xlog_info::BACKUP_END
        | xlog_info::RESTORE_POINT
        | xlog_info::OVERWRITE_CONTRECORD
        | xlog_info::CHECKPOINT_REDO => {}
        _ => return Err(EffectError::unknown(record.rmid, info)),
    }
    Ok(())
}

fn images(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    for block in &record.blocks {
        match restored(record, block)? {
            Some(value) => out.push(Effect::Page { page: page_id(block), value }),
            None if record.rmgr_info() == xlog_info::FPI_FOR_HINT => {}
            None => return Err(EffectError::malformed(record, "a block reference without an image")),
        }
    }
    Ok(())
}

fn checkpoint(record: &DecodedRecord, kind: CheckpointKind) -> Result<Effect, EffectError> {
    match CheckPoint::parse(&record.main_data) {
        Ok(checkpoint) => Ok(Effect::Checkpoint { kind, checkpoint }),
        Err(_) => Err(EffectError::malformed(record, "checkpoint is cut short")),
    }
}

/// Without commit timestamps all that there were go (`DeactivateCommitTs` in `src/backend/access/transam/commit_ts.c`).
fn parameter_change(parameters: ParameterChange, out: &mut Vec<Effect>) {
    out.push(Effect::ParameterChange(parameters));
    if !parameters.track_commit_timestamp {
        let kind = SlruKind::CommitTs;
        let to_segment = kind.last_page() / PAGES_PER_SEGMENT + 1;
        out.push(Effect::OldestCommitTs { xid: 0 });
        out.push(Effect::Slru(SlruEffect::DropSegments { kind, from_segment: 0, to_segment }));
    }
}

/// `xl_parameter_change`.
fn parameters(main: &[u8]) -> Result<ParameterChange, Fault> {
    let mut parts = Parts::new(main, "xl_parameter_change");
    let mut number = || parts.u32().map(|value| value as i32);
    Ok(ParameterChange {
        max_connections: number()?,
        max_worker_processes: number()?,
        max_wal_senders: number()?,
        max_prepared_xacts: number()?,
        max_locks_per_xact: number()?,
        wal_level: number()?,
        wal_log_hints: parts.u8()? != 0,
        track_commit_timestamp: parts.u8()? != 0,
    })
}

/// `xl_end_of_recovery`.
fn end_of_recovery(main: &[u8]) -> Result<Effect, Fault> {
    let mut parts = Parts::new(main, "xl_end_of_recovery");
    let micros = parts.i64()?;
    let this_timeline = parts.u32()?;
    let previous_timeline = parts.u32()?;
    Ok(Effect::EndOfRecovery { this_timeline, previous_timeline, micros })
}

#[cfg(test)]
#[path = "xlog_test.rs"]
mod tests;
