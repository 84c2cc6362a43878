//! One backend's account of what it has asked for ahead: which block waits in which page, and as of when it was asked for.
//!
//! A request is a *run* of consecutive blocks in one slot. A block is used or given up once; the run ends with its last block. Whoever
//! ends a run gives slot and pages back. Knows nothing of shared memory: slots and pages are numbers.

use std::collections::HashMap;

use strata_common::{BlockNumber, Lsn, RelFork};

use crate::slots::PAGES_MAX;

/// One request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    pub slot: usize,
    pub rel: RelFork,
    pub first: BlockNumber,
    /// One for each block.
    pub pages: Vec<usize>,
    /// The answer reflects all log up to here at least.
    pub asked: Lsn,
}

/// A block that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    pub slot: usize,
    pub page: usize,
    pub asked: Lsn,
    /// The answer is there.
    pub answered: bool,
}

struct Open {
    run: Run,
    answered: bool,
    /// Blocks that were neither used nor given up, a bit each.
    left: u32,
    /// What `reads` was when it was asked for.
    begun: u64,
    /// How many runs had been added before it.
    number: u64,
}

/// A run that is over, or was given up: how many of its blocks were not used.
#[derive(PartialEq, Eq, Debug)]
pub struct Ended {
    pub run: Run,
    pub answered: bool,
    pub unused: u32,
}

/// Empty at first.
#[derive(Default)]
pub struct Book {
    /// By slot.
    runs: HashMap<usize, Open>,
    blocks: HashMap<(RelFork, BlockNumber), usize>,
    pages: usize,
    reads: u64,
    added: u64,
}

const _: () = assert!(PAGES_MAX <= u32::BITS as usize, "a bit for each block of a run");

impl Book {
    /// A request was made for blocks that were not asked for yet.
    ///
    /// # Panics
    /// If one of them was, or the slot is in use.
    pub fn add(&mut self, run: Run) {
        assert!((1..=PAGES_MAX).contains(&run.pages.len()), "a run has blocks, and not too many");
        for index in 0..run.pages.len() {
            let before = self.blocks.insert((run.rel, block(&run, index)), run.slot);
            assert_eq!(before, None, "a block is asked for once");
        }
        self.pages += run.pages.len();
        let left = u32::MAX >> (u32::BITS as usize - run.pages.len());
        let slot = run.slot;
        let open = Open { run, answered: false, left, begun: self.reads, number: self.added };
        self.added += 1;
        assert!(self.runs.insert(slot, open).is_none(), "a slot has one run");
    }

