//! How far ahead of an index scan its table's blocks are asked for.
//!
//! An index scan knows what it will read: the entries of the index page that it is on, which all fit its keys. Whether it will go
//! through them is not known: a LIMIT, an EXISTS or a merge join may end it at any of them. So nothing is asked for at a scan's first
//! block, and never more than the scan has read without leaving anything behind; a reader that leaves more behind than it used begins
//! anew. Knows nothing of the server's structures: an index page is positions, which grow in the scan's direction.

use std::collections::VecDeque;

/// The first window, blocks.
const WINDOW_MIN: u32 = 2;
/// So many blocks are asked for at once, unless the window is shorter.
const PORTION: u32 = 16;
/// Entries of other blocks that are looked at for one read. Most of them may be at hand already.
const LOOKS: usize = 512;

/// Where a row is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tid {
    pub block: u32,
    pub offset: u16,
}

/// What a scan has found on an index page.
pub struct Leaf<F> {
    pub page: u32,
    /// Whose row is being read.
    pub here: i32,
    /// Behind the last one.
    pub end: i32,
    /// The row of a position; none for one that is not on the page.
    pub row: F,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    page: u32,
    at: i32,
    tid: Tid,
}

/// One scan's state; new for a scan that was not seen before.
#[derive(Default)]
pub struct LeafScan {
    place: Option<Place>,
    /// All positions before have been looked at.
    looked: i32,
    /// Blocks that were asked for and not read yet, with their positions.
    asked: VecDeque<(i32, u32)>,
    /// Of what was asked for since the scan came to this page: blocks that were read.
    used: usize,
    window: u32,
    /// Blocks read since it last left too much behind.
    streak: u32,
    goal: Option<Goal>,
}

/// A reader that wants a number of rows.
struct Goal {
    /// What it lacked first and last.
    first: u64,
    last: u64,
    /// The streak when it was first seen.
    streak: u32,
}

impl LeafScan {
    /// The block of `leaf.here` is being read, and its reader had to wait for it or has to. What was asked for and will not be read.
    pub fn read<F>(&mut self, leaf: &Leaf<F>, waited: bool, window_max: u32) -> Vec<u32>
    where
        F: Fn(i32) -> Option<Tid>,
    {
        let Some(tid) = (leaf.row)(leaf.here) else { return Vec::new() };
        if let Some(index) = self.asked.iter().position(|(_, block)| *block == tid.block) {
            self.asked.remove(index);
            self.used += 1;
        }
        let left = if self.continues(leaf) { self.passed(leaf.here) } else { self.begin(leaf.here) };
        self.place = Some(Place { page: leaf.page, at: leaf.here, tid });
        self.looked = self.looked.max(leaf.here + 1);
        self.streak = self.streak.saturating_add(1);
        if waited {
            self.window = match self.window {
                0 if self.streak < 2 => 0,
                0 => WINDOW_MIN,
                window => window.saturating_mul(2).min(self.streak).max(window),
            };
        }
        self.window = self.window.min(window_max);
        left
    }

    /// Whether the scan went on from where it was last seen, on the same page with the same entries.
    fn continues<F: Fn(i32) -> Option<Tid>>(&self, leaf: &Leaf<F>) -> bool {
        self.place.is_some_and(|place| {
            place.page == leaf.page && place.at <= leaf.here && (leaf.row)(place.at) == Some(place.tid)
        })
    }

    /// Blocks that came from elsewhere, so that nobody reads them here.
    fn passed(&mut self, here: i32) -> Vec<u32> {
        let mut left = Vec::new();
        self.asked.retain(|(at, block)| {
            if *at < here {
                left.push(*block);
            }
            *at >= here
        });
        left
    }

    /// The next index page, or another round of the scan.
    fn begin(&mut self, here: i32) -> Vec<u32> {
        if self.asked.len() > self.used {
            self.window = 0;
        }
        if self.window == 0 {
            self.streak = 0;
        }
        self.used = 0;
        self.looked = here + 1;
        self.forget()
    }

    /// The scan is over: what was asked for and not read.
    pub fn forget(&mut self) -> Vec<u32> {
        self.asked.drain(..).map(|(_, block)| block).collect()
    }

