//! One timeline at work: its acceptor under a lock, its writer thread, the connections of proposers, its readers.
//!
//! `step` is the only way to the acceptor: it is called by the runtime thread with messages and by the writer thread with
//! completions, and performs the commands that come out before it lets go of the lock, so their order is that of the acceptor.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;

use bytes::Bytes;
use strata_common::{Lsn, NodeId, TenantTimelineId, Term};
use strata_pgwal::SegmentBytes;
use strata_proto::quorum::{Member, ToAcceptor};
use strata_proto::wal as pb;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tonic::Status;

use super::disk::Disk;
use super::fetch;
use super::queue::{DiskOp, DiskQueue};
use super::readers::Readers;
use super::status;
use super::wal::store::NextSegment;
use super::wal::{LogFolder, WalStore};
use super::{control, writer};
use crate::core::{Acceptor, Command, ConnId, DurableState, Event, FetchId, ReadLimit, Refusal};

pub type Answer = Result<pb::AcceptorMessage, Status>;

/// A proposer's connection. When this is dropped its reader is told by `gone`.
struct Connection {
    replies: mpsc::Sender<Answer>,
    _gone: oneshot::Sender<()>,
}

/// What the reader of a connection gets.
pub struct Registered {
    pub conn: ConnId,
    /// Ends when the connection was closed from this side.
    pub gone: oneshot::Receiver<()>,
}

struct Inner {
    acceptor: Acceptor,
    connections: HashMap<ConnId, Connection>,
    fetches: HashMap<FetchId, AbortHandle>,
    next_conn: u64,
    disk_full: Option<String>,
    is_stopping: bool,
    /// The writer thread has the other handle; joined on stop.
    writer: Option<JoinHandle<()>>,
}

/// Metrics of a timeline's hot path, looked up once.
pub struct TimelineMetrics {
    pub sync_seconds: metrics::Histogram,
    pub received_bytes: metrics::Counter,
    pub sent_bytes: metrics::Counter,
}

pub struct Timeline {
    pub id: TenantTimelineId,
    pub folder: LogFolder,
    pub queue: DiskQueue,
    pub readers: Readers,
    pub metrics: TimelineMetrics,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    runtime: tokio::runtime::Handle,
    me: Weak<Timeline>,
}

/// What a timeline needs from the process.
#[derive(Clone)]
pub struct Surroundings {
    pub node: NodeId,
    pub disk: Arc<dyn Disk>,
    pub runtime: tokio::runtime::Handle,
    pub next_segment: NextSegment,
}

/// One moment of a timeline, for people.
pub struct Snapshot {
    pub state: DurableState,
    pub flush_lsn: Lsn,
    pub is_voter: bool,
    pub remote_consistent_lsn: Lsn,
    pub problem: Option<String>,
    pub connections: usize,
}

impl Timeline {
    /// Opens the timeline in `dir`, finds the end of its log and starts its writer. Blocks.
    ///
    /// Errors: the control file or the log are damaged or cannot be read.
    pub fn open(around: &Surroundings, dir: &Path, id: TenantTimelineId) -> anyhow::Result<Arc<Timeline>> {
        let state = control::load(&*around.disk, dir, id)?;
        let segment_bytes = SegmentBytes::new(u64::from(state.facts.wal_segment_bytes))?;
        let folder = LogFolder { disk: around.disk.clone(), path: dir.to_owned(), segment_bytes };
        let known = state.commit_lsn.max(state.oldest_lsn);
        let store = WalStore::open(folder.clone(), state.oldest_lsn, known, around.next_segment)?;
        let flush = store.written();
        tracing::info!(
            timeline = %id, term = %state.term, oldest = %state.oldest_lsn, commit = %state.commit_lsn, %flush,
            "timeline opened"
        );
        let inner = Inner {
            acceptor: Acceptor::open(around.node, state, flush),
            connections: HashMap::new(),
            fetches: HashMap::new(),
            next_conn: 0,
            disk_full: None,
            is_stopping: false,
            writer: None,
        };
        let timeline = Arc::new_cyclic(|me| Timeline {
            id,
            folder,
            queue: DiskQueue::default(),
            readers: Readers::default(),
            metrics: TimelineMetrics {
                sync_seconds: metrics::histogram!("strata_safekeeper_sync_seconds"),
                received_bytes: metrics::counter!("strata_safekeeper_received_bytes_total"),
                sent_bytes: metrics::counter!("strata_safekeeper_sent_bytes_total"),
            },
            inner: Mutex::new(inner),
            changed: watch::Sender::new(0),
            runtime: around.runtime.clone(),
            me: me.clone(),
        });
        let for_writer = timeline.clone();
        let name = format!("wal-{}", &id.timeline.to_string()[..8]);
        let thread = std::thread::Builder::new().name(name).spawn(move || writer::run(for_writer, store))?;
        timeline.inner().writer = Some(thread);
        Ok(timeline)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the acceptor, or this copy must not go on")
    }

