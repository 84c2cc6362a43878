//! Writers pause while the pageserver is far behind the log (`strata.max_pageserver_lag`): as relations grow, and before a commit of what
//! was written. Both are places where an error may be raised. Whoever lets a relation grow holds the lock that others need to do the same, so
//! that pause is a short one; a server without patches has no better place.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::prelude::*;
use strata_smgr::backpressure;

use super::shared;
use crate::workers;

static MAX_LAG: GucSetting<i32> = GucSetting::<i32>::new(1024);
static WAIT_EVENT: AtomicU32 = AtomicU32::new(pg_sys::PG_WAIT_EXTENSION);

thread_local! {
    /// Blocks by which relations have grown here since the last look.
    static GROWN: Cell<u32> = const { Cell::new(0) };
}

/// How often a writer that pauses looks whether it still has to.
const LOOK_MS: i64 = 5;

pub fn register() {
    GucRegistry::define_int_guc(
        c"strata.max_pageserver_lag",
        c"Log that the pageserver may be behind before writers are slowed down; 0: any amount.",
        c"Each commit pauses for up to 100 ms then, a relation that grows for up to 20 ms in half a megabyte. Nobody is stopped.",
        &MAX_LAG,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
}

/// From `shmem_startup_hook`, with AddinShmemInitLock held.
pub fn attach() {
    // SAFETY: a name that ends with 0, which the server copies into its table.
    let event = unsafe { pg_sys::WaitEventExtensionNew(c"StrataBackpressure".as_ptr()) };
    WAIT_EVENT.store(event, Ordering::Release);
}

fn limit_bytes() -> u64 {
    u64::try_from(MAX_LAG.get()).unwrap_or(0) << 20
}

/// Bytes of flushed log that the pageserver has not; `None` while it has not said what it has. What is not flushed cannot be sent: to
/// wait for it would be to wait for oneself.
fn lag_bytes() -> Option<u64> {
    let received = shared::get()?.pageserver_received_lsn.load(Ordering::Relaxed);
    // SAFETY: reads shared memory; no timeline is wanted.
    let flushed = unsafe { pg_sys::GetFlushRecPtr(std::ptr::null_mut()) };
    (received != 0).then(|| flushed.saturating_sub(received))
}

/// The pause that is due now, `longest` at most.
fn pause_due(longest: Duration) -> Duration {
    lag_bytes().map_or(Duration::ZERO, |lag| backpressure::pause(lag, limit_bytes(), longest))
}

/// Before a commit of what was written. Can be cancelled.
pub fn before_commit() {
    pause(backpressure::COMMIT_MAX);
}

/// Before a relation grows, of which `is_logged` says whether that is logged. Can be cancelled.
pub fn before_growth(blocks: u32, is_logged: impl FnOnce() -> bool) {
    let grown = GROWN.get().saturating_add(blocks);
    let looks = grown >= backpressure::GROWTH_BLOCKS;
    GROWN.set(if looks { 0 } else { grown });
    if looks && !pause_due(backpressure::GROWTH_MAX).is_zero() && is_logged() {
        pause(backpressure::GROWTH_MAX);
    }
}

fn pause(longest: Duration) {
    let due = pause_due(longest);
    if due.is_zero() || !may_pause() {
        return;
    }
    let begun = Instant::now();
    while let Some(left) = due.checked_sub(begun.elapsed())
        && !left.is_zero()
        && !pause_due(longest).is_zero()
    {
        // A nap is of whole milliseconds.
        let millis = i64::try_from(left.as_millis()).unwrap_or(LOOK_MS).clamp(1, LOOK_MS);
        workers::nap_for(millis, WAIT_EVENT.load(Ordering::Relaxed));
        pgrx::check_for_interrupts!();
    }
    if let Some(shared) = shared::get() {
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.pauses.fetch_add(1, Ordering::Relaxed);
        shared.paused_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// Sessions and their parallel workers, where nothing is held that others wait for: who holds an LWLock holds interrupts off.
fn may_pause() -> bool {
    // SAFETY: plain variables of this process (globals.c, miscinit.c, parallel.c).
    unsafe {
        let session =
            pg_sys::MyBackendType == pg_sys::BackendType::B_BACKEND || pg_sys::ParallelWorkerNumber >= 0;
        session
            && pg_sys::IsTransactionState()
            && pg_sys::CritSectionCount == 0
            && pg_sys::InterruptHoldoffCount == 0
            && pg_sys::QueryCancelHoldoffCount == 0
    }
}

/// The limit (null: none), the lag behind it (null: not known), and what it has cost writers since the server's start.
#[pg_extern]
#[allow(clippy::type_complexity, reason = "the columns of a row")]
fn strata_backpressure() -> TableIterator<
    'static,
    (
        name!(limit_bytes, Option<i64>),
        name!(lag_bytes, Option<i64>),
        name!(pauses, i64),
        name!(paused_us, i64),
    ),
> {
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let of = |place: fn(&shared::Shared) -> &std::sync::atomic::AtomicU64| {
        shared::get().map_or(0, |shared| count(place(shared).load(Ordering::Relaxed)))
    };
    TableIterator::once((
        Some(limit_bytes()).filter(|limit| *limit != 0).map(count),
        lag_bytes().map(count),
        of(|shared| &shared.pauses),
        of(|shared| &shared.paused_micros),
    ))
}
