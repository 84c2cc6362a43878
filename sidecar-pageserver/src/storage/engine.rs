//! All timelines of a pageserver: attach from the object store, import, branch, delete.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::BoxFuture;
use strata_common::{Generation, Lsn, TenantTimelineId};
use strata_objstore::{ObjectStore, RetryingStore};

use super::cache::BlockCache;
use super::config::StorageConfig;
use super::error::StorageError;
use super::import::Import;
use super::index_writer::{self, IndexWriter};
use super::layer::{Layer, LayerContext};
use super::names;
use super::timeline::Timeline;
use crate::core::attach::{LocalFile, local_file, orphans};
use crate::core::index::{Ancestor, TimelineIndex};
use crate::core::layer_map::LayerMap;

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Storage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<StorageConfig>,
    store: Arc<dyn ObjectStore>,
    generation: Generation,
    cache: Arc<BlockCache>,
    /// Unique to this process and instance; marks the indexes that it writes.
    mark: String,
    timelines: RwLock<HashMap<TenantTimelineId, Arc<Timeline>>>,
    /// Ids of imports under way.
    being_made: Mutex<HashSet<TenantTimelineId>>,
    /// Held while the set of timelines changes: a branch is not made from what is being deleted (trap G8).
    structure: tokio::sync::Mutex<()>,
}

static INSTANCES: AtomicU64 = AtomicU64::new(0);

impl Storage {
    /// `generation` only grows from start to start. Attaches nothing yet.
    pub async fn open(
        config: StorageConfig,
        store: Arc<dyn ObjectStore>,
        generation: Generation,
    ) -> Result<Storage, StorageError> {
        config.disk.create_dirs(&config.dir).map_err(StorageError::disk("creation", &config.dir))?;
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
        Ok(Storage(Arc::new(Inner {
            store: Arc::new(RetryingStore::new(store, config.retry)),
            generation,
            cache: Arc::new(BlockCache::new(config.block_cache_bytes_max)),
            config: Arc::new(config),
            mark: format!("{}-{nanos:x}-{instance}", std::process::id()),
            timelines: RwLock::default(),
            being_made: Mutex::default(),
            structure: tokio::sync::Mutex::default(),
        })))
    }

    pub fn generation(&self) -> Generation {
        self.0.generation
    }

    /// Hits and misses of the block cache so far.
    pub fn cache_counts(&self) -> (u64, u64) {
        self.0.cache.counts()
    }

    /// An attached timeline.
    pub fn timeline(&self, id: TenantTimelineId) -> Result<Arc<Timeline>, StorageError> {
        self.find(id).ok_or(StorageError::NotFound(id))
    }

    /// All attached timelines, in the order of their ids.
    pub fn timelines(&self) -> Vec<Arc<Timeline>> {
        let map = self.0.timelines.read().expect("no panic under this lock");
        let mut all: Vec<_> = map.values().cloned().collect();
        all.sort_by_key(|timeline| timeline.id());
        all
    }

    /// Ids of all timelines in the object store, in order.
    pub async fn list_remote(&self) -> Result<Vec<TenantTimelineId>, StorageError> {
        let objects = self.0.store.list(names::TIMELINES).await?;
        let mut ids: Vec<_> = objects
            .iter()
            .filter_map(|object| names::parse_index_key(&object.key))
            .map(|(id, _)| id)
            .collect();
        ids.dedup();
        Ok(ids)
    }

    /// Attaches every timeline of the object store and removes local folders of others. An error of one timeline is its own.
    pub async fn attach_all(
        &self,
    ) -> Result<Vec<(TenantTimelineId, Result<Arc<Timeline>, StorageError>)>, StorageError> {
        let ids = self.list_remote().await?;
        let mut attached = Vec::with_capacity(ids.len());
        for id in ids {
            match self.attach(id).await {
                // A deletion that had begun is finished by the attach.
                Err(StorageError::NotFound(gone)) if gone == id => {}
                result => attached.push((id, result)),
            }
        }
        Ok(attached)
    }

    /// Takes the timeline (and its ancestors) over from whoever had it. Local files that are exactly what its index names are used,
    /// others removed (trap G6). A timeline whose deletion had begun is deleted to the end and reported as absent.
    pub async fn attach(&self, id: TenantTimelineId) -> Result<Arc<Timeline>, StorageError> {
        let _structure = self.0.structure.lock().await;
        self.attach_locked(id).await
    }

