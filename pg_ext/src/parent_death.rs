//! Every process of the server dies with its parent (trap S17). Postgres's children leave the process group of the postmaster by
//! setsid, and look for their postmaster only where they sleep: one that is busy, or waits for a spinlock whose holder was killed,
//! would live on. The kernel's parent-death signal ends it at once. Postgres asks for a signal of its own when a child begins
//! (`PostmasterDeathSignalInit` in `src/backend/storage/ipc/pmsignal.c`), so ours is asked for after that.

use std::sync::atomic::{AtomicI32, Ordering};

use pgrx::pg_sys;

/// The process that has asked for the signal; a forked child inherits the number but not the signal.
static ARMED_IN: AtomicI32 = AtomicI32::new(0);

/// From `_PG_init` in the postmaster. Every child gives up the memory that only the postmaster needs, most kinds as the first thing
/// they do (backends once they are let in): that is where it asks. Some kinds never run other code of ours.
pub fn install() {
    let callback = pg_sys::MemoryContextCallback {
        func: Some(in_child),
        arg: std::ptr::null_mut(),
        next: std::ptr::null_mut(),
    };
    // SAFETY: while the postmaster loads libraries this memory is there; the server keeps the entry for good (mcxt.c). A server for one
    // user has neither this memory nor children (postgres.c).
    unsafe {
        if pg_sys::PostmasterContext.is_null() {
            return;
        }
        pg_sys::MemoryContextRegisterResetCallback(pg_sys::PostmasterContext, Box::leak(Box::new(callback)));
    }
}

unsafe extern "C" {
    /// The server's shared memory, null where a process has let go of it (`src/backend/port/sysv_shmem.c`).
    static UsedShmemSegAddr: *mut std::ffi::c_void;
}

/// The logger has no shared memory: it holds nothing of the server, and is to write down what the others said last.
unsafe extern "C-unwind" fn in_child(_nothing: *mut std::ffi::c_void) {
    // SAFETY: a plain variable of the server.
    if !unsafe { UsedShmemSegAddr }.is_null() {
        arm();
    }
}

/// Asks for SIGKILL when the parent ends. Call from the first code of ours that runs in a process; repeating it is cheap.
pub fn arm() {
    // SAFETY: plain variables of the server, set before any child runs (globals.c).
    let (me, postmaster, is_child) =
        unsafe { (pg_sys::MyProcPid, pg_sys::PostmasterPid, pg_sys::IsUnderPostmaster) };
    if !is_child || ARMED_IN.swap(me, Ordering::Relaxed) == me {
        return;
    }
    // SAFETY: prctl(2) and getppid(2) take and give plain numbers.
    let orphaned = unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::getppid() != postmaster
    };
    if orphaned {
        // The postmaster died before the line above: nobody will signal us. SIGKILL runs no exit code, as planned for all.
        // SAFETY: as above.
        unsafe { libc::kill(me, libc::SIGKILL) };
    }
}
