//! Makes entries of the relation table forgettable: the pageserver knows the same (trap R1).
//!
//! A size that this server changed may be ahead of the log, for Postgres extends without logging. So the entry stays until the
//! pageserver, asked for the log up to now, gives the same size and existence for every fork that it keeps. Maps that were made
//! longer and never written are ahead for ever; an image of their last page, zeros, tells their size (V5: it costs nothing but
//! hints, and a bit of the visibility map that this loses is one that says less, V8).

use std::sync::atomic::{AtomicUsize, Ordering};

use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelFork};
use strata_smgr::slots::Ask;
use strata_smgr::{Class, ForkSize, RelEntry};

use super::state::{self, LockMode};
use super::{images, log_position, remote};

/// Relations that one caller in need looks at.
pub const AT_ONCE: usize = 16;

/// Where the next search begins: some relations never settle, and the others must have their turn.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// Looks at up to `most` relations of a partition, waiting for the pageserver unless `stop` says otherwise.
pub fn some(partition: usize, most: usize, stop: fn() -> bool) {
    let mut candidates: Vec<RelEntry> = state::with_partition_number(partition, LockMode::Shared, |table| {
        table.entries().filter(|entry| entry.can_be_settled()).copied().collect()
    });
    if candidates.is_empty() {
        return;
    }
    let begin = TURN.fetch_add(most, Ordering::Relaxed) % candidates.len();
    candidates.rotate_left(begin);
    for seen in candidates.iter().take(most) {
        if stop() {
            return;
        }
        if settle(seen, stop) {
            state::keeper().settled_relations.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// True: the entry may be forgotten.
fn settle(seen: &RelEntry, stop: fn() -> bool) -> bool {
    let now = log_position::insert_lsn();
    let stored = ForkNumber::ALL.into_iter().filter(|fork| seen.is_stored(*fork));
    let mut agrees = true;
    for fork in stored {
        agrees &= same(seen, fork, now, stop);
    }
    // The next answer must not be older than this one, whatever happens to the pageserver meanwhile.
    ForkNumber::ALL.iter().for_each(|fork| state::last_written().raise_size(seen.tag.fork(*fork), now));
    agrees && state::update(seen.tag, |entry| entry.settle(seen)).unwrap_or(false)
}

/// Whether the pageserver has what the entry says of a fork. If not and it can be told, it is told, for the next time. No answer
/// says nothing.
fn same(seen: &RelEntry, fork: ForkNumber, now: Lsn, stop: fn() -> bool) -> bool {
    let rel = seen.tag.fork(fork);
    let exists = || remote::ask_unless(stop, Ask::RelExists(rel), now);
    match seen.fork(fork).size {
        ForkSize::Unknown => true,
        ForkSize::Absent => exists() == Some(0),
        ForkSize::Blocks(blocks) => {
            let Some(there) = remote::ask_unless(stop, Ask::RelSize(rel), now) else { return false };
            if there < u64::from(blocks) {
                tell(seen.class, rel, blocks);
            }
            there == u64::from(blocks) && exists() == Some(1)
        }
    }
}

fn tell(class: Class, rel: RelFork, blocks: u32) {
    let map = matches!(rel.fork, ForkNumber::FreeSpaceMap | ForkNumber::VisibilityMap);
    if class == Class::Permanent && map && blocks > 0 {
        images::log(rel, BlockNumber(blocks - 1), &mut [0; BLOCK_BYTES], images::Layout::Whole);
    }
}
