//! SQL functions of the storage manager: positions in the log, and statistics of page requests.
//!
//! A `pg_lsn` is a 64-bit number by value, so these functions return it as `i64`; `sql/strata--*.sql` declares the type.

use pgrx::pg_sys;
use pgrx::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use strata_common::{BlockNumber, Lsn};
use strata_smgr::request_stats::KindSnapshot;
use strata_smgr::slots::Ask;

use super::settings::{Mode, mode};
use super::{ffi, log_position, state};
use crate::wal;

/// An LSN as the server passes it.
fn raw(lsn: Lsn) -> i64 {
    lsn.0.cast_signed()
}

/// Insert and flush position here, what a majority has, and how far the pageserver is; null where nothing is known.
#[pg_extern]
#[allow(clippy::type_complexity, reason = "the columns of a row")]
pub fn strata_lsns() -> TableIterator<
    'static,
    (
        name!(insert_lsn, i64),
        name!(flush_lsn, i64),
        name!(quorum_commit_lsn, Option<i64>),
        name!(pageserver_received_lsn, Option<i64>),
        name!(pageserver_disk_consistent_lsn, Option<i64>),
        name!(pageserver_remote_consistent_lsn, Option<i64>),
    ),
> {
    let shared = wal::shared::get();
    let known = |value: &AtomicU64| match value.load(Ordering::Relaxed) {
        0 => None,
        lsn => Some(lsn.cast_signed()),
    };
    // SAFETY: reads shared memory; no timeline is wanted.
    let flushed = Lsn(unsafe { pg_sys::GetFlushRecPtr(std::ptr::null_mut()) });
    TableIterator::once((
        raw(log_position::insert_lsn()),
        raw(flushed),
        shared.and_then(|s| known(&s.commit_lsn)),
        shared.and_then(|s| known(&s.pageserver_received_lsn)),
        shared.and_then(|s| known(&s.pageserver_disk_consistent_lsn)),
        shared.and_then(|s| known(&s.pageserver_remote_consistent_lsn)),
    ))
}

/// What a read of this block would have to reflect at least; null without remote storage.
#[pg_extern]
fn strata_last_written_lsn(relation: pg_sys::Oid, fork: &str, block: i64) -> Option<i64> {
    if mode() == Mode::Local {
        return None;
    }
    let Ok(block) = u32::try_from(block) else {
        pgrx::error!("a block number lies between 0 and {}", u32::MAX - 1);
    };
    let name = std::ffi::CString::new(fork).unwrap_or_default();
    // SAFETY: the relation is locked while its locator is read; an unknown fork name is an error.
    unsafe {
        let fork = ffi::fork_of(pg_sys::forkname_to_number(name.as_ptr()));
        let lock = pg_sys::AccessShareLock as i32;
        let open = pg_sys::relation_open(relation, lock);
        let tag = ffi::tag_of((*open).rd_locator);
        pg_sys::relation_close(open, lock);
        Some(raw(state::last_written().page(tag.fork(fork), BlockNumber(block))))
    }
}

/// One row per kind of request. Latencies in microseconds; the histogram's n-th number counts those below 2^(n-1).
#[pg_extern]
#[allow(clippy::type_complexity, reason = "the columns of a row")]
pub fn strata_page_request_stats() -> TableIterator<
    'static,
    (
        name!(kind, &'static str),
        name!(requests, i64),
        name!(blocks, i64),
        name!(errors, i64),
        name!(total_us, i64),
        name!(latency_histogram, Vec<i64>),
    ),
> {
    let mut rows = Vec::new();
    if mode() != Mode::Local && state::is_attached() {
        let kinds = Ask::KIND_NAMES.iter().zip(state::stats());
        rows.extend(kinds.map(|(name, stats)| (*name, stats.snapshot())));
    }
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    TableIterator::new(rows.into_iter().map(move |(name, seen): (&'static str, KindSnapshot)| {
        let histogram = seen.latency.iter().map(|cell| count(*cell)).collect();
        (name, count(seen.requests), count(seen.blocks), count(seen.errors), count(seen.micros), histogram)
    }))
}

/// Pages put into the spill store since the server's start; null without remote storage.
#[pg_extern]
fn strata_spilled_pages() -> Option<i64> {
    let spilled = (mode() != Mode::Local).then(|| state::spilled_pages().load(Ordering::Relaxed))?;
    Some(i64::try_from(spilled).unwrap_or(i64::MAX))
}

/// What the keeper has done since the server's start; no row without remote storage.
#[pg_extern]
#[allow(clippy::type_complexity, reason = "the columns of a row")]
fn strata_keeper() -> TableIterator<
    'static,
    (
        name!(rounds, i64),
        name!(saved_pages, i64),
        name!(returned_pages, i64),
        name!(settled_relations, i64),
        name!(quiet_below, i64),
    ),
> {
    let keeper = (mode() != Mode::Local).then(state::keeper);
    let count = |value: &AtomicU64| i64::try_from(value.load(Ordering::Acquire)).unwrap_or(i64::MAX);
    TableIterator::new(keeper.into_iter().map(move |keeper| {
        (
            count(&keeper.rounds),
            count(&keeper.saved_pages),
            count(&keeper.returned_pages),
            count(&keeper.settled_relations),
            count(&keeper.quiet_below),
        )
    }))
}
