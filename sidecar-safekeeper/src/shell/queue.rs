//! The queue between a timeline's acceptor and its writer thread: disk commands, in order.
//!
//! It is bounded by bytes: whoever reads messages from the network waits for room first, so a slow disk slows the proposer down
//! instead of filling memory.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use strata_common::Lsn;
use tokio::sync::Notify;

use crate::core::{DurableState, PersistId};

/// Log that may wait for the disk before no more is taken from the network, bytes.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// One command for the disk; meanings as in `core::Command`.
#[derive(Debug)]
pub enum DiskOp {
    Write { begin: Lsn, wal: Bytes },
    Sync,
    Truncate { to: Lsn, known: Lsn },
    Reset { at: Lsn },
    Persist { id: PersistId, state: Box<DurableState> },
    Remove { below: Lsn },
}

#[derive(Default)]
struct State {
    ops: VecDeque<DiskOp>,
    /// Of log that is in `ops` or being written.
    waiting_bytes: usize,
    is_closed: bool,
}

#[derive(Default)]
pub struct DiskQueue {
    state: Mutex<State>,
    filled: Condvar,
    room: Notify,
}

impl DiskQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the queue")
    }

    /// Adds commands; never blocks. Ignored after `close`.
    pub fn push(&self, ops: impl Iterator<Item = DiskOp>) {
        let mut state = self.state();
        if state.is_closed {
            return;
        }
        for op in ops {
            if let DiskOp::Write { wal, .. } = &op {
                state.waiting_bytes += wal.len();
            }
            state.ops.push_back(op);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// All that waits, at least one; `None` once closed and empty. Blocks.
    pub fn take(&self) -> Option<VecDeque<DiskOp>> {
        let mut state = self.state();
        loop {
            if !state.ops.is_empty() {
                return Some(std::mem::take(&mut state.ops));
            }
            if state.is_closed {
                return None;
            }
            state = self.filled.wait(state).expect("nothing panics while it holds the queue");
        }
    }

    /// Says that a write of so many bytes is done.
    pub fn written(&self, bytes: usize) {
        let mut state = self.state();
        let was_full = state.waiting_bytes >= WAITING_BYTES_MAX;
        state.waiting_bytes -= bytes;
        if was_full && state.waiting_bytes < WAITING_BYTES_MAX {
            self.room.notify_waiters();
        }
    }

    /// Done when more log may be taken, or the queue is closed.
    pub async fn wait_for_room(&self) {
        loop {
            let notified = self.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let state = self.state();
                if state.waiting_bytes < WAITING_BYTES_MAX || state.is_closed {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Nothing is taken in any more; what waits is still handed out.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.filled.notify_all();
        self.room.notify_waiters();
    }

    /// Drops what waits and takes nothing in any more: the disk is given up.
    pub fn abandon(&self) {
        let mut state = self.state();
        state.ops.clear();
        state.waiting_bytes = 0;
        drop(state);
        self.close();
    }

    /// Blocks for `time`, or less if the queue is closed meanwhile. Returns whether it is closed.
    pub fn pause(&self, time: Duration) -> bool {
        let state = self.state();
        let waited = self.filled.wait_timeout_while(state, time, |state| !state.is_closed);
        waited.expect("nothing panics while it holds the queue").0.is_closed
    }
}
