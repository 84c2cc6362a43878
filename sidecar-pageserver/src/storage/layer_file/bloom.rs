//! A Bloom filter over the keys of a layer, so that a search skips the layers that do not hold its key. Ten bits and six probes per key:
//! about one layer in a hundred is searched in vain.

use crate::core::key::Key;

const BITS_PER_KEY: usize = 10;
const PROBES: u32 = 6;

#[derive(Debug, Default)]
pub struct BloomBuilder {
    hashes: Vec<u64>,
}

impl BloomBuilder {
    /// Counts the key once even if it comes several times in a row.
    pub fn add(&mut self, key: Key) {
        let hash = hash(key);
        if self.hashes.last() != Some(&hash) {
            self.hashes.push(hash);
        }
    }

    /// The bits, as many as there are keys to hold, a whole number of 64-bit words.
    pub fn build(&self) -> Vec<u8> {
        let words = (self.hashes.len() * BITS_PER_KEY).div_ceil(64).max(1);
        let mut bits = vec![0; words * 8];
        for hash in &self.hashes {
            for bit in probes(*hash, bits.len()) {
                bits[bit / 8] |= 1 << (bit % 8);
            }
        }
        bits
    }
}

#[derive(Debug)]
pub struct Bloom(Vec<u8>);

impl Bloom {
    /// `None` if it is empty, which no layer's filter is.
    pub fn new(bits: Vec<u8>) -> Option<Bloom> {
        (!bits.is_empty()).then_some(Bloom(bits))
    }

    pub fn may_contain(&self, key: Key) -> bool {
        probes(hash(key), self.0.len()).all(|bit| self.0[bit / 8] & (1 << (bit % 8)) != 0)
    }

    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

fn probes(hash: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let bits = (bytes * 8) as u64;
    let step = (hash >> 32) | 1;
    (0..u64::from(PROBES)).map(move |i| (hash.wrapping_add(i.wrapping_mul(step)) % bits) as usize)
}

/// Part of the file format: must never change without a new version.
fn hash(key: Key) -> u64 {
    let k = &key.0;
    let word = |at: usize| {
        u64::from_le_bytes([
            k[at],
            k[at + 1],
            k[at + 2],
            k[at + 3],
            k[at + 4],
            k[at + 5],
            k[at + 6],
            k[at + 7],
        ])
    };
    let mut h = 0x9e37_79b9_7f4a_7c15u64;
    for part in [word(0), word(8), u64::from(u16::from_le_bytes([k[16], k[17]]))] {
        h = (h ^ part).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h ^= h >> 29;
    }
    h = h.wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        let mut key = Key::MIN;
        key.0[13..17].copy_from_slice(&n.to_be_bytes());
        key
    }

    #[test]
    fn it_knows_its_keys_and_few_others() {
        let mut builder = BloomBuilder::default();
        (0..10_000).for_each(|n| builder.add(key(n)));
        let bloom = Bloom::new(builder.build()).expect("not empty");
        assert!((0..10_000).all(|n| bloom.may_contain(key(n))));
        let wrong = (10_000..110_000).filter(|n| bloom.may_contain(key(*n))).count();
        assert!(wrong < 2_500, "{wrong} of 100000");
    }

    #[test]
    fn the_hash_is_part_of_the_format() {
        assert_eq!([hash(key(0)), hash(key(1))], [7_864_358_930_899_897_887, 2_754_710_742_542_804_939]);
    }
}
