//! One copy's disk: a control file that is replaced whole, a log of which only what was synced is sure, and the queue of
//! commands that the disk has not performed yet. A crash drops the queue and as much of the unsynced log as chance wants.

use std::collections::VecDeque;

use strata_common::{Lsn, TermHistory};
use strata_safekeeper::core::{Command, DurableState, Event, covered};

use crate::records::whole;
use crate::rng::Rng;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process is gone, what the kernel has it keeps.
    Process,
    /// The power is gone: unsynced log may be torn anywhere.
    Power,
}

#[derive(Debug)]
pub struct Disk {
    pub state: DurableState,
    /// Position of `log[0]`, a record's start.
    pub base: Lsn,
    pub log: Vec<u8>,
    durable: usize,
    pub queue: VecDeque<Command>,
}

impl Disk {
    pub fn new(state: DurableState) -> Disk {
        let base = state.start_lsn;
        Disk { state, base, log: Vec::new(), durable: 0, queue: VecDeque::new() }
    }

    /// End of the whole records that no crash can take.
    pub fn durable_end(&self) -> Lsn {
        // A log that ends below where the state says it begins is dropped on opening.
        (self.base + whole(&self.log[..self.durable]) as u64).max(self.state.oldest_lsn)
    }

    /// Between the two steps of beginning anew above what all peers have removed.
    pub fn is_restarting(&self) -> bool {
        self.base + (self.log.len() as u64) < self.state.oldest_lsn
    }

    /// The history of the durable log.
    pub fn durable_history(&self) -> TermHistory {
        covered(&self.state.history, self.durable_end())
    }

    pub fn read(&self, from: Lsn, to: Lsn) -> &[u8] {
        &self.log[(from - self.base) as usize..(to - self.base) as usize]
    }

    /// Performs the oldest command of the queue; the completion, if there is one to report.
    pub fn perform_next(&mut self) -> Option<Event> {
        match self.queue.pop_front()? {
            Command::WriteWal { begin, wal } => {
                assert_eq!(begin, self.base + self.log.len() as u64, "log is written at its end");
                self.log.extend_from_slice(&wal);
                None
            }
            Command::SyncWal => {
                self.durable = self.log.len();
                let written = self.base + self.log.len() as u64;
                Some(Event::WalSynced { written, flush: self.durable_end() })
            }
            Command::TruncateWal { to, .. } => {
                self.cut((to - self.base) as usize);
                Some(Event::WalCut)
            }
            Command::ResetWal { at } => {
                self.cut(0);
                self.base = at;
                Some(Event::WalCut)
            }
            Command::PersistState { id, state } => {
                self.state = *state;
                Some(Event::StatePersisted(id))
            }
            Command::RemoveWal { below } => {
                let removed = (below - self.base) as usize;
                self.log.drain(..removed);
                self.durable -= removed;
                self.base = below;
                None
            }
            other => unreachable!("{other:?} is not for the disk"),
        }
    }

    fn cut(&mut self, to: usize) {
        self.log.truncate(to);
        self.durable = self.durable.min(to);
    }

    /// What is found after a crash: the state, and the end of whole records, made durable.
    pub fn crash(&mut self, crash: Crash, rng: &mut Rng) {
        let torn = match (self.queue.front(), crash) {
            // A truncation may be anywhere between begun and done.
            (Some(Command::TruncateWal { to, .. }), _) if rng.chance(50) => {
                let to = (*to - self.base) as usize;
                rng.between(to as u64, self.log.len() as u64) as usize
            }
            (_, Crash::Power) => rng.between(self.durable as u64, self.log.len() as u64) as usize,
            (_, Crash::Process) => self.log.len(),
        };
        self.queue.clear();
        self.cut(torn);
        let end = whole(&self.log);
        self.cut(end);
        self.durable = end;
        if self.base + (end as u64) < self.state.oldest_lsn {
            self.cut(0);
            self.base = self.state.oldest_lsn;
        }
    }
}
