//! What lies between a compute's shared buffers and its pageserver: which pages a cache in a local file keeps, and how many
//! different pages a workload asks for.
//!
//! Plain decisions over plain memory that several processes share; where pages come from, and Postgres, it does not know.
#![forbid(unsafe_code)]

mod entry;
pub mod kept;
pub mod partition;
pub mod working_set;

pub use entry::{Entry, PageName};
pub use partition::{Partition, Place};
pub use working_set::WorkingSet;
