//! The storage manager's table of functions: what the server calls (`src/backend/storage/smgr/smgr.c`).
//!
//! Each function finds out how the relation is stored and passes on to `pages`, `sizes` or `md.c`. Temporary relations never
//! come here: the selection hook leaves them to `md.c`.

use std::ffi::{c_int, c_void};

use pgrx::pg_guard;
use pgrx::pg_sys::{self, BlockNumber as RawBlock, RelFileLocatorBackend, SMgrRelation};
use strata_common::{BlockNumber, ForkNumber};
use strata_smgr::Class;

use super::classify::{self, Seen};
use super::ffi::{self, FSmgr, RawFork};
use super::pages::{self, Kind};
use super::settings::{Mode, mode};
use super::{shadow, sizes, spill, state};
use crate::prefetch as ahead;
use crate::wal::backpressure;

pub static TABLE: FSmgr = FSmgr {
    smgr_init: None,
    smgr_shutdown: None,
    smgr_open: open,
    smgr_close: close,
    smgr_create: create,
    smgr_exists: exists,
    smgr_unlink: unlink,
    smgr_extend: extend,
    smgr_zeroextend: zeroextend,
    smgr_prefetch: prefetch,
    smgr_readv: readv,
    smgr_writev: writev,
    smgr_writeback: writeback,
    smgr_nblocks: nblocks,
    smgr_truncate: truncate,
    smgr_immedsync: immedsync,
    smgr_registersync: registersync,
};

/// Whether files have a part in what happens to this fork, given its relation's class.
fn uses_files(class: Class, fork: ForkNumber) -> bool {
    mode() == Mode::Compare || (class == Class::Unlogged && fork != ForkNumber::Init)
}

/// The class as far as a call without a page can tell.
///
/// # Safety
/// `reln` is the server's.
unsafe fn class_of(reln: SMgrRelation, fork: ForkNumber) -> Class {
    // SAFETY: the caller's promise.
    unsafe { classify::class_of(reln, fork, Seen::Nothing) }
}

#[pg_guard]
unsafe extern "C-unwind" fn open(reln: SMgrRelation) {
    crate::parent_death::arm();
    // SAFETY: as called by the server.
    unsafe { ffi::mdopen(reln) };
}