    /// Positions and blocks that should be asked for now, in the order in which they will be read. `reach`: rows that the reader
    /// will ask for at least, beside the one that is being read. One that throws rows away is taken to go on.
    pub fn ahead<F>(
        &mut self,
        leaf: &Leaf<F>,
        reach: Option<u64>,
        mut is_wanted: impl FnMut(u32) -> bool,
    ) -> Vec<(i32, u32)>
    where
        F: Fn(i32) -> Option<Tid>,
    {
        let reach = reach.map_or(u64::MAX, |rows| rows.max(self.thrown_away(rows) / 4));
        let free = (self.window as usize).saturating_sub(self.asked.len());
        let portion = (self.window / 2).clamp(1, PORTION) as usize;
        let mut found: Vec<(i32, u32)> = Vec::new();
        if self.window == 0 || free < portion {
            return found;
        }
        let reach = i32::try_from(reach).unwrap_or(i32::MAX);
        let end = leaf.end.min(leaf.here.saturating_add(1).saturating_add(reach));
        let (mut last, mut looks) = ((leaf.row)(leaf.here).map(|tid| tid.block), 0);
        while self.looked < end && found.len() < free && looks < LOOKS {
            let at = self.looked;
            let Some(tid) = (leaf.row)(at) else { break };
            self.looked += 1;
            if last == Some(tid.block) {
                continue;
            }
            last = Some(tid.block);
            looks += 1;
            if is_wanted(tid.block) && found.iter().all(|(_, block)| *block != tid.block) {
                found.push((at, tid.block));
            }
        }
        found
    }

    /// Blocks of which the reader has used no row, at least.
    fn thrown_away(&mut self, lacks: u64) -> u64 {
        let goal = match self.goal.take().filter(|goal| lacks <= goal.last) {
            Some(goal) => Goal { last: lacks, ..goal },
            None => Goal { first: lacks, last: lacks, streak: self.streak },
        };
        let read = u64::from(self.streak.saturating_sub(goal.streak));
        let more = (lacks + read).saturating_sub(goal.first);
        self.goal = Some(goal);
        more
    }

    /// A block that `ahead` named was asked for.
    pub fn asked(&mut self, at: i32, block: u32) {
        self.asked.push_back((at, block));
    }

    /// From this position on nothing was asked for: there was no room.
    pub fn stopped(&mut self, at: i32) {
        self.looked = at;
    }

