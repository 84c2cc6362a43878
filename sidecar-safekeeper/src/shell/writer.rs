//! A timeline's writer thread: performs disk commands in order and reports what is durable.
//!
//! Everything that waits is taken at once; writes that follow each other share one fdatasync (group commit), and of
//! several waiting control files only the last is written. A failed sync or write stops the timeline for good (trap
//! K12). A full disk does not: nothing is acknowledged, and the same command is tried until there is room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control;
use super::disk;
use super::queue::DiskOp;
use super::timeline::Timeline;
use super::wal::{StoreError, WalStore};
use crate::core::Event;

/// Pause between tries while the disk is full.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(250);

/// Why a batch was not performed to its end.
enum Stop {
    /// Final; the reason.
    Failed(String),
    /// The queue was closed while the disk was full.
    Closed,
}

/// The writer thread's whole life. Ends when the queue is closed and empty.
pub fn run(timeline: Arc<Timeline>, mut store: WalStore) {
    while let Some(batch) = timeline.queue.take() {
        match perform(&timeline, &mut store, batch) {
            Ok(()) => {}
            Err(Stop::Closed) => return,
            Err(Stop::Failed(reason)) => {
                tracing::error!(timeline = %timeline.id, %reason, "this copy acknowledges nothing any more");
                metrics::counter!("strata_safekeeper_disk_failures_total").increment(1);
                timeline.step(Event::DiskFailed { reason });
                timeline.queue.abandon();
                return;
            }
        }
    }
}

fn perform(timeline: &Timeline, store: &mut WalStore, mut batch: VecDeque<DiskOp>) -> Result<(), Stop> {
    let mut sync_is_due = false;
    while let Some(op) = batch.pop_front() {
        if sync_is_due && !matches!(op, DiskOp::Write { .. } | DiskOp::Sync) {
            sync(timeline, store)?;
            sync_is_due = false;
        }
        match op {
            DiskOp::Write { begin, wal } => {
                let written = while_full(timeline, || store.write(begin, &wal), StoreError::is_full);
                timeline.queue.written(wal.len());
                written?;
            }
            DiskOp::Sync => sync_is_due = true,
            DiskOp::Truncate { to } => {
                tracing::info!(timeline = %timeline.id, %to, from = %store.written(), "cutting the log");
                store.truncate(to).map_err(failed)?;
                timeline.step(Event::WalCut);
            }
            DiskOp::Reset { at } => {
                tracing::info!(timeline = %timeline.id, %at, "the log begins anew");
                store.reset(at).map_err(failed)?;
                timeline.step(Event::WalCut);
            }
            DiskOp::Persist { id, state } => {
                if matches!(batch.front(), Some(DiskOp::Persist { .. })) {
                    continue;
                }
                let (disk, dir) = (&timeline.folder.disk, &timeline.folder.path);
                let save = || control::save(&**disk, dir, timeline.id, &state);
                while_full(timeline, save, disk::is_full)?;
                timeline.step(Event::StatePersisted(id));
            }
            DiskOp::Remove { below } => match store.remove_below(below) {
                Ok(removed) => {
                    tracing::info!(timeline = %timeline.id, %below, segments = removed, "removed log")
                }
                // It costs room, no more; the next removal tries again.
                Err(error) => tracing::warn!(timeline = %timeline.id, %below, %error, "cannot remove log"),
            },
        }
    }
    if sync_is_due { sync(timeline, store) } else { Ok(()) }
}

fn sync(timeline: &Timeline, store: &mut WalStore) -> Result<(), Stop> {
    let started = Instant::now();
    let synced = store.sync().map_err(failed)?;
    timeline.metrics.sync_seconds.record(started.elapsed().as_secs_f64());
    timeline.step(Event::WalSynced { written: synced.written, flush: synced.flush });
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> Stop {
    Stop::Failed(error.to_string())
}

/// Tries for as long as the disk is full; says on the timeline that it is.
fn while_full<E: std::fmt::Display>(
    timeline: &Timeline,
    mut attempt: impl FnMut() -> Result<(), E>,
    is_full: impl Fn(&E) -> bool,
) -> Result<(), Stop> {
    loop {
        match attempt() {
            Ok(()) => {
                timeline.set_disk_full(None);
                return Ok(());
            }
            Err(error) if is_full(&error) => {
                timeline.set_disk_full(Some(format!("the disk is full: {error}")));
                if timeline.queue.pause(FULL_DISK_PAUSE) {
                    return Err(Stop::Closed);
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
}
