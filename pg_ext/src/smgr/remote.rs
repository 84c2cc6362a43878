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
use strata_common::{Guard, Lsn};
use strata_smgr::interrupt::{Interrupt, State};
use strata_smgr::slots::{Ask, Outcome, Request, Slot};

use super::{log_position, settings, state};
use crate::prefetch;

/// A sleep ends at a signal; this bounds the one that came between the look at the flags and the sleep.
const SLEEP_NANOS: i64 = 50_000_000;

/// Asks and waits; raises an ERROR if the pageserver refuses. `targets` gets one page each.
pub fn ask(ask: Ask, not_modified_since: Lsn, targets: &[u64]) -> u64 {
    let request = Request { ask, not_modified_since };
    match submit_and_wait(&request, targets, || false) {
        Some(Outcome::Value(value)) => value,
        Some(Outcome::Refused(why)) => refused(&request, &why),
        None => unreachable!("only a caller that wants to stop goes without an answer"),
    }
}

/// Asks for a number that the caller can do without; `None` if the pageserver refuses, or `stop` says so while there is no answer.
pub fn ask_unless(stop: fn() -> bool, ask: Ask, not_modified_since: Lsn) -> Option<u64> {
    match submit_and_wait(&Request { ask, not_modified_since }, &[], stop)? {
        Outcome::Value(value) => Some(value),
        Outcome::Refused(_) => None,
    }
}

fn submit_and_wait(request: &Request, targets: &[u64], stop: fn() -> bool) -> Option<Outcome> {
    log_position::flush_to(request.not_modified_since);
    let number = state::my_slot();
    give_up(slot(number));
    let begun = Instant::now();
    state::slots().submit(number, request, targets);
    ring();
    let outcome = wait(number, request, targets, stop)?;
    let blocks = if let Ask::Pages { count, .. } = request.ask { count } else { 0 };
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    state::stats()[request.ask.kind()].record(blocks, micros, matches!(outcome, Outcome::Refused(_)));
    Some(outcome)
}

fn slot(number: usize) -> &'static Slot {
    state::slots().get(number).expect("every process has a slot")
}

