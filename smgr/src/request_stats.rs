//! Counts and latencies of requests, in shared memory: one set of cells per kind of request.
//!
//! Latencies go into cells that double: cell n counts requests of less than 2^n microseconds that were not in cell n − 1.

use std::sync::atomic::{AtomicU64, Ordering};

/// Cells of a histogram; the last one takes everything of 2^22 µs (4 s) and more.
pub const LATENCY_CELLS: usize = 24;

/// Cells of one kind of request.
#[derive(Default)]
pub struct KindStats {
    requests: AtomicU64,
    blocks: AtomicU64,
    errors: AtomicU64,
    micros: AtomicU64,
    latency: [AtomicU64; LATENCY_CELLS],
}

/// A copy of `KindStats`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KindSnapshot {
    pub requests: u64,
    pub blocks: u64,
    pub errors: u64,
    pub micros: u64,
    pub latency: [u64; LATENCY_CELLS],
}

impl KindStats {
    pub fn record(&self, blocks: u32, micros: u64, failed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.blocks.fetch_add(u64::from(blocks), Ordering::Relaxed);
        self.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.latency[latency_cell(micros)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> KindSnapshot {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        KindSnapshot {
            requests: read(&self.requests),
            blocks: read(&self.blocks),
            errors: read(&self.errors),
            micros: read(&self.micros),
            latency: std::array::from_fn(|index| read(&self.latency[index])),
        }
    }
}

fn latency_cell(micros: u64) -> usize {
    ((64 - micros.leading_zeros()) as usize).min(LATENCY_CELLS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_doubling_cells() {
        for (micros, cell) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1023, 10), (1024, 11), (u64::MAX, 23)]
        {
            assert_eq!(latency_cell(micros), cell, "{micros}");
        }
        let stats = KindStats::default();
        stats.record(32, 100, false);
        stats.record(1, 3, true);
        let seen = stats.snapshot();
        assert_eq!((seen.requests, seen.blocks, seen.errors, seen.micros), (2, 33, 1, 103));
        assert_eq!(seen.latency.iter().sum::<u64>(), 2);
    }
}
