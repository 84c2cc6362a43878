//! The last-written LSN of every page and every size, in constant memory (D7, traps L3, L4, L7, W3, R3, R4, R5).
//!
//! A read must name the LSN that its answer has to reflect. Too low is a silent stale page; too high only waits a little.
//! So this is a table of maxima without keys: a page's hash picks a cell, a write raises the cell, a read takes the highest of
//! the cells that cover it. Two pages that share a cell raise each other: higher, never lower. There is nothing to evict, no
//! lock, no look-up that can race with an insertion (L4), and nothing to forget when a relation goes (R5).
//!
//! Three kinds of cells: pages; whole forks (all pages of one, W3, R4, V4); sizes of forks. A floor lies under all of them:
//! the LSN at which the server started (L7), raised by what touches a whole database.
//!
//! What it costs: a page just written raises those that share its cell, and pages of the file cache that were raised are read anew. With
//! `CELLS_PER_CACHED_PAGE`, writing as many pages as a tenth of the cache costs it about one page in eighty.

use std::sync::atomic::{AtomicU64, Ordering};

use strata_common::hash::{fork_hash, page_hash};
use strata_common::{BlockNumber, Guard, Lsn, RelFork};

/// For each page that the file cache can hold.
const CELLS_PER_CACHED_PAGE: usize = 8;
/// Forks that are written whole, or change their size, are few beside pages; so are the cells that they need, however large the cache.
const FORK_CELLS_MAX: usize = 1 << 16;

/// View of the cells; the memory belongs to whoever made it. Every cell starts at 0.
#[derive(Clone, Copy)]
pub struct LastWritten<'a> {
    head: &'a Head,
    pages: &'a [AtomicU64],
    forks: &'a [AtomicU64],
    sizes: &'a [AtomicU64],
}

/// The two single values: the floor under everything, and the highest LSN ever given.
#[derive(Default)]
pub struct Head {
    floor: AtomicU64,
    maximum: AtomicU64,
}

impl<'a> LastWritten<'a> {
    /// Cells of all kinds beside so many for pages.
    pub const fn cells(page_cells: usize) -> usize {
        page_cells + 2 * fork_cells(page_cells)
    }

    /// How many cells for pages go with a file cache of so many pages.
    pub const fn page_cells_for(cached_pages: usize) -> usize {
        cached_pages.saturating_mul(CELLS_PER_CACHED_PAGE)
    }

    /// # Panics
    /// Unless there are as many as `cells` says, and two for pages.
    pub fn new(head: &'a Head, cells: &'a [AtomicU64], page_cells: usize) -> LastWritten<'a> {
        assert!(page_cells >= 2 && cells.len() == Self::cells(page_cells), "cells of all kinds");
        let (pages, rest) = cells.split_at(page_cells);
        let (forks, sizes) = rest.split_at(rest.len() / 2);
        LastWritten { head, pages, forks, sizes }
    }

    /// One page was written, with content up to `lsn`.
    pub fn raise_page(&self, rel: RelFork, block: BlockNumber, lsn: Lsn) {
        self.raise(cell(self.pages, page_hash(rel, block)), lsn);
    }

    /// Any page of the fork may have changed up to `lsn`.
    pub fn raise_fork(&self, rel: RelFork, lsn: Lsn) {
        self.raise(cell(self.forks, fork_hash(rel)), lsn);
    }

    /// The fork's size or existence changed at or before `lsn`.
    pub fn raise_size(&self, rel: RelFork, lsn: Lsn) {
        self.raise(cell(self.sizes, fork_hash(rel)), lsn);
    }

    /// Anything may have changed up to `lsn`.
    pub fn raise_floor(&self, lsn: Lsn) {
        self.raise(&self.head.floor, lsn);
    }

    /// What a read of the page must reflect at least.
    pub fn page(&self, rel: RelFork, block: BlockNumber) -> Lsn {
        let page = cell(self.pages, page_hash(rel, block)).load(Ordering::Acquire);
        let fork = cell(self.forks, fork_hash(rel)).load(Ordering::Acquire);
        Lsn(page.max(fork).max(self.head.floor.load(Ordering::Acquire)))
    }

    /// What a read of `count` pages from `first` on must reflect at least.
    pub fn pages(&self, rel: RelFork, first: BlockNumber, count: u32) -> Lsn {
        (first.0..first.0.saturating_add(count))
            .map(|block| self.page(rel, BlockNumber(block)))
            .max()
            .unwrap_or_default()
    }

    /// What an answer about the fork's size or existence must reflect at least.
    pub fn size(&self, rel: RelFork) -> Lsn {
        let size = cell(self.sizes, fork_hash(rel)).load(Ordering::Acquire);
        Lsn(size.max(self.head.floor.load(Ordering::Acquire)))
    }

    /// The highest LSN ever given.
    pub fn maximum(&self) -> Lsn {
        Lsn(self.head.maximum.load(Ordering::Acquire))
    }

    fn raise(&self, cell: &AtomicU64, lsn: Lsn) {
        raise_cell(cell, lsn);
        self.head.maximum.fetch_max(lsn.0, Ordering::AcqRel);
    }
}

