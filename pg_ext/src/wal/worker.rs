//! The proposer worker: a background process without a database that hands flushed log to the quorum and releases commits when
//! a majority has them. It resumes the term that the supervisor was elected in and never elects (DESIGN D4, D5).
//!
//! The main thread is Postgres's: latch, shared memory, reading log. A second thread runs the network and calls nothing of
//! Postgres (trap P2); the two share a bounded queue, atomics and an eventfd.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use strata_common::Lsn;

use super::entry::Entry;
use super::quorum::{Ending, Quorum, QuorumConfig};
use super::shared;
use super::slot::Slot;
use super::source::Source;
use crate::guc;
use crate::workers::{self, Declaration, Worker};

/// How often the worker looks up without having been woken.
const IDLE_MS: i64 = 1000;
/// How often a worker that is ahead of the server's start looks whether it is over.
const START_MS: i64 = 2;
/// How often the shared status is brought up to date under load.
const STATUS_EVERY: Duration = Duration::from_millis(100);

/// Declares the worker to the postmaster; call from `_PG_init`.
pub fn register() {
    workers::declare(&Declaration {
        name: c"strata proposer",
        function: c"strata_proposer_main",
        start: pg_sys::BgWorkerStartTime::BgWorkerStart_PostmasterStart,
    });
}

#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn strata_proposer_main(_argument: pg_sys::Datum) {
    workers::set_up(Worker::Proposer);
    let config = match config() {
        Ok(config) => config,
        Err(problem) => pgrx::PANIC!("the proposer worker cannot start: {problem}"),
    };
    match Pump::start(config) {
        Ok(pump) => pump.run(),
        Err(problem) => pgrx::error!("the proposer worker cannot start: {problem}"),
    }
}

fn config() -> Result<QuorumConfig, String> {
    let (term, start_lsn) = guc::writer()?.ok_or("strata.term is not set")?;
    Ok(QuorumConfig {
        timeline: guc::timeline()?,
        safekeepers: guc::safekeepers()?,
        term,
        start_lsn,
        // SAFETY: a plain value of the running server.
        segment_bytes: unsafe { pg_sys::wal_segment_size } as u64,
    })
}

struct Pump {
    shared: &'static shared::Shared,
    entry: Entry,
    /// Taken once the server has started: before that, its start would sweep a slot that is being made (slot.c,
    /// StartupReplicationSlots). No log is removed before that either.
    slot: Option<Slot>,
    start_lsn: Lsn,
    segment_bytes: u64,
    source: Source,
    quorum: Quorum,
    /// Invalid until the quorum has said where sending goes on.
    sent: Lsn,
    committed: Lsn,
    status_at: Instant,
}

impl Pump {
    fn start(config: QuorumConfig) -> Result<Pump, String> {
        let shared = shared::get().ok_or("the library was not preloaded")?;
        let entry = Entry::claim().ok_or("the walsenders' table is full")?;
        use std::sync::atomic::Ordering::SeqCst;
        shared.term.store(config.term.0, SeqCst);
        let (start_lsn, segment_bytes) = (config.start_lsn, config.segment_bytes);
        let quorum = Quorum::start(config)?;
        Ok(Pump {
            shared,
            entry,
            slot: None,
            start_lsn,
            segment_bytes,
            source: Source::new(segment_bytes),
            quorum,
            sent: Lsn::INVALID,
            committed: Lsn::INVALID,
            status_at: Instant::now(),
        })
    }

    fn run(mut self) {
        loop {
            // SAFETY: the latch is this process's own.
            unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
            if let Some(ending) = self.quorum.ending() {
                stop_server(&ending);
            }
            if workers::may_leave(Worker::Proposer) {
                // What is still on its way or not yet flushed is shipped by the supervisor from the local log.
                // SAFETY: an orderly exit of this process; 0 means that it is not started again.
                unsafe { pg_sys::proc_exit(0) };
            }
            if !self.has_slot() {
                // The end of the server's start wakes nobody.
                workers::nap(START_MS);
                continue;
            }
            let sent = self.send();
            let released = self.release();
            self.publish(released);
            if !sent {
                self.sleep();
            }
        }
    }