    /// Feeds the acceptor and performs what it decides.
    pub fn step(&self, event: Event) {
        self.step_locked(&mut self.inner(), event);
    }

    fn step_locked(&self, inner: &mut Inner, event: Event) {
        let commands = inner.acceptor.step(event);
        let mut ops = Vec::new();
        let mut lost = Vec::new();
        let mut has_changed = false;
        for command in commands {
            match command {
                Command::Reply { conn, message } => {
                    let Some(connection) = inner.connections.get(&conn) else { continue };
                    if connection.replies.try_send(Ok(message.into())).is_err() {
                        inner.connections.remove(&conn);
                        lost.push(conn);
                    }
                }
                Command::Close { conn, why } => {
                    tracing::warn!(timeline = %self.id, conn = conn.0, reason = %why, "closing a proposer's connection");
                    if inner.close(conn, &status::of_refusal(&why)) {
                        lost.push(conn);
                    }
                }
                Command::WriteWal { begin, wal } => ops.push(DiskOp::Write { begin, wal }),
                Command::SyncWal => ops.push(DiskOp::Sync),
                Command::TruncateWal { to, known } => ops.push(DiskOp::Truncate { to, known }),
                Command::ResetWal { at } => ops.push(DiskOp::Reset { at }),
                Command::PersistState { id, state } => ops.push(DiskOp::Persist { id, state }),
                Command::RemoveWal { below } => ops.push(DiskOp::Remove { below }),
                Command::Fetch { fetch, term, from, until, peers } => {
                    self.start_fetch(inner, fetch::Order { fetch, term, from, until, peers });
                }
                Command::StopFetch { fetch } => {
                    inner.fetches.remove(&fetch).inspect(AbortHandle::abort);
                }
                Command::Committed { .. } | Command::Flushed { .. } => has_changed = true,
            }
        }
        if !ops.is_empty() {
            // A cut, a new term or a stop changes what readers of a term may read, not only progress does.
            has_changed |= !matches!(ops[0], DiskOp::Write { .. });
            self.queue.push(ops.into_iter());
        }
        if has_changed || inner.acceptor.problem().is_some() {
            self.changed.send_modify(|version| *version += 1);
        }
        for conn in lost {
            self.step_locked(inner, Event::Disconnected { conn });
        }
    }

    fn start_fetch(&self, inner: &mut Inner, order: fetch::Order) {
        let Some(me) = self.me.upgrade() else { return };
        let number = order.fetch;
        tracing::info!(timeline = %self.id, from = %order.from, until = %order.until, peers = ?order.peers, "catching up");
        let task = self.runtime.spawn(fetch::run(me, order));
        inner.fetches.insert(number, task.abort_handle());
    }

    /// A fetch has ended by itself.
    pub fn fetch_ended(&self, fetch: FetchId) {
        self.inner().fetches.remove(&fetch);
    }

    /// Takes a proposer's connection in, unless this timeline cannot serve one now.
    pub fn register(&self, replies: mpsc::Sender<Answer>) -> Result<Registered, Status> {
        let mut inner = self.inner();
        if inner.is_stopping {
            return Err(status::stopping());
        }
        if let Some(problem) = &inner.disk_full {
            return Err(status::disk_full(problem));
        }
        if let Some(problem) = inner.acceptor.problem() {
            return Err(status::of_refusal(&Refusal::Stopped(problem.to_owned())));
        }
        let conn = ConnId(inner.next_conn);
        inner.next_conn += 1;
        let (gone_sender, gone) = oneshot::channel();
        inner.connections.insert(conn, Connection { replies, _gone: gone_sender });
        Ok(Registered { conn, gone })
    }

