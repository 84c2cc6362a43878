//! Hashes of forks and pages, the same in every process and on every machine, for tables and sketches in shared memory.
//!
//! Not for bytes of files (those have checksums) and not against an adversary: the names are the server's own.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::rel::{BlockNumber, RelFork};

/// Hash of a fork's name.
pub fn fork_hash(rel: RelFork) -> u64 {
    let tag = rel.rel;
    let high = (u64::from(tag.relation) << 32) | u64::from(tag.database);
    let low = (u64::from(tag.tablespace) << 8) | u64::from(rel.fork.raw());
    mix(mix(high) ^ low)
}

/// Hash of a page's name.
pub fn page_hash(rel: RelFork, block: BlockNumber) -> u64 {
    mix(fork_hash(rel) ^ (u64::from(block.0) << 16))
}

/// A bijection that spreads every input bit over the word (the finaliser of a 64-bit generator).
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A table in memory whose keys are names of the server's own, in a fraction of the time that the standard hasher takes.
pub type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Hashes numbers one after the other. Its values are for tables of this process only.
#[derive(Clone, Copy, Default, Debug)]
pub struct NumberHasher(u64);

impl NumberHasher {
    #[inline]
    fn add(&mut self, number: u64) {
        // Odd, with its bits spread: the multiplication carries each bit upwards, the rotation brings high ones down again.
        self.0 = (self.0.rotate_left(23) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for NumberHasher {
    #[inline]
    fn finish(&self) -> u64 {
        // Tables take the lowest bits for the place, and the highest to tell neighbours apart.
        mix(self.0)
    }

    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.add(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, number: u8) {
        self.add(u64::from(number));
    }

    #[inline]
    fn write_u16(&mut self, number: u16) {
        self.add(u64::from(number));
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.add(u64::from(number));
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::Hash;

    use super::*;
    use crate::rel::{ForkNumber, RelTag};

    #[test]
    fn neighbouring_names_spread_over_a_table() {
        const PLACES: usize = 1 << 16;
        let mut hashes = HashSet::new();
        let mut filled = vec![0u32; PLACES];
        for relation in 0..256 {
            for block in 0..256 {
                let rel = RelTag { tablespace: 1663, database: 5, relation: 16384 + relation };
                let mut hasher = NumberHasher::default();
                (rel.fork(ForkNumber::Main), block).hash(&mut hasher);
                hashes.insert(hasher.finish());
                filled[hasher.finish() as usize % PLACES] += 1;
            }
        }
        assert_eq!(hashes.len(), PLACES, "no two are the same");
        // As many names as places: by chance alone the fullest place has about eight.
        let fullest = filled.iter().max().copied().unwrap_or(0);
        assert!(fullest <= 16, "{fullest} names in one place");
    }
}
