//! What the storage should answer: a log of records and the plainest possible reading of it; and a test bench with store, folder and faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use strata_common::{Generation, Lsn, TenantId, TenantTimelineId, TimelineId};
use strata_objstore::{FaultyStore, LocalStore, ObjectStore, RetryPolicy};
use strata_pageserver::storage::faults::FaultyDisk;
use strata_pageserver::storage::{
    FlushPolicy, Key, KeyRange, Materialize, Reconstruct, Storage, StorageConfig, Timeline, Value,
};

/// Keys below this number have images only, so that they can be scanned.
pub const IMAGE_KEYS: u8 = 3;
pub const KEYS: u8 = 7;

pub fn key(n: u8) -> Key {
    let mut key = Key([0x40; 18]);
    key.0[16] = n;
    key
}

pub fn timeline_id(n: u8) -> TenantTimelineId {
    TenantTimelineId { tenant: TenantId([0xaa; 16]), timeline: TimelineId([n; 16]) }
}

/// Content of a key: an image's bytes, then every change's in their order. A change that initialises begins anew.
pub fn content(parts: &Reconstruct) -> Option<Vec<u8>> {
    if parts.is_absent() {
        return None;
    }
    let mut content = match &parts.image {
        Some((_, image)) => image.to_vec(),
        None if parts.rooted => Vec::new(),
        None => b"?".to_vec(),
    };
    parts.changes.iter().for_each(|(_, change)| content.extend_from_slice(change));
    Some(content)
}

#[derive(Debug)]
struct Join;

impl Materialize for Join {
    fn image(&self, _: Key, _: Lsn, parts: Reconstruct) -> Option<Bytes> {
        parts.rooted.then(|| content(&parts)).flatten().map(Bytes::from)
    }
}

/// One record: its end, and what it puts.
pub type Record = (Lsn, Vec<(Key, Value)>);

#[derive(Clone, Debug)]
pub struct ModelTimeline {
    pub id: TenantTimelineId,
    pub start: Lsn,
    pub imported: BTreeMap<Key, Bytes>,
    pub log: Vec<Record>,
    pub ancestor: Option<(Box<ModelTimeline>, Lsn)>,
    /// The highest LSN reported as remote-consistent.
    pub promised: Lsn,
}

impl ModelTimeline {
    pub fn last(&self) -> Lsn {
        self.log.last().map_or(self.start, |(lsn, _)| *lsn)
    }

    pub fn read(&self, key: Key, lsn: Lsn) -> Option<Vec<u8>> {
        let mut content = match &self.ancestor {
            Some((ancestor, branch)) => ancestor.read(key, lsn.min(*branch)),
            None => self.imported.get(&key).map(|image| image.to_vec()),
        };
        for (_, values) in self.log.iter().take_while(|(at, _)| *at <= lsn) {
            for (_, value) in values.iter().filter(|(k, _)| *k == key) {
                match value {
                    Value::Image(bytes) | Value::Change { bytes, will_init: true } => {
                        content = Some(bytes.to_vec())
                    }
                    Value::Change { bytes, will_init: false } => {
                        content.get_or_insert_with(|| b"?".to_vec()).extend_from_slice(bytes);
                    }
                }
            }
        }
        content
    }
}

/// A store, a folder, and a storage that runs over them.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub store: Arc<FaultyStore<LocalStore>>,
    pub disk: FaultyDisk,
    pub storage: Storage,
    pub generation: u32,
    pub materialize: bool,
}

impl Bench {
    pub async fn new(materialize: bool) -> Bench {
        // In memory where that is possible: thousands of fsyncs prove nothing here.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("temp dir");
        let local = LocalStore::open(dir.path().join("store")).await.expect("store opens");
        let store = Arc::new(FaultyStore::new(local, 1));
        let disk = FaultyDisk::new();
        let config = config(&dir, &disk, materialize);
        let storage = Storage::open(config, store.clone(), Generation(1)).await.expect("opens");
        Bench { dir, store, disk, storage, generation: 1, materialize }
    }

    pub async fn import(&self, n: u8, start: Lsn, keys: &[u8]) -> (Arc<Timeline>, ModelTimeline) {
        let id = timeline_id(n);
        let mut import = self.storage.begin_import(id, start).expect("begins");
        let mut imported = BTreeMap::new();
        for k in keys {
            let image = Bytes::from(format!("imported {k};").repeat(50));
            import.add(key(*k), image.clone()).await.expect("adds");
            imported.insert(key(*k), image);
        }
        let timeline = import.finish(metadata(start)).await.expect("finishes");
        let model = ModelTimeline { id, start, imported, log: Vec::new(), ancestor: None, promised: start };
        (timeline, model)
    }

