//! The spill store: local files for pages that the log cannot rebuild, or not yet (D6, S15, P8).
//!
//! An entry serves reads until the page is written again, or until the keeper finds that the log can rebuild it after all: its
//! transactions have ended, or its image was logged. A lock for each fork guards its files and its counts in the relation
//! table, which are therefore exact: where they say none, there are no files. Content is in files, not in a process: a worker's
//! crash loses nothing (P8).

use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, RelFork};
use strata_smgr::rel_table::{Fork, Room};
use strata_smgr::{Class, RelEntry};

use super::spill_files::{self as files, Files, Mark};
use super::state::{self, LockMode};

pub use super::spill_files::{close, reset};

/// Whether the store has a page of the fork.
fn has_any(entry: Option<&RelEntry>, fork: ForkNumber) -> bool {
    entry.is_some_and(|entry| entry.fork(fork).spilled > 0)
}

/// Fills `page` if the store has it.
pub fn read(
    entry: Option<&RelEntry>,
    rel: RelFork,
    block: BlockNumber,
    page: &mut [u8; BLOCK_BYTES],
) -> bool {
    if !has_any(entry, rel.fork) {
        return false;
    }
    state::with_spill(rel, LockMode::Shared, |generation| {
        // The keeper may have given back the last one since the entry was looked at; then there is nothing to open.
        if !has_any(state::entry(rel.rel).as_ref(), rel.fork) {
            return false;
        }
        let files = files::open(rel, generation.now());
        let here = files.mark(block) != Mark::Absent;
        if here {
            files.read_page(block, page);
        }
        here
    })
}

/// Whether `read` would answer.
pub fn has(entry: Option<&RelEntry>, rel: RelFork, block: BlockNumber) -> bool {
    has_any(entry, rel.fork)
        && state::with_spill(rel, LockMode::Shared, |generation| {
            has_any(state::entry(rel.rel).as_ref(), rel.fork)
                && files::open(rel, generation.now()).mark(block) != Mark::Absent
        })
}

/// Keeps a page.
pub fn write(rel: RelFork, block: BlockNumber, page: &[u8; BLOCK_BYTES], only_copy: bool) {
    state::with_spill(rel, LockMode::Exclusive, |generation| {
        // Files that a failure leaves behind must be counted, or nobody would remove them: the count goes first.
        let entry = state::entry(rel.rel);
        let before = match has_any(entry.as_ref(), rel.fork) {
            true => files::open(rel, generation.now()).mark(block),
            false => Mark::Absent,
        };
        let mark = if only_copy { Mark::OnlyCopy } else { Mark::Here };
        count(rel, |fork| {
            fork.spilled += u32::from(before == Mark::Absent);
            fork.only_copies += u32::from(mark == Mark::OnlyCopy);
            fork.only_copies -= u32::from(before == Mark::OnlyCopy);
        });
        let files = files::open(rel, generation.now());
        files.write_page(block, page);
        files.set_mark(block, mark);
    });
    state::spilled_pages().fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// Changes a fork's counts, in the reserve of the table if need be: a page that must be kept cannot wait.
fn count(rel: RelFork, change: impl FnOnce(&mut Fork)) {
    let class = if rel.fork == ForkNumber::Init { Class::Unlogged } else { Class::Permanent };
    let counted = state::with_partition(rel.rel, LockMode::Exclusive, |mut table| {
        table
            .get_or_put(rel.rel, Room::Reserve, || RelEntry::met(rel.rel, class))
            .map(|entry| change(entry.fork_mut(rel.fork)))
    });
    if counted.is_err() {
        pgrx::error!("no room to count a spilled page of {rel}: raise strata.relation_slots and restart");
    }
}

/// The page was written with content that the log can rebuild: its entry dies.
pub fn forget(entry: Option<&RelEntry>, rel: RelFork, block: BlockNumber) {
    if !has_any(entry, rel.fork) {
        return;
    }
    state::with_spill(rel, LockMode::Exclusive, |generation| {
        if !has_any(state::entry(rel.rel).as_ref(), rel.fork) {
            return;
        }
        let files = files::open(rel, generation.now());
        let mark = files.mark(block);
        if mark != Mark::Absent {
            give_back(files, rel, block, mark, generation);
        }
    });
}

/// One entry goes, and with the last one the files. The lock is held.
fn give_back(files: Files, rel: RelFork, block: BlockNumber, mark: Mark, generation: &state::Generation) {
    files.set_mark(block, Mark::Absent);
    files.release_page(block);
    let left = state::update(rel.rel, |entry| {
        let fork = entry.fork_mut(rel.fork);
        fork.spilled -= 1;
        fork.only_copies -= u32::from(mark == Mark::OnlyCopy);
        fork.spilled
    });
    if left == Some(0) {
        assert!(files.marked().is_empty(), "{rel} has spilled pages that nobody has counted");
        files::remove(rel);
        generation.begin_next();
    }
}

/// What is to become of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Keep,
    GiveBack,
}