    fn attach_locked(&self, id: TenantTimelineId) -> BoxFuture<'_, Result<Arc<Timeline>, StorageError>> {
        Box::pin(async move {
            if let Some(timeline) = self.find(id) {
                return Ok(timeline);
            }
            let (index, writer) =
                index_writer::take_over(&self.0.store, id, self.0.generation, &self.0.mark).await?;
            if index.deleted {
                self.delete_objects(id).await?;
                return Err(StorageError::NotFound(id));
            }
            let ancestor = match index.ancestor {
                None => None,
                Some(Ancestor { timeline, lsn }) => {
                    Some((self.attach_locked(TenantTimelineId { timeline, ..id }).await?, lsn))
                }
            };
            let layers = self.adopt_local_files(&index).await?;
            self.remove_orphans(&index).await;
            self.register(&index, writer, layers, ancestor)
        })
    }

    /// Begins a timeline without ancestor whose content as of `lsn` is given key by key.
    pub fn begin_import(&self, id: TenantTimelineId, lsn: Lsn) -> Result<Import, StorageError> {
        let exists = self.find(id).is_some();
        if exists || !self.0.being_made.lock().expect("no panic under this lock").insert(id) {
            return Err(StorageError::AlreadyExists(id));
        }
        Ok(Import::new(self, id, lsn))
    }

    /// Makes a branch that sees `ancestor` as of `lsn`, a record's end that the ancestor has reached. `metadata` is the service's at `lsn`.
    pub async fn create_branch(
        &self,
        id: TenantTimelineId,
        ancestor: TenantTimelineId,
        lsn: Lsn,
        metadata: Bytes,
    ) -> Result<Arc<Timeline>, StorageError> {
        assert_eq!(id.tenant, ancestor.tenant, "a branch belongs to its ancestor's tenant");
        let _structure = self.0.structure.lock().await;
        let parent = self.timeline(ancestor)?;
        if self.find(id).is_some() {
            return Err(StorageError::AlreadyExists(id));
        }
        if lsn > parent.last_record() {
            return Err(StorageError::NotYet { id: ancestor, lsn, last: parent.last_record() });
        }
        if lsn < parent.start_lsn() {
            return Err(StorageError::BelowStart { id: ancestor, lsn, start: parent.start_lsn() });
        }
        let index = TimelineIndex {
            id,
            generation: self.0.generation,
            writer: String::new(),
            sequence: 0,
            sealed_by: None,
            deleted: false,
            ancestor: Some(Ancestor { timeline: ancestor.timeline, lsn }),
            start_lsn: lsn,
            disk_consistent_lsn: lsn,
            metadata,
            layers: Vec::new(),
        };
        self.create(index, Vec::new(), Some((parent, lsn))).await
    }

    /// Deletes a timeline that has no branches: index marked, objects removed, index removed (trap G13). Interrupted, it is finished
    /// by the next attach or call.
    pub async fn delete(&self, id: TenantTimelineId) -> Result<(), StorageError> {
        let _structure = self.0.structure.lock().await;
        for other in
            self.list_remote().await?.into_iter().filter(|other| other.tenant == id.tenant && *other != id)
        {
            let ancestor = match self.find(other) {
                Some(timeline) => timeline.ancestor(),
                None => match index_writer::peek(&self.0.store, other).await {
                    Err(StorageError::NotFound(_)) => None,
                    index => index?.ancestor,
                },
            };
            if ancestor.is_some_and(|a| a.timeline == id.timeline) {
                return Err(StorageError::HasBranches { parent: id, child: other });
            }
        }
        let timeline = self.attach_locked(id).await?;
        timeline.shut_down().await;
        // Out of the map before anything can fail: what is shut down does not work again, an attach makes it anew.
        self.0.timelines.write().expect("no panic under this lock").remove(&id);
        {
            let mut writer = timeline.index.lock().await;
            let mut index = timeline.index_of(&timeline.layers());
            // Layers that were not uploaded are no business of the index, nor is what comes after its LSN.
            index.layers.clear();
            index.deleted = true;
            writer.write(index).await?;
        }
        let dir = self.context(id).dir.clone();
        self.0.config.disk.remove_tree(&dir).map_err(StorageError::disk("removal", &dir))?;
        self.delete_objects(id).await
    }

    /// Stops all timelines and waits for their tasks. Nothing is flushed: [`Timeline::checkpoint`] does that.
    pub async fn shutdown(&self) {
        for timeline in self.timelines() {
            timeline.shut_down().await;
        }
        self.0.timelines.write().expect("no panic under this lock").clear();
    }

    pub(super) fn config(&self) -> &Arc<StorageConfig> {
        &self.0.config
    }

    pub(super) fn context(&self, id: TenantTimelineId) -> Arc<LayerContext> {
        Arc::new(LayerContext {
            disk: self.0.config.disk.clone(),
            store: self.0.store.clone(),
            cache: self.0.cache.clone(),
            id,
            dir: self.0.config.dir.join(id.tenant.to_string()).join(id.timeline.to_string()),
        })
    }

    /// Writes the first index of a timeline whose layers are in the object store, then announces it (trap G8).
    pub(super) async fn create(
        &self,
        index: TimelineIndex,
        layers: Vec<Arc<Layer>>,
        ancestor: Option<(Arc<Timeline>, Lsn)>,
    ) -> Result<Arc<Timeline>, StorageError> {
        let (index, writer) = index_writer::create(&self.0.store, index, &self.0.mark).await?;
        self.give_up_creation(index.id);
        self.register(&index, writer, layers, ancestor)
    }

    pub(super) fn give_up_creation(&self, id: TenantTimelineId) {
        self.0.being_made.lock().expect("no panic under this lock").remove(&id);
    }

    fn find(&self, id: TenantTimelineId) -> Option<Arc<Timeline>> {
        self.0.timelines.read().expect("no panic under this lock").get(&id).cloned()
    }

    fn register(
        &self,
        index: &TimelineIndex,
        writer: IndexWriter,
        layers: Vec<Arc<Layer>>,
        ancestor: Option<(Arc<Timeline>, Lsn)>,
    ) -> Result<Arc<Timeline>, StorageError> {
        let mut map = LayerMap::default();
        for layer in layers {
            let desc = layer.desc.clone();
            map.insert(&desc, layer).map_err(|source| StorageError::Inconsistent { id: index.id, source })?;
        }
        let context = self.context(index.id);
        let timeline = Timeline::start(index, writer, map, ancestor, &self.0.config, &context);
        let mut timelines = self.0.timelines.write().expect("no panic under this lock");
        timelines.insert(index.id, timeline.clone());
        Ok(timeline)
    }

    async fn adopt_local_files(&self, index: &TimelineIndex) -> Result<Vec<Arc<Layer>>, StorageError> {
        let context = self.context(index.id);
        let index = index.clone();
        super::blocking(move || {
            let by_name: HashMap<_, _> = index.layers.iter().map(|desc| (desc.name, desc.clone())).collect();
            let layers: HashMap<_, _> = index
                .layers
                .iter()
                .map(|desc| (desc.name.to_string(), Arc::new(Layer::remote(&context, desc.clone()))))
                .collect();
            let io = |operation| StorageError::disk(operation, &context.dir);
            for (file_name, bytes) in context.disk.list(&context.dir).map_err(io("listing"))? {
                match (local_file(&by_name, &file_name, bytes), layers.get(&file_name)) {
                    (LocalFile::Check, Some(layer)) => {
                        if !layer.adopt_file()? {
                            tracing::warn!(layer = %file_name, timeline = %index.id, "local file is not what the index names: removed");
                        }
                    }
                    _ => context.disk.remove(&context.dir.join(&file_name)).map_err(io("removal"))?,
                }
            }
            Ok(layers.into_values().collect())
        })
        .await
    }

    /// What processes that were killed left in the object store. Failing is harmless: the next attach does it.
    async fn remove_orphans(&self, index: &TimelineIndex) {
        let id = index.id;
        let result: Result<(), StorageError> = async {
            let objects = self.0.store.list(&names::layer_prefix(id)).await?;
            let found: Vec<_> = objects.iter().filter_map(|o| o.key.file_name().parse().ok()).collect();
            for name in orphans(&index.layers, &found, self.0.generation) {
                self.0.store.delete(&names::layer_key(id, &name)?).await?;
            }
            Ok(())
        }
        .await;
        if let Err(e) = result {
            tracing::warn!(timeline = %id, error = %e, "orphaned layers stay until the next attach");
        }
    }

    async fn delete_objects(&self, id: TenantTimelineId) -> Result<(), StorageError> {
        for prefix in [names::object_prefix(id), names::layer_prefix(id)] {
            for object in self.0.store.list(&prefix).await? {
                self.0.store.delete(&object.key).await?;
            }
        }
        index_writer::remove_all(&self.0.store, id).await
    }
}
