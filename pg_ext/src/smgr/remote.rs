//! Asking the pageserver and waiting for its answer (traps P1, P7, P10).
//!
//! The request goes into this process's slot, the communicator is rung, and the process sleeps on the slot's word (a futex: a
//! signal ends the sleep at once). While it sleeps, cancel and terminate work even with LWLocks held, where Postgres itself
//! would look away: nothing here is inside a critical section then, and an error may be raised wherever a disk read may fail.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::{PgLogLevel, ereport};
use strata_common::Lsn;
use strata_smgr::slots::{Ask, Outcome, Request, Slot};

use super::{log_position, state};

/// A sleep ends at a signal; this bounds the one that came between the look at the flags and the sleep.
const SLEEP_MS: i64 = 50;

/// Asks and waits; raises an ERROR if the pageserver refuses. `targets` gets one page each.
pub fn ask(ask: Ask, not_modified_since: Lsn, targets: &[u64]) -> u64 {
    log_position::flush_to(not_modified_since);
    let (slot, _) = state::my_slot();
    give_up(slot);
    let request = Request { ask, not_modified_since };
    let begun = Instant::now();
    slot.submit(&request, targets);
    ring();
    let outcome = wait(slot, &request, targets);
    let blocks = if let Ask::Pages { count, .. } = ask { count } else { 0 };
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    state::stats()[ask.kind()].record(blocks, micros, matches!(outcome, Outcome::Refused(_)));
    match outcome {
        Outcome::Value(value) => value,
        Outcome::Refused(why) => refused(&request, &why),
    }
}

fn refused(request: &Request, why: &str) -> ! {
    let what = match request.ask {
        Ask::Pages { rel, first, count } => {
            format!("could not read blocks {first}..{} of {rel}", first.0 + (count - 1))
        }
        Ask::RelSize(rel) => format!("could not get the size of {rel}"),
        Ask::RelExists(rel) => format!("could not look for {rel}"),
        Ask::DatabaseSize { database, .. } => format!("could not get the size of database {database}"),
    };
    let lsn = request.not_modified_since;
    ereport!(
        PgLogLevel::ERROR,
        PgSqlErrorCode::ERRCODE_IO_ERROR,
        format!("{what}: the pageserver says: {why} (log needed up to {lsn})")
    );
    unreachable!("an ERROR does not return")
}

/// Wakes the communicator.
fn ring() {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight bytes to an eventfd. It fails only when the counter is full, and then the communicator is awake.
    unsafe { libc::write(state::doorbell(), one.as_ptr().cast(), one.len()) };
}

fn wait(slot: &Slot, request: &Request, targets: &[u64]) -> Outcome {
    let _event = WaitEvent::begin();
    loop {
        let (word, seen) = slot.answers();
        if let Some(outcome) = slot.collect() {
            return outcome;
        }
        sleep_on(word, seen);
        if interrupt_wanted() {
            give_up(slot);
            raise_interrupt();
            // Not raised after all (a cancel that nobody waits for any more): ask again.
            slot.submit(request, targets);
            ring();
        }
    }
}

/// Leaves the slot idle. An answer that is being written just now is waited for: it goes into memory that is still ours (P7).
fn give_up(slot: &Slot) {
    while !slot.abandon() {
        std::thread::yield_now();
    }
}

fn sleep_on(word: &AtomicU32, seen: u32) {
    let timeout = libc::timespec { tv_sec: 0, tv_nsec: SLEEP_MS * 1_000_000 };
    // SAFETY: a futex in memory that all processes share; it returns at once if the word has changed.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, &timeout, 0, 0);
        if libc::getppid() != pg_sys::PostmasterPid {
            // Without a postmaster nobody needs this process, and nothing can be cleaned up (S17).
            libc::_exit(1);
        }
    }
}

/// Wakes the process that sleeps on `word`; called by the communicator.
pub fn wake(word: &AtomicU32) {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX, 0, 0, 0) };
}

/// Whether this process was asked to give up what it does and may.
fn interrupt_wanted() -> bool {
    // SAFETY: plain variables of this process, written by its signal handlers (globals.c).
    unsafe {
        pg_sys::InterruptPending != 0
            && (pg_sys::ProcDiePending != 0 || pg_sys::QueryCancelPending != 0)
            && pg_sys::CritSectionCount == 0
            && !pg_sys::proc_exit_inprogress
    }
}

/// Raises the pending cancel or terminate. Returns if the server decides against it.
fn raise_interrupt() {
    // SAFETY: as above; ProcessInterrupts may be called outside critical sections.
    unsafe {
        if pg_sys::InterruptHoldoffCount == 0 && pg_sys::QueryCancelHoldoffCount == 0 {
            pg_sys::ProcessInterrupts();
            return;
        }
        // P10: LWLocks are held. While a transaction ends, an error would be worse than the wait.
        if !pg_sys::IsTransactionState() {
            return;
        }
        if pg_sys::ProcDiePending != 0 {
            ereport!(
                PgLogLevel::FATAL,
                PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN,
                "terminating connection due to administrator command"
            );
        }
        if pg_sys::QueryCancelPending != 0 && pg_sys::QueryCancelHoldoffCount == 0 {
            pg_sys::QueryCancelPending = 0;
            ereport!(
                PgLogLevel::ERROR,
                PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                "canceling statement while waiting for a page"
            );
        }
    }
}

/// Shows the wait in `pg_stat_activity`; an unwinding ends it too.
struct WaitEvent;

impl WaitEvent {
    fn begin() -> WaitEvent {
        // SAFETY: the variable points at this process's entry, or at a local one before there is any (wait_event.c).
        unsafe { *pg_sys::my_wait_event_info = state::WAIT_EVENT.load(Ordering::Relaxed) };
        WaitEvent
    }
}

impl Drop for WaitEvent {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { *pg_sys::my_wait_event_info = 0 };
    }
}