    /// A message of a registered proposer; the caller has waited for room in the queue.
    pub fn message(&self, conn: ConnId, message: ToAcceptor) {
        if let ToAcceptor::Append(append) = &message {
            self.metrics.received_bytes.increment(append.wal.len() as u64);
        }
        let mut inner = self.inner();
        if inner.connections.contains_key(&conn) {
            self.step_locked(&mut inner, Event::Message { conn, message });
        }
    }

    /// A proposer has gone.
    pub fn disconnect(&self, conn: ConnId) {
        let mut inner = self.inner();
        if inner.connections.remove(&conn).is_some() {
            self.step_locked(&mut inner, Event::Disconnected { conn });
        }
    }

    /// Called by the writer: the disk is full and why, or no longer. While it is, proposers are turned away.
    pub fn set_disk_full(&self, problem: Option<String>) {
        let mut inner = self.inner();
        if inner.disk_full.is_some() == problem.is_some() {
            return;
        }
        match &problem {
            Some(problem) => {
                tracing::warn!(timeline = %self.id, %problem, "nothing is acknowledged until there is room");
                metrics::counter!("strata_safekeeper_disk_full_total").increment(1);
                let status = status::disk_full(problem);
                self.close_all(&mut inner, &status);
            }
            None => tracing::info!(timeline = %self.id, "there is room on the disk again"),
        }
        inner.disk_full = problem;
    }

    fn close_all(&self, inner: &mut Inner, status: &Status) {
        let all: Vec<ConnId> = inner.connections.keys().copied().collect();
        for conn in all {
            inner.close(conn, status);
            self.step_locked(inner, Event::Disconnected { conn });
        }
    }

    /// Up to where log may be read now; a reader asks again after every change.
    pub fn read_limit(&self, term: Term) -> Result<ReadLimit, Status> {
        let inner = self.inner();
        if inner.is_stopping {
            return Err(status::stopping());
        }
        inner.acceptor.read_limit(term).map_err(|refusal| status::of_refusal(&refusal))
    }

    /// Tells of every change of what may be read.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn member(&self) -> Member {
        self.inner().acceptor.member()
    }

    pub fn snapshot(&self) -> Snapshot {
        let inner = self.inner();
        let acceptor = &inner.acceptor;
        let remote = acceptor.pageservers().values().map(|progress| progress.remote_consistent).max();
        Snapshot {
            state: acceptor.state().clone(),
            flush_lsn: acceptor.flush_lsn(),
            is_voter: acceptor.is_voter(),
            remote_consistent_lsn: remote.unwrap_or(Lsn::INVALID),
            problem: acceptor.problem().map(str::to_owned).or_else(|| inner.disk_full.clone()),
            connections: inner.connections.len(),
        }
    }

    /// Removes log that nobody needs, as far as the acceptor agrees (trap K14).
    pub fn trim(&self, keep_bytes: u64) {
        self.step(Event::TrimDue { slowest_reader: self.readers.slowest(), keep_bytes });
    }

    /// Ends all streams, lets the writer finish what was asked of it, and waits for it. Blocks.
    pub fn stop(&self, status: &Status) {
        let writer = {
            let mut inner = self.inner();
            inner.is_stopping = true;
            for (_, fetch) in inner.fetches.drain() {
                fetch.abort();
            }
            self.close_all(&mut inner, status);
            self.step_locked(&mut inner, Event::CommitSaveDue);
            inner.writer.take()
        };
        self.queue.close();
        self.changed.send_modify(|version| *version += 1);
        if writer.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(timeline = %self.id, "the writer thread had panicked");
        }
    }

    /// Log from a peer for a running fetch.
    pub fn fetched(&self, fetch: FetchId, begin: Lsn, wal: Bytes) {
        self.metrics.received_bytes.increment(wal.len() as u64);
        self.step(Event::Fetched { fetch, begin, wal });
    }
}

impl Inner {
    /// Ends a connection with `status`. Returns whether it was there.
    fn close(&mut self, conn: ConnId, status: &Status) -> bool {
        let Some(connection) = self.connections.remove(&conn) else { return false };
        // Unread answers may fill the channel; the proposer then sees the stream end without a reason.
        let _ = connection.replies.try_send(Err(status.clone()));
        true
    }
}
