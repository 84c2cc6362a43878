//! What the bindings lack: the storage manager's table of functions, `md.c`, and a few helpers; and conversions of names.
//!
//! From `src/include/storage/smgr.h` (with our patch), `src/include/storage/md.h`, `src/include/utils/relfilenumbermap.h`,
//! `src/include/utils/fmgrtab.h`. Every call goes through pgrx's guard, so that an ERROR becomes an unwinding and Rust's own
//! frames are left in order.

#![allow(non_snake_case, reason = "the server's names")]

use std::ffi::{c_char, c_int, c_void};

use pgrx::pg_sys;
use pgrx::pg_sys::{BlockNumber, Oid, RelFileLocatorBackend, SMgrRelation};
use strata_common::{ForkNumber, RelFork, RelTag};

/// Number of a fork as the server passes it.
pub type RawFork = pg_sys::ForkNumber::Type;

/// `f_smgr`.
#[repr(C)]
pub struct FSmgr {
    pub smgr_init: Option<unsafe extern "C-unwind" fn()>,
    pub smgr_shutdown: Option<unsafe extern "C-unwind" fn()>,
    pub smgr_open: unsafe extern "C-unwind" fn(SMgrRelation),
    pub smgr_close: unsafe extern "C-unwind" fn(SMgrRelation, RawFork),
    pub smgr_create: unsafe extern "C-unwind" fn(SMgrRelation, RawFork, bool),
    pub smgr_exists: unsafe extern "C-unwind" fn(SMgrRelation, RawFork) -> bool,
    pub smgr_unlink: unsafe extern "C-unwind" fn(RelFileLocatorBackend, RawFork, bool),
    pub smgr_extend: unsafe extern "C-unwind" fn(SMgrRelation, RawFork, BlockNumber, *const c_void, bool),
    pub smgr_zeroextend: unsafe extern "C-unwind" fn(SMgrRelation, RawFork, BlockNumber, c_int, bool),
    pub smgr_prefetch: unsafe extern "C-unwind" fn(SMgrRelation, RawFork, BlockNumber, c_int) -> bool,
    pub smgr_readv:
        unsafe extern "C-unwind" fn(SMgrRelation, RawFork, BlockNumber, *mut *mut c_void, BlockNumber),
    pub smgr_writev: unsafe extern "C-unwind" fn(
        SMgrRelation,
        RawFork,
        BlockNumber,
        *mut *const c_void,
        BlockNumber,
        bool,
    ),
    pub smgr_writeback: unsafe extern "C-unwind" fn(SMgrRelation, RawFork, BlockNumber, BlockNumber),
    pub smgr_nblocks: unsafe extern "C-unwind" fn(SMgrRelation, RawFork) -> BlockNumber,
    pub smgr_truncate: unsafe extern "C-unwind" fn(SMgrRelation, RawFork, BlockNumber, BlockNumber),
    pub smgr_immedsync: unsafe extern "C-unwind" fn(SMgrRelation, RawFork),
    pub smgr_registersync: unsafe extern "C-unwind" fn(SMgrRelation, RawFork),
}

macro_rules! server_functions {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions without the guard: for callers that hold nothing and pass an error on as it is thrown.
        pub mod raw {
            use super::*;
            unsafe extern "C-unwind" {
                $(pub fn $name($($arg: $type),*) $(-> $result)?;)*
            }
        }
        $(
            /// # Safety
            /// As the server's function of this name; only from a process's main thread.
            pub unsafe fn $name($($arg: $type),*) $(-> $result)? {
                // SAFETY: the caller's promise; the guard catches what the function throws.
                unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| raw::$name($($arg),*)) }
            }
        )*
    };
}

