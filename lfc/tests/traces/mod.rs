//! Traces of page requests as databases make them, and what a cache answers of each without asking elsewhere: this crate's, and one
//! that keeps what was used last (LRU).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64};

use strata_common::hash::mix;
use strata_common::{BlockNumber, ForkNumber, Lsn, RelTag};
use strata_lfc::{Entry, PageName, Partition, partition::Head};

/// A trace: which page the n-th request is for.
pub struct Trace {
    pub name: &'static str,
    pub requests: u64,
    pub page: fn(u64) -> u64,
}

/// A page out of `pages`, page k about as often as 1/k.
fn zipfian(n: u64, pages: u64) -> u64 {
    let unit = (mix(n) >> 11) as f64 / (1u64 << 53) as f64;
    ((unit * (pages as f64).ln()).exp() as u64).min(pages - 1)
}

/// Short transactions on a skewed table of 100,000 pages.
fn transactions(n: u64) -> u64 {
    zipfian(n, 100_000)
}

/// The same, and every 100,000 requests somebody reads a table of 60,000 pages once.
fn transactions_with_scans(n: u64) -> u64 {
    let (round, at) = (n / 160_000, n % 160_000);
    if at < 100_000 { zipfian(n, 100_000) } else { 1_000_000 + round * 60_000 + (at - 100_000) }
}

/// The same table is read again and again: reports.
fn the_same_scan(n: u64) -> u64 {
    n % 30_000
}

/// Transactions whose table changes: what was hot gets cold.
fn moving(n: u64) -> u64 {
    n / 500_000 * 50_000 + zipfian(n, 100_000)
}

pub const TRACES: [Trace; 4] = [
    Trace { name: "transactions", requests: 2_000_000, page: transactions },
    Trace { name: "transactions and scans", requests: 2_000_000, page: transactions_with_scans },
    Trace { name: "one scan again and again", requests: 1_000_000, page: the_same_scan },
    Trace { name: "transactions that move", requests: 2_000_000, page: moving },
];

/// Share of requests that this crate's policy answers with so many places.
pub fn ours(trace: &Trace, places: u32) -> f64 {
    let head = Head::default();
    let buckets: Vec<AtomicU32> = (0..places.next_power_of_two()).map(|_| AtomicU32::new(0)).collect();
    let entries: Vec<Entry> = (0..places).map(|_| Entry::default()).collect();
    let ghosts: Vec<AtomicU64> = (0..places).map(|_| AtomicU64::new(0)).collect();
    let cache = Partition::new(&head, &buckets, &entries, &ghosts);
    cache.set_limit(places);
    let rel = RelTag { tablespace: 1663, database: 5, relation: 16384 }.fork(ForkNumber::Main);
    let mut hits = 0u64;
    for n in 0..trace.requests {
        let block = u32::try_from((trace.page)(n)).expect("traces have few pages");
        let name = PageName { rel, block: BlockNumber(block) };
        match cache.find(name, Lsn(1)) {
            Some(hit) => {
                hits += 1;
                cache.unpin(hit.place);
            }
            None => {
                let place = cache.reserve().expect("nothing is pinned");
                cache.publish(place, name, Lsn(1), 0);
            }
        }
    }
    hits as f64 / trace.requests as f64
}

/// Share of requests that LRU answers.
pub fn lru(trace: &Trace, places: u32) -> f64 {
    let (mut last_use, mut by_use) = (HashMap::new(), BTreeMap::new());
    let mut hits = 0u64;
    for n in 0..trace.requests {
        let page = (trace.page)(n);
        if let Some(before) = last_use.insert(page, n) {
            hits += 1;
            by_use.remove(&before);
        } else if last_use.len() > places as usize
            && let Some((_, coldest)) = by_use.pop_first()
        {
            last_use.remove(&coldest);
        }
        by_use.insert(n, page);
    }
    hits as f64 / trace.requests as f64
}
