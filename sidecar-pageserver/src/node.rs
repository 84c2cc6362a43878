//! All timelines of this process: attach at start, import, branch, delete, and the tasks that keep them supplied.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use strata_common::TenantTimelineId;
use tokio::sync::watch;

use crate::getpage::cache::{PageCache, TimelineSlot};
use crate::ingest::control::ControlState;
use crate::storage::{self, Storage};
use crate::store::StoreError;
use crate::timeline::Timeline;
use crate::wal::receiver;
use crate::wal::source::{Progress, Safekeepers};

/// A timeline on the real engine.
pub type EngineTimeline = Timeline<storage::Timeline>;

/// Between tries to attach a timeline; doubles from the first to the last.
const ATTACH_AGAIN_FIRST: Duration = Duration::from_secs(1);
const ATTACH_AGAIN_MAX: Duration = Duration::from_secs(60);

/// A timeline that could not be attached; named in status and lists, never hidden.
#[derive(Clone, Debug)]
pub struct Unattached {
    pub id: TenantTimelineId,
    pub reason: String,
}

struct NotAttached {
    reason: String,
    may_pass: bool,
}

/// Shared by all connections and tasks.
pub struct Node {
    pub storage: Storage,
    pub spool: PathBuf,
    id: u64,
    safekeepers: Safekeepers,
    cache: Arc<PageCache>,
    /// Drives ingest, progress reports and everything of storage.
    runtime: tokio::runtime::Handle,
    timelines: RwLock<HashMap<TenantTimelineId, Arc<EngineTimeline>>>,
    unattached: RwLock<Vec<Unattached>>,
    slots: AtomicU32,
    closing: watch::Sender<bool>,
}

/// What a node is made with.
pub struct NodeParts {
    pub storage: Storage,
    /// Folder for unpacking imports.
    pub spool: PathBuf,
    pub id: u64,
    pub safekeepers: Safekeepers,
    pub page_cache_bytes: u64,
    pub runtime: tokio::runtime::Handle,
}

impl Node {
    /// Attaches every timeline of the object store. An error of one is its own; it is listed as unattached.
    pub async fn start(parts: NodeParts) -> Result<Arc<Node>, storage::StorageError> {
        let node = Arc::new(Node {
            storage: parts.storage,
            spool: parts.spool,
            id: parts.id,
            safekeepers: parts.safekeepers,
            cache: Arc::new(PageCache::new(parts.page_cache_bytes)),
            runtime: parts.runtime,
            timelines: RwLock::default(),
            unattached: RwLock::default(),
            slots: AtomicU32::new(0),
            closing: watch::Sender::new(false),
        });
        for (id, attached) in node.storage.attach_all().await? {
            if let Err(failed) = node.adopt_attached(attached) {
                node.not_attached(id, failed);
            }
        }
        Ok(node)
    }

    fn adopt_attached(
        &self,
        attached: Result<Arc<storage::Timeline>, storage::StorageError>,
    ) -> Result<(), NotAttached> {
        let engine = attached.map_err(|error| NotAttached {
            may_pass: error.kind() == storage::ErrorKind::Retryable,
            reason: error.to_string(),
        })?;
        self.adopt(engine)
            .map(|_| ())
            .map_err(|error| NotAttached { may_pass: false, reason: error.to_string() })
    }

    /// Lists the timeline as unattached, and tries again if the reason may pass.
    fn not_attached(self: &Arc<Node>, id: TenantTimelineId, failed: NotAttached) {
        let NotAttached { reason, may_pass } = failed;
        tracing::error!(timeline = %id, %reason, may_pass, "timeline not attached");
        self.list_unattached(id, Some(reason));
        if may_pass {
            self.runtime.spawn(self.clone().attach_later(id));
        }
    }

    fn list_unattached(&self, id: TenantTimelineId, reason: Option<String>) {
        let mut list = self.unattached.write().unwrap_or_else(PoisonError::into_inner);
        list.retain(|unattached| unattached.id != id);
        list.extend(reason.map(|reason| Unattached { id, reason }));
    }

