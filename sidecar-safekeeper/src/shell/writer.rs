//! A timeline's writer thread: performs disk commands in order and reports what is durable.
//!
//! Everything that waits is taken at once; writes that follow each other share one fdatasync (group commit), and of
//! several waiting control files only the last is written. A failed sync or write stops the timeline for good (trap
//! K12). A full disk does not: nothing is acknowledged, and the same command is tried until there is room. Nor does log that
//! is none: it is cut off, and its sender is told.

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
    let mut is_dropping = false;
    while let Some(batch) = timeline.queue.take() {
        match perform(&timeline, &mut store, batch, &mut is_dropping) {
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

/// `is_dropping`: log was rejected, and what was queued behind it before the acceptor heard of that may still come.
fn perform(
    timeline: &Timeline,
    store: &mut WalStore,
    mut batch: VecDeque<DiskOp>,
    is_dropping: &mut bool,
) -> Result<(), Stop> {
    let mut sync_is_due = false;
    while let Some(op) = batch.pop_front() {
        if sync_is_due && !matches!(op, DiskOp::Write { .. } | DiskOp::Sync) {
            sync(timeline, store)?;
            sync_is_due = false;
        }
        match op {
            // What followed rejected log lies above the end; the first write that the acceptor asks for afterwards is at it.
            DiskOp::Write { begin, wal } if *is_dropping && begin != store.written() => {
                timeline.queue.written(wal.len());
            }
            DiskOp::Write { begin, wal } => {
                let mut rejected = None;
                let attempt = || match store.write(begin, &wal) {
                    Err(error @ StoreError::Content { .. }) => {
                        rejected = Some(error);
                        Ok(())
                    }
                    other => other,
                };
                let written = while_full(timeline, attempt, StoreError::is_full);
                timeline.queue.written(wal.len());
                written?;
                *is_dropping = rejected.is_some();
                if let Some(error) = rejected {
                    reject(timeline, store, error)?;
                    sync_is_due = false;
                }
            }
            DiskOp::Sync => sync_is_due = true,
            DiskOp::Truncate { to, known } if !store.is_record_end(known, to).map_err(failed)? => {
                tracing::warn!(timeline = %timeline.id, %to, "not cut: a record does not end there");
                timeline.step(Event::CutRefused);
            }
            DiskOp::Truncate { to, .. } => {
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

/// Cuts off what is no log and says so: a later proposer, or the same one, may send what is.
fn reject(timeline: &Timeline, store: &mut WalStore, error: StoreError) -> Result<(), Stop> {
    let StoreError::Content { end, .. } = error else { return Err(failed(error)) };
    store.truncate(end).map_err(failed)?;
    metrics::counter!("strata_safekeeper_rejected_log_total").increment(1);
    timeline.step(Event::WalRejected { end, reason: error.to_string() });
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
