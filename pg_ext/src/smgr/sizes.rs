//! Existence and sizes of forks: made, asked for, cut, gone (traps R1–R8, R10, R14, V4).

use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::{self, RelFileLocatorBackend, SMgrRelation};
use pgrx::{PgLogLevel, ereport};
use strata_common::{BlockNumber, ForkNumber, Guard, Lsn, RelFork, RelTag};
use strata_smgr::rel_table::may_grow;
use strata_smgr::slots::Ask;
use strata_smgr::{Class, ForkSize, RelEntry};

use super::classify::{self, Seen};
use super::ffi::{self, RawFork};
use super::settings::{Mode, mode};
use super::{log_position, remote, shadow, spill, state, tablespaces};

/// Makes a fork.
///
/// # Safety
/// `reln` is the server's.
pub unsafe fn create(reln: SMgrRelation, fork: ForkNumber, is_redo: bool) {
    // SAFETY: the caller's promise.
    let tag = unsafe { ffi::tag_of((*reln).smgr_rlocator.locator) };
    let raw = ffi::raw_fork(fork);
    if mode() == Mode::Compare {
        // SAFETY: as above.
        unsafe { ffi::mdcreate(reln, raw, is_redo) };
    }
    if !is_redo && mode() == Mode::Remote {
        tablespaces::relation_made(tag);
    }
    match fork {
        ForkNumber::Main => create_main(tag, is_redo),
        ForkNumber::Init => {
            if state::entry(tag).is_none() {
                classify::keep(tag, Class::Unlogged, |_| ());
            } else {
                // SAFETY: as above. Rule 4 of the persistence rule.
                unsafe { classify::settle_class(reln, Class::Unlogged) };
            }
        }
        ForkNumber::FreeSpaceMap | ForkNumber::VisibilityMap => {
            // SAFETY: as above.
            let class = unsafe { classify::class_of(reln, fork, Seen::Nothing) };
            if class == Class::Unlogged {
                if mode() == Mode::Remote {
                    // SAFETY: as above.
                    unsafe { ffi::mdcreate(reln, raw, is_redo) };
                }
                return;
            }
        }
    }
    let class = if fork == ForkNumber::Init { Class::Unlogged } else { Class::Permanent };
    classify::keep(tag, class, |entry| entry.create_fork(fork));
    if Guard::CreateRaises.holds() {
        raise_all(tag);
    }
}

fn create_main(tag: RelTag, is_redo: bool) {
    if is_redo {
        classify::keep(tag, Class::Permanent, |_| ());
        return;
    }
    refuse_reuse(tag);
    classify::decide_others();
    ForkNumber::ALL.iter().for_each(|fork| shadow::purge(tag.fork(*fork)));
    // SAFETY: a plain variable of this process.
    let me = unsafe { pg_sys::MyProcPid };
    let entry = RelEntry::made(tag, Class::Undecided, me, log_position::my_last_record_end().0);
    classify::insert(tag, |table, room| table.put(entry, room).map(|_| ()));
    classify::made(tag);
}

/// R14: the server looks for local files only when it picks a number. One that the pageserver knows must not be reused.
fn refuse_reuse(tag: RelTag) {
    if mode() != Mode::Remote || !Guard::ReuseRefused.holds() {
        return;
    }
    let main = tag.fork(ForkNumber::Main);
    let known = state::entry(tag)
        .is_some_and(|entry| matches!(entry.fork(ForkNumber::Main).size, ForkSize::Blocks(_)));
    if known || remote::ask(Ask::RelExists(main), state::last_written().size(main), &[]) != 0 {
        ereport!(
            PgLogLevel::ERROR,
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("the number {} for a new relation is in use on the pageserver; try again", tag.relation)
        );
    }
}

/// Whatever is read of the relation from now on reflects at least the log until now (R1, R5).
fn raise_all(tag: RelTag) {
    let insert_lsn = log_position::insert_lsn();
    ForkNumber::ALL.iter().for_each(|fork| raise(tag.fork(*fork), insert_lsn));
}

fn raise(rel: RelFork, insert_lsn: Lsn) {
    state::last_written().raise_size(rel, insert_lsn);
    state::last_written().raise_fork(rel, insert_lsn);
}

