//! Below which log position no record of a running transaction ends (trap W6): pages older than that need no look at their tuples.
//!
//! Samples of (insert position, next transaction id) are taken from time to time, the position first. A transaction whose id is
//! not below a sample's wrote its first record after that sample's position. So the newest sample whose id is not above the
//! oldest running transaction bounds them all; and as running transactions only get younger, a bound once found stays true.

use std::collections::VecDeque;

use strata_common::{Guard, Lsn};

/// Samples kept: a transaction that runs longer than so many of them keeps the bound where it was, which is sound.
const SAMPLES_MAX: usize = 1024;

/// One look at the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// End of the last record inserted, read before `next_xid`.
    pub insert_lsn: Lsn,
    /// The next transaction id, with its epoch.
    pub next_xid: u64,
}

/// The samples, oldest first.
#[derive(Default)]
pub struct Samples(VecDeque<Sample>);

impl Samples {
    /// Adds a sample; of many with the same next id the newest says most.
    pub fn add(&mut self, sample: Sample) {
        if self.0.back().is_some_and(|last| last.next_xid == sample.next_xid) {
            self.0.pop_back();
        }
        if self.0.len() == SAMPLES_MAX {
            // Every second one goes: recent and old bounds both stay near.
            let mut index = 0;
            self.0.retain(|_| {
                index += 1;
                index % 2 == 0
            });
        }
        self.0.push_back(sample);
    }

    /// The bound, given the oldest transaction that runs (or the next id if none does).
    pub fn bound(&self, oldest_running: u64) -> Lsn {
        self.0
            .iter()
            .rev()
            .find(|sample| sample.next_xid <= oldest_running || !Guard::QuietBound.holds())
            .map_or(Lsn::INVALID, |sample| sample.insert_lsn)
    }
}

/// An id of 32 bits near `next_xid`, with its epoch: it is at most half a wrap older.
pub fn with_epoch(xid: u32, next_xid: u64) -> u64 {
    let behind = (next_xid as u32).wrapping_sub(xid);
    next_xid.saturating_sub(u64::from(behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_near_the_wrap_keeps_its_epoch() {
        assert_eq!(with_epoch(7, (3 << 32) | 9), (3 << 32) | 7);
        assert_eq!(with_epoch(u32::MAX, 3 << 32), (2 << 32) | u64::from(u32::MAX));
        assert_eq!(with_epoch(9, (3 << 32) | 9), (3 << 32) | 9);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Begin,
        End(usize),
        Log(usize),
        Sample,
    }

    proptest! {
        /// No record of a running transaction lies at or below any bound ever given, however rarely samples are taken.
        #[test]
        fn never_above_a_running_transaction(ops in proptest::collection::vec(
            prop_oneof![
                3 => Just(Op::Begin), 2 => (0usize..8).prop_map(Op::End),
                4 => (0usize..8).prop_map(Op::Log), 3 => Just(Op::Sample)
            ], 1..4000))
        {
            let (mut next_xid, mut insert) = (3u64, 100u64);
            // Running transactions with the ends of their records.
            let mut running: Vec<(u64, Vec<u64>)> = Vec::new();
            let (mut samples, mut bound) = (Samples::default(), Lsn::INVALID);
            for op in ops {
                match op {
                    Op::Begin => {
                        running.push((next_xid, Vec::new()));
                        next_xid += 1;
                    }
                    Op::End(which) if !running.is_empty() => drop(running.swap_remove(which % running.len())),
                    Op::Log(which) if !running.is_empty() => {
                        insert += 8;
                        let at = which % running.len();
                        running[at].1.push(insert);
                    }
                    Op::Sample => {
                        samples.add(Sample { insert_lsn: Lsn(insert), next_xid });
                        let oldest = running.iter().map(|(xid, _)| *xid).min().unwrap_or(next_xid);
                        bound = bound.max(samples.bound(oldest));
                        prop_assert!(!running.is_empty() || bound == Lsn(insert), "nothing runs: all is quiet");
                    }
                    _ => insert += 8,
                }
                for (xid, ends) in &running {
                    for end in ends {
                        prop_assert!(Lsn(*end) > bound, "{xid} has a record that ends at {end}, bound {bound}");
                    }
                }
            }
        }
    }
}
