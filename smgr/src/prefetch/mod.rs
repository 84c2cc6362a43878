//! Pages that are asked for before they are read, so that a reader waits for the pageserver less often (D7, L3, P7).
//!
//! `streams` and `leaf` find out what will be read soon, `pool` gives out slots and pages of shared memory, `book` is one backend's account of
//! what it has asked for. An answer waits in its page until it is read or given up. Whether it may be used is decided when it is
//! read, by `is_usable`: nothing has to be told of changes, truncations or drops.

pub mod book;
pub mod leaf;
pub mod pool;
pub mod streams;

pub use book::{Book, Found, Run};
pub use leaf::LeafScan;
pub use pool::Pool;
pub use streams::Streams;

use strata_common::{Guard, Lsn};

/// L3: an answer that was asked for as of `asked` may be used if a read now needs no more. Every change that left shared buffers
/// since raised the page's last-written LSN above all log of before, so what is not above `asked` is in the answer.
pub fn is_usable(asked: Lsn, needed: Lsn) -> bool {
    needed <= asked || !Guard::PrefetchRecheck.holds()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_l3_an_answer_from_before_a_change_is_not_used() {
        Guard::PrefetchRecheck.is_needed_for(|| !is_usable(Lsn(7), Lsn(8)));
        assert!(is_usable(Lsn(7), Lsn(7)) && is_usable(Lsn(7), Lsn(6)));
    }
}
