//! The log of one timeline on disk, in segment files as Postgres lays them out (`FORMAT.md`).
//!
//! `store` writes, cuts and removes; `recovery` finds the end of the log after a crash; `segment` makes and names files;
//! `reader` reads for streams. Consensus is not known here: what may be cut or removed is decided in `core`.

pub mod reader;
mod recovery;
mod segment;
pub mod store;

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod store_test;
#[cfg(test)]
pub mod test_log;

use std::path::PathBuf;

use strata_common::Lsn;
use strata_pgwal::StreamError;

pub use segment::LogFolder;
pub use store::{Synced, WalStore};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
    #[error("the log at {at} is damaged: segment {path} {what}")]
    Damaged { at: Lsn, path: PathBuf, what: String },
    /// The log ends at `end` without it.
    #[error("log that was sent for {begin} is no log of this timeline: {error}")]
    Content { begin: Lsn, end: Lsn, error: StreamError },
}

impl StoreError {
    /// Whether this passes when there is room on the disk again.
    pub fn is_full(&self) -> bool {
        matches!(self, StoreError::Io { error, .. } if crate::shell::disk::is_full(error))
    }
}
