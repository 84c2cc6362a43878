//! What can go wrong at the object store. Callers branch on four kinds: absent, lost a race, try again, and never.

use crate::ObjectKey;

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    #[error("object {key} does not exist")]
    NotFound { key: ObjectKey },
    /// A conditional put found another version than it asked for. Never retried blindly: somebody else wrote.
    #[error("object {key} was written by somebody else: the condition of the put does not hold")]
    Conflict { key: ObjectKey },
    /// The operation may or may not have happened.
    #[error("object store: {operation} of {what} failed: {reason}")]
    Unavailable { operation: &'static str, what: String, reason: String },
    #[error("object {key} has {bytes} bytes, bytes {start}..{end} were asked for")]
    BadRange { key: ObjectKey, bytes: u64, start: u64, end: u64 },
    #[error(
        "'{0}' is not an object name: parts of letters, digits, '.', '_' and '-' joined by '/' are expected"
    )]
    BadKey(String),
    /// The store must not be used at all; found when it is opened or probed.
    #[error("object store {store} cannot be used: {reason}")]
    Unusable { store: String, reason: String },
}

impl StoreError {
    /// True if the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Unavailable { .. })
    }
}
