//! One partition of the cache's index: which pages lie in which places of the file, and which page leaves when room is needed.
//!
//! The policy is S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", 2023). New pages enter a small queue; those
//! that are used there again move on to the main queue, the others leave early and are remembered by a fingerprint; a page that
//! comes back while remembered enters the main queue at once. So a scan, whose pages are used once, passes through the small
//! queue and leaves the main one alone. A hit changes one word and no list: it needs the shared lock only.
//!
//! A writer gets a place that nobody finds (`reserve`), writes the file, and then names the page (`publish`): readers never meet half a
//! page, and a page may be published twice, the newer as-of LSN wins (L10). A page is pinned while it is read; a pinned one is never
//! given to somebody else, and if all are pinned there is no place (C2).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use strata_common::Lsn;

use crate::entry::{Entry, Link, PageName, State};

/// A queue of places, new ones in front.
#[repr(C)]
#[derive(Default, Debug)]
struct Queue {
    newest: Link,
    oldest: Link,
    length: AtomicU32,
}

/// The fixed part of a partition. Zeroes are an empty one with no room at all.
#[repr(C)]
#[derive(Default, Debug)]
pub struct Head {
    /// Places that may be used.
    limit: AtomicU32,
    /// Places that are not free.
    used: AtomicU32,
    /// Places from this one on were never used.
    fresh: AtomicU32,
    free: Link,
    doomed: Link,
    small: Queue,
    main: Queue,
    /// Pages that have been remembered so far.
    remembered: AtomicU32,
}

/// View of a partition; the memory and the lock belong to whoever made it.
#[derive(Clone, Copy)]
pub struct Partition<'a> {
    head: &'a Head,
    /// As many as a power of two.
    buckets: &'a [AtomicU32],
    entries: &'a [Entry],
    ghosts: &'a [AtomicU64],
}

/// A place of the file, by its number in the partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place(pub u32);

/// A page that was found, pinned: `unpin` must follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hit {
    pub place: Place,
    pub checksum: u32,
}

/// A page of the cache as `pages` lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resident {
    pub name: PageName,
    pub place: Place,
    pub as_of: Lsn,
    pub checksum: u32,
    pub uses: u32,
    pub in_main: bool,
}

/// A page that a former server left in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restored {
    pub name: PageName,
    pub place: Place,
    pub checksum: u32,
    pub uses: u32,
    pub in_main: bool,
}

/// The small queue's share of all places: one in this many.
const SMALL_SHARE: u32 = 10;

