//! The thread that talks to the safekeepers, and what it shares with the worker's main thread: a bounded queue one way, atomics
//! and an eventfd the other. Nothing here calls Postgres (trap P2).

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use strata_common::{Lsn, NodeId, TenantTimelineId, Term};
use strata_walproposer::{AcceptorAddress, Config, Error, Proposer, Status};
use tokio::sync::mpsc;

use crate::workers;

use super::shared::{SAFEKEEPERS_MAX, Shared, state_number};

/// Chunks on their way to the network thread; each at most `source::READ_BYTES_MAX`. The driver bounds what it takes in turn.
const QUEUE: usize = 16;

pub struct QuorumConfig {
    pub timeline: TenantTimelineId,
    pub safekeepers: Vec<(NodeId, String)>,
    pub term: Term,
    /// Where this server's own log begins.
    pub start_lsn: Lsn,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
}

/// Why the term is over.
#[derive(Clone, Debug)]
pub enum Ending {
    Fenced(String),
    Failed(String),
}

/// What the network thread tells the main thread.
struct Told {
    wake: OwnedFd,
    commit_lsn: AtomicU64,
    /// Where sending goes on; 0 until a majority of safekeepers has answered.
    append_lsn: AtomicU64,
    /// The queue was full when the main thread last looked: tell it when there is room.
    wants_room: AtomicBool,
    status: Mutex<Arc<Status>>,
    ending: Mutex<Option<Ending>>,
}

impl Told {
    fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes to an eventfd that lives as long as `self`. A full counter is a wake-up as well.
        unsafe { libc::write(self.wake.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    fn end(&self, ending: Ending) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
        self.wake();
    }
}

pub struct Quorum {
    told: Arc<Told>,
    queue: mpsc::Sender<(Lsn, Bytes)>,
}

impl Quorum {
    /// Starts the thread; it connects on its own.
    pub fn start(config: QuorumConfig) -> Result<Quorum, String> {
        if config.safekeepers.len() > SAFEKEEPERS_MAX {
            return Err(format!("at most {SAFEKEEPERS_MAX} safekeepers can be given"));
        }
        let told = Arc::new(Told {
            wake: workers::eventfd().map_err(|error| format!("cannot make an eventfd: {error}"))?,
            commit_lsn: AtomicU64::new(0),
            append_lsn: AtomicU64::new(0),
            wants_room: AtomicBool::new(false),
            status: Mutex::new(Arc::new(Status::default())),
            ending: Mutex::new(None),
        });
        let (queue, queued) = mpsc::channel(QUEUE);
        let theirs = told.clone();
        // Signals belong to the main thread, whose handlers use its own state: a thread inherits the mask of its maker.
        let named = thread::Builder::new().name("strata-quorum".to_owned());
        let spawned = workers::with_signals_blocked(|| named.spawn(move || run(config, queued, &theirs)));
        spawned.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Quorum { told, queue })
    }

    pub fn ending(&self) -> Option<Ending> {
        self.told.ending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where sending begins; `None` until a majority has answered.
    pub fn append_lsn(&self) -> Option<Lsn> {
        Some(Lsn(self.told.append_lsn.load(Ordering::Acquire))).filter(|lsn| lsn.is_valid())
    }

    /// Whether `send` would take something. If not, the descriptor wakes when it does.
    pub fn has_room(&self) -> bool {
        if self.queue.capacity() > 0 {
            return true;
        }
        self.told.wants_room.store(true, Ordering::SeqCst);
        self.queue.capacity() > 0
    }

    /// Log that goes on at `begin`. There must be room; without it, or with the thread gone, the worker is at its end anyway.
    pub fn send(&self, begin: Lsn, bytes: Vec<u8>) {
        if self.queue.try_send((begin, bytes.into())).is_err() {
            self.told.end(Ending::Failed("the network thread is gone".to_owned()));
        }
    }

    pub fn commit_lsn(&self) -> Lsn {
        Lsn(self.told.commit_lsn.load(Ordering::Acquire))
    }

    /// Brings the shared picture up to date.
    pub fn publish(&self, shared: &Shared) {
        let status = self.told.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let set = |place: &AtomicU64, lsn: Lsn| place.store(lsn.0, Ordering::Relaxed);
        set(&shared.pageserver_received_lsn, status.pageserver.received);
        set(&shared.pageserver_disk_consistent_lsn, status.pageserver.disk_consistent);
        set(&shared.pageserver_remote_consistent_lsn, status.pageserver.remote_consistent);
        for (place, acceptor) in shared.safekeepers.iter().zip(&status.acceptors) {
            place.id.store(acceptor.node.0, Ordering::Relaxed);
            place.state.store(state_number(acceptor.state.name()), Ordering::Relaxed);
            place.term.store(acceptor.term.0, Ordering::Relaxed);
            set(&place.flush_lsn, acceptor.flush_lsn);
            set(&place.commit_lsn, acceptor.commit_lsn);
        }
        let count = u32::try_from(status.acceptors.len()).unwrap_or(0);
        shared.safekeeper_count.store(count, Ordering::Relaxed);
    }

    /// Readable when there is news.
    pub fn wake_descriptor(&self) -> i32 {
        self.told.wake.as_raw_fd()
    }

    /// Takes the news.
    pub fn drain_wake(&self) {
        let mut count = [0u8; 8];
        // SAFETY: reads eight bytes from a non-blocking eventfd into eight bytes.
        unsafe { libc::read(self.told.wake.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

fn run(config: QuorumConfig, queued: mpsc::Receiver<(Lsn, Bytes)>, told: &Arc<Told>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return told.end(Ending::Failed(format!("cannot start the runtime: {error}"))),
    };
    let error = runtime.block_on(serve(config, queued, told));
    told.end(match error {
        Error::Fenced { .. } => Ending::Fenced(error.to_string()),
        other => Ending::Failed(other.to_string()),
    });
}

/// Until the term is over; the reason.
async fn serve(config: QuorumConfig, mut queued: mpsc::Receiver<(Lsn, Bytes)>, told: &Arc<Told>) -> Error {
    let addresses = config.safekeepers.into_iter().map(|(node, address)| AcceptorAddress { node, address });
    let mut driver = Config::new(config.timeline, addresses.collect());
    let on_commit = told.clone();
    driver.on_commit = Some(Arc::new(move |lsn: Lsn| {
        on_commit.commit_lsn.store(lsn.0, Ordering::Release);
        on_commit.wake();
    }));
    let proposer = match Proposer::resume(driver, config.term).await {
        Ok(proposer) => proposer,
        Err(error) => return error,
    };
    told.append_lsn.store(proposer.append_lsn().0, Ordering::Release);
    told.wake();
    let mut status = proposer.status_watch();
    loop {
        tokio::select! {
            biased;
            error = proposer.over() => return error,
            chunk = queued.recv() => {
                let Some((begin, bytes)) = chunk else { return Error::Released };
                if told.wants_room.swap(false, Ordering::SeqCst) {
                    told.wake();
                }
                if let Err(error) = proposer.append(begin, bytes).await {
                    return error;
                }
            }
            changed = status.changed() => {
                if changed.is_err() {
                    return proposer.over().await;
                }
                *told.status.lock().unwrap_or_else(PoisonError::into_inner) = status.borrow_and_update().clone();
            }
        }
    }
}
