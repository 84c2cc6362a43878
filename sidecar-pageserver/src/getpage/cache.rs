//! Materialised pages, bounded in bytes: the newest version of a page that somebody asked for.
//!
//! An entry is a starting point, not an answer: it says "this is the page from `lsn` to `as_of`", and the reader still asks
//! storage for changes after that. So nothing has to be invalidated by ingest, and a stale entry costs a few redo steps, never
//! a wrong page. Replacement is second chance (one reference bit and a hand that goes round), in independent parts so that
//! connections on different threads rarely meet.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use bytes::Bytes;
use strata_common::Lsn;

use crate::core::key::Key;

const PARTS: usize = 16;

/// One page version: the page as of `lsn`, the end of the last record that changed it, and as of every later LSN up to `as_of`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedPage {
    pub lsn: Lsn,
    pub as_of: Lsn,
    pub page: Bytes,
}

/// Number of a timeline in this process: short, and never used again after a timeline is gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimelineSlot(pub u32);

type CacheKey = (TimelineSlot, Key);

struct Slot {
    key: CacheKey,
    value: CachedPage,
    referenced: bool,
}

#[derive(Default)]
struct Part {
    index: HashMap<CacheKey, usize>,
    slots: Vec<Slot>,
    hand: usize,
}

/// Shared by all timelines of the process.
pub struct PageCache {
    parts: Vec<Mutex<Part>>,
    slots_per_part: usize,
    hasher: RandomState,
}

impl PageCache {
    /// `bytes` counts pages only (8192 each); 0 switches the cache off.
    pub fn new(bytes: u64) -> PageCache {
        let slots = usize::try_from(bytes / strata_common::BLOCK_BYTES as u64).unwrap_or(usize::MAX);
        PageCache {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            slots_per_part: slots.div_ceil(PARTS),
            hasher: RandomState::new(),
        }
    }

    fn part(&self, key: &CacheKey) -> std::sync::MutexGuard<'_, Part> {
        let at = self.hasher.hash_one(key) as usize % PARTS;
        self.parts[at].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The page as of some LSN at or below `at_most`, if it is here; `as_of` is not above `at_most`.
    pub fn get(&self, timeline: TimelineSlot, key: Key, at_most: Lsn) -> Option<CachedPage> {
        let key = (timeline, key);
        let mut part = self.part(&key);
        let at = *part.index.get(&key)?;
        let slot = &mut part.slots[at];
        (slot.value.lsn <= at_most).then(|| {
            slot.referenced = true;
            CachedPage { as_of: slot.value.as_of.min(at_most), ..slot.value.clone() }
        })
    }

    /// Keeps the newer of what is here and `value`; of the same version, that which is known to last longer.
    pub fn put(&self, timeline: TimelineSlot, key: Key, value: CachedPage) {
        if self.slots_per_part == 0 {
            return;
        }
        let key = (timeline, key);
        let mut part = self.part(&key);
        if let Some(&at) = part.index.get(&key) {
            let slot = &mut part.slots[at];
            if (slot.value.lsn, slot.value.as_of) < (value.lsn, value.as_of) {
                slot.value = value;
            }
            slot.referenced = true;
            return;
        }
        let slot = Slot { key, value, referenced: false };
        if part.slots.len() < self.slots_per_part {
            part.slots.push(slot);
            let at = part.slots.len() - 1;
            part.index.insert(key, at);
            return;
        }
        let at = part.victim();
        let old = part.slots[at].key;
        part.index.remove(&old);
        part.slots[at] = slot;
        part.index.insert(key, at);
    }

    /// Bytes of pages held now.
    pub fn bytes(&self) -> u64 {
        let pages: usize = self
            .parts
            .iter()
            .map(|part| part.lock().unwrap_or_else(std::sync::PoisonError::into_inner).slots.len())
            .sum();
        (pages * strata_common::BLOCK_BYTES) as u64
    }
}

impl Part {
    /// Ends within two rounds: the first clears every reference bit that it meets.
    fn victim(&mut self) -> usize {
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if !std::mem::take(&mut self.slots[at].referenced) {
                return at;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace;
    use strata_common::{BlockNumber, ForkNumber, RelTag};

    fn key(block: u32) -> Key {
        let rel = RelTag { tablespace: 1663, database: 5, relation: 1 }.fork(ForkNumber::Main);
        keyspace::rel_block(rel, BlockNumber(block))
    }

    fn page(lsn: u64) -> CachedPage {
        CachedPage { lsn: Lsn(lsn), as_of: Lsn(lsn), page: Bytes::from(lsn.to_le_bytes().to_vec()) }
    }

    #[test]
    fn holds_the_newest_and_answers_only_at_or_below() {
        let cache = PageCache::new(1 << 20);
        let t = TimelineSlot(0);
        cache.put(t, key(1), page(20));
        cache.put(t, key(1), page(10));
        assert_eq!(cache.get(t, key(1), Lsn(30)), Some(page(20)));
        assert_eq!(cache.get(t, key(1), Lsn(20)), Some(page(20)));
        assert_eq!(cache.get(t, key(1), Lsn(19)), None);
        assert_eq!(cache.get(TimelineSlot(1), key(1), Lsn(30)), None);
    }

    #[test]
    fn a_version_is_known_to_last_as_long_as_it_was_seen_to() {
        let cache = PageCache::new(1 << 20);
        let t = TimelineSlot(0);
        let seen = |as_of| CachedPage { as_of: Lsn(as_of), ..page(20) };
        cache.put(t, key(1), seen(50));
        cache.put(t, key(1), seen(40));
        assert_eq!(cache.get(t, key(1), Lsn(60)), Some(seen(50)));
        assert_eq!(cache.get(t, key(1), Lsn(30)), Some(seen(30)), "nothing is said of later");
        cache.put(t, key(1), page(45));
        assert_eq!(cache.get(t, key(1), Lsn(60)), Some(page(45)), "a later version ends it");
        cache.put(t, key(1), seen(44));
        assert_eq!(cache.get(t, key(1), Lsn(60)), Some(page(45)));
    }

    #[test]
    fn is_bounded_and_keeps_what_is_used() {
        let cache = PageCache::new((PARTS * 4 * strata_common::BLOCK_BYTES) as u64);
        let t = TimelineSlot(0);
        cache.put(t, key(0), page(1));
        for block in 1..10_000 {
            cache.put(t, key(block), page(1));
            assert!(cache.get(t, key(0), Lsn(1)).is_some(), "a page in constant use left at block {block}");
        }
        assert_eq!(cache.bytes(), (PARTS * 4 * strata_common::BLOCK_BYTES) as u64);
        let off = PageCache::new(0);
        off.put(t, key(0), page(1));
        assert_eq!(off.get(t, key(0), Lsn(1)), None);
    }
}
