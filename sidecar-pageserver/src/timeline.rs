//! One timeline as the service sees it: what readers may read, who waits for more log, and whether the log goes on.
//!
//! Ingest publishes here after storage has a batch; readers wait here for `not_modified_since` (D7). A timeline that
//! cannot go on parks: reads up to its last record go on, waits for more are answered at once with the reason.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strata_common::{BlockNumber, Guard, Lsn, RelFork, TenantTimelineId, Term};
use tokio::sync::{Notify, watch};

use crate::getpage::cache::{CachedPage, PageCache, TimelineSlot};
use crate::ingest::batch::Counts;
use crate::ingest::control::ControlState;
use crate::keyspace;
use crate::sizes::Sizes;
use crate::store::Store;
use crate::view::{VersionedPage, View, ViewError, zero_page};

/// Whether a timeline's log is taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Running {
    Active,
    /// It stopped at a record that this version cannot take in; another version may (nothing is lost).
    Parked(String),
    /// Another process took the timeline over with a higher generation: whoever asks should ask there.
    Fenced(String),
    /// Storage is damaged.
    Broken(String),
}

impl Running {
    pub fn name(&self) -> &'static str {
        match self {
            Running::Active => "active",
            Running::Parked(_) => "parked",
            Running::Fenced(_) => "fenced",
            Running::Broken(_) => "broken",
        }
    }

    pub fn problem(&self) -> &str {
        match self {
            Running::Active => "",
            Running::Parked(why) | Running::Fenced(why) | Running::Broken(why) => why,
        }
    }
}

/// What readers may rely on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// Everything up to here can be read.
    pub last_record: Lsn,
    pub running: Running,
}

/// Why log that a reader needs is not there.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WaitError {
    #[error("timeline {id} has log up to {have} and none up to {wanted} came within {waited_ms} ms{why}")]
    TimedOut { id: TenantTimelineId, have: Lsn, wanted: Lsn, waited_ms: u128, why: String },
    #[error("timeline {id} is parked: {reason}")]
    Parked { id: TenantTimelineId, reason: String },
    #[error("timeline {id} belongs to another pageserver: {reason}")]
    Fenced { id: TenantTimelineId, reason: String },
    #[error("timeline {id} is broken: {reason}")]
    Broken { id: TenantTimelineId, reason: String },
    #[error("timeline {0} is being closed")]
    Closed(TenantTimelineId),
}

/// A compute asked in a term that is over: it was beaten and must stop (SK-2).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("term {asked} of this compute is over: term {newest} writes timeline {id} now")]
pub struct Superseded {
    pub id: TenantTimelineId,
    pub asked: Term,
    pub newest: Term,
}

/// Shared by ingest, connections and management.
pub struct Timeline<S> {
    pub id: TenantTimelineId,
    pub store: Arc<S>,
    pub sizes: Arc<Sizes>,
    slot: TimelineSlot,
    cache: Arc<PageCache>,
    published: watch::Sender<Published>,
    /// The newest term that was heard of, from the log or from its compute. Raised before log of it can be read.
    newest_term: watch::Sender<Term>,
    control: Mutex<ControlState>,
    counts: Mutex<Counts>,
    /// Why no log comes in at the moment, if something is wrong.
    hindrance: Mutex<Option<String>>,
    /// How far safekeepers have committed, as far as they told.
    committed: AtomicU64,
    wanted: AtomicU64,
    wake: Notify,
    closing: watch::Sender<bool>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Store> Timeline<S> {
    /// `control` is the state at the end of what `store` has.
    pub fn new(
        id: TenantTimelineId,
        store: Arc<S>,
        control: ControlState,
        cache: Arc<PageCache>,
        slot: TimelineSlot,
    ) -> Arc<Timeline<S>> {
        let published = Published { last_record: control.lsn, running: Running::Active };
        Arc::new(Timeline {
            id,
            store,
            sizes: Arc::default(),
            slot,
            cache,
            published: watch::Sender::new(published),
            newest_term: watch::Sender::new(control.log_term),
            control: Mutex::new(control),
            counts: Mutex::default(),
            hindrance: Mutex::default(),
            committed: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            wake: Notify::new(),
            closing: watch::Sender::new(false),
        })
    }

    pub fn last_record(&self) -> Lsn {
        self.published.borrow().last_record
    }

    pub fn running(&self) -> Running {
        self.published.borrow().running.clone()
    }

    /// Counters, settings and record position as of the last record.
    pub fn control(&self) -> ControlState {
        locked(&self.control).clone()
    }

    pub fn counts(&self) -> Counts {
        *locked(&self.counts)
    }

    /// A safekeeper told how far it has committed.
    pub fn see_commit(&self, lsn: Lsn) {
        self.committed.fetch_max(lsn.0, Ordering::Relaxed);
    }

    pub fn committed(&self) -> Lsn {
        Lsn(self.committed.load(Ordering::Relaxed))
    }

    /// Log or a compute of `term` exists, so that it was elected: computes of earlier terms have been beaten.
    pub fn see_term(&self, term: Term) {
        self.newest_term.send_if_modified(|newest| {
            let is_news = *newest < term;
            *newest = term.max(*newest);
            is_news
        });
    }

    /// Whether a compute of `term` may have an answer. One that is asked after the answer was made says for sure that it holds
    /// nothing of a later term's log, whose pages and positions mean something else there (CP-1).
    pub fn check_term(&self, term: Term) -> Result<(), Superseded> {
        let newest = *self.newest_term.borrow();
        if newest > term {
            return Err(Superseded { id: self.id, asked: term, newest });
        }
        Ok(())
    }

    /// Returns when `term` is over.
    pub async fn superseded(&self, term: Term) -> Superseded {
        let mut newest = self.newest_term.subscribe();
        // The sender lives as long as `self`.
        let _ = newest.wait_for(|newest| *newest > term).await;
        Superseded { id: self.id, asked: term, newest: *self.newest_term.borrow() }
    }

    /// What went wrong with the log last, while nothing came since.
    pub fn set_hindrance(&self, why: Option<String>) {
        *locked(&self.hindrance) = why;
    }

    /// Why the log stands still, if it does for a reason; for people.
    pub fn problem(&self) -> Option<String> {
        match self.running() {
            Running::Active => locked(&self.hindrance).clone(),
            stopped => Some(stopped.problem().to_owned()),
        }
    }

    pub fn view(&self, lsn: Lsn) -> View<S> {
        View::new(self.store.clone(), lsn)
    }

    /// Ingest: storage has everything up to `control.lsn`.
    pub fn publish(&self, control: &ControlState, counts: Counts) {
        *locked(&self.control) = control.clone();
        *locked(&self.counts) = counts;
        let lsn = control.lsn;
        self.published.send_modify(|published| {
            assert!(
                published.last_record <= lsn,
                "the log of {} goes back from {}",
                self.id,
                published.last_record
            );
            published.last_record = lsn;
        });
        self.sizes.published();
    }

    pub fn stop(&self, why: Running) {
        tracing::error!(timeline = %self.id, state = why.name(), problem = why.problem(), "timeline stops at {}", self.last_record());
        self.published.send_modify(|published| published.running = why);
    }

    /// The process or the timeline goes away.
    pub fn close(&self) {
        self.closing.send_replace(true);
        self.wake.notify_one();
    }

    pub fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    pub async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // An error means that the sender is gone, and with it the timeline.
        let _ = closing.wait_for(|closing| *closing).await;
    }

