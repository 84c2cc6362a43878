//! One timeline: its layers, how far it is, and the tasks that flush and upload. Ingest, reads and tasks are in files of their own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use strata_common::{Generation, Lsn, TenantTimelineId};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::config::StorageConfig;
use super::error::StorageError;
use super::index_writer::IndexWriter;
use super::ingest::Ingest;
use super::layer::{Layer, LayerContext};
use super::mem_layer::MemLayer;
use crate::core::index::{Ancestor, TimelineIndex};
use crate::core::layer_map::LayerMap;

/// What there is to read, at one moment; never changed, only replaced.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    pub open: Arc<MemLayer>,
    /// Oldest first.
    pub frozen: Vec<Arc<Frozen>>,
    pub map: LayerMap<Arc<Layer>>,
    /// Every record that ends at or below this is in `map`; `metadata` is the service's at that LSN.
    pub disk_consistent: Lsn,
    pub metadata: Bytes,
}

/// A full layer that waits for its file. Holds LSNs below `end`.
#[derive(Debug)]
pub(super) struct Frozen {
    pub mem: Arc<MemLayer>,
    pub end: Lsn,
    pub metadata: Bytes,
}

#[derive(Debug)]
pub struct Timeline {
    pub(super) id: TenantTimelineId,
    pub(super) generation: Generation,
    pub(super) start_lsn: Lsn,
    pub(super) ancestor: Option<(Arc<Timeline>, Lsn)>,
    pub(super) config: Arc<StorageConfig>,
    pub(super) context: Arc<LayerContext>,
    at_start: (Lsn, Bytes),
    /// Taken before `layers` where both are.
    pub(super) ingest: Mutex<Ingest>,
    pub(super) layers: RwLock<Arc<Layers>>,
    pub(super) frozen_bytes: AtomicU64,
    pub(super) last_record: watch::Sender<Lsn>,
    pub(super) disk_consistent: watch::Sender<Lsn>,
    pub(super) remote_consistent: watch::Sender<Lsn>,
    pub(super) flush_wanted: Notify,
    pub(super) upload_wanted: Notify,
    /// Why the last flush or upload failed, while that lasts.
    pub(super) flush_problem: watch::Sender<Option<StorageError>>,
    pub(super) upload_problem: watch::Sender<Option<StorageError>>,
    /// Set once: nothing is written any more. Reads go on.
    pub(super) stopped: watch::Sender<Option<StorageError>>,
    pub(super) index: tokio::sync::Mutex<IndexWriter>,
    /// Held while a small object is put.
    pub(super) objects: tokio::sync::Mutex<()>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Figures for status pages and metrics.
#[derive(Clone, Debug)]
pub struct TimelineStatus {
    pub last_record: Lsn,
    pub disk_consistent: Lsn,
    pub remote_consistent: Lsn,
    pub layers: usize,
    /// Delta layers that a read may have to look into; grows until compaction.
    pub delta_layers: usize,
    /// Bytes of all layer files of this timeline, without its ancestors'.
    pub physical_bytes: u64,
    /// Of them here on the local disk.
    pub resident_bytes: u64,
    /// Open and frozen layers in memory, bytes.
    pub memory_bytes: u64,
    /// Disk full, object store away, taken over by another process: why something does not move, as a sentence.
    pub problem: Option<String>,
}

impl Timeline {
    pub(super) fn start(
        index: &TimelineIndex,
        writer: IndexWriter,
        map: LayerMap<Arc<Layer>>,
        ancestor: Option<(Arc<Timeline>, Lsn)>,
        config: &Arc<StorageConfig>,
        context: &Arc<LayerContext>,
    ) -> Arc<Timeline> {
        let lsn = index.disk_consistent_lsn;
        let open = Arc::new(MemLayer::new(lsn + 1));
        let layers = Layers {
            open: open.clone(),
            frozen: Vec::new(),
            map,
            disk_consistent: lsn,
            metadata: index.metadata.clone(),
        };
        let timeline = Arc::new(Timeline {
            id: index.id,
            generation: index.generation,
            start_lsn: index.start_lsn,
            ancestor,
            config: config.clone(),
            context: context.clone(),
            at_start: (lsn, index.metadata.clone()),
            ingest: Mutex::new(Ingest::new(open, lsn, &index.metadata)),
            layers: RwLock::new(Arc::new(layers)),
            frozen_bytes: AtomicU64::new(0),
            last_record: watch::Sender::new(lsn),
            disk_consistent: watch::Sender::new(lsn),
            remote_consistent: watch::Sender::new(lsn),
            flush_wanted: Notify::new(),
            upload_wanted: Notify::new(),
            flush_problem: watch::Sender::new(None),
            upload_problem: watch::Sender::new(None),
            stopped: watch::Sender::new(None),
            index: tokio::sync::Mutex::new(writer),
            objects: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
        });
        let tasks =
            vec![tokio::spawn(timeline.clone().run_flusher()), tokio::spawn(timeline.clone().run_uploader())];
        *timeline.tasks.lock().expect("no panic under this lock") = tasks;
        timeline
    }