server_functions! {
    fn mdopen(reln: SMgrRelation);
    fn mdclose(reln: SMgrRelation, fork: RawFork);
    fn mdcreate(reln: SMgrRelation, fork: RawFork, is_redo: bool);
    fn mdexists(reln: SMgrRelation, fork: RawFork) -> bool;
    fn mdunlink(locator: RelFileLocatorBackend, fork: RawFork, is_redo: bool);
    fn mdextend(reln: SMgrRelation, fork: RawFork, block: BlockNumber, buffer: *const c_void, skip_fsync: bool);
    fn mdzeroextend(reln: SMgrRelation, fork: RawFork, block: BlockNumber, count: c_int, skip_fsync: bool);
    fn mdprefetch(reln: SMgrRelation, fork: RawFork, block: BlockNumber, count: c_int) -> bool;
    fn mdreadv(reln: SMgrRelation, fork: RawFork, block: BlockNumber, buffers: *mut *mut c_void, count: BlockNumber);
    fn mdwritev(reln: SMgrRelation, fork: RawFork, block: BlockNumber, buffers: *mut *const c_void, count: BlockNumber, skip_fsync: bool);
    fn mdwriteback(reln: SMgrRelation, fork: RawFork, block: BlockNumber, count: BlockNumber);
    fn mdnblocks(reln: SMgrRelation, fork: RawFork) -> BlockNumber;
    fn mdtruncate(reln: SMgrRelation, fork: RawFork, old_blocks: BlockNumber, blocks: BlockNumber);
    fn mdimmedsync(reln: SMgrRelation, fork: RawFork);
    fn mdregistersync(reln: SMgrRelation, fork: RawFork);
    fn RelidByRelfilenumber(tablespace: Oid, relation: Oid) -> Oid;
}

/// A place in `fmgr_builtins`.
#[repr(C)]
pub struct FmgrBuiltin {
    pub foid: Oid,
    pub nargs: i16,
    pub strict: bool,
    pub retset: bool,
    pub func_name: *const c_char,
    pub func: unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
}

unsafe extern "C-unwind" {
    pub static fmgr_builtins: [FmgrBuiltin; 0];
    pub static fmgr_nbuiltins: c_int;
}

pub type SmgrRegister = unsafe extern "C-unwind" fn(*const FSmgr) -> c_int;
pub type SmgrSelectHook = unsafe extern "C-unwind" fn(RelFileLocatorBackend) -> c_int;

/// The patched server's registration function and the place of its selection hook, or `None` in a server without them.
pub fn registration() -> Option<(SmgrRegister, *mut Option<SmgrSelectHook>)> {
    // SAFETY: dlsym looks in the running program; a symbol of this name has this type (patches/17).
    unsafe {
        let register = libc::dlsym(libc::RTLD_DEFAULT, c"smgr_register".as_ptr());
        let hook = libc::dlsym(libc::RTLD_DEFAULT, c"smgr_select_hook".as_ptr());
        if register.is_null() || hook.is_null() {
            return None;
        }
        Some((std::mem::transmute::<*mut c_void, SmgrRegister>(register), hook.cast()))
    }
}

/// Our name of a relation.
pub fn tag_of(locator: pg_sys::RelFileLocator) -> RelTag {
    RelTag {
        tablespace: locator.spcOid.to_u32(),
        database: locator.dbOid.to_u32(),
        relation: locator.relNumber.to_u32(),
    }
}

/// The server's name of a relation.
pub fn locator_of(tag: RelTag) -> pg_sys::RelFileLocator {
    pg_sys::RelFileLocator {
        spcOid: tag.tablespace.into(),
        dbOid: tag.database.into(),
        relNumber: tag.relation.into(),
    }
}

/// Our name of a fork; the server passes only its four numbers here.
pub fn fork_of(fork: RawFork) -> ForkNumber {
    u8::try_from(fork).ok().and_then(ForkNumber::from_raw).expect("the server knows four forks")
}

pub fn raw_fork(fork: ForkNumber) -> RawFork {
    RawFork::from(fork.raw())
}

/// Name of a relation's fork.
///
/// # Safety
/// `reln` is a relation that the server passed to a callback.
pub unsafe fn rel_fork(reln: SMgrRelation, fork: RawFork) -> RelFork {
    // SAFETY: the caller's promise.
    let locator = unsafe { (*reln).smgr_rlocator.locator };
    tag_of(locator).fork(fork_of(fork))
}
