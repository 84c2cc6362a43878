//! What can go wrong in the storage. [`StorageError::kind`] sorts it into what a caller does about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strata_common::{Generation, Lsn, TenantTimelineId, Term};
use strata_objstore::{ObjectKey, StoreError};

use crate::core::index::IndexError;
use crate::core::key::Key;
use crate::core::layer_map::Overlap;
use crate::core::object::{ObjectDamage, ObjectName};

/// What a caller does about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// Try again later: disk full, object store away, not yet there.
    Retryable,
    /// Another process has taken over: stop.
    Stale,
    /// The caller asked for something wrong or absent.
    BadInput,
    /// Stored bytes are not what was written. Nothing is guessed.
    Corruption,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    #[error("timeline {0} does not exist")]
    NotFound(TenantTimelineId),
    #[error("timeline {0} exists already")]
    AlreadyExists(TenantTimelineId),
    #[error("timeline {parent} has the branch {child}: delete that first")]
    HasBranches { parent: TenantTimelineId, child: TenantTimelineId },
    #[error("timeline {id}: generation {own} of this pageserver is stale, {by} has taken over")]
    Stale { id: TenantTimelineId, own: Generation, by: String },
    #[error("timeline {0} is shut down")]
    ShutDown(TenantTimelineId),
    #[error("timeline {id}: {what} at {lsn} after {last} is out of order")]
    OutOfOrder { id: TenantTimelineId, what: &'static str, lsn: Lsn, last: Lsn },
    #[error("timeline {id}: {lsn} is above the last record at {last}")]
    NotYet { id: TenantTimelineId, lsn: Lsn, last: Lsn },
    #[error("timeline {id}: {lsn} is before its beginning at {start}")]
    BelowStart { id: TenantTimelineId, lsn: Lsn, start: Lsn },
    #[error("{what} of {bytes} bytes is larger than {max}")]
    TooLarge { what: &'static str, bytes: usize, max: usize },
    #[error("key {0} does not come after the key before it")]
    Unsorted(Key),
    #[error("key {key} holds a change at {lsn}, where only images can be listed")]
    NotAnImage { key: Key, lsn: Lsn },
    #[error("layer file {file}, {part}: {reason}")]
    Corrupt { file: String, part: String, reason: String },
    #[error("index {key}: {source}")]
    CorruptIndex { key: ObjectKey, source: IndexError },
    #[error("index {key}: it was written by generation {generation}, under whose name it does not lie")]
    Misnamed { key: ObjectKey, generation: Generation },
    #[error("object {key} is damaged: {damage}")]
    CorruptObject { key: ObjectKey, damage: ObjectDamage },
    #[error("term {asked} of this compute is over: term {newest} has put {name} of timeline {id}")]
    LaterTerm { id: TenantTimelineId, name: ObjectName, asked: Term, newest: Term },
    #[error("index of timeline {id}: {source}")]
    Inconsistent { id: TenantTimelineId, source: Overlap },
    #[error("{operation} of {path}: {source}")]
    Disk { operation: &'static str, path: PathBuf, source: Arc<io::Error> },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StorageError {
    pub fn kind(&self) -> ErrorKind {
        use StorageError::*;
        match self {
            Stale { .. } => ErrorKind::Stale,
            Corrupt { .. }
            | CorruptIndex { .. }
            | Misnamed { .. }
            | CorruptObject { .. }
            | Inconsistent { .. } => ErrorKind::Corruption,
            NotYet { .. } | Disk { .. } | ShutDown(_) => ErrorKind::Retryable,
            Store(e) if e.is_retryable() => ErrorKind::Retryable,
            // A layer object that an index names and the store does not have.
            Store(StoreError::NotFound { .. } | StoreError::BadRange { .. }) => ErrorKind::Corruption,
            _ => ErrorKind::BadInput,
        }
    }

    pub(crate) fn disk(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        let path = path.to_owned();
        move |source| StorageError::Disk { operation, path, source: Arc::new(source) }
    }
}