fn refused(request: &Request, why: &str) -> ! {
    let what = match request.ask {
        Ask::Pages { rel, first, count } => {
            format!("could not read blocks {first}..{} of {rel}", first.0 + (count - 1))
        }
        Ask::RelSize(rel) => format!("could not get the size of {rel}"),
        Ask::RelExists(rel) => format!("could not look for {rel}"),
        Ask::TablespaceUsed { tablespace } => format!("could not look into tablespace {tablespace}"),
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
pub fn ring() {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight bytes to an eventfd. It fails only when the counter is full, and then the communicator is awake.
    unsafe { libc::write(state::doorbell(), one.as_ptr().cast(), one.len()) };
}

fn wait(number: usize, request: &Request, targets: &[u64], stop: fn() -> bool) -> Option<Outcome> {
    let _event = WaitEvent::begin(&state::WAIT_EVENT);
    let slot = slot(number);
    let mut slept = Slept::UntilWoken;
    loop {
        match slot.look() {
            Ok(outcome) => {
                slept.check(slot);
                return Some(outcome);
            }
            Err((word, seen)) => slept = sleep_on(word, seen),
        }
        if stop() {
            give_up(slot);
            return None;
        }
        let interrupt = interrupts().decide();
        if interrupt != Interrupt::Wait {
            give_up(slot);
            raise(interrupt);
            // Not raised after all (a cancel that nobody waits for any more), and it does not pend any longer: ask again.
            state::slots().submit(number, request, targets);
            ring();
        }
    }
}

/// Sleeps until the word changes, or for a moment. Cancel and terminate work, and leave the request as it is: it is the transaction's.
pub fn sleep_until_prefetched(word: &AtomicU32, seen: u32) -> Slept {
    let _event = WaitEvent::begin(&prefetch::memory::WAIT_EVENT);
    let slept = sleep_on(word, seen);
    raise(interrupts().decide());
    slept
}

/// How a sleep ended.
#[derive(Clone, Copy)]
pub enum Slept {
    /// By a wake-up or a signal, or it did not begin.
    UntilWoken,
    /// By nobody, until this moment of the monotonic clock, in nanoseconds.
    Until(u64),
}

impl Slept {
    /// After an answer: whether it had been there, and its owner woken for it, while it slept on. Counted, for the answer is as good as any.
    pub fn check(self, slot: &Slot) {
        if let Slept::Until(nanos) = self
            && slot.was_woken_before(nanos)
        {
            state::lost_wakeups().fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the structure; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Leaves the slot idle. An answer that is being written just now is waited for, asleep if it takes long: it goes into memory that is
/// still ours (P7). If the communicator has ended in the middle of it, its successor puts the slot back (`Slot::recover`).
fn give_up(slot: &Slot) {
    slot.abandon_at_last(|word, seen| {
        sleep_on(word, seen);
    });
}

fn sleep_on(word: &AtomicU32, seen: u32) -> Slept {
    let timeout = libc::timespec { tv_sec: 0, tv_nsec: SLEEP_NANOS };
    // The sleep lasts at least until then if nobody ends it.
    let until = monotonic_nanos() + SLEEP_NANOS as u64;
    // SAFETY: a futex in memory that all processes share; it returns at once if the word has changed.
    unsafe {
        let ended = libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, &timeout, 0, 0);
        let nobody_did = ended == -1 && *libc::__errno_location() == libc::ETIMEDOUT;
        if libc::getppid() != pg_sys::PostmasterPid {
            // Without a postmaster nobody needs this process, and nothing can be cleaned up (S17).
            libc::_exit(1);
        }
        if nobody_did { Slept::Until(until) } else { Slept::UntilWoken }
    }
}

/// Wakes the process that sleeps on `word`; called by the communicator. When it was done, in nanoseconds of the monotonic clock.
pub fn wake(word: &AtomicU32) -> u64 {
    // Without the guard one in sixteen is forgotten.
    if Guard::OwnersWoken.holds() || !word.load(Ordering::Relaxed).is_multiple_of(16) {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX, 0, 0, 0) };
    }
    monotonic_nanos()
}

/// What this process is asked to do, and where it stands.
fn interrupts() -> State {
    // SAFETY: plain variables of this process, some written by its signal handlers (globals.c).
    unsafe {
        let pending = pg_sys::InterruptPending != 0;
        State {
            terminate_pending: pending && pg_sys::ProcDiePending != 0,
            cancel_pending: pending && pg_sys::QueryCancelPending != 0,
            must_finish: pg_sys::CritSectionCount > 0 || pg_sys::proc_exit_inprogress,
            held_off: pg_sys::InterruptHoldoffCount > 0,
            cancel_held_off: pg_sys::QueryCancelHoldoffCount > 0,
            in_transaction: pg_sys::IsTransactionState(),
        }
    }
}

/// Whether this process may wait for the pageserver for the sake of the table alone: not where an error would stop the server,
/// nor in a process that must go on when the communicator is gone (the shutdown checkpoint).
pub fn may_ask() -> bool {
    let State { must_finish, in_transaction, .. } = interrupts();
    settings::mode() == settings::Mode::Remote && !must_finish && in_transaction
}

fn raise(interrupt: Interrupt) {
    match interrupt {
        Interrupt::Wait => {}
        // SAFETY: ProcessInterrupts may be called outside critical sections.
        Interrupt::Process => unsafe { pg_sys::ProcessInterrupts() },
        Interrupt::Terminate => ereport!(
            PgLogLevel::FATAL,
            PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN,
            "terminating connection due to administrator command"
        ),
        Interrupt::Cancel => {
            // SAFETY: the request is being served.
            unsafe { pg_sys::QueryCancelPending = 0 };
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
    fn begin(event: &AtomicU32) -> WaitEvent {
        // SAFETY: the variable points at this process's entry, or at a local one before there is any (wait_event.c).
        unsafe { *pg_sys::my_wait_event_info = event.load(Ordering::Relaxed) };
        WaitEvent
    }
}

impl Drop for WaitEvent {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { *pg_sys::my_wait_event_info = 0 };
    }
}