/// Which entries of a fork are shown, if not all.
#[derive(Clone, Copy)]
pub struct Part {
    /// Each turn begins where the one before ended.
    pub turn: usize,
    pub most: usize,
}

/// Shows entries of a fork to `look`, but for pages that exist nowhere else; each under the lock, so that nobody writes the page
/// meanwhile. Returns how many it has shown.
pub fn review(
    rel: RelFork,
    part: Part,
    mut look: impl FnMut(BlockNumber, &mut [u8; BLOCK_BYTES]) -> Fate,
) -> usize {
    let Part { turn, most } = part;
    let mut here: Vec<BlockNumber> =
        marked(rel).into_iter().filter_map(|(block, mark)| (mark == Mark::Here).then_some(block)).collect();
    if !here.is_empty() {
        let begin = turn.wrapping_mul(most) % here.len();
        here.rotate_left(begin);
    }
    let mut seen = 0;
    let mut page = Box::new([0u8; BLOCK_BYTES]);
    for block in here.iter().take(most) {
        seen += 1;
        state::with_spill(rel, LockMode::Exclusive, |generation| {
            if !has_any(state::entry(rel.rel).as_ref(), rel.fork) {
                return;
            }
            let files = files::open(rel, generation.now());
            if files.mark(*block) != Mark::Here {
                return;
            }
            files.read_page(*block, &mut page);
            if look(*block, &mut page) == Fate::GiveBack {
                give_back(files, rel, *block, Mark::Here, generation);
            }
        });
    }
    files::close(rel);
    seen
}

fn marked(rel: RelFork) -> Vec<(BlockNumber, Mark)> {
    state::with_spill(rel, LockMode::Shared, |generation| {
        if !has_any(state::entry(rel.rel).as_ref(), rel.fork) {
            return Vec::new();
        }
        files::open(rel, generation.now()).marked()
    })
}

/// Blocks that exist nowhere else.
pub fn only_copies(rel: RelFork) -> Vec<BlockNumber> {
    let only = marked(rel).into_iter().filter(|(_, mark)| *mark == Mark::OnlyCopy);
    only.map(|(block, _)| block).collect()
}

/// The fork ends at `blocks` now. May run in a critical section.
pub fn truncate(rel: RelFork, blocks: u32) {
    state::with_spill(rel, LockMode::Exclusive, |generation| {
        let left = files::truncate(rel, blocks);
        let marks = |wanted: Mark| left.iter().filter(|mark| **mark == wanted as u8).count() as u32;
        let (here, only) = (marks(Mark::Here), marks(Mark::OnlyCopy));
        state::update(rel.rel, |entry| {
            let fork = entry.fork_mut(rel.fork);
            (fork.spilled, fork.only_copies) = (here + only, only);
        });
        if here + only == 0 {
            files::remove(rel);
            generation.begin_next();
        }
    });
}

/// The fork is gone. Failures are warnings: this runs after commit (R6), and the relation's number is not used again.
pub fn unlink(rel: RelFork) {
    state::with_spill(rel, LockMode::Exclusive, |generation| {
        state::update(rel.rel, |entry| {
            let fork = entry.fork_mut(rel.fork);
            (fork.spilled, fork.only_copies) = (0, 0);
        });
        files::remove(rel);
        generation.begin_next();
    });
}

/// Removes entries and spilled pages of what `goes` names.
pub fn purge(goes: impl Fn(&RelEntry) -> bool) {
    for partition in 0..state::PARTITIONS {
        let spilled = state::with_partition_number(partition, LockMode::Shared, |table| {
            table.entries().filter(|entry| goes(entry)).copied().collect::<Vec<RelEntry>>()
        });
        for entry in spilled {
            let forks = ForkNumber::ALL.iter().filter(|fork| entry.fork(**fork).spilled > 0);
            forks.for_each(|fork| unlink(entry.tag.fork(*fork)));
        }
        state::with_partition_number(partition, LockMode::Exclusive, |mut table| {
            table.remove_if(&goes, |_| {});
        });
    }
}