/// L4: between a look and a store another's higher LSN could be lost.
fn raise_cell(cell: &AtomicU64, lsn: Lsn) {
    if Guard::RaisedInOneStep.holds() {
        cell.fetch_max(lsn.0, Ordering::AcqRel);
    } else if cell.load(Ordering::Acquire) < lsn.0 {
        std::thread::yield_now();
        cell.store(lsn.0, Ordering::Release);
    }
}

/// Whole forks' cells beside so many pages', and as many sizes'.
const fn fork_cells(page_cells: usize) -> usize {
    if page_cells / 2 < FORK_CELLS_MAX { page_cells / 2 } else { FORK_CELLS_MAX }
}

/// The hash as a fraction of all hashes is the cell's place among the cells: any number of them will do, and no division is needed. The
/// hash's high bits decide, which `mix` spreads as well as the low ones.
fn cell(cells: &[AtomicU64], hash: u64) -> &AtomicU64 {
    let place = (u128::from(hash) * cells.len() as u128) >> 64;
    &cells[usize::try_from(place).expect("less than the number of cells")]
}

/// Hash of a relation, the same in every process; picks the partition of the relation table.
pub fn relation_hash(rel: strata_common::RelTag) -> u64 {
    fork_hash(rel.fork(strata_common::ForkNumber::Main))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use strata_common::{ForkNumber, RelTag};

    #[derive(Clone, Debug)]
    enum Op {
        Page(RelFork, u32, u64),
        Fork(RelFork, u64),
        Size(RelFork, u64),
        Floor(u64),
    }

    fn memory(page_cells: usize) -> (Head, Vec<AtomicU64>) {
        let cells = (0..LastWritten::cells(page_cells)).map(|_| AtomicU64::new(0)).collect();
        (Head::default(), cells)
    }

    fn rel(relation: u32) -> RelFork {
        RelTag { tablespace: 1663, database: 5, relation }.fork(ForkNumber::Main)
    }

    fn rel_fork() -> impl Strategy<Value = RelFork> {
        (0u32..12, 0u8..4).prop_map(|(relation, fork)| RelFork {
            rel: RelTag { tablespace: 1663, database: 5, relation: 16384 + relation },
            fork: ForkNumber::from_raw(fork).expect("a fork"),
        })
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => (rel_fork(), 0u32..40, 1u64..1_000_000).prop_map(|(r, b, l)| Op::Page(r, b, l)),
            2 => (rel_fork(), 1u64..1_000_000).prop_map(|(r, l)| Op::Fork(r, l)),
            2 => (rel_fork(), 1u64..1_000_000).prop_map(|(r, l)| Op::Size(r, l)),
            1 => (1u64..1000).prop_map(Op::Floor),
        ]
    }

    proptest! {
        /// D7: whatever was raised, no answer is below the truth (an exact map) and none is above the maximum.
        #[test]
        fn never_lower_than_the_truth(ops in proptest::collection::vec(op(), 1..300), page_cells in prop_oneof![Just(2usize), Just(63), Just(4096)]) {
            let (head, memory) = memory(page_cells);
            let table = LastWritten::new(&head, &memory, page_cells);
            let (mut pages, mut forks, mut sizes, mut floor) = (HashMap::new(), HashMap::new(), HashMap::new(), 0u64);
            for op in ops {
                match op {
                    Op::Page(rel, block, lsn) => {
                        table.raise_page(rel, BlockNumber(block), Lsn(lsn));
                        let truth: &mut u64 = pages.entry((rel, block)).or_default();
                        *truth = lsn.max(*truth);
                    }
                    Op::Fork(rel, lsn) => {
                        table.raise_fork(rel, Lsn(lsn));
                        let truth: &mut u64 = forks.entry(rel).or_default();
                        *truth = lsn.max(*truth);
                    }
                    Op::Size(rel, lsn) => {
                        table.raise_size(rel, Lsn(lsn));
                        let truth: &mut u64 = sizes.entry(rel).or_default();
                        *truth = lsn.max(*truth);
                    }
                    Op::Floor(lsn) => {
                        table.raise_floor(Lsn(lsn));
                        floor = floor.max(lsn);
                    }
                }
                for ((rel, block), lsn) in &pages {
                    let truth = (*lsn).max(floor).max(forks.get(rel).copied().unwrap_or(0));
                    let answer = table.page(*rel, BlockNumber(*block));
                    prop_assert!(answer >= Lsn(truth) && answer <= table.maximum());
                    prop_assert!(table.pages(*rel, BlockNumber(block.saturating_sub(3)), 7) >= answer);
                }
                for (rel, lsn) in &sizes {
                    prop_assert!(table.size(*rel) >= Lsn((*lsn).max(floor)));
                }
            }
        }
    }

    /// What a thread has raised is never lowered again by another that was slower.
    #[test]
    fn trap_l4_raised_in_one_step() {
        strata_common::guard::prove(Guard::RaisedInOneStep, || {
            let (head, memory) = memory(2);
            let rel = rel(16384);
            let race = |first: u64| {
                let table = LastWritten::new(&head, &memory, 2);
                (0..200_000u64).map(|n| first + 2 * n).all(|lsn| {
                    table.raise_page(rel, BlockNumber(0), Lsn(lsn));
                    table.page(rel, BlockNumber(0)) >= Lsn(lsn)
                })
            };
            let (even, odd) = std::thread::scope(|scope| {
                let even = scope.spawn(strata_common::guard::carried(|| race(2)));
                (race(3), even.join().expect("no panic"))
            });
            assert!(even && odd, "an LSN was lost");
        });
    }

    /// With far more cells than pages the answer is nearly always exact: the table would be useless otherwise.
    #[test]
    fn mostly_exact() {
        let (head, memory) = memory(1 << 15);
        let table = LastWritten::new(&head, &memory, 1 << 15);
        let rel = rel(16384);
        for block in 0..1000 {
            table.raise_page(rel, BlockNumber(block), Lsn(1000 + u64::from(block)));
        }
        let exact =
            (0..1000).filter(|b| table.page(rel, BlockNumber(*b)) == Lsn(1000 + u64::from(*b))).count();
        assert!(exact > 960, "{exact} of 1000");
        assert!(table.page(rel, BlockNumber(5_000_000)) <= Lsn(3000));
    }

    /// Of a full file cache, whatever its size, writing a tenth of its pages costs one in eighty.
    #[test]
    fn what_is_written_costs_the_cache_little() {
        for cached in [10_000u32, 32_768, 100_000, 262_144] {
            let page_cells = LastWritten::page_cells_for(cached as usize);
            let (head, memory) = memory(page_cells);
            let table = LastWritten::new(&head, &memory, page_cells);
            (0..cached / 10).for_each(|block| table.raise_page(rel(2), BlockNumber(block), Lsn(1)));
            let lost = (0..cached).filter(|block| table.page(rel(1), BlockNumber(*block)) > Lsn(0)).count();
            let one_in = f64::from(cached) / lost as f64;
            assert!((65.0..100.0).contains(&one_in), "with {cached} pages one in {one_in:.0}");
        }
    }

    /// However large the table, nearly all of it is pages'.
    #[test]
    fn forks_and_sizes_take_little_of_a_large_table() {
        assert_eq!(LastWritten::cells(1024), 2048);
        assert_eq!(LastWritten::cells(1 << 17), 1 << 18);
        assert_eq!(LastWritten::cells(1 << 21), (1 << 21) + (1 << 17));
    }

    /// Neighbouring names meet in no more cells than by chance, in tables of any length: the hash's high bits are as good as its low ones.
    #[test]
    fn neighbouring_names_spread_over_the_cells() {
        for length in [1000usize, 4096, 65_536, 100_003] {
            let cells: Vec<AtomicU64> = (0..length).map(|_| AtomicU64::new(0)).collect();
            for number in 0..length as u64 {
                let (relation, block) = (16384 + (number / 256) as u32, (number % 256) as u32);
                cell(&cells, page_hash(rel(relation), BlockNumber(block))).fetch_add(1, Ordering::Relaxed);
            }
            let empty = cells.iter().filter(|cell| cell.load(Ordering::Relaxed) == 0).count();
            // As many names as cells leave one cell in e without any.
            let share = empty as f64 / length as f64;
            assert!((0.32..0.42).contains(&share), "{share:.3} of {length} cells have no name");
        }
    }
}
