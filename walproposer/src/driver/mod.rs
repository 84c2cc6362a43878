//! The proposer over gRPC: one actor task that owns the core, one link task per safekeeper.
//!
//! An event from any link or an append wakes the actor, which takes all that has gathered, steps the core through it and sends
//! once. Links connect, keep alive (a dead peer is found in seconds, trap P5) and come back with growing pauses.
//! Queues are bounded: appends by `Limits::pending_bytes_max`, what is sent to a safekeeper by `Limits::in_flight_bytes_max`.

mod actor;
mod config;
mod link;

use std::sync::Arc;

use bytes::Bytes;
use strata_common::{Lsn, Term};
use strata_proto::quorum::{LogFacts, PageserverProgress};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::core::{AcceptorStatus, Purpose, Ready};
pub use config::{Config, Timing, parse_safekeepers};

/// Appends that wait for the actor.
const APPEND_QUEUE: usize = 64;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// For good: this process must not append any more, and its Postgres must stop.
    #[error("another compute has taken over: term {seen} is known, ours is {ours}")]
    Fenced { ours: Term, seen: Term },
    #[error("no majority of safekeepers answered within {seconds} s: {detail}")]
    Timeout { seconds: u64, detail: String },
    #[error("the safekeepers contradict each other: {0}")]
    Impossible(String),
    #[error("the proposer has been released")]
    Released,
}

/// A moment's picture, for people.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub term: Term,
    pub commit_lsn: Lsn,
    pub acceptors: Vec<AcceptorStatus>,
    /// The most advanced pageserver that any safekeeper has heard of.
    pub pageserver: PageserverProgress,
    /// Last trouble with each safekeeper that is down or refuses the log, as `safekeeper 2: …`.
    pub problems: Vec<String>,
}

/// A term in which this process may append.
#[derive(Debug)]
pub struct Proposer {
    ready: Ready,
    appends: mpsc::Sender<(Lsn, Bytes)>,
    chunk_bytes_max: usize,
    commit: watch::Receiver<Lsn>,
    status: watch::Receiver<Arc<Status>>,
    over: watch::Receiver<Option<Error>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Proposer {
    /// Wins a new term, which fences whoever had one. Other candidates are tried against again, with random pauses.
    pub async fn elect(config: Config) -> Result<Proposer, Error> {
        let limit = config.timing.elect_max;
        Proposer::start(config, Purpose::Elect, Some(limit)).await
    }

    /// Goes on in `term`, which this compute won before; never asks for votes. Waits for a majority for as long as it takes.
    pub async fn resume(config: Config, term: Term) -> Result<Proposer, Error> {
        Proposer::start(config, Purpose::Resume(term), None).await
    }

    async fn start(
        config: Config,
        purpose: Purpose,
        limit: Option<std::time::Duration>,
    ) -> Result<Proposer, Error> {
        let chunk_bytes_max = config.limits.message_bytes_max;
        let (appends, appended) = mpsc::channel(APPEND_QUEUE);
        let (commit_tx, commit) = watch::channel(Lsn::INVALID);
        let (status_tx, status) = watch::channel(Arc::new(Status::default()));
        let (over_tx, mut over) = watch::channel(None);
        let (ready_tx, ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let outputs =
            actor::Outputs { commit: commit_tx, status: status_tx, over: over_tx, ready: Some(ready_tx) };
        let task = tokio::spawn(actor::run(config, purpose, appended, outputs, stopped));
        let task = AbortOnDrop(Some(task));
        let wait = async {
            match ready.await {
                Ok(ready) => Ok(ready),
                Err(_) => Err(wait_over(&mut over).await),
            }
        };
        let ready = match limit {
            None => wait.await?,
            Some(limit) => match tokio::time::timeout(limit, wait).await {
                Ok(ready) => ready?,
                Err(_) => {
                    let detail = status.borrow().problems.join("; ");
                    return Err(Error::Timeout { seconds: limit.as_secs(), detail });
                }
            },
        };
        Ok(Proposer {
            ready,
            appends,
            chunk_bytes_max,
            commit,
            status,
            over,
            stop: Some(stop),
            task: task.keep(),
        })
    }

    pub fn term(&self) -> Term {
        self.ready.term
    }

    /// Where the term's own log begins.
    pub fn start_lsn(&self) -> Lsn {
        self.ready.start_lsn
    }

    /// Where the first `append` goes: `start_lsn` of a term just won, the end of what is known to be safe of a resumed one.
    pub fn append_lsn(&self) -> Lsn {
        self.ready.append_lsn
    }

    pub fn facts(&self) -> LogFacts {
        self.ready.facts
    }

    /// Log at the end of what was appended before. Waits while too much is pending.
    pub async fn append(&self, begin: Lsn, wal: Bytes) -> Result<(), Error> {
        for (begin, chunk) in self.chunks(begin, wal) {
            if self.appends.send((begin, chunk)).await.is_err() {
                return Err(self.why_over());
            }
        }
        Ok(())
    }

    /// `append` for a thread outside the runtime; panics inside one.
    pub fn blocking_append(&self, begin: Lsn, wal: Bytes) -> Result<(), Error> {
        for (begin, chunk) in self.chunks(begin, wal) {
            if self.appends.blocking_send((begin, chunk)).is_err() {
                return Err(self.why_over());
            }
        }
        Ok(())
    }

    /// `append` that never waits: false, with nothing taken, if too much is pending. At most `Limits::message_bytes_max` bytes.
    pub fn try_append(&self, begin: Lsn, wal: Bytes) -> Result<bool, Error> {
        assert!(wal.len() <= self.chunk_bytes_max, "one message holds {} bytes", self.chunk_bytes_max);
        match self.appends.try_send((begin, wal)) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.why_over()),
        }
    }

