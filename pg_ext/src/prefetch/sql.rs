//! What prefetch shows in SQL.

use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::prelude::*;

use super::memory;

/// What became of pages that were asked for ahead, and what is under way; no row without remote storage.
#[pg_extern]
#[allow(clippy::type_complexity, reason = "the columns of a row")]
pub fn strata_prefetch_counters() -> TableIterator<
    'static,
    (
        name!(requested, i64),
        name!(used, i64),
        name!(waited, i64),
        name!(expired, i64),
        name!(wasted, i64),
        name!(refused, i64),
        name!(open_requests, i64),
        name!(unanswered, i64),
        name!(held_pages, i64),
        name!(index_scans, i64),
        name!(cached, i64),
    ),
> {
    if !memory::is_attached() {
        return TableIterator::empty();
    }
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let value = |counter: &AtomicU64| count(counter.load(Ordering::Relaxed));
    let counters = memory::counters();
    let (slots, pages) = memory::pool().in_use();
    TableIterator::once((
        value(&counters.requested),
        value(&counters.used),
        value(&counters.waited),
        value(&counters.expired),
        value(&counters.wasted),
        value(&counters.refused),
        count(slots as u64),
        count(super::unanswered()),
        count(pages as u64),
        value(&counters.index_scans),
        value(&counters.cached),
    ))
}
