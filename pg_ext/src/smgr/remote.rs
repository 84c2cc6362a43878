//! Asking the pageserver and waiting for its answer (traps P1, P7, P10).
//!
//! The request goes into this process's slot, the communicator is rung, and the process sleeps on the slot's word (a futex: a
//! signal ends the sleep at once). While answers are quick it spins for a moment before that (`strata_smgr::spin`), and looks for
//! interrupts in between. While it sleeps, cancel and terminate work even with LWLocks held, where Postgres itself would look away:
//! nothing here is inside a critical section then, and an error may be raised wherever a disk read may fail.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::LocalKey;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::{PgLogLevel, ereport};
use strata_common::{Guard, Lsn};
use strata_smgr::interrupt::{Interrupt, State};
use strata_smgr::slots::{Ask, Outcome, Request, Slot};
use strata_smgr::spin::{self, Came, Spin};

use super::{log_position, settings, state};
use crate::prefetch;
use crate::wait_event::WaitEvent;

/// A sleep ends at a signal; this bounds the one that came between the look at the flags and the sleep.
const SLEEP_NANOS: i64 = 50_000_000;

thread_local! {
    /// Of answers that are waited for from their request on.
    static ASKED: Cell<Spin> = const { Cell::new(Spin::NEW) };
    /// Of the rest of the wait for pages that were asked for ahead.
    static ASKED_AHEAD: Cell<Spin> = const { Cell::new(Spin::NEW) };
}

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
    let mut wait = Wait::begin(&ASKED);
    loop {
        match slot.look() {
            Ok(outcome) => {
                wait.answered(slot);
                return Some(outcome);
            }
            Err((word, seen)) => wait.pass(word, seen),
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

/// Lets time pass until the word changes, or a moment. Cancel and terminate work, and leave the request as it is: it is the transaction's.
pub fn wait_for_prefetched(wait: &mut Wait, word: &AtomicU32, seen: u32) {
    let _event = WaitEvent::begin(&prefetch::memory::WAIT_EVENT);
    wait.pass(word, seen);
    raise(interrupts().decide());
}

/// A wait for one answer.
pub struct Wait {
    learned: &'static LocalKey<Cell<Spin>>,
    limit: Duration,
    begun: Instant,
    /// Whether spinning is tried yet.
    may_spin: bool,
    last: Pass,
}

/// How time passed that was waited for.
#[derive(Clone, Copy)]
enum Pass {
    /// Awake, until the word changed.
    Spun,
    /// Asleep, until a wake-up or a signal; or not at all, or awake in vain.
    SleptUntilWoken,
    /// Asleep and woken by nobody, until this moment of the monotonic clock, in nanoseconds.
    SleptUntil(u64),
}

impl Wait {
    fn begin(learned: &'static LocalKey<Cell<Spin>>) -> Wait {
        let limit = settings::spin_limit();
        let may_spin = learn(learned, |spin| spin.wanted(limit));
        Wait { learned, limit, begun: Instant::now(), may_spin, last: Pass::SleptUntilWoken }
    }

    /// A wait for a page that was asked for ahead.
    pub fn begin_ahead() -> Wait {
        Wait::begin(&ASKED_AHEAD)
    }

    /// Spins once, sleeps from then on; in between the caller looks at what else there is to do, so no interrupt is late by more than the
    /// limit.
    fn pass(&mut self, word: &AtomicU32, seen: u32) {
        if !self.may_spin {
            self.last = sleep_on(word, seen);
            return;
        }
        self.last = Pass::Spun;
        let is_there = || word.load(Ordering::Relaxed) != seen;
        if !spin::until(self.limit, || self.begun.elapsed(), is_there) {
            self.may_spin = false;
            self.last = Pass::SleptUntilWoken;
            learn(self.learned, Spin::in_vain);
            state::spins().in_vain.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The answer is there. Whether it had been, and its owner woken for it, while that slept on is counted, for the answer is as good as any.
    pub fn answered(&self, slot: &Slot) {
        let spun = matches!(self.last, Pass::Spun);
        let came = if spun { Came::WhileSpinning } else { Came::AfterSleep };
        learn(self.learned, |spin| spin.answered(self.limit, self.begun.elapsed(), came));
        if spun {
            state::spins().answered.fetch_add(1, Ordering::Relaxed);
        }
        if let Pass::SleptUntil(nanos) = self.last
            && slot.was_woken_before(nanos)
        {
            state::lost_wakeups().fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn learn<T>(learned: &'static LocalKey<Cell<Spin>>, change: impl FnOnce(&mut Spin) -> T) -> T {
    let mut spin = learned.get();
    let result = change(&mut spin);
    learned.set(spin);
    result
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

fn sleep_on(word: &AtomicU32, seen: u32) -> Pass {
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
        if nobody_did { Pass::SleptUntil(until) } else { Pass::SleptUntilWoken }
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
