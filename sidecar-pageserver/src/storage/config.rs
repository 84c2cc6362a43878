//! Settings of the storage, with defaults for one machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use strata_common::Lsn;
use strata_objstore::RetryPolicy;

use super::disk::{Disk, RealDisk};
use crate::core::flush::FlushPolicy;
use crate::core::key::{Key, Reconstruct};

/// Makes the image of a key from what it is made of; the service has redo. `None`: leave the changes as they are.
pub trait Materialize: Send + Sync + std::fmt::Debug + 'static {
    fn image(&self, key: Key, lsn: Lsn, parts: Reconstruct) -> Option<Bytes>;
}

#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// Folder of the local layers; data only, may be emptied while nothing runs.
    pub dir: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub flush: FlushPolicy,
    /// Layers that an import writes are about this large, bytes.
    pub image_layer_bytes_target: u64,
    /// Blocks are compressed if that saves an eighth.
    pub compression: Compression,
    /// Blocks of layer files kept in memory by all timelines together, bytes.
    pub block_cache_bytes_max: u64,
    pub retry: RetryPolicy,
    /// Between tries of a flush or upload that failed; doubles from the first to the last.
    pub backoff_first: Duration,
    pub backoff_max: Duration,
    /// How often ages are looked at.
    pub tick: Duration,
    /// How long a read of a branch waits for its ancestor to reach the branch point again (after a restart).
    pub ancestor_wait_max: Duration,
    /// A key with this many changes and no image in one layer gets an image when that layer is flushed, or reading a page that
    /// changes often would replay its whole history.
    pub materialize_changes_min: usize,
    pub materializer: Option<Arc<dyn Materialize>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    Off,
    Zstd,
}

impl StorageConfig {
    pub fn new(dir: impl Into<PathBuf>) -> StorageConfig {
        StorageConfig {
            dir: dir.into(),
            disk: Arc::new(RealDisk),
            flush: FlushPolicy {
                layer_bytes_target: 128 << 20,
                open_age_ms_max: 300_000,
                memory_bytes_max: 384 << 20,
            },
            image_layer_bytes_target: 128 << 20,
            compression: Compression::Zstd,
            block_cache_bytes_max: 256 << 20,
            retry: RetryPolicy::default(),
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            tick: Duration::from_millis(500),
            ancestor_wait_max: Duration::from_secs(30),
            materialize_changes_min: 64,
            materializer: None,
        }
    }
}