/// Whether a fork exists.
///
/// # Safety
/// `reln` is the server's.
pub unsafe fn exists(reln: SMgrRelation, fork: ForkNumber) -> bool {
    // SAFETY: the caller's promise.
    let tag = unsafe { ffi::tag_of((*reln).smgr_rlocator.locator) };
    if tag.relation == 0 {
        return false; // R8: views.
    }
    // R6: after the commit or abort record nothing may wait or fail. "It exists" only makes the server look at all buffers.
    // SAFETY: a plain variable of this process.
    let in_transaction = unsafe { pg_sys::IsTransactionState() } && !crate::wal::is_finishing_prepared();
    let ending = !in_transaction && mode() == Mode::Remote && Guard::NoNetworkInCommit.holds();
    let known = state::entry(tag);
    if known.is_none() && ending {
        return true;
    }
    let class = if fork == ForkNumber::Init {
        Class::Permanent
    } else {
        // SAFETY: as above.
        unsafe { classify::class_of(reln, fork, Seen::Nothing) }
    };
    if class == Class::Unlogged {
        // SAFETY: as above.
        return unsafe { ffi::mdexists(reln, ffi::raw_fork(fork)) };
    }
    let rel = tag.fork(fork);
    match state::entry(tag).map(|entry| entry.fork(fork).size) {
        Some(ForkSize::Blocks(_)) => true,
        Some(ForkSize::Absent) => false,
        _ if ending => true,
        // SAFETY: as above.
        _ if mode() == Mode::Compare => unsafe { ffi::mdexists(reln, ffi::raw_fork(fork)) },
        _ => {
            let there = remote::ask(Ask::RelExists(rel), state::last_written().size(rel), &[]) != 0;
            if !there {
                state::update(tag, |entry| entry.learn(fork, ForkSize::Absent));
            }
            there
        }
    }
}

/// Size of a fork, blocks.
///
/// # Safety
/// `reln` is the server's.
pub unsafe fn blocks(reln: SMgrRelation, fork: ForkNumber) -> u32 {
    let raw = ffi::raw_fork(fork);
    // SAFETY: the caller's promise.
    let rel = unsafe { ffi::rel_fork(reln, raw) };
    let class = if fork == ForkNumber::Init {
        Class::Permanent
    } else {
        // SAFETY: as above.
        unsafe { classify::class_of(reln, fork, Seen::Nothing) }
    };
    if class == Class::Unlogged {
        // SAFETY: as above.
        return unsafe { ffi::mdnblocks(reln, raw) };
    }
    let size = state::entry(rel.rel).map(|entry| entry.fork(fork).size);
    let blocks = match size {
        Some(ForkSize::Blocks(blocks)) => blocks,
        Some(ForkSize::Absent) => absent(rel),
        Some(ForkSize::Unknown) | None => learn(reln, rel, class),
    };
    if mode() == Mode::Compare {
        compare_size(reln, rel, blocks);
    }
    blocks
}