    /// Whether local log is held for the quorum; takes the slot as soon as the server has started.
    fn has_slot(&mut self) -> bool {
        // SAFETY: reads shared memory.
        if self.slot.is_none() && !unsafe { pg_sys::RecoveryInProgress() } {
            use std::sync::atomic::Ordering::SeqCst;
            let committed = Lsn(self.shared.commit_lsn.load(SeqCst));
            let before = self.shared.slot_made.load(SeqCst).then_some(committed);
            self.slot = Some(Slot::take(before, self.start_lsn, self.segment_bytes));
            self.shared.slot_made.store(true, SeqCst);
        }
        self.slot.is_some()
    }

    /// Hands on what is flushed and not yet sent. True: there may be more.
    fn send(&mut self) -> bool {
        if !self.sent.is_valid() {
            let Some(lsn) = self.quorum.append_lsn() else { return false };
            self.sent = lsn;
        }
        // SAFETY: reads shared memory; no timeline is wanted.
        let flushed = Lsn(unsafe { pg_sys::GetFlushRecPtr(std::ptr::null_mut()) });
        if flushed <= self.sent || !self.quorum.has_room() {
            return false;
        }
        match self.source.read(self.sent, flushed) {
            Ok(bytes) => {
                let begin = self.sent;
                self.sent = begin + bytes.len() as u64;
                self.quorum.send(begin, bytes);
                true
            }
            // Log that a commit waits for cannot be read: going on would hang it silently.
            Err(problem) => pgrx::PANIC!("{problem}"),
        }
    }

    /// Wakes the commits that a majority has. True: there were some.
    fn release(&mut self) -> bool {
        let commit = self.quorum.commit_lsn();
        if commit <= self.committed {
            return false;
        }
        self.committed = commit;
        self.shared.commit_lsn.store(commit.0, std::sync::atomic::Ordering::Release);
        self.entry.release(self.sent, commit);
        if let Some(slot) = &mut self.slot {
            slot.advance(commit);
        }
        true
    }

    fn publish(&mut self, busy: bool) {
        if busy && self.status_at.elapsed() < STATUS_EVERY {
            return;
        }
        self.status_at = Instant::now();
        self.shared.sent_lsn.store(self.sent.0, std::sync::atomic::Ordering::Relaxed);
        self.quorum.publish(self.shared);
    }

    /// Until log is flushed, the quorum answers, a signal comes, or a second is over.
    fn sleep(&mut self) {
        // SAFETY: the condition variable lies in shared memory (walsender_private.h); broadcasts on it set our latch.
        unsafe {
            pg_sys::ConditionVariablePrepareToSleep(&raw mut (*pg_sys::WalSndCtl).wal_flush_cv);
            // Flushed meanwhile, before we were on the list: no wake-up would come for that.
            let flushed = Lsn(pg_sys::GetFlushRecPtr(std::ptr::null_mut()));
            let connected = self.sent.is_valid();
            let nothing_to_send = !connected || flushed <= self.sent || !self.quorum.has_room();
            if nothing_to_send {
                let events = pg_sys::WL_LATCH_SET
                    | pg_sys::WL_SOCKET_READABLE
                    | pg_sys::WL_TIMEOUT
                    | pg_sys::WL_EXIT_ON_PM_DEATH;
                pg_sys::WaitLatchOrSocket(
                    pg_sys::MyLatch,
                    events as i32,
                    self.quorum.wake_descriptor(),
                    IDLE_MS,
                    pg_sys::PG_WAIT_EXTENSION,
                );
            }
            pg_sys::ConditionVariableCancelSleep();
        }
        self.quorum.drain_wake();
    }
}

/// This server may commit nothing any more: it ends at once, showing nothing that waits.
fn stop_server(ending: &Ending) -> ! {
    workers::stop_server(&match ending {
        Ending::Fenced(text) => workers::beaten(text),
        Ending::Failed(text) => format!("the quorum cannot be used, this server stops: {text}"),
    })
}
