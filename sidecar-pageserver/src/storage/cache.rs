//! Blocks of layer files in memory, checked and decompressed, bounded in bytes.
//!
//! Sixteen shards so that readers on several cores rarely meet; in each a clock: a hit sets a mark, the hand clears marks and takes the first
//! block without one. A block that alone is larger than a shard's share is not kept.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

const SHARDS: usize = 16;
/// What an entry costs beside its bytes, about.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// A block: which open layer file, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockId {
    pub layer: u64,
    pub block: u32,
}

#[derive(Debug)]
pub struct BlockCache {
    shards: Vec<Mutex<Shard>>,
    next_layer: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    slots: Vec<Slot>,
    by_id: HashMap<BlockId, usize>,
    hand: usize,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug)]
struct Slot {
    id: BlockId,
    content: Bytes,
    marked: bool,
}

impl BlockCache {
    pub fn new(bytes_max: u64) -> BlockCache {
        let shard = || Mutex::new(Shard { bytes_max: bytes_max / SHARDS as u64, ..Shard::default() });
        BlockCache {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            next_layer: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// A number for a layer file that is being opened; never used twice, so blocks of a closed one are never found again.
    pub fn layer_id(&self) -> u64 {
        self.next_layer.fetch_add(1, Ordering::Relaxed)
    }

    pub fn get(&self, id: BlockId) -> Option<Bytes> {
        let mut guard = self.shard(id);
        let shard = &mut *guard;
        let found = shard.by_id.get(&id).and_then(|at| shard.slots.get_mut(*at)).map(|slot| {
            slot.marked = true;
            slot.content.clone()
        });
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub fn insert(&self, id: BlockId, content: Bytes) {
        self.shard(id).insert(id, content);
    }

    /// Hits and misses so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().expect("no panic under this lock").bytes).sum()
    }

    fn shard(&self, id: BlockId) -> std::sync::MutexGuard<'_, Shard> {
        let mixed = (id.layer.wrapping_mul(31) ^ u64::from(id.block)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.shards[(mixed >> 60) as usize].lock().expect("no panic under this lock")
    }
}

impl Shard {
    fn insert(&mut self, id: BlockId, content: Bytes) {
        let cost = cost(&content);
        if cost > self.bytes_max || self.by_id.contains_key(&id) {
            return;
        }
        // Each turn clears a mark or frees a block, so this ends.
        while self.bytes + cost > self.bytes_max {
            self.hand %= self.slots.len();
            let slot = &mut self.slots[self.hand];
            if slot.marked {
                slot.marked = false;
                self.hand += 1;
                continue;
            }
            let gone = self.slots.swap_remove(self.hand);
            self.bytes -= self::cost(&gone.content);
            self.by_id.remove(&gone.id);
            if let Some(moved) = self.slots.get(self.hand) {
                self.by_id.insert(moved.id, self.hand);
            }
        }
        self.by_id.insert(id, self.slots.len());
        self.slots.push(Slot { id, content, marked: false });
        self.bytes += cost;
    }
}

fn cost(content: &Bytes) -> u64 {
    content.len() as u64 + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(block: u32) -> BlockId {
        BlockId { layer: 1, block }
    }

    #[test]
    fn it_finds_what_it_holds_and_stays_below_its_bound() {
        let cache = BlockCache::new(16 * 10 * 1128);
        for block in 0..10_000 {
            let content = Bytes::from(vec![block as u8; 1000]);
            cache.insert(id(block), content.clone());
            assert_eq!(cache.get(id(block)), Some(content));
            assert!(cache.bytes() <= 16 * 10 * 1128);
        }
        let found = (0..10_000).filter(|b| cache.get(id(*b)).is_some_and(|c| c[0] == *b as u8)).count();
        assert!((100..=160).contains(&found), "{found}");
    }

    #[test]
    fn what_is_used_stays() {
        let cache = BlockCache::new(16 * 4 * 228);
        cache.insert(id(0), Bytes::from(vec![7; 100]));
        for block in 1..2000 {
            assert!(cache.get(id(0)).is_some(), "block {block}");
            cache.insert(id(block), Bytes::from(vec![0; 100]));
        }
    }

    #[test]
    fn a_block_larger_than_its_share_is_not_kept() {
        let cache = BlockCache::new(16 * 100);
        cache.insert(id(1), Bytes::from(vec![0; 200]));
        assert_eq!((cache.get(id(1)), cache.bytes()), (None, 0));
    }
}
