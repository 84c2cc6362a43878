//! The log's way out: the proposer worker, and what makes commits wait for the quorum. On when `strata.safekeepers` is set.

pub mod backpressure;
mod commit_wait;
mod entry;
mod quorum;
pub mod shared;
mod slot;
mod source;
mod worker;

pub use commit_wait::{finish_prepared, finishes_prepared, is_finishing_prepared};

/// From `_PG_init` in the postmaster, after the settings are there.
pub fn init() {
    entry::require_quorum();
    entry::reserve_table_entry();
    commit_wait::install();
    worker::register();
}

/// From `shmem_request_hook`.
pub fn on_shmem_request() {
    entry::restore_table_size();
}