    /// Tries until it works, the reason does not pass any more, the timeline is gone, or the process stops.
    async fn attach_later(self: Arc<Node>, id: TenantTimelineId) {
        let mut closing = self.closing.subscribe();
        let mut delay = ATTACH_AGAIN_FIRST;
        loop {
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => return,
                () = tokio::time::sleep(delay) => {}
            }
            delay = (delay * 2).min(ATTACH_AGAIN_MAX);
            if self.timeline(id).is_some() {
                return self.list_unattached(id, None);
            }
            let attached = match self.storage.attach(id).await {
                // A deletion that had begun is finished.
                Err(storage::StorageError::NotFound(gone)) if gone == id => {
                    return self.list_unattached(id, None);
                }
                attached => attached,
            };
            match self.adopt_attached(attached) {
                Ok(()) => return self.list_unattached(id, None),
                Err(failed) => {
                    self.list_unattached(id, Some(failed.reason));
                    if !failed.may_pass {
                        return;
                    }
                }
            }
        }
    }

    /// Puts an attached timeline into service.
    pub fn adopt(&self, engine: Arc<storage::Timeline>) -> Result<Arc<EngineTimeline>, StoreError> {
        let id = engine.id();
        let (lsn, metadata) = engine.disk_consistent_at_start();
        let control = ControlState::decode(&metadata)
            .map_err(|error| StoreError::Corrupt(format!("timeline {id}: state at {lsn}: {error}")))?;
        if control.lsn != lsn {
            return Err(StoreError::Corrupt(format!(
                "timeline {id}: state of {} stored at {lsn}",
                control.lsn
            )));
        }
        let slot = TimelineSlot(self.slots.fetch_add(1, Ordering::Relaxed));
        let timeline = Timeline::new(id, engine, control, self.cache.clone(), slot);
        self.timelines.write().unwrap_or_else(PoisonError::into_inner).insert(id, timeline.clone());
        self.runtime.spawn(receiver::run(timeline.clone(), self.safekeepers.clone()));
        let engine = timeline.store.clone();
        let served = Arc::downgrade(&timeline);
        let progress = move || Progress {
            received: served.upgrade().map_or(engine.last_record(), |timeline| timeline.last_record()),
            disk_consistent: engine.disk_consistent(),
            remote_consistent: engine.remote_consistent(),
        };
        self.runtime.spawn(receiver::report(timeline.clone(), self.safekeepers.clone(), self.id, progress));
        tracing::info!(timeline = %id, %lsn, "timeline in service");
        Ok(timeline)
    }

    pub fn timeline(&self, id: TenantTimelineId) -> Option<Arc<EngineTimeline>> {
        self.timelines.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// All timelines in service, in the order of their ids.
    pub fn timelines(&self) -> Vec<Arc<EngineTimeline>> {
        let map = self.timelines.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = map.values().cloned().collect();
        all.sort_by_key(|timeline| timeline.id);
        all
    }

    pub fn unattached(&self) -> Vec<Unattached> {
        self.unattached.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn page_cache_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// Out of storage and out of service. If that stops half-way the timeline is attached again, which finishes a deletion
    /// that had begun and otherwise puts the timeline back into service.
    pub async fn delete(self: &Arc<Node>, id: TenantTimelineId) -> Result<(), storage::StorageError> {
        let deleted = self.storage.delete(id).await;
        if deleted.is_err() && self.storage.timeline(id).is_ok() {
            return deleted;
        }
        let removed = self.timelines.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(timeline) = &removed {
            timeline.close();
        }
        match &deleted {
            Ok(()) => self.list_unattached(id, None),
            Err(error) if removed.is_some() => {
                let reason = format!("its deletion stopped half-way: {error}");
                self.not_attached(id, NotAttached { reason, may_pass: true });
            }
            Err(_) => {}
        }
        deleted
    }

    /// Ends all waits and tasks; writes what is in memory to the object store within `flush_wait_max`, so that the next
    /// start reads little log again.
    pub async fn shut_down(&self, flush_wait_max: std::time::Duration) {
        self.closing.send_replace(true);
        let timelines = self.timelines();
        for timeline in &timelines {
            timeline.close();
        }
        let flushes = timelines.iter().map(|timeline| async move {
            if let Err(error) = timeline.store.checkpoint().await {
                tracing::warn!(timeline = %timeline.id, %error, "not flushed; its log will be read again");
            }
        });
        if tokio::time::timeout(flush_wait_max, futures::future::join_all(flushes)).await.is_err() {
            tracing::warn!("not everything was flushed in time; its log will be read again");
        }
        self.storage.shutdown().await;
    }
}