#[pg_guard]
unsafe extern "C-unwind" fn close(reln: SMgrRelation, fork: RawFork) {
    // SAFETY: as called by the server; without open segments this does nothing.
    unsafe {
        ffi::mdclose(reln, fork);
        spill::close(ffi::rel_fork(reln, fork));
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn create(reln: SMgrRelation, fork: RawFork, is_redo: bool) {
    // SAFETY: as called by the server.
    unsafe { sizes::create(reln, ffi::fork_of(fork), is_redo) };
}

#[pg_guard]
unsafe extern "C-unwind" fn exists(reln: SMgrRelation, fork: RawFork) -> bool {
    // SAFETY: as called by the server.
    unsafe { sizes::exists(reln, ffi::fork_of(fork)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn unlink(locator: RelFileLocatorBackend, fork: RawFork, is_redo: bool) {
    // SAFETY: as called by the server.
    unsafe { sizes::unlink(locator, fork, is_redo) };
}

#[pg_guard]
unsafe extern "C-unwind" fn extend(
    reln: SMgrRelation,
    fork: RawFork,
    block: RawBlock,
    buffer: *const c_void,
    skip_fsync: bool,
) {
    sizes::refuse_too_large(block, 1);
    // SAFETY: as called by the server: one readable page.
    unsafe {
        before_growth(reln, fork, 1);
        pages::write(reln, ffi::fork_of(fork), BlockNumber(block), &[buffer], Kind::Extend, skip_fsync)
    };
}

#[pg_guard]
unsafe extern "C-unwind" fn zeroextend(
    reln: SMgrRelation,
    fork: RawFork,
    block: RawBlock,
    count: c_int,
    skip_fsync: bool,
) {
    let name = ffi::fork_of(fork);
    let blocks = u32::try_from(count).expect("a relation grows");
    sizes::refuse_too_large(block, blocks);
    // SAFETY: as called by the server.
    unsafe {
        before_growth(reln, fork, blocks);
        let class = if name == ForkNumber::Init {
            Class::Permanent
        } else {
            classify::class_of(reln, name, Seen::ZeroExtend(BlockNumber(block)))
        };
        if uses_files(class, name) {
            ffi::mdzeroextend(reln, fork, block, count, skip_fsync);
        }
        if class != Class::Unlogged {
            shadow::extended(ffi::rel_fork(reln, fork), BlockNumber(block), blocks);
            if strata_common::Guard::GrownSize.holds() {
                pages::extended(ffi::rel_fork(reln, fork), BlockNumber(block), blocks);
            }
        }
    }
}

/// What grows is written, and goes into the log unless it is known to be unlogged.
///
/// # Safety
/// `reln` is the server's.
unsafe fn before_growth(reln: SMgrRelation, fork: RawFork, blocks: u32) {
    // SAFETY: the caller's promise.
    let rel = unsafe { ffi::rel_fork(reln, fork) };
    let in_files = || state::entry(rel.rel).is_some_and(|entry| uses_files(entry.class, rel.fork));
    backpressure::before_growth(blocks, || !in_files());
}

#[pg_guard]
unsafe extern "C-unwind" fn prefetch(
    reln: SMgrRelation,
    fork: RawFork,
    block: RawBlock,
    count: c_int,
) -> bool {
    // SAFETY: as called by the server.
    unsafe {
        let rel = ffi::rel_fork(reln, fork);
        let entry = state::entry(rel.rel);
        if entry.is_some_and(|entry| uses_files(entry.class, rel.fork)) {
            return ffi::mdprefetch(reln, fork, block, count);
        }
        ahead::advise(rel, entry.as_ref(), BlockNumber(block), u32::try_from(count).unwrap_or(0));
        true
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn readv(
    reln: SMgrRelation,
    fork: RawFork,
    block: RawBlock,
    buffers: *mut *mut c_void,
    count: RawBlock,
) {
    // SAFETY: as called by the server: `count` pages to fill.
    unsafe {
        let targets = std::slice::from_raw_parts_mut(buffers, count as usize);
        pages::read(reln, ffi::fork_of(fork), BlockNumber(block), targets);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn writev(
    reln: SMgrRelation,
    fork: RawFork,
    block: RawBlock,
    buffers: *mut *const c_void,
    count: RawBlock,
    skip_fsync: bool,
) {
    // SAFETY: as called by the server: `count` readable pages.
    unsafe {
        let sources = std::slice::from_raw_parts(buffers.cast_const(), count as usize);
        pages::write(reln, ffi::fork_of(fork), BlockNumber(block), sources, Kind::Overwrite, skip_fsync);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn writeback(reln: SMgrRelation, fork: RawFork, block: RawBlock, count: RawBlock) {
    // SAFETY: as called by the server. Files take part only if a segment is open (md.c does not open one for this).
    unsafe {
        if (*reln).md_num_open_segs[fork as usize] > 0 {
            ffi::mdwriteback(reln, fork, block, count);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn nblocks(reln: SMgrRelation, fork: RawFork) -> RawBlock {
    // SAFETY: as called by the server.
    unsafe { sizes::blocks(reln, ffi::fork_of(fork)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn truncate(
    reln: SMgrRelation,
    fork: RawFork,
    old_blocks: RawBlock,
    blocks: RawBlock,
) {
    // SAFETY: as called by the server.
    unsafe { sizes::truncate(reln, ffi::fork_of(fork), old_blocks, blocks) };
}

#[pg_guard]
unsafe extern "C-unwind" fn immedsync(reln: SMgrRelation, fork: RawFork) {
    // SAFETY: as called by the server.
    unsafe {
        if uses_files(class_of(reln, ffi::fork_of(fork)), ffi::fork_of(fork)) {
            ffi::mdimmedsync(reln, fork);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn registersync(reln: SMgrRelation, fork: RawFork) {
    // SAFETY: as called by the server.
    unsafe {
        if uses_files(class_of(reln, ffi::fork_of(fork)), ffi::fork_of(fork)) {
            ffi::mdregistersync(reln, fork);
        }
    }
}

/// The selection hook: temporary relations are md.c's, all others ours. The number was given at registration.
#[pg_guard]
pub unsafe extern "C-unwind" fn select(locator: RelFileLocatorBackend) -> c_int {
    let temporary = locator.backend != pg_sys::INVALID_PROC_NUMBER;
    if temporary { 0 } else { super::number() }
}
