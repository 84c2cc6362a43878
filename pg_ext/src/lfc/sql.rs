//! What the cache shows in SQL.

use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::prelude::*;

use super::{memory, settings};

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Sizes and counters; no row without a cache.
#[pg_extern]
#[allow(clippy::type_complexity, reason = "the columns of a row")]
pub fn strata_lfc_counters() -> TableIterator<
    'static,
    (
        name!(state, &'static str),
        name!(max_pages, i64),
        name!(limit_pages, i64),
        name!(used_pages, i64),
        name!(hits, i64),
        name!(misses, i64),
        name!(writes, i64),
        name!(damaged, i64),
        name!(skipped, i64),
    ),
> {
    if !memory::is_attached() {
        return TableIterator::empty();
    }
    let counters = memory::counters();
    let state = match (counters.failed.load(Ordering::Acquire), settings::limit_mib()) {
        (0, 0) => "off",
        (0, _) => "on",
        _ => "failed",
    };
    let sum = |of: fn(strata_lfc::Partition<'static>) -> u32| {
        (0..memory::PARTITIONS).map(|number| u64::from(memory::shared(number, of))).sum::<u64>()
    };
    let value = |counter: &AtomicU64| count(counter.load(Ordering::Relaxed));
    TableIterator::once((
        state,
        count(sum(|partition| partition.places())),
        count(sum(|partition| partition.limit())),
        count(sum(|partition| partition.used())),
        value(&counters.hits),
        value(&counters.misses),
        value(&counters.writes),
        value(&counters.damaged),
        value(&counters.skipped),
    ))
}

/// Every page of the cache. A `pg_lsn` is a 64-bit number by value.
#[pg_extern]
#[allow(clippy::type_complexity, reason = "the columns of a row")]
fn strata_lfc_pages() -> TableIterator<
    'static,
    (
        name!(reltablespace, pg_sys::Oid),
        name!(reldatabase, pg_sys::Oid),
        name!(relfilenode, pg_sys::Oid),
        name!(relforknumber, i16),
        name!(relblocknumber, i64),
        name!(as_of, i64),
        name!(uses, i32),
        name!(queue, &'static str),
    ),
> {
    let mut rows = Vec::new();
    for number in 0..if memory::is_attached() { memory::PARTITIONS } else { 0 } {
        // A copy: nothing may raise an error or wait with the lock held.
        rows.extend(memory::shared(number, |partition| partition.pages()));
    }
    TableIterator::new(rows.into_iter().map(|page| {
        let tag = page.name.rel.rel;
        (
            tag.tablespace.into(),
            tag.database.into(),
            tag.relation.into(),
            i16::from(page.name.rel.fork.raw()),
            i64::from(page.name.block.0),
            page.as_of.0.cast_signed(),
            page.uses.cast_signed(),
            if page.in_main { "main" } else { "small" },
        )
    }))
}