    /// Another process over the same store and folder: the old one is stopped, without a flush.
    pub async fn reopen(&mut self) {
        self.storage.shutdown().await;
        self.disk = FaultyDisk::new();
        self.generation += 1;
        let config = config(&self.dir, &self.disk, self.materialize);
        let store: Arc<dyn ObjectStore> = self.store.clone();
        self.storage = Storage::open(config, store, Generation(self.generation)).await.expect("opens");
    }

    pub fn local_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("local")
    }
}

pub fn config(dir: &tempfile::TempDir, disk: &FaultyDisk, materialize: bool) -> StorageConfig {
    let mut config = StorageConfig::new(dir.path().join("local"));
    config.disk = Arc::new(disk.clone());
    config.flush =
        FlushPolicy { layer_bytes_target: 4000, open_age_ms_max: 60_000, memory_bytes_max: 20_000 };
    config.image_layer_bytes_target = 1500;
    config.retry = RetryPolicy {
        tries_max: 30,
        delay_first: Duration::from_millis(1),
        delay_max: Duration::from_millis(20),
    };
    config.materialize_changes_min = 3;
    config.materializer = materialize.then(|| Arc::new(Join) as Arc<dyn Materialize>);
    config
}

/// What ingest would want back at `lsn`.
pub fn metadata(lsn: Lsn) -> Bytes {
    Bytes::from(format!("state at {lsn}"))
}

pub async fn put(timeline: &Timeline, record: &Record) {
    let (lsn, values) = record;
    for value in values {
        timeline.put(*lsn, vec![value.clone()]).expect("puts");
    }
    timeline.finish_record(*lsn, &metadata(*lsn)).await.expect("finishes");
}

/// After a restart: what was promised is there, and the log is read on from a record's end with its metadata (PS-4).
pub async fn recover(timeline: &Timeline, model: &ModelTimeline) {
    let (from, found) = timeline.disk_consistent_at_start();
    assert!(from >= model.promised, "{from} is below the promised {}", model.promised);
    assert!(
        from == model.start || model.log.iter().any(|(lsn, _)| *lsn == from),
        "{from} is no record's end"
    );
    assert_eq!(found, metadata(from));
    assert_eq!(timeline.last_record(), from);
    compare(timeline, model, from).await;
    for record in model.log.iter().filter(|(lsn, _)| *lsn > from) {
        put(timeline, record).await;
    }
}

/// Every key at every record's end up to `to`, and scans.
pub async fn compare(timeline: &Timeline, model: &ModelTimeline, to: Lsn) {
    let mut points: Vec<Lsn> = model.log.iter().map(|(lsn, _)| *lsn).filter(|lsn| *lsn <= to).collect();
    points.push(model.start);
    if let Some((ancestor, branch)) = &model.ancestor {
        points.extend(ancestor.log.iter().map(|(lsn, _)| *lsn).filter(|lsn| lsn <= branch));
    }
    for lsn in points {
        for k in 0..KEYS {
            let parts = timeline.get(key(k), lsn).await.expect("reads");
            let (found, wanted) = (content(&parts), model.read(key(k), lsn));
            let text = |c: &Option<Vec<u8>>| c.as_deref().map(|c| String::from_utf8_lossy(c).into_owned());
            assert_eq!(text(&found), text(&wanted), "key {k} at {lsn}");
        }
        let keys = KeyRange { first: key(0), last: key(IMAGE_KEYS - 1) };
        let scanned = timeline.scan(keys, lsn).await.expect("scans");
        let wanted = |k| model.read(key(k), lsn).map(|content| (key(k), Bytes::from(content)));
        assert_eq!(scanned, (0..IMAGE_KEYS).filter_map(wanted).collect::<Vec<_>>(), "scan at {lsn}");
        let all = timeline.keys(KeyRange::ALL, lsn).await.expect("lists");
        let wanted = (0..KEYS).map(key).filter(|k| model.read(*k, lsn).is_some()).collect::<Vec<_>>();
        assert_eq!(all, wanted, "keys at {lsn}");
    }
}

/// Runs a test on one thread with a clock that jumps when everybody waits: back-offs cost nothing.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("runtime");
    runtime.block_on(test)
}
