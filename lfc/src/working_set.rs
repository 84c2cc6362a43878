//! How many different pages were asked for within a window of time: the size of cache that a workload could use.
//!
//! A HyperLogLog sketch that slides. An ordinary one keeps, for each register, the highest rank seen; this one keeps for each register
//! and rank the time at which it was last seen, so that one sketch answers for every window up to now: a register's value for
//! a window is the highest rank seen inside it. The estimate from the registers is Ertl's ("New cardinality estimation algorithms for
//! HyperLogLog sketches", 2017), which has no bias to correct and no threshold between small and large numbers.
//!
//! Cost: 848 KiB whatever the load; a touch reads one word and writes it at most once a second for the same rank. All words are
//! atomics that any process may write: a lost race loses a second, never more. The standard error is 1.04/√4096 = 1.6 %.
//!
//! All registers' words of one rank lie together, because half of all touches are of the first rank, a quarter of the second and so on: nearly
//! all find their word in 64 KiB, which stay in the processor's cache beside the pages that are copied through it.

use std::sync::atomic::{AtomicU32, Ordering};

const PRECISION: u32 = 12;
const REGISTERS: usize = 1 << PRECISION;
/// Ranks 1 to this: leading zeros of what the register's number leaves of a hash, and one.
const RANKS: usize = 64 - PRECISION as usize + 1;

/// Words of memory that a sketch needs. Zeroes are an empty sketch.
pub const WORDS: usize = REGISTERS * RANKS;

/// Seconds on a clock of the caller's choice that never goes back; 0 is before everything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Second(pub u32);

/// Which touches count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// All since the sketch was empty.
    Ever,
    /// Those of the last seconds.
    Last(u32),
}

/// View of a sketch; the memory belongs to whoever made it.
#[derive(Clone, Copy)]
pub struct WorkingSet<'a>(&'a [AtomicU32]);

impl<'a> WorkingSet<'a> {
    /// # Panics
    /// Unless there are `WORDS` words.
    pub fn new(words: &'a [AtomicU32]) -> WorkingSet<'a> {
        assert_eq!(words.len(), WORDS, "a sketch of the working set has a fixed size");
        WorkingSet(words)
    }

    /// A page with this hash (`strata_common::hash::page_hash`) was asked for.
    pub fn touch(&self, hash: u64, now: Second) {
        let register = usize::try_from(hash >> (64 - PRECISION)).expect("a register's number is small");
        // The bit below the rest ends the count where the rest is zero.
        let rest = (hash << PRECISION) | 1 << (PRECISION - 1);
        let rank = rest.leading_zeros() as usize;
        let seen = &self.0[rank * REGISTERS + register];
        // Now is never 0 for something that was seen.
        let now = now.0.max(1);
        if seen.load(Ordering::Relaxed) != now {
            seen.store(now, Ordering::Relaxed);
        }
    }

    /// How many different pages were touched inside the window that ends `now`.
    pub fn pages(&self, window: Window, now: Second) -> u64 {
        let oldest = match window {
            Window::Ever => 1,
            Window::Last(seconds) => now.0.saturating_sub(seconds).saturating_add(1).max(1),
        };
        // For each register the highest rank seen, counted from 1; 0 for none.
        let mut values = [0; REGISTERS];
        for (rank, registers) in self.0.chunks_exact(REGISTERS).enumerate() {
            for (value, seen) in values.iter_mut().zip(registers) {
                if seen.load(Ordering::Relaxed) >= oldest {
                    *value = rank + 1;
                }
            }
        }
        let mut counts = [0u32; RANKS + 1];
        values.iter().for_each(|value| counts[*value] += 1);
        estimate(&counts)
    }

    /// Forgets all touches.
    pub fn reset(&self) {
        self.0.iter().for_each(|seen| seen.store(0, Ordering::Relaxed));
    }
}

/// The number of different hashes, from how many registers have each value.
fn estimate(counts: &[u32; RANKS + 1]) -> u64 {
    let registers = REGISTERS as f64;
    let share = |count: u32| f64::from(count) / registers;
    let above = registers * tau(1.0 - share(counts[RANKS]));
    let sum = counts[1..RANKS].iter().rev().fold(above, |sum, count| 0.5 * (sum + f64::from(*count)));
    let sum = sum + registers * sigma(share(counts[0]));
    let estimate = registers * registers / (2.0 * std::f64::consts::LN_2 * sum);
    // An empty sketch makes the sum infinite and the estimate 0.
    estimate.round() as u64
}

/// x + Σ x^(2^k) · 2^(k-1), which registers without any touch add.
fn sigma(x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut power, mut weight, mut sum) = (x, 1.0, x);
    loop {
        power *= power;
        let before = sum;
        sum += power * weight;
        weight *= 2.0;
        if sum <= before {
            return sum;
        }
    }
}

/// ⅓ · (1 − x − Σ (1 − x^(2^-k))² · 2^-k), which registers with the highest value add.
fn tau(x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut root, mut weight, mut sum) = (x, 1.0, 1.0 - x);
    loop {
        root = root.sqrt();
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - root) * (1.0 - root) * weight;
        if sum >= before {
            return sum / 3.0;
        }
    }
}

#[cfg(test)]
#[path = "working_set_test.rs"]
mod tests;