    fn chunks(&self, begin: Lsn, wal: Bytes) -> impl Iterator<Item = (Lsn, Bytes)> + use<> {
        let max = self.chunk_bytes_max;
        (0..wal.len()).step_by(max).map(move |at| {
            let end = wal.len().min(at + max);
            (begin + at as u64, wal.slice(at..end))
        })
    }

    /// Everything below is on a majority of safekeepers, for good. At a record's end; `Lsn::INVALID` before anything is known.
    pub fn commit_lsn(&self) -> Lsn {
        *self.commit.borrow()
    }

    pub fn commit_watch(&self) -> watch::Receiver<Lsn> {
        self.commit.clone()
    }

    pub async fn wait_committed(&self, lsn: Lsn) -> Result<(), Error> {
        let mut commit = self.commit.clone();
        match commit.wait_for(|commit| *commit >= lsn).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.why_over()),
        }
    }

    /// As of the last tick or change of state; `commit_lsn` is fresher.
    pub fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    pub fn status_watch(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// Returns when the term is over, with the reason. Never returns while all is well.
    pub async fn over(&self) -> Error {
        wait_over(&mut self.over.clone()).await
    }

    fn why_over(&self) -> Error {
        self.over.borrow().clone().unwrap_or(Error::Released)
    }

    /// Stops; when it returns all connections are closed. What was appended and not committed may be lost.
    pub async fn release(mut self) {
        self.stop = None;
        // An error here is a panic of the actor, which has been reported.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Proposer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn wait_over(over: &mut watch::Receiver<Option<Error>>) -> Error {
    match over.wait_for(Option::is_some).await {
        Ok(error) => error.clone().unwrap_or(Error::Released),
        Err(_) => Error::Released,
    }
}

/// Ends the actor if the one who waits for it gives up.
struct AbortOnDrop(Option<JoinHandle<()>>);

impl AbortOnDrop {
    fn keep(mut self) -> JoinHandle<()> {
        self.0.take().expect("a task is kept once")
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