    /// Somebody waits for log that is not here yet.
    pub fn is_wanted(&self) -> bool {
        Lsn(self.wanted.load(Ordering::Relaxed)) > self.last_record()
    }

    /// Wakes when somebody begins to wait for log.
    pub async fn wanted(&self) {
        self.wake.notified().await;
    }

    /// Returns once everything up to `lsn` can be read, or says why not within `limit` (P1: never for ever).
    pub async fn wait_for(&self, lsn: Lsn, limit: Duration) -> Result<(), WaitError> {
        if self.last_record() >= lsn {
            return Ok(());
        }
        self.wanted.fetch_max(lsn.0, Ordering::Relaxed);
        self.wake.notify_one();
        let mut published = self.published.subscribe();
        let mut closing = self.closing.subscribe();
        let settled = |p: &Published| p.last_record >= lsn || p.running != Running::Active;
        let outcome = tokio::select! {
            biased;
            outcome = tokio::time::timeout(limit, published.wait_for(settled)) => outcome.map(|found| found.map(|p| p.clone())),
            _ = closing.wait_for(|closing| *closing) => return Err(WaitError::Closed(self.id)),
        };
        match outcome {
            Err(_) => {
                // Whoever waits next asks anew; this one must not keep the receiver changing sources.
                let _ = self.wanted.compare_exchange(lsn.0, 0, Ordering::Relaxed, Ordering::Relaxed);
                let have = self.last_record();
                let why = self.problem().map_or(String::new(), |why| format!("; {why}"));
                Err(WaitError::TimedOut { id: self.id, have, wanted: lsn, waited_ms: limit.as_millis(), why })
            }
            Ok(Err(_)) => Err(WaitError::Closed(self.id)),
            Ok(Ok(published)) if published.last_record >= lsn => Ok(()),
            Ok(Ok(published)) => Err(match published.running {
                Running::Broken(reason) => WaitError::Broken { id: self.id, reason },
                Running::Parked(reason) => WaitError::Parked { id: self.id, reason },
                Running::Fenced(reason) => WaitError::Fenced { id: self.id, reason },
                Running::Active => unreachable!("waited for the record or for the end of activity"),
            }),
        }
    }

    /// Blocks of a fork at `lsn`, which is not above the last record; `None`: no such fork.
    pub async fn rel_blocks(&self, rel: RelFork, lsn: Lsn) -> Result<Option<u32>, ViewError> {
        let epoch = match self.sizes.at(rel, lsn) {
            Ok(blocks) => return Ok(blocks),
            Err(epoch) => epoch,
        };
        let latest = self.last_record() == lsn;
        let size = self.view(lsn).stored_size(rel).await?;
        if latest {
            self.sizes.fill(rel, size, epoch);
        }
        Ok(size.blocks)
    }

    /// One page at `lsn`, which is not above the last record. `blocks` is the fork's size there; beyond it are zeros (G2).
    pub async fn page(
        &self,
        rel: RelFork,
        block: BlockNumber,
        blocks: u32,
        lsn: Lsn,
    ) -> Result<bytes::Bytes, ViewError> {
        if block.0 >= blocks && Guard::ZerosBeyondEnd.holds() {
            return Ok(zero_page());
        }
        let key = keyspace::rel_block(rel, block);
        let cached = self.cache.get(self.slot, key, lsn);
        if let Some(cached) = &cached
            && cached.as_of == lsn
        {
            return Ok(cached.page.clone());
        }
        let known = cached.as_ref().map(|c| VersionedPage { lsn: c.as_of, page: c.page.clone() });
        let mut found = self.view(lsn).versioned_page(rel, block, known).await?;
        if let Some(cached) = cached.filter(|cached| cached.as_of == found.lsn) {
            // Nothing came after: still the version of then.
            found.lsn = cached.lsn;
        }
        self.cache.put(self.slot, key, CachedPage { lsn: found.lsn, as_of: lsn, page: found.page.clone() });
        Ok(found.page)
    }
}

#[cfg(test)]
#[path = "timeline_test.rs"]
mod tests;
