//! All timelines of this process: attach at start, import, branch, delete, and the tasks that keep them supplied.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use strata_common::TenantTimelineId;

use crate::getpage::cache::{PageCache, TimelineSlot};
use crate::ingest::control::ControlState;
use crate::storage::{self, Storage};
use crate::store::StoreError;
use crate::timeline::Timeline;
use crate::wal::receiver;
use crate::wal::source::{Progress, Safekeepers};

/// A timeline on the real engine.
pub type EngineTimeline = Timeline<storage::Timeline>;

/// A timeline that could not be attached at start; named in status and lists, never hidden.
#[derive(Clone, Debug)]
pub struct Unattached {
    pub id: TenantTimelineId,
    pub reason: String,
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
        });
        for (id, attached) in node.storage.attach_all().await? {
            let adopted = match attached {
                Ok(timeline) => node.adopt(timeline).map(|_| ()).map_err(|e| e.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = adopted {
                tracing::error!(timeline = %id, %reason, "timeline not attached");
                node.unattached
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Unattached { id, reason });
            }
        }
        Ok(node)
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

    /// Out of service, then out of storage.
    pub async fn delete(&self, id: TenantTimelineId) -> Result<(), storage::StorageError> {
        self.storage.delete(id).await?;
        let removed = self.timelines.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(timeline) = removed {
            timeline.close();
        }
        Ok(())
    }

    /// Ends all waits and tasks; writes what is in memory to the object store within `flush_wait_max`, so that the next
    /// start reads little log again.
    pub async fn shut_down(&self, flush_wait_max: std::time::Duration) {
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
