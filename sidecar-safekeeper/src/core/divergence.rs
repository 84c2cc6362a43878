//! Where two logs part, from their histories and ends alone (trap K5: the acceptor works it out itself).
//!
//! A history says which term wrote what: entry i covers the log from its start to the start of entry i+1. A term has one
//! proposer and one history, so two logs that share an entry are equal up to the end of that entry in either of them.

use strata_common::{Lsn, TermHistory, TermStart};

/// The part of a stored history that log up to `flush` is of (trap K6: a stored history may run ahead of the log).
/// An entry that starts exactly at `flush` stays: the log holds everything of that term's log so far.
pub fn covered(history: &TermHistory, flush: Lsn) -> TermHistory {
    TermHistory(history.0.iter().copied().take_while(|entry| entry.lsn <= flush).collect())
}

/// End of the common prefix of our log (`ours`, cut to `flush`) and of the log that `theirs` describes.
/// `log_start` is where our log begins; without a shared entry nothing is common.
pub fn divergence(ours: &TermHistory, flush: Lsn, theirs: &TermHistory, log_start: Lsn) -> Lsn {
    let ours = covered(ours, flush).0;
    let theirs = &theirs.0;
    let shared = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    if shared == 0 {
        return log_start.min(flush);
    }
    let end_of = |entries: &[TermStart]| entries.get(shared).map(|entry| entry.lsn);
    let our_end = end_of(&ours).unwrap_or(flush);
    let their_end = end_of(theirs).unwrap_or(Lsn::MAX);
    our_end.min(their_end).min(flush)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_common::Term;

    fn history(entries: &[(u64, u64)]) -> TermHistory {
        TermHistory(
            entries.iter().map(|&(term, lsn)| TermStart { term: Term(term), lsn: Lsn(lsn) }).collect(),
        )
    }

    #[track_caller]
    fn check(ours: &[(u64, u64)], flush: u64, theirs: &[(u64, u64)], expected: u64) {
        assert_eq!(divergence(&history(ours), Lsn(flush), &history(theirs), Lsn(100)), Lsn(expected));
    }

    #[test]
    fn logs_part_where_histories_do() {
        // An empty copy, and one whose log simply goes on.
        check(&[], 100, &[(1, 100)], 100);
        check(&[(1, 100)], 300, &[(1, 100), (2, 300)], 300);
        // Ours is behind, ours is ahead of where the new term starts.
        check(&[(1, 100)], 200, &[(1, 100), (2, 300)], 200);
        check(&[(1, 100)], 400, &[(1, 100), (2, 300)], 300);
        // A term that only we have, a term that only they have, and both.
        check(&[(1, 100), (2, 200)], 400, &[(1, 100), (3, 300)], 200);
        check(&[(1, 100)], 400, &[(1, 100), (2, 250), (3, 300)], 250);
        check(&[(1, 100), (2, 150)], 400, &[(1, 100), (3, 120), (4, 300)], 120);
        // An entry of ours that the log does not reach yet says nothing.
        check(&[(1, 100), (2, 300)], 200, &[(1, 100), (3, 250)], 200);
        // Empty terms at the same position; nothing in common.
        check(&[(1, 100), (2, 300)], 300, &[(1, 100), (3, 300)], 300);
        check(&[(1, 100)], 300, &[(2, 100)], 100);
        // The same term again.
        check(&[(1, 100), (2, 300)], 450, &[(1, 100), (2, 300)], 450);
    }

    #[test]
    fn a_history_is_cut_to_its_log() {
        let stored = history(&[(1, 100), (2, 200), (3, 300)]);
        assert_eq!(covered(&stored, Lsn(250)), history(&[(1, 100), (2, 200)]));
        assert_eq!(covered(&stored, Lsn(300)), stored);
        assert_eq!(covered(&stored, Lsn(50)), history(&[]));
    }
}