    /// Whether the next index page is worth asking for: all of this one is asked for, or at hand, and the scan has got far.
    pub fn is_near_the_end<F>(&self, leaf: &Leaf<F>) -> bool {
        self.window >= PORTION / 2 && self.looked >= leaf.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const MAX: u32 = 224;

    /// Index pages of 300 entries whose rows are all over a table, no block twice.
    fn tid(page: u32, at: i32) -> Tid {
        Tid { block: (page * 1000 + at.unsigned_abs() * 7919) % 1_000_003, offset: 1 }
    }

    fn leaf(page: u32, here: i32, end: i32) -> Leaf<impl Fn(i32) -> Option<Tid>> {
        Leaf { page, here, end, row: move |at| (at < end).then(|| tid(page, at)) }
    }

    /// A session with all that it has asked for, which it gets late.
    #[derive(Default)]
    struct Reader {
        scan: LeafScan,
        held: HashSet<u32>,
        requested: usize,
        waits: usize,
        wasted: usize,
    }

    impl Reader {
        fn read(&mut self, page: u32, here: i32, end: i32, reach: Option<u64>) {
            let leaf = leaf(page, here, end);
            let missed = !self.held.remove(&tid(page, here).block);
            self.waits += usize::from(missed);
            for block in self.scan.read(&leaf, missed, MAX) {
                assert!(self.held.remove(&block), "what is left was held");
                self.wasted += 1;
            }
            for (at, block) in self.scan.ahead(&leaf, reach, |block| !self.held.contains(&block)) {
                assert!(at > here && at < end && block == tid(page, at).block);
                self.scan.asked(at, block);
                assert!(self.held.insert(block), "asked for once");
                self.requested += 1;
            }
        }

        fn end(&mut self) {
            let left = self.scan.forget();
            self.wasted += left.len();
            assert!(left.iter().all(|block| self.held.remove(block)) && self.held.is_empty());
        }
    }

    #[test]
    fn a_long_scan_hardly_waits_and_wastes_nothing() {
        let mut reader = Reader::default();
        for page in 1..=10 {
            (0..300).for_each(|at| reader.read(page, at, 300, None));
        }
        reader.end();
        assert_eq!(reader.wasted, 0);
        assert!(reader.waits < 25, "{} waits", reader.waits);
    }

    #[test]
    fn backwards_is_the_same_with_growing_positions() {
        let mut reader = Reader::default();
        (-299..1).for_each(|at| reader.read(5, at, 1, None));
        reader.end();
        assert!(reader.wasted == 0 && reader.requested > 280, "{}", reader.requested);
    }

    #[test]
    fn a_scan_that_ends_early_has_wasted_no_more_than_it_read() {
        for rows in 1..100 {
            let mut reader = Reader::default();
            (0..rows).for_each(|at| reader.read(1, at, 300, None));
            reader.end();
            assert!(reader.wasted <= rows as usize, "{} of {rows}", reader.wasted);
            assert!(rows > 1 || reader.requested == 0, "a single row");
        }
    }

    #[test]
    fn a_known_end_wastes_nothing() {
        let mut reader = Reader::default();
        (0..40).for_each(|at| reader.read(1, at, 300, Some(39 - at as u64)));
        reader.end();
        assert!(reader.wasted == 0 && reader.requested >= 35, "{} {}", reader.wasted, reader.requested);
        // A reader that throws most rows away goes on all the same.
        let mut reader = Reader::default();
        (0..300).for_each(|at| reader.read(1, at, 300, Some(1)));
        reader.end();
        assert!(reader.waits < 60, "{} waits", reader.waits);
    }

    #[test]
    fn rounds_of_a_join_are_learnt_from() {
        // Each round reads all of its eight rows: after the first one a round waits once.
        let mut reader = Reader::default();
        for round in 0..50 {
            (0..8).for_each(|at| reader.read(round, at, 8, None));
        }
        assert!(reader.waits <= 60 && reader.wasted == 0, "{} waits", reader.waits);
        reader.end();
        // Each round stops at its first row: nothing is asked for.
        let mut reader = Reader::default();
        (0..50).for_each(|round| reader.read(round, 0, 8, None));
        assert_eq!(reader.requested, 0);
        // Or at its third: bounded by what was read.
        for round in 100..200 {
            (0..3).for_each(|at| reader.read(round, at, 8, None));
        }
        reader.end();
        assert!(reader.wasted <= 300, "{} of {}", reader.wasted, reader.requested);
    }

    #[test]
    fn the_same_page_with_other_entries_is_another_round() {
        let mut scan = LeafScan::default();
        for at in 0..4 {
            scan.read(&leaf(1, at, 300), true, MAX);
            for (at, block) in scan.ahead(&leaf(1, at, 300), None, |_| true) {
                scan.asked(at, block);
            }
        }
        let held = scan.asked.len();
        let other =
            Leaf { page: 1, here: 5, end: 9, row: |at: i32| Some(Tid { block: at as u32, offset: 9 }) };
        assert!(held > 0 && scan.read(&other, true, MAX).len() == held);
        assert_eq!(scan.looked, 6);
    }

    #[test]
    fn without_room_the_same_is_looked_at_again() {
        let mut scan = LeafScan::default();
        scan.read(&leaf(1, 0, 300), true, MAX);
        scan.read(&leaf(1, 1, 300), true, MAX);
        let first = scan.ahead(&leaf(1, 1, 300), None, |_| true);
        assert_eq!(first.len(), 2);
        scan.stopped(first[0].0);
        assert_eq!(scan.ahead(&leaf(1, 1, 300), None, |_| true), first);
        assert!(!scan.is_near_the_end(&leaf(1, 1, 300)));
        // No window, nothing.
        scan.read(&leaf(1, 2, 300), true, 0);
        assert!(scan.ahead(&leaf(1, 2, 300), None, |_| true).is_empty());
        // Entries outside of the page end the look.
        assert!(scan.read(&leaf(1, 300, 300), true, MAX).is_empty());
    }
}
