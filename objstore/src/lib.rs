//! The object store, the only state that the parts of Strata share: whole objects under names, with a conditional put.
//!
//! The seam is [`ObjectStore`]; a local directory implements it, and wrappers add bounded retries and, for tests, faults. Nothing here knows
//! what an object means. Layer files and log segments are immutable under names that carry a generation; only indexes are overwritten, by
//! [`PutCondition`]. Safety never rests on the conditional put alone: names and the index check do (design decision D9).
#![forbid(unsafe_code)]

mod error;
mod faulty;
mod key;
mod local;
mod probe;
mod retry;
mod store;

pub use error::StoreError;
pub use faulty::{FaultRates, FaultyStore};
pub use key::ObjectKey;
pub use local::LocalStore;
pub use probe::{probe, probe_with_nonce};
pub use retry::{RetryPolicy, RetryingStore};
pub use store::{Object, ObjectInfo, ObjectStore, PutCondition, StoreFuture, Version};
