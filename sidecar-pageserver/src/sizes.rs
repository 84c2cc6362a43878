//! The latest size of every fork in use: what ingest consults for each block reference and every page read is gated by.
//!
//! Only the newest size of a fork is here, with the LSN at which it began to hold; reads at older LSNs go to storage.
//! Writers: ingest (which may be ahead of what readers may see) and readers that filled a gap from storage. A reader's
//! value may be outdated by the time it comes, so it counts only if ingest changed no size since the read began; `epoch`
//! says so. Bounded: ingest empties the map between batches, when nothing unpublished is in it.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use strata_common::hash::NumberMap;
use strata_common::{Lsn, RelFork};

/// Entries before the map is emptied; about 60 MB.
const ENTRIES_MAX: usize = 1 << 20;

/// What is known of a fork's size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// The size holds from here on.
    pub since: Lsn,
    /// `None`: the fork does not exist.
    pub blocks: Option<u32>,
}

#[derive(Default)]
struct Inner {
    entries: NumberMap<RelFork, Size>,
    epoch: u64,
}

/// One per timeline.
#[derive(Default)]
pub struct Sizes {
    inner: RwLock<Inner>,
}

/// What a reader saw before it went to storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Epoch(u64);

impl Sizes {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest size, which ingest may not have published yet.
    pub fn newest(&self, rel: RelFork) -> Option<Size> {
        self.read().entries.get(&rel).copied()
    }

    /// The size at `lsn`, or the epoch to hand to `fill` after reading it from storage.
    pub fn at(&self, rel: RelFork, lsn: Lsn) -> Result<Option<u32>, Epoch> {
        let inner = self.read();
        match inner.entries.get(&rel) {
            Some(size) if size.since <= lsn => Ok(size.blocks),
            _ => Err(Epoch(inner.epoch)),
        }
    }

    /// Ingest: the size changed at `size.since`.
    pub fn set(&self, rel: RelFork, size: Size) {
        let mut inner = self.write();
        inner.epoch += 1;
        let old = inner.entries.insert(rel, size);
        debug_assert!(old.is_none_or(|old| old.since <= size.since), "sizes of {rel} go back in time");
    }

    /// A reader of the latest state found `size` in storage.
    pub fn fill(&self, rel: RelFork, size: Size, epoch: Epoch) {
        let mut inner = self.write();
        if inner.epoch == epoch.0 && inner.entries.len() < ENTRIES_MAX {
            inner.entries.entry(rel).or_insert(size);
        }
    }

    /// Ingest begins anew after the record that ends at `lsn`: what it had not published is void.
    pub fn forget_after(&self, lsn: Lsn) {
        let mut inner = self.write();
        inner.epoch += 1;
        inner.entries.retain(|_, size| size.since <= lsn);
    }

    /// Ingest, after it published everything it put: the moment when entries may be forgotten. Raises the epoch, so that a
    /// reader that looked before the publication fills nothing after it.
    pub fn published(&self) {
        let mut inner = self.write();
        inner.epoch += 1;
        if inner.entries.len() >= ENTRIES_MAX {
            inner.entries.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_common::{ForkNumber, RelTag};

    fn size(since: u64, blocks: u32) -> Size {
        Size { since: Lsn(since), blocks: Some(blocks) }
    }

    #[test]
    fn a_late_reader_never_overwrites_ingest() {
        let sizes = Sizes::default();
        let rel = RelTag { tablespace: 1, database: 2, relation: 3 }.fork(ForkNumber::Main);
        let before = sizes.at(rel, Lsn(100)).expect_err("nothing known");
        sizes.set(rel, size(110, 6));
        sizes.fill(rel, size(50, 5), before);
        assert_eq!(sizes.newest(rel), Some(size(110, 6)));
        // A reader below the change asks storage, one at or above it does not.
        let epoch = sizes.at(rel, Lsn(109)).expect_err("older than the entry");
        assert_eq!(sizes.at(rel, Lsn(110)), Ok(Some(6)));
        sizes.fill(rel, size(50, 5), epoch);
        assert_eq!(sizes.newest(rel), Some(size(110, 6)));
    }

    #[test]
    fn a_fill_across_a_publication_is_dropped() {
        let sizes = Sizes::default();
        let rel = RelTag { tablespace: 1, database: 2, relation: 3 }.fork(ForkNumber::Main);
        let before = sizes.at(rel, Lsn(100)).expect_err("nothing known");
        sizes.published();
        sizes.fill(rel, size(50, 5), before);
        assert_eq!(sizes.newest(rel), None);
        let now = sizes.at(rel, Lsn(100)).expect_err("nothing known");
        sizes.fill(rel, size(50, 5), now);
        assert_eq!(sizes.newest(rel), Some(size(50, 5)));
    }
}