    pub fn id(&self) -> TenantTimelineId {
        self.id
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// LSN of the import or branch point.
    pub fn start_lsn(&self) -> Lsn {
        self.start_lsn
    }

    pub fn ancestor(&self) -> Option<Ancestor> {
        self.ancestor.as_ref().map(|(timeline, lsn)| Ancestor { timeline: timeline.id.timeline, lsn: *lsn })
    }

    /// Where the log must be read on from after this attach, and the service's metadata at that LSN.
    pub fn disk_consistent_at_start(&self) -> (Lsn, Bytes) {
        self.at_start.clone()
    }

    /// End of the last finished record: the highest LSN that can be read.
    pub fn last_record(&self) -> Lsn {
        *self.last_record.borrow()
    }

    /// Records up to here (inclusive) are in local layer files.
    pub fn disk_consistent(&self) -> Lsn {
        *self.disk_consistent.borrow()
    }

    /// Records up to here (inclusive) are in the object store, named by our index: the log below may go (PS-4).
    pub fn remote_consistent(&self) -> Lsn {
        *self.remote_consistent.borrow()
    }

    pub fn watch_last_record(&self) -> watch::Receiver<Lsn> {
        self.last_record.subscribe()
    }

    pub fn watch_remote_consistent(&self) -> watch::Receiver<Lsn> {
        self.remote_consistent.subscribe()
    }

    /// Turns to an error when this process may write no more, with the reason.
    pub fn watch_stopped(&self) -> watch::Receiver<Option<StorageError>> {
        self.stopped.subscribe()
    }

    /// Waits until the record that ends at `lsn` is in; [`StorageError::NotYet`] after `wait_max`.
    pub async fn wait_for(&self, lsn: Lsn, wait_max: Duration) -> Result<(), StorageError> {
        let mut last_record = self.last_record.subscribe();
        let arrived = tokio::time::timeout(wait_max, last_record.wait_for(|last| *last >= lsn)).await;
        match arrived {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StorageError::NotYet { id: self.id, lsn, last: self.last_record() }),
        }
    }

    /// Waits until everything finished so far is in layer files, the last layer frozen for it.
    pub async fn flush(&self) -> Result<Lsn, StorageError> {
        let target = self.request_freeze();
        self.wait_until(&self.disk_consistent, target).await
    }

    /// Waits until everything finished so far is in the object store.
    pub async fn checkpoint(&self) -> Result<Lsn, StorageError> {
        let target = self.request_freeze();
        self.wait_until(&self.remote_consistent, target).await
    }

    async fn wait_until(&self, position: &watch::Sender<Lsn>, target: Lsn) -> Result<Lsn, StorageError> {
        let (mut position, mut stopped) = (position.subscribe(), self.stopped.subscribe());
        tokio::select! {
            reached = position.wait_for(|at| *at >= target) => {
                reached.map(|at| *at).map_err(|_| StorageError::ShutDown(self.id))
            }
            why = stopped.wait_for(Option::is_some) => {
                Err(why.ok().and_then(|why| (*why).clone()).unwrap_or(StorageError::ShutDown(self.id)))
            }
        }
    }

    pub fn status(&self) -> TimelineStatus {
        let layers = self.layers();
        let bytes = |resident_only: bool| {
            let counted = layers.map.iter().filter(|e| !resident_only || e.layer.resident().is_some());
            counted.map(|e| e.layer.desc.bytes).sum()
        };
        let problems = [&self.stopped, &self.flush_problem, &self.upload_problem];
        let problem = problems.iter().find_map(|p| p.borrow().as_ref().map(ToString::to_string));
        TimelineStatus {
            last_record: self.last_record(),
            disk_consistent: self.disk_consistent(),
            remote_consistent: self.remote_consistent(),
            layers: layers.map.iter().count(),
            delta_layers: layers.map.delta_count(),
            physical_bytes: bytes(false),
            resident_bytes: bytes(true),
            memory_bytes: layers.open.bytes() + self.frozen_bytes.load(Ordering::Relaxed),
            problem,
        }
    }

    /// Drops the local files of all layers that are in the object store; reads download them again. Returns how many.
    pub async fn evict_all(&self) -> Result<usize, StorageError> {
        let layers = self.layers();
        let mut evicted = 0;
        for entry in layers.map.iter() {
            evicted += usize::from(entry.layer.evict().await?);
        }
        Ok(evicted)
    }

    pub(super) fn layers(&self) -> Arc<Layers> {
        self.layers.read().expect("no panic under this lock").clone()
    }

    /// Replaces the layers by a changed copy.
    pub(super) fn change_layers<T>(&self, change: impl FnOnce(&mut Layers) -> T) -> T {
        let mut guard = self.layers.write().expect("no panic under this lock");
        let mut layers = (**guard).clone();
        let outcome = change(&mut layers);
        *guard = Arc::new(layers);
        outcome
    }

    pub(super) fn stop(&self, why: StorageError) {
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none();
            stopped.get_or_insert(why);
            first
        });
    }

    /// Stops the tasks and waits for them; what is not in the object store is left to the log.
    pub(super) async fn shut_down(&self) {
        self.stop(StorageError::ShutDown(self.id));
        drop(self.objects.lock().await);
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("no panic under this lock"));
        for task in tasks {
            if let Err(e) = task.await {
                tracing::error!(timeline = %self.id, error = %e, "a task of a timeline panicked");
            }
        }
    }
}
