//! The slots and pages for what is asked for ahead, shared by all backends: who takes one owns it until it is given back.
//!
//! Bits in shared memory, one a slot and one a page, without locks. A backend that exits while an answer is being written leaves the
//! slot behind (P7): its pages are only given out again when the slot can be abandoned, so that no late answer writes into a page
//! that is somebody else's.

use crate::sync::{AtomicU64, Ordering, pause};

/// View of the bits; the memory belongs to whoever made it. Zeroes are an empty pool.
#[derive(Clone, Copy)]
pub struct Pool<'a> {
    slots: Bits<'a>,
    pages: Bits<'a>,
    left: Bits<'a>,
}

#[derive(Clone, Copy)]
struct Bits<'a> {
    words: &'a [AtomicU64],
    count: usize,
}

/// Words of memory for a pool: its slots' bits twice, and its pages' bits.
pub const fn words(slots: usize, pages: usize) -> usize {
    2 * slots.div_ceil(64) + pages.div_ceil(64)
}

impl Bits<'_> {
    /// Takes one bit, looking from word `start` on.
    fn take(&self, start: usize) -> Option<usize> {
        let words = self.words.len();
        for index in (0..words).map(|offset| (start + offset) % words) {
            let cell = &self.words[index];
            let mut seen = cell.load(Ordering::Relaxed);
            loop {
                let free = (!seen).trailing_zeros() as usize;
                if free == 64 || index * 64 + free >= self.count {
                    break;
                }
                match cell.compare_exchange(seen, seen | (1 << free), Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => return Some(index * 64 + free),
                    Err(now) => seen = now,
                }
            }
        }
        None
    }

    fn set(&self, number: usize) {
        self.words[number / 64].fetch_or(1 << (number % 64), Ordering::AcqRel);
    }

    /// Whether it was set.
    fn clear(&self, number: usize) -> bool {
        let bit = 1 << (number % 64);
        self.words[number / 64].fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    fn taken(&self) -> usize {
        self.words.iter().map(|cell| cell.load(Ordering::Relaxed).count_ones() as usize).sum()
    }
}

impl<'a> Pool<'a> {
    /// # Panics
    /// Unless `memory` has exactly the words for so many slots and pages.
    pub fn new(memory: &'a [AtomicU64], slots: usize, pages: usize) -> Pool<'a> {
        assert_eq!(memory.len(), words(slots, pages), "a bit for each slot and page");
        let (slot_words, rest) = memory.split_at(slots.div_ceil(64));
        let (left_words, page_words) = rest.split_at(slots.div_ceil(64));
        Pool {
            slots: Bits { words: slot_words, count: slots },
            pages: Bits { words: page_words, count: pages },
            left: Bits { words: left_words, count: slots },
        }
    }

    /// Takes a slot and up to `count` pages. `hint` spreads processes. `is_quiet` says of a slot that was left behind whether no
    /// answer can come any more, and which pages it has.
    pub fn take(
        &self,
        count: usize,
        hint: usize,
        is_quiet: impl Fn(usize) -> Option<Vec<usize>>,
    ) -> Option<(usize, Vec<usize>)> {
        self.clean_up(is_quiet);
        let slot = self.slots.take(hint)?;
        let pages: Vec<usize> =
            std::iter::repeat_with(|| self.pages.take(hint)).map_while(|p| p).take(count).collect();
        if pages.is_empty() {
            self.slots.clear(slot);
            return None;
        }
        Some((slot, pages))
    }

    /// Gives back what `take` gave. The slot is idle: nobody writes to the pages.
    fn give_back(&self, slot: usize, pages: &[usize]) {
        for page in pages {
            assert!(self.pages.clear(*page), "a page is given back once");
        }
        assert!(self.slots.clear(slot), "a slot is given back once");
    }

    /// The owner wants no more: gives back what `take` gave once `is_idle` says that no answer can come any more. Where it does not in so
    /// many looks, the slot is left behind for whoever finds it idle (P7).
    pub fn end(&self, slot: usize, pages: &[usize], looks: usize, is_idle: impl Fn() -> bool) {
        for _ in 0..looks {
            if is_idle() {
                return self.give_back(slot, pages);
            }
            pause();
        }
        self.left.set(slot);
    }

    fn clean_up(&self, is_quiet: impl Fn(usize) -> Option<Vec<usize>>) {
        for (index, cell) in self.left.words.iter().enumerate() {
            let mut bits = cell.load(Ordering::Relaxed);
            while bits != 0 {
                let slot = index * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                // Only one process has what was left behind.
                if !self.left.clear(slot) {
                    continue;
                }
                match is_quiet(slot) {
                    Some(pages) => self.give_back(slot, &pages),
                    None => self.left.set(slot),
                }
            }
        }
    }

    /// Slots and pages that are in use.
    pub fn in_use(&self) -> (usize, usize) {
        (self.slots.taken(), self.pages.taken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn memory(slots: usize, pages: usize) -> Vec<AtomicU64> {
        (0..words(slots, pages)).map(|_| AtomicU64::new(0)).collect()
    }

    const NOBODY: fn(usize) -> Option<Vec<usize>> = |_| panic!("nothing was left behind");

    #[test]
    fn what_is_there_is_given_out_once() {
        let memory = memory(70, 100);
        let pool = Pool::new(&memory, 70, 100);
        let (a, first) = pool.take(64, 3, NOBODY).expect("room");
        let (b, second) = pool.take(64, 3, NOBODY).expect("room");
        assert_eq!((first.len(), second.len()), (64, 36), "as many as there are");
        assert!(a != b && first.iter().all(|page| !second.contains(page)));
        assert_eq!(pool.take(1, 0, NOBODY), None, "no page");
        assert_eq!(pool.in_use(), (2, 100), "a slot without pages is not kept");
        pool.give_back(a, &first);
        for _ in 0..64 {
            assert_eq!(pool.take(1, 0, NOBODY).expect("room").1.len(), 1);
        }
        pool.give_back(b, &second);
        assert_eq!(pool.in_use(), (64, 64));
        assert!((0..6).all(|_| pool.take(6, 0, NOBODY).is_some()));
        assert_eq!(pool.take(1, 0, NOBODY), None, "no slot: {:?}", pool.in_use());
    }

    #[test]
    fn p7_what_is_left_behind_comes_back_when_it_is_quiet() {
        let memory = memory(1, 2);
        let pool = Pool::new(&memory, 1, 2);
        let (slot, pages) = pool.take(2, 0, NOBODY).expect("room");
        pool.end(slot, &pages, 3, || false);
        assert_eq!(pool.take(1, 0, |_| None), None, "an answer may come yet");
        let quiet = |seen| (seen == slot).then(|| pages.clone());
        assert_eq!(pool.take(2, 0, quiet).map(|(_, pages)| pages.len()), Some(2));
        assert_eq!(pool.in_use(), (1, 2));
    }

    #[test]
    fn threads_never_share() {
        let memory = memory(10, 40);
        let pool = Pool::new(&memory, 10, 40);
        let owned: Vec<AtomicBool> = (0..40).map(|_| AtomicBool::new(false)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let owned = &owned;
                scope.spawn(move || {
                    for round in 0..20_000 {
                        let Some((slot, pages)) = pool.take(1 + round % 16, thread, NOBODY) else { continue };
                        assert!(pages.iter().all(|page| !owned[*page].swap(true, Ordering::AcqRel)));
                        pages.iter().for_each(|page| owned[*page].store(false, Ordering::Release));
                        pool.give_back(slot, &pages);
                    }
                });
            }
        });
        assert_eq!(pool.in_use(), (0, 0));
    }
}
