//! One place of the cache: which page lies there, as of when, and how it is linked. Zeroed memory is an unused place.
//!
//! Fields change under the partition's exclusive lock, but for `use_word` (pins and the count of uses), which readers change under the
//! shared lock and, to unpin, under none. All are atomics, because processes share them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use strata_common::hash::page_hash;
use strata_common::{BlockNumber, ForkNumber, Lsn, RelFork, RelTag};

/// Name of a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageName {
    pub rel: RelFork,
    pub block: BlockNumber,
}

impl PageName {
    pub fn hash(&self) -> u64 {
        page_hash(self.rel, self.block)
    }
}

/// What a place is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum State {
    /// In the free list, or never used.
    Free = 0,
    /// Given to a writer; nobody finds it.
    Writing = 1,
    /// Found by its name, in the queue of new pages.
    Small = 2,
    /// Found by its name, in the queue of pages that proved themselves.
    Main = 3,
    /// Dropped while somebody read it; free when the last reader has gone.
    Doomed = 4,
}

impl State {
    fn of(raw: u32) -> State {
        match raw {
            0 => State::Free,
            1 => State::Writing,
            2 => State::Small,
            3 => State::Main,
            4 => State::Doomed,
            other => panic!("the cache's index is damaged: a place has state {other}"),
        }
    }
}

/// A link to a place: its number and one, so that zero is none.
#[derive(Default, Debug)]
pub(crate) struct Link(AtomicU32);

impl Link {
    pub fn get(&self) -> Option<u32> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }

    pub fn set(&self, place: Option<u32>) {
        self.0.store(place.map_or(0, |place| place + 1), Ordering::Relaxed);
    }
}

/// Pins in the low bits, uses above them.
const PIN: u32 = 1;
const PINS: u32 = (1 << 24) - 1;
const USE: u32 = 1 << 24;
/// More uses than this are not counted.
const USES_MAX: u32 = 3;

#[repr(C)]
#[derive(Default, Debug)]
pub struct Entry {
    database: AtomicU64,
    relation: AtomicU64,
    as_of: AtomicU64,
    fork_and_state: AtomicU32,
    use_word: AtomicU32,
    checksum: AtomicU32,
    /// Next in the bucket, or in the list of free or doomed places.
    pub(crate) next: Link,
    /// Neighbours in a queue.
    pub(crate) newer: Link,
    pub(crate) older: Link,
}

const _: () = assert!(size_of::<Entry>() == 48, "0.6 % of the page that it stands for");

impl Entry {
    pub(crate) fn name(&self) -> PageName {
        let database = self.database.load(Ordering::Relaxed);
        let relation = self.relation.load(Ordering::Relaxed);
        let fork = self.fork_and_state.load(Ordering::Relaxed) >> 8;
        let fork = u8::try_from(fork).ok().and_then(ForkNumber::from_raw);
        let tag = RelTag {
            tablespace: (database >> 32) as u32,
            database: database as u32,
            relation: (relation >> 32) as u32,
        };
        PageName { rel: tag.fork(fork.expect("a fork was written")), block: BlockNumber(relation as u32) }
    }

    pub(crate) fn set_name(&self, name: PageName, state: State) {
        let tag = name.rel.rel;
        self.database.store(u64::from(tag.tablespace) << 32 | u64::from(tag.database), Ordering::Relaxed);
        self.relation.store(u64::from(tag.relation) << 32 | u64::from(name.block.0), Ordering::Relaxed);
        let fork = u32::from(name.rel.fork.raw());
        self.fork_and_state.store(fork << 8 | state as u32, Ordering::Relaxed);
    }

    pub(crate) fn state(&self) -> State {
        State::of(self.fork_and_state.load(Ordering::Relaxed) & 0xff)
    }

    pub(crate) fn set_state(&self, state: State) {
        let fork = self.fork_and_state.load(Ordering::Relaxed) & !0xff;
        self.fork_and_state.store(fork | state as u32, Ordering::Relaxed);
    }

    pub(crate) fn as_of(&self) -> Lsn {
        Lsn(self.as_of.load(Ordering::Relaxed))
    }

    pub(crate) fn checksum(&self) -> u32 {
        self.checksum.load(Ordering::Relaxed)
    }

    pub(crate) fn set_content(&self, as_of: Lsn, checksum: u32) {
        self.as_of.store(as_of.0, Ordering::Relaxed);
        self.checksum.store(checksum, Ordering::Relaxed);
    }

    /// A reader comes: pinned, and used once more.
    pub(crate) fn pin(&self) {
        let used = |word: u32| Some((word + PIN) + if word / USE < USES_MAX { USE } else { 0 });
        self.use_word.fetch_update(Ordering::AcqRel, Ordering::Acquire, used).expect("always some");
    }

    /// A reader goes. Needs no lock.
    pub(crate) fn unpin(&self) {
        let before = self.use_word.fetch_sub(PIN, Ordering::AcqRel);
        assert!(before & PINS > 0, "a place of the cache was unpinned more often than pinned");
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.use_word.load(Ordering::Acquire) & PINS > 0
    }

    pub(crate) fn uses(&self) -> u32 {
        self.use_word.load(Ordering::Relaxed) / USE
    }

    pub(crate) fn forget_one_use(&self) {
        self.use_word.fetch_sub(USE, Ordering::AcqRel);
    }

    /// For a page that nobody has pinned.
    pub(crate) fn set_uses(&self, uses: u32) {
        self.use_word.store(uses.min(USES_MAX) * USE, Ordering::Release);
    }

    pub(crate) fn forget_uses(&self) {
        self.use_word.fetch_and(PINS, Ordering::AcqRel);
    }
}
