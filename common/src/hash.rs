//! Hashes of forks and pages, the same in every process and on every machine, for tables and sketches in shared memory.
//!
//! Not for bytes of files (those have checksums) and not against an adversary: the names are the server's own.

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
