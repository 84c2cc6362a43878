//! The decisions of the storage manager that keeps permanent relations on a pageserver.
//!
//! Pure parts, each a plain value that is told what happened and answers what to do: which relation is permanent
//! (`class`), what an evicted page needs (`evict`), how old an answer may be (`last_written`), how large relations are
//! (`rel_table`), how a backend and the communicator hand over a request (`slots`), whether
//! it spins before it sleeps (`spin`), what is asked for before it is read (`prefetch`). One part does I/O: the page client
//! (`client`), which the communicator runs; `objects` puts and gets small objects beside it. `stock` stands apart: it reads an unpatched server's program and says whether its storage
//! manager can be replaced. The state lives in shared memory that `pg_ext` lays out; everything here works on
//! plain slices and atomics of it.
//!
//! A test aid compares two copies of a page (`shadow`).
//!
//! Knows nothing of Postgres's processes, locks and memory; page layouts only as far as eviction needs them (`page`).
#![forbid(unsafe_code)]

pub mod backpressure;
pub mod class;
pub mod client;
pub mod evict;
pub mod insert_lsn;
pub mod interrupt;
pub mod last_written;
pub mod objects;
pub mod page;
pub mod prefetch;
pub mod quiet;
pub mod rel_table;
pub mod request_stats;
pub mod shadow;
pub mod slots;
pub mod spin;
pub mod stock;
mod sync;

pub use class::Class;
pub use last_written::LastWritten;
pub use rel_table::{ForkSize, RelEntry, RelPartition};
