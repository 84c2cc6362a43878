//! The storage of timelines: values by (key, LSN) in layer files, the local disk a cache of them, the object store their home.
//!
//! It knows neither pages nor redo: a [`Key`] is eighteen ordered bytes, a [`Value`] an image or a change. The log goes in by
//! [`Timeline::put`] and [`Timeline::finish_record`], comes out by [`Timeline::get`] and [`Timeline::scan`]. What is in memory is lost
//! with the process and is read from the log again, from [`Timeline::disk_consistent_at_start`] on; nothing at or below
//! [`Timeline::remote_consistent`] is ever lost (PS-4). `FORMAT.md` describes the bytes.
//!
//! ```
//! use std::sync::Arc;
//! use strata_common::{Generation, Lsn, TenantId, TenantTimelineId, TimelineId};
//! use strata_objstore::LocalStore;
//! use strata_pageserver::storage::{Key, KeyRange, Storage, StorageConfig, Value};
//!
//! # tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(async {
//! # let dir = tempfile::tempdir()?;
//! # let (store_dir, local_dir) = (dir.path().join("store"), dir.path().join("local"));
//! let store = Arc::new(LocalStore::open(store_dir).await?);
//! let storage = Storage::open(StorageConfig::new(local_dir), store, Generation(1)).await?;
//! for (_id, attached) in storage.attach_all().await? {
//!     attached?; // at a start: every timeline of the object store; an error concerns that timeline only
//! }
//!
//! // Import: image layers from sorted keys; in the object store and listed when `finish` returns.
//! let id = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
//! let (a, b) = (Key([1; 18]), Key([2; 18]));
//! let mut import = storage.begin_import(id, Lsn(0x100))?;
//! import.add(a, b"page a".as_slice().into()).await?;
//! let timeline = import.finish(b"what ingest wants back".as_slice().into()).await?;
//!
//! // Ingest: all values of a record (several records if you like), then finish at the record's END. `finish_record` waits while
//! // memory is full; the metadata is kept with the LSN at which a layer happens to end.
//! timeline.put(Lsn(0x180), vec![(b, Value::Image(b"page b".as_slice().into()))])?;
//! timeline.put(Lsn(0x180), vec![(b, Value::Change { bytes: b"x".as_slice().into(), will_init: false })])?;
//! timeline.finish_record(Lsn(0x180), b"ingest state at 0x180").await?;
//!
//! // Read: waits for nothing but downloads, so wait for the LSN first.
//! timeline.wait_for(Lsn(0x180), std::time::Duration::from_secs(1)).await?;
//! let parts = timeline.get(b, Lsn(0x180)).await?;
//! assert_eq!(parts.image, Some((Lsn(0x180), b"page b".as_slice().into())));
//! assert_eq!(parts.changes, [(Lsn(0x180), b"x".as_slice().into())]);
//! assert_eq!(timeline.scan(KeyRange::ALL, Lsn(0x100)).await?, [(a, b"page a".as_slice().into())]);
//!
//! // A branch: its index is in the object store when this returns (trap G8).
//! let child = TenantTimelineId { timeline: TimelineId([3; 16]), ..id };
//! let branch = storage.create_branch(child, id, Lsn(0x180), b"ingest state".as_slice().into()).await?;
//! assert!(branch.get(a, Lsn(0x180)).await?.rooted);
//!
//! // To the object store now, not when it is time: after this nothing up to the last record can be lost.
//! assert_eq!(timeline.checkpoint().await?, Lsn(0x180));
//! storage.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
mod config;
pub mod disk;
mod engine;
mod error;
pub mod faults;
mod import;
mod index_writer;
mod ingest;
mod layer;
pub mod layer_file;
mod mem_layer;
mod names;
mod objects;
mod read;
mod timeline;
mod worker;

pub use crate::core::flush::FlushPolicy;
pub use crate::core::index::Ancestor;
pub use crate::core::key::{KEY_BYTES, Key, KeyRange, Reconstruct, VALUE_BYTES_MAX, Value};
pub use crate::core::object::{ObjectDamage, ObjectName, SmallObject};
pub use cache::BlockCache;
pub use config::{Compression, Materialize, StorageConfig};
pub use engine::Storage;
pub use error::{ErrorKind, StorageError};
pub use import::Import;
pub use timeline::{Timeline, TimelineStatus};

/// Runs work that blocks on the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(e) => Err(StorageError::Disk {
            operation: "work",
            path: "at shutdown".into(),
            source: std::sync::Arc::new(std::io::Error::other(e)),
        }),
    }
}