/// Compare mode: file and table agree. Others may be extending the fork just now, the file first.
fn compare_size(reln: SMgrRelation, rel: RelFork, mut blocks: u32) {
    const LOOKS: u32 = 200;
    for _ in 0..LOOKS {
        // SAFETY: `reln` came from the server.
        if unsafe { ffi::mdnblocks(reln, ffi::raw_fork(rel.fork)) } == blocks {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        if let Some(ForkSize::Blocks(now)) = state::entry(rel.rel).map(|entry| entry.fork(rel.fork).size) {
            blocks = now;
        }
    }
    pgrx::PANIC!("{rel} has {blocks} blocks in the table, and its file another number (R1)");
}

fn absent(rel: RelFork) -> ! {
    ereport!(PgLogLevel::ERROR, PgSqlErrorCode::ERRCODE_UNDEFINED_FILE, format!("{rel} does not exist"));
    unreachable!("an ERROR does not return")
}

/// Asks for a size and keeps it, unless it became known meanwhile.
fn learn(reln: SMgrRelation, rel: RelFork, class: Class) -> u32 {
    let answer = match mode() {
        // SAFETY: `reln` came from the server.
        Mode::Compare => unsafe { ffi::mdnblocks(reln, ffi::raw_fork(rel.fork)) },
        _ => {
            let answer = remote::ask(Ask::RelSize(rel), state::last_written().size(rel), &[]);
            u32::try_from(answer).expect("a block count has 32 bits")
        }
    };
    let kept = state::update(rel.rel, |entry| entry.learn(rel.fork, ForkSize::Blocks(answer)));
    match kept {
        Some(ForkSize::Blocks(blocks)) => blocks,
        Some(ForkSize::Absent | ForkSize::Unknown) => absent(rel),
        None => {
            // The entry was forgotten between the two looks.
            classify::met(rel.rel, if rel.fork == ForkNumber::Init { Class::Unlogged } else { class });
            state::update(rel.rel, |entry| entry.learn(rel.fork, ForkSize::Blocks(answer)));
            answer
        }
    }
}

/// R10: the last block number means "none".
pub fn refuse_too_large(block: u32, count: u32) {
    if !may_grow(block, count) {
        ereport!(
            PgLogLevel::ERROR,
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("cannot extend a relation beyond {} blocks", u32::MAX)
        );
    }
}

/// Cuts a fork. Runs in a critical section, after its record was flushed: nothing here waits or allocates from the server.
///
/// # Safety
/// `reln` is the server's, `old_blocks` its size.
pub unsafe fn truncate(reln: SMgrRelation, fork: ForkNumber, old_blocks: u32, blocks: u32) {
    let raw = ffi::raw_fork(fork);
    // SAFETY: the caller's promise.
    let (rel, has_open_files) =
        unsafe { (ffi::rel_fork(reln, raw), (*reln).md_num_open_segs[raw as usize] > 0) };
    let known = state::entry(rel.rel);
    // The caller has just asked for the size, which opens the files of a local relation.
    let local =
        fork != ForkNumber::Init && known.map_or(has_open_files, |entry| entry.class == Class::Unlogged);
    if local || mode() == Mode::Compare {
        // SAFETY: as above.
        unsafe { ffi::mdtruncate(reln, raw, old_blocks, blocks) };
    }
    if local {
        return;
    }
    if known.is_some_and(|entry| entry.fork(fork).spilled > 0) && Guard::SpillCut.holds() {
        spill::truncate(rel, blocks);
    }
    shadow::truncated(rel, BlockNumber(blocks));
    let class = if fork == ForkNumber::Init { Class::Unlogged } else { Class::Permanent };
    classify::keep(rel.rel, class, |entry| entry.truncate(fork, blocks));
    // V4: the cut changes bits of pages of the other forks, too.
    let insert_lsn = log_position::insert_lsn();
    for fork in ForkNumber::ALL {
        let guard = if fork == ForkNumber::Main { Guard::TruncationRaises } else { Guard::CutMaps };
        if guard.holds() {
            raise(rel.rel.fork(fork), insert_lsn);
        }
    }
}

/// A fork is gone; the transaction that dropped or made it has ended, so failures are warnings (R6).
///
/// # Safety
/// `locator` and `fork` are the server's.
pub unsafe fn unlink(locator: RelFileLocatorBackend, fork: RawFork, is_redo: bool) {
    let tag = ffi::tag_of(locator.locator);
    let entry = state::entry(tag);
    let permanent = entry.is_some_and(|entry| entry.class == Class::Permanent);
    if !permanent || mode() == Mode::Compare {
        // SAFETY: the caller's promise; without a file this does nothing.
        unsafe { ffi::mdunlink(locator, fork, is_redo) };
    }
    let Ok(raw) = u8::try_from(fork) else { return };
    let Some(name) = ForkNumber::from_raw(raw) else { return };
    shadow::purge(tag.fork(name));
    if entry.is_some_and(|entry| entry.fork(name).spilled > 0) && Guard::DropPurgesSpill.holds() {
        spill::unlink(tag.fork(name));
    }
    // The server goes through the forks in order; with the last one the relation is forgotten (R5).
    if name == ForkNumber::Init {
        if Guard::DropRaises.holds() {
            raise_all(tag);
        }
        state::with_partition(tag, state::LockMode::Exclusive, |mut table| table.remove(tag));
    }
}
