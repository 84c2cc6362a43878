//! What stands in a stock server's table: temporary relations go to `md.c`, all others to our callbacks. With the registration
//! hook the server makes this choice once for each relation; here each call makes it.
//!
//! These functions hold nothing that needs dropping, and an error of the server passes them as it is thrown: no guard of their own.

use std::ffi::{c_int, c_void};

use pgrx::pg_sys::{self, BlockNumber, RelFileLocatorBackend, SMgrRelation};

use crate::smgr::callbacks::TABLE as OURS;
use crate::smgr::ffi::{FSmgr, RawFork, raw};

unsafe extern "C-unwind" {
    fn mdinit();
}

pub static TABLE: FSmgr = FSmgr {
    smgr_init: Some(mdinit),
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

fn is_temporary(locator: RelFileLocatorBackend) -> bool {
    locator.backend != pg_sys::INVALID_PROC_NUMBER
}

macro_rules! for_temporary {
    ($($name:ident, $slot:ident, $md:ident ($($arg:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(
            unsafe extern "C-unwind" fn $name(reln: SMgrRelation, $($arg: $type),*) $(-> $result)? {
                // SAFETY: as called by the server.
                unsafe {
                    if is_temporary((*reln).smgr_rlocator) {
                        raw::$md(reln, $($arg),*)
                    } else {
                        (OURS.$slot)(reln, $($arg),*)
                    }
                }
            }
        )*
    };
}

for_temporary! {
    open, smgr_open, mdopen();
    close, smgr_close, mdclose(fork: RawFork);
    create, smgr_create, mdcreate(fork: RawFork, is_redo: bool);
    exists, smgr_exists, mdexists(fork: RawFork) -> bool;
    extend, smgr_extend, mdextend(fork: RawFork, block: BlockNumber, buffer: *const c_void, skip_fsync: bool);
    zeroextend, smgr_zeroextend, mdzeroextend(fork: RawFork, block: BlockNumber, count: c_int, skip_fsync: bool);
    prefetch, smgr_prefetch, mdprefetch(fork: RawFork, block: BlockNumber, count: c_int) -> bool;
    readv, smgr_readv, mdreadv(fork: RawFork, block: BlockNumber, buffers: *mut *mut c_void, count: BlockNumber);
    writev, smgr_writev, mdwritev(fork: RawFork, block: BlockNumber, buffers: *mut *const c_void, count: BlockNumber, skip_fsync: bool);
    writeback, smgr_writeback, mdwriteback(fork: RawFork, block: BlockNumber, count: BlockNumber);
    nblocks, smgr_nblocks, mdnblocks(fork: RawFork) -> BlockNumber;
    truncate, smgr_truncate, mdtruncate(fork: RawFork, old_blocks: BlockNumber, blocks: BlockNumber);
    immedsync, smgr_immedsync, mdimmedsync(fork: RawFork);
    registersync, smgr_registersync, mdregistersync(fork: RawFork);
}

unsafe extern "C-unwind" fn unlink(locator: RelFileLocatorBackend, fork: RawFork, is_redo: bool) {
    // SAFETY: as called by the server.
    unsafe {
        if is_temporary(locator) {
            raw::mdunlink(locator, fork, is_redo);
        } else {
            (OURS.smgr_unlink)(locator, fork, is_redo);
        }
    }
}
