//! Who reads a timeline's log at the moment and from where: log that a reader still needs is not removed (trap K14).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use strata_common::Lsn;

#[derive(Default)]
struct State {
    next: u64,
    positions: BTreeMap<u64, Lsn>,
}

/// Shares its content with its clones.
#[derive(Clone, Default)]
pub struct Readers(Arc<Mutex<State>>);

/// One reader, for as long as it lives.
pub struct ReaderPosition {
    readers: Readers,
    number: u64,
}

impl Readers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the readers")
    }

    pub fn enter(&self, at: Lsn) -> ReaderPosition {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.positions.insert(number, at);
        ReaderPosition { readers: self.clone(), number }
    }

    /// The lowest position that any reader still needs.
    pub fn slowest(&self) -> Option<Lsn> {
        self.state().positions.values().min().copied()
    }

    pub fn count(&self) -> usize {
        self.state().positions.len()
    }
}

impl ReaderPosition {
    pub fn advance(&self, to: Lsn) {
        self.readers.state().positions.insert(self.number, to);
    }
}

impl Drop for ReaderPosition {
    fn drop(&mut self) {
        self.readers.state().positions.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_reader_counts_while_it_reads() {
        let readers = Readers::default();
        assert_eq!(readers.slowest(), None);
        let slow = readers.enter(Lsn(10));
        let fast = readers.enter(Lsn(20));
        assert_eq!(readers.slowest(), Some(Lsn(10)));
        slow.advance(Lsn(30));
        assert_eq!(readers.slowest(), Some(Lsn(20)));
        drop(fast);
        assert_eq!((readers.slowest(), readers.count()), (Some(Lsn(30)), 1));
        drop(slow);
        assert_eq!(readers.slowest(), None);
    }
}