    /// Pages that are held, answered or not.
    pub fn pages(&self) -> usize {
        self.pages
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn holds(&self, rel: RelFork, block: BlockNumber) -> bool {
        self.blocks.contains_key(&(rel, block))
    }

    pub fn find(&self, rel: RelFork, block: BlockNumber) -> Option<Found> {
        let Open { run, answered, .. } = self.open(rel, block)?;
        let page = run.pages[(block.0 - run.first.0) as usize];
        Some(Found { slot: run.slot, page, asked: run.asked, answered: *answered })
    }

    fn open(&self, rel: RelFork, block: BlockNumber) -> Option<&Open> {
        self.runs.get(self.blocks.get(&(rel, block))?)
    }

    /// The answer of a slot is there.
    pub fn answered(&mut self, slot: usize) {
        if let Some(open) = self.runs.get_mut(&slot) {
            open.answered = true;
        }
    }

    pub fn is_answered(&self, slot: usize) -> bool {
        self.runs.get(&slot).is_some_and(|open| open.answered)
    }

    /// The block is used, or is of no use: it is not found any more. The run if that was its last block.
    pub fn strike(&mut self, rel: RelFork, block: BlockNumber) -> Option<Ended> {
        let slot = self.blocks.remove(&(rel, block))?;
        let open = self.runs.get_mut(&slot)?;
        open.left &= !(1 << (block.0 - open.run.first.0));
        if open.left == 0 { self.give_up(slot) } else { None }
    }

    /// Nothing more of this slot's run is wanted.
    pub fn give_up(&mut self, slot: usize) -> Option<Ended> {
        let Open { run, answered, left, .. } = self.runs.remove(&slot)?;
        for index in (0..run.pages.len()).filter(|index| left & (1 << index) != 0) {
            self.blocks.remove(&(run.rel, block(&run, index)));
        }
        self.pages -= run.pages.len();
        Some(Ended { run, answered, unused: left.count_ones() })
    }

    /// So many blocks were read.
    pub fn count_reads(&mut self, blocks: u64) {
        self.reads += blocks;
    }

    /// A run that was not used up while `patience` blocks were read: whoever wanted it does not come any more.
    pub fn forgotten(&self, patience: u64) -> Option<usize> {
        let old = self.runs.values().filter(|open| self.reads - open.begun > patience);
        old.min_by_key(|open| open.begun).map(|open| open.run.slot)
    }

    /// Whether nothing was read since the first of these runs was added.
    pub fn is_unread(&self) -> bool {
        self.runs.values().min_by_key(|open| open.number).is_none_or(|open| open.begun == self.reads)
    }

    pub fn any(&self) -> Option<usize> {
        self.runs.keys().next().copied()
    }

    /// All slots, in the order in which their runs were added.
    pub fn slots(&self) -> Vec<usize> {
        let mut slots: Vec<(u64, usize)> =
            self.runs.values().map(|open| (open.number, open.run.slot)).collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Blocks of a run that were neither used nor given up.
    pub fn left(&self, slot: usize) -> Vec<(RelFork, BlockNumber)> {
        let Some(Open { run, left, .. }) = self.runs.get(&slot) else { return Vec::new() };
        let is_left = |index: &usize| left & (1 << index) != 0;
        (0..run.pages.len()).filter(is_left).map(|index| (run.rel, block(run, index))).collect()
    }
}

fn block(run: &Run, index: usize) -> BlockNumber {
    BlockNumber(run.first.0 + u32::try_from(index).expect("a run is short"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use strata_common::{ForkNumber, RelTag};

    fn rel(number: u32) -> RelFork {
        RelTag { tablespace: 1663, database: 5, relation: number }.fork(ForkNumber::Main)
    }

    fn run(slot: usize, first: u32, count: usize) -> Run {
        let pages = (0..count).map(|index| slot * 100 + index).collect();
        Run { slot, rel: rel(1), first: BlockNumber(first), pages, asked: Lsn(slot as u64) }
    }

    #[test]
    fn a_run_ends_with_its_last_block() {
        let mut book = Book::default();
        book.add(run(3, 10, 3));
        assert_eq!(book.find(rel(2), BlockNumber(10)), None);
        assert_eq!(book.find(rel(1), BlockNumber(13)), None);
        let found = Found { slot: 3, page: 301, asked: Lsn(3), answered: false };
        assert_eq!(book.find(rel(1), BlockNumber(11)), Some(found));
        book.answered(3);
        assert_eq!(book.find(rel(1), BlockNumber(11)), Some(Found { answered: true, ..found }));
        assert_eq!(book.strike(rel(1), BlockNumber(11)), None);
        assert_eq!(book.strike(rel(1), BlockNumber(11)), None, "once");
        assert_eq!(book.strike(rel(1), BlockNumber(10)), None);
        assert_eq!(book.pages(), 3, "held together");
        let ended = book.strike(rel(1), BlockNumber(12)).expect("the last one");
        assert_eq!((ended.run, ended.answered, ended.unused), (run(3, 10, 3), true, 0));
        assert!(book.is_empty() && book.pages() == 0);
    }

    #[test]
    fn what_nobody_wants_is_forgotten_in_order() {
        let mut book = Book::default();
        book.add(run(1, 0, 2));
        book.count_reads(5);
        book.add(run(2, 100, 32));
        assert_eq!(book.forgotten(5), None);
        assert!(!book.is_unread(), "the first one is as old as before");
        book.count_reads(1);
        assert_eq!(book.forgotten(5), Some(1));
        assert_eq!(book.give_up(1).map(|ended| ended.unused), Some(2));
        assert!(!book.holds(rel(1), BlockNumber(1)));
        assert_eq!((book.forgotten(5), book.any()), (None, Some(2)));
        book.give_up(2);
        book.add(run(3, 0, 2));
        assert!(book.is_unread());
    }

    #[test]
    fn what_is_left_of_a_run_is_told_and_runs_come_in_order() {
        let mut book = Book::default();
        for (slot, first) in [(9, 40), (2, 10), (5, 20)] {
            book.add(run(slot, first, 3));
        }
        assert_eq!(book.slots(), [9, 2, 5]);
        book.strike(rel(1), BlockNumber(11));
        let left = [10, 12].map(|number| (rel(1), BlockNumber(number)));
        assert_eq!((book.left(2), book.left(7)), (left.to_vec(), Vec::new()));
        book.give_up(9);
        book.answered(5);
        assert_eq!(book.slots().into_iter().filter(|slot| book.is_answered(*slot)).collect::<Vec<_>>(), [5]);
    }

    proptest! {
        /// Against a plain map of blocks to slots.
        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec((0u8..3, 0u32..60, 1usize..8), 1..200)) {
            let (mut book, mut truth, mut slots) = (Book::default(), BTreeMap::new(), 0);
            for (step, first, count) in steps {
                match step {
                    0 if (first..first + count as u32).all(|b| !truth.contains_key(&b)) => {
                        slots += 1;
                        book.add(run(slots, first, count));
                        truth.extend((first..first + count as u32).map(|b| (b, slots)));
                    }
                    1 => {
                        let slot = truth.remove(&first);
                        let last = slot.is_some_and(|slot| truth.values().all(|other| *other != slot));
                        let ended = book.strike(rel(1), BlockNumber(first));
                        prop_assert_eq!(ended.is_some(), last);
                    }
                    _ => if let Some(slot) = truth.get(&first).copied() {
                        let left = truth.values().filter(|other| **other == slot).count() as u32;
                        prop_assert_eq!(book.give_up(slot).map(|ended| ended.unused), Some(left));
                        truth.retain(|_, other| *other != slot);
                    },
                }
                for b in 0..70 {
                    let found = book.find(rel(1), BlockNumber(b)).map(|found| found.slot);
                    prop_assert_eq!(found, truth.get(&b).copied());
                }
                prop_assert_eq!(book.is_empty(), truth.is_empty());
            }
        }
    }
}