impl<'a> Partition<'a> {
    /// # Panics
    /// Unless the number of buckets is a power of two, and there are places and room for what is remembered.
    pub fn new(
        head: &'a Head,
        buckets: &'a [AtomicU32],
        entries: &'a [Entry],
        ghosts: &'a [AtomicU64],
    ) -> Partition<'a> {
        assert!(buckets.len().is_power_of_two(), "the number of buckets is a power of two");
        assert!(!entries.is_empty() && !ghosts.is_empty(), "a partition has places");
        Partition { head, buckets, entries, ghosts }
    }

    /// Places that may be used at most.
    pub fn places(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("a partition has fewer places than 2^32")
    }

    pub fn limit(&self) -> u32 {
        self.head.limit.load(Ordering::Relaxed)
    }

    pub fn used(&self) -> u32 {
        self.head.used.load(Ordering::Relaxed)
    }

    /// Looks for a page that is at least as new as `needed`. Shared lock.
    pub fn find(&self, name: PageName, needed: Lsn) -> Option<Hit> {
        let place = self.lookup(name)?;
        let entry = self.entry(place);
        if entry.as_of() < needed {
            return None;
        }
        entry.pin();
        Some(Hit { place: Place(place), checksum: entry.checksum() })
    }

    /// Whether `find` would find the page; no use of it is counted. Shared lock.
    pub fn has(&self, name: PageName, needed: Lsn) -> bool {
        self.lookup(name).is_some_and(|place| self.entry(place).as_of() >= needed)
    }

    /// Ends what `find` began. No lock.
    pub fn unpin(&self, place: Place) {
        self.entry(place.0).unpin();
    }

    /// A place for a page that is to be written; `None`: there is no room, all is being read or written. Exclusive lock.
    pub fn reserve(&self) -> Option<Place> {
        self.reclaim_doomed();
        // More than one, if readers held some when the limit fell.
        while self.used() >= self.limit() {
            self.evict(self.limit() / SMALL_SHARE)?;
        }
        let place = self.take_free()?;
        self.entry(place).set_state(State::Writing);
        self.head.used.fetch_add(1, Ordering::Relaxed);
        Some(Place(place))
    }

    /// A place that nobody has to leave for; `None`: all that may be used are. Exclusive lock.
    pub fn reserve_free(&self) -> Option<Place> {
        self.reclaim_doomed();
        (self.used() < self.limit()).then(|| self.reserve()).flatten()
    }

    /// The place holds the page as of `as_of` now. Whether it is kept: one that is already there and newer stays. Exclusive lock.
    pub fn publish(&self, place: Place, name: PageName, as_of: Lsn, checksum: u32) -> bool {
        let entry = self.entry(place.0);
        assert_eq!(entry.state(), State::Writing, "only a reserved place is published");
        let mut known = false;
        if let Some(before) = self.lookup(name) {
            if self.entry(before).as_of() > as_of {
                self.release(place.0);
                return false;
            }
            known = self.entry(before).state() == State::Main;
            self.drop_place(before);
        }
        let to_main = known || self.was_remembered(name.hash());
        let state = if to_main { State::Main } else { State::Small };
        entry.forget_uses();
        entry.set_content(as_of, checksum);
        self.enter(place.0, name, state);
        true
    }

    /// As `publish`, for a page that has proved itself elsewhere; one that is there and as new stays.
    /// Exclusive lock.
    pub fn publish_known(&self, place: Place, page: Restored, as_of: Lsn) -> bool {
        let entry = self.entry(place.0);
        assert_eq!(entry.state(), State::Writing, "only a reserved place is published");
        if self.lookup(page.name).is_some_and(|before| self.entry(before).as_of() >= as_of) {
            self.release(place.0);
            return false;
        }
        self.drop_page(page.name);
        entry.set_uses(page.uses);
        entry.set_content(as_of, page.checksum);
        self.enter(place.0, page.name, if page.in_main { State::Main } else { State::Small });
        true
    }

    /// Fills an empty partition with pages that lie in the file already, all as of `as_of`, given in the order in which they would leave;
    /// how many it took. One whose place is not there, or that comes twice, is left out, and of more than the limit the first ones.
    /// Nobody else may be there yet.
    ///
    /// # Panics
    /// If the partition was used before.
    pub fn restore(&self, pages: &[Restored], as_of: Lsn) -> u32 {
        assert!(
            self.used() == 0 && self.head.fresh.load(Ordering::Relaxed) == 0,
            "only a new partition is filled"
        );
        let there: Vec<&Restored> = pages.iter().filter(|page| page.place.0 < self.places()).collect();
        let mut end = 0;
        for page in &there[there.len().saturating_sub(self.limit() as usize)..] {
            let place = page.place.0;
            if !self.is_free(page.place) || self.lookup(page.name).is_some() {
                continue;
            }
            end = end.max(place + 1);
            let entry = self.entry(place);
            entry.set_uses(page.uses);
            entry.set_content(as_of, page.checksum);
            self.enter(place, page.name, if page.in_main { State::Main } else { State::Small });
            self.head.used.fetch_add(1, Ordering::Relaxed);
        }
        self.head.fresh.store(end, Ordering::Relaxed);
        for place in (0..end).rev().filter(|place| self.is_free(Place(*place))) {
            self.entry(place).next.set(self.head.free.get());
            self.head.free.set(Some(place));
        }
        self.used()
    }

    /// The place is found by this name from now on.
    fn enter(&self, place: u32, name: PageName, state: State) {
        let entry = self.entry(place);
        entry.set_name(name, state);
        let bucket = self.bucket(name.hash());
        entry.next.set(bucket.load(Ordering::Relaxed).checked_sub(1));
        bucket.store(place + 1, Ordering::Relaxed);
        self.push(state, place);
    }

    /// The place was reserved and will not be published. Exclusive lock.
    pub fn cancel(&self, place: Place) {
        assert_eq!(self.entry(place.0).state(), State::Writing, "only a reserved place is given back");
        self.release(place.0);
    }

    /// Drops a page, if it is there. Exclusive lock.
    pub fn drop_page(&self, name: PageName) {
        if let Some(place) = self.lookup(name) {
            self.drop_place(place);
        }
    }

    /// Drops the page that `find` has given, pinned, because it cannot be read or is not what was written. Exclusive lock.
    pub fn drop_found(&self, place: Place) {
        if matches!(self.entry(place.0).state(), State::Small | State::Main) {
            self.drop_place(place.0);
        }
    }

    /// Another number of places may be used. Shrinking is done by `shrink`. Exclusive lock.
    pub fn set_limit(&self, places: u32) {
        self.head.limit.store(places.min(self.places()), Ordering::Relaxed);
    }

    /// Frees one place while more are used than may be, coldest first, and says which: its bytes are to be given back. `None`: done, or
    /// all that is left is being read or written. Exclusive lock.
    pub fn shrink(&self) -> Option<Place> {
        self.reclaim_doomed();
        if self.used() <= self.limit() {
            return None;
        }
        // New pages have shown nothing yet: none of them is kept for its youth (C4).
        self.evict(0).map(Place)
    }

    /// Whether nobody has the place. Shared lock.
    pub fn is_free(&self, place: Place) -> bool {
        self.entry(place.0).state() == State::Free
    }

    /// Places without content that the file may still hold bytes of. Shared lock.
    pub fn free_places(&self) -> Vec<Place> {
        let mut next = self.head.free.get();
        let mut places = Vec::new();
        while let Some(place) = next {
            places.push(Place(place));
            next = self.entry(place).next.get();
        }
        places
    }

    /// All pages that can be found, in the order in which they would leave. Shared lock.
    pub fn pages(&self) -> Vec<Resident> {
        let mut pages = Vec::new();
        for queue in [&self.head.small, &self.head.main] {
            let mut next = queue.oldest.get();
            while let Some(place) = next {
                let entry = self.entry(place);
                pages.push(Resident {
                    name: entry.name(),
                    place: Place(place),
                    as_of: entry.as_of(),
                    checksum: entry.checksum(),
                    uses: entry.uses(),
                    in_main: entry.state() == State::Main,
                });
                next = entry.newer.get();
            }
        }
        pages
    }

    fn entry(&self, place: u32) -> &'a Entry {
        &self.entries[place as usize]
    }

    fn bucket(&self, hash: u64) -> &'a AtomicU32 {
        // The high bits: the low ones have picked the partition.
        &self.buckets[(hash >> 32) as usize & (self.buckets.len() - 1)]
    }

    fn lookup(&self, name: PageName) -> Option<u32> {
        let mut next = self.bucket(name.hash()).load(Ordering::Relaxed).checked_sub(1);
        while let Some(place) = next {
            let entry = self.entry(place);
            if entry.name() == name {
                return Some(place);
            }
            next = entry.next.get();
        }
        None
    }

    fn take_free(&self) -> Option<u32> {
        if let Some(place) = self.head.free.get() {
            self.head.free.set(self.entry(place).next.get());
            return Some(place);
        }
        let fresh = self.head.fresh.load(Ordering::Relaxed);
        (fresh < self.places()).then(|| self.head.fresh.fetch_add(1, Ordering::Relaxed))
    }

    /// The place is nobody's: into the free list.
    fn release(&self, place: u32) {
        let entry = self.entry(place);
        entry.set_state(State::Free);
        entry.next.set(self.head.free.get());
        self.head.free.set(Some(place));
        self.head.used.fetch_sub(1, Ordering::Relaxed);
    }

    /// A page leaves: it is found no more. Its place is free at once, or when its readers are gone.
    fn drop_place(&self, place: u32) {
        let entry = self.entry(place);
        self.unlink_from_bucket(place);
        self.remove(entry.state(), place);
        if entry.is_pinned() {
            entry.set_state(State::Doomed);
            entry.next.set(self.head.doomed.get());
            self.head.doomed.set(Some(place));
        } else {
            self.release(place);
        }
    }

    fn unlink_from_bucket(&self, place: u32) {
        let bucket = self.bucket(self.entry(place).name().hash());
        let after = self.entry(place).next.get();
        let mut next = bucket.load(Ordering::Relaxed).checked_sub(1).expect("the page is in its bucket");
        if next == place {
            bucket.store(after.map_or(0, |after| after + 1), Ordering::Relaxed);
            return;
        }
        loop {
            let entry = self.entry(next);
            next = entry.next.get().expect("the page is in its bucket");
            if next == place {
                return entry.next.set(after);
            }
        }
    }

    fn reclaim_doomed(&self) {
        let mut next = self.head.doomed.get();
        let mut kept = None;
        while let Some(place) = next {
            let entry = self.entry(place);
            next = entry.next.get();
            if entry.is_pinned() {
                entry.next.set(kept);
                kept = Some(place);
            } else {
                self.release(place);
            }
        }
        self.head.doomed.set(kept);
    }

    /// Makes one place free; which. The small queue may keep so many. `None`: all are pinned.
    fn evict(&self, small_kept: u32) -> Option<u32> {
        let (small, main) = (&self.head.small, &self.head.main);
        // Every page may be moved once for each use, and is looked at once more when it has none left.
        let looks = (small.length() + main.length()).saturating_mul(4);
        for _ in 0..looks {
            let from_small = small.length() > 0 && (small.length() > small_kept || main.length() == 0);
            let freed = if from_small { self.evict_from_small() } else { self.evict_from_main() };
            if freed.is_some() {
                return freed;
            }
        }
        None
    }

    /// The oldest new page leaves, unless it was used: then it goes on to the main queue.
    fn evict_from_small(&self) -> Option<u32> {
        let place = self.head.small.oldest.get()?;
        let entry = self.entry(place);
        if entry.uses() > 0 || entry.is_pinned() {
            self.remove(State::Small, place);
            // The others count on: what was used often outlives what was used once, above all when the cache becomes smaller (C4).
            if entry.uses() > 0 {
                entry.forget_one_use();
            }
            entry.set_state(State::Main);
            self.push(State::Main, place);
            return None;
        }
        self.remember(entry.name().hash());
        self.drop_place(place);
        Some(place)
    }

    /// The oldest page of the main queue leaves, unless it was used since it was last here: then it begins again, with a use less.
    fn evict_from_main(&self) -> Option<u32> {
        let place = self.head.main.oldest.get()?;
        let entry = self.entry(place);
        if entry.uses() > 0 || entry.is_pinned() {
            self.remove(State::Main, place);
            if entry.uses() > 0 {
                entry.forget_one_use();
            }
            self.push(State::Main, place);
            return None;
        }
        self.drop_place(place);
        Some(place)
    }

    /// Keeps a fingerprint of a page that left early.
    fn remember(&self, hash: u64) {
        let now = self.head.remembered.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.ghost(hash).store(u64::from(fingerprint(hash)) << 32 | u64::from(now), Ordering::Relaxed);
    }

    /// Whether a page left early, not more than a cache's worth of pages ago. It is forgotten by that.
    fn was_remembered(&self, hash: u64) -> bool {
        let cell = self.ghost(hash);
        let word = cell.load(Ordering::Relaxed);
        let now = self.head.remembered.load(Ordering::Relaxed);
        let is_it = word != 0 && (word >> 32) as u32 == fingerprint(hash);
        let fresh = is_it && now.wrapping_sub(word as u32) <= self.limit();
        if fresh {
            cell.store(0, Ordering::Relaxed);
        }
        fresh
    }

    fn ghost(&self, hash: u64) -> &'a AtomicU64 {
        &self.ghosts[(hash >> 32) as usize % self.ghosts.len()]
    }

    fn queue(&self, state: State) -> &'a Queue {
        match state {
            State::Small => &self.head.small,
            State::Main => &self.head.main,
            other => unreachable!("places in state {other:?} are in no queue"),
        }
    }

    fn push(&self, state: State, place: u32) {
        let (queue, entry) = (self.queue(state), self.entry(place));
        let before = queue.newest.get();
        entry.newer.set(None);
        entry.older.set(before);
        match before {
            Some(before) => self.entry(before).newer.set(Some(place)),
            None => queue.oldest.set(Some(place)),
        }
        queue.newest.set(Some(place));
        queue.length.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self, state: State, place: u32) {
        let (queue, entry) = (self.queue(state), self.entry(place));
        let (newer, older) = (entry.newer.get(), entry.older.get());
        match newer {
            Some(newer) => self.entry(newer).older.set(older),
            None => queue.newest.set(older),
        }
        match older {
            Some(older) => self.entry(older).newer.set(newer),
            None => queue.oldest.set(newer),
        }
        queue.length.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    fn length(&self) -> u32 {
        self.length.load(Ordering::Relaxed)
    }
}

/// Never zero with a time beside it, and independent of what picks the cell.
fn fingerprint(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
#[path = "partition_test.rs"]
mod tests;
