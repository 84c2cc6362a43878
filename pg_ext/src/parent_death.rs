//! Every process of the server dies with its parent (trap S17). Postgres's children leave the process group of the postmaster by
//! setsid, and a busy one looks for its postmaster only now and then; the kernel's parent-death signal ends it at once.

use std::sync::atomic::{AtomicI32, Ordering};

use pgrx::pg_sys;

/// The process that has asked for the signal; a forked child inherits the number but not the signal.
static ARMED_IN: AtomicI32 = AtomicI32::new(0);

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
