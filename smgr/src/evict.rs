//! What a page that leaves shared buffers needs: nothing, because the log can rebuild it, or a place in the spill store
//! (D6, CP-3, traps W1, W2, W6–W9, W18, V4, V7).
//!
//! The decision is final at write time (S15), and when in doubt it is "spill": a page spilled for nothing costs a local write,
//! a page dropped wrongly is lost. The raised last-written LSN of some pages stands for changes that never moved their own.

use strata_common::{BLOCK_BYTES, ForkNumber, Guard, Lsn};

use crate::page::{HeapTuple, Page, PageKind, Xmax};

/// What to do with a written page of a permanent relation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The log can rebuild it. A read must reflect the log up to `last_written` at least; invalid: nothing new is known.
    Drop { last_written: Lsn },
    /// Keep the bytes. `exists_nowhere_else`: not even an older state of it is in the log (W2), so a commit must not leave it so.
    Spill { exists_nowhere_else: bool },
    /// A page that must have been logged was not: stop (W1).
    NotLogged,
    /// The page claims log that does not exist: corruption.
    BeyondTheLog { page_lsn: Lsn },
}

/// What is known around the page at the moment of the write.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    pub fork: ForkNumber,
    /// End of the last record inserted.
    pub insert_lsn: Lsn,
    /// The relation was made by a transaction that has not ended: it may be filled before it is logged.
    pub being_built: bool,
    /// No record of a transaction that runs ends at or below this.
    pub quiet_below: Lsn,
}

/// What is going on in the server. Asked only if the answer matters.
pub trait Running {
    /// Whether a transaction may still run.
    fn transaction(&mut self, xid: u32) -> bool;
    /// Whether a vacuum of a btree with this cycle id may still run.
    fn vacuum(&mut self, cycle_id: u16) -> bool;
}

/// GiST marks pages of a build with this (`GistBuildLSN`, `src/include/access/gist.h`).
const GIST_BUILD_LSN: Lsn = Lsn(1);

/// Judges one page.
pub fn judge(bytes: &[u8; BLOCK_BYTES], around: Surroundings, running: &mut impl Running) -> Verdict {
    let page = Page::new(bytes);
    let page_lsn = page.lsn();
    if page.is_all_zero() {
        return Verdict::Drop { last_written: Lsn::INVALID };
    }
    if page_lsn > around.insert_lsn {
        return Verdict::BeyondTheLog { page_lsn };
    }
    match around.fork {
        // W18: not in the log at all.
        ForkNumber::FreeSpaceMap if Guard::FreeSpaceSpilled.holds() => {
            Verdict::Spill { exists_nowhere_else: false }
        }
        ForkNumber::FreeSpaceMap => Verdict::Drop { last_written: Lsn::INVALID },
        // V4: truncation clears bits without moving the page's LSN.
        ForkNumber::VisibilityMap if page_lsn.is_valid() || page.is_zero_after_header() => {
            let bits_may_be_fewer = Guard::CutMaps.holds();
            Verdict::Drop { last_written: if bits_may_be_fewer { around.insert_lsn } else { page_lsn } }
        }
        ForkNumber::VisibilityMap => Verdict::Spill { exists_nowhere_else: false },
        ForkNumber::Main | ForkNumber::Init => {
            if page_lsn <= GIST_BUILD_LSN {
                judge_unlogged(page, around)
            } else {
                judge_logged(page, around, running)
            }
        }
    }
}

/// A page without a real LSN (W1, W2).
fn judge_unlogged(page: Page<'_>, around: Surroundings) -> Verdict {
    let empty = page.is_empty();
    match page.kind() {
        // The heap treats a page that comes back as zeros as new.
        PageKind::Heap if empty => Verdict::Drop { last_written: Lsn::INVALID },
        PageKind::Heap if !around.being_built && Guard::NotLogged.holds() => Verdict::NotLogged,
        PageKind::Heap if !around.being_built => Verdict::Drop { last_written: Lsn::INVALID },
        _ if !Guard::BuildPages.holds() => Verdict::Drop { last_written: Lsn::INVALID },
        _ => Verdict::Spill { exists_nowhere_else: !empty },
    }
}

/// A page whose LSN is real: is there content that redo would not reproduce?
fn judge_logged(page: Page<'_>, around: Surroundings, running: &mut impl Running) -> Verdict {
    let spill = match page.kind() {
        // The cheap test first: whoever changed the page last has ended, and so have all before.
        PageKind::Heap if page.lsn() <= around.quiet_below => false,
        PageKind::Heap => has_running_command_ids(page, |xid| running.transaction(xid)),
        PageKind::Sequence { log_count } => log_count != 0 && Guard::SequenceAhead.holds(),
        PageKind::BtreeInVacuum { cycle_id } => running.vacuum(cycle_id) && Guard::CycleIds.holds(),
        PageKind::Index => false,
    };
    if spill {
        return Verdict::Spill { exists_nowhere_else: false };
    }
    // V7: PD_ALL_VISIBLE was set by a record that did not move the page's LSN.
    let hidden_change = page.kind() == PageKind::Heap && page.is_all_visible() && Guard::AllVisible.holds();
    Verdict::Drop { last_written: if hidden_change { around.insert_lsn } else { page.lsn() } }
}

/// W6, W7: command ids, combo ids and speculative tokens matter as long as their transaction runs.
fn has_running_command_ids(page: Page<'_>, mut may_run: impl FnMut(u32) -> bool) -> bool {
    let mut tuple_matters = |tuple: HeapTuple<'_>| {
        let command = tuple.has_command_id() && Guard::CommandIds.holds();
        let token = tuple.is_speculative() && Guard::SpeculativeTokens.holds();
        if !command && !token {
            return false;
        }
        let by_xmax = match tuple.xmax() {
            Some(Xmax::Multi) => Guard::MultiRuns.holds(),
            Some(Xmax::Xid(xid)) => may_run(xid),
            None => false,
        };
        by_xmax || tuple.xmin().is_some_and(&mut may_run)
    };
    page.heap_tuples().any(&mut tuple_matters)
}

/// Whether `xid` may run, given the oldest that does (`GetOldestActiveTransactionId`, or the next xid if none runs). A finished
/// one that is younger counts as running, and so do all subtransactions of the running ones.
pub fn may_run(xid: u32, oldest_running: u32) -> bool {
    const FIRST_NORMAL_XID: u32 = 3;
    xid >= FIRST_NORMAL_XID && xid.wrapping_sub(oldest_running).cast_signed() >= 0
}

#[cfg(test)]
#[path = "evict_test.rs"]
mod tests;
