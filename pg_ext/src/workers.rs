//! Our background workers, and when they may leave at a fast stop.
//!
//! A worker of ours serves the backends until the last of them is gone: a commit that waits for the quorum, or a page that an
//! aborting transaction needs, would otherwise wait for ever (trap S8). So both ignore SIGTERM until only they and the
//! checkpointer, which writes the shutdown checkpoint after them, are left. Walsenders outlive that moment and are not counted
//! (postmaster.c, PM_WAIT_BACKENDS and PM_SHUTDOWN).

use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use pgrx::pg_sys;

/// How many workers the extension has.
pub const COUNT: usize = 2;

/// A worker's place in `Registry`.
#[derive(Clone, Copy)]
pub enum Worker {
    Proposer = 0,
    Communicator = 1,
}

/// In shared memory: pids of our workers, 0 where none runs.
#[repr(C)]
pub struct Registry {
    pids: [AtomicI32; COUNT],
}

static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(std::ptr::null_mut());

/// Bytes of shared memory needed.
pub const fn shared_bytes() -> usize {
    size_of::<Registry>()
}

/// Attaches to (and, in the postmaster, clears) the registry. Call from `shmem_startup_hook` with AddinShmemInitLock held.
pub fn attach() {
    let mut found = false;
    // SAFETY: the size was requested; zeroes are a valid Registry.
    unsafe {
        let place = pg_sys::ShmemInitStruct(c"strata workers".as_ptr(), shared_bytes(), &mut found)
            .cast::<Registry>();
        if !found {
            std::ptr::write_bytes(place, 0, 1);
        }
        REGISTRY.store(place, Ordering::Release);
    }
}

fn registry() -> Option<&'static Registry> {
    // SAFETY: null, or a place in shared memory that lives as long as the process.
    unsafe { REGISTRY.load(Ordering::Acquire).as_ref() }
}

/// Says that this process is `worker`.
pub fn register(worker: Worker) {
    if let Some(registry) = registry() {
        // SAFETY: a plain variable of the server.
        registry.pids[worker as usize].store(unsafe { pg_sys::MyProcPid }, Ordering::Release);
    }
}

/// Whether at a stop no process is left that a worker of ours serves: no backend, and no auxiliary process but the checkpointer.
pub fn may_leave() -> bool {
    let ours: Vec<i32> = registry()
        .map(|r| r.pids.iter().map(|pid| pid.load(Ordering::Acquire)).collect())
        .unwrap_or_default();
    // SAFETY: the array of process entries is made before any worker starts and never moves; a pid is read as other code of
    // the server does without a lock (procarray.c), one that changes meanwhile is seen at the next look.
    unsafe {
        let all = &*pg_sys::ProcGlobal;
        let backends = usize::try_from(pg_sys::MaxBackends).unwrap_or(0);
        let (mut served, mut auxiliary) = (0, 0);
        for index in 0..all.allProcCount as usize {
            let process = all.allProcs.add(index);
            let pid = std::ptr::read_volatile(&raw const (*process).pid);
            // Entries past the auxiliary ones belong to prepared transactions and have no process.
            if pid == 0 || ours.contains(&pid) {
                continue;
            }
            if index < backends {
                served += usize::from(!is_walsender(pid));
            } else {
                auxiliary += 1;
            }
        }
        served == 0 && auxiliary <= 1
    }
}

/// Whether a pid is in the walsenders' table. Ours there is not asked for.
fn is_walsender(pid: i32) -> bool {
    // SAFETY: the table is made before any worker starts; a pid is one aligned word.
    unsafe {
        let control = pg_sys::WalSndCtl;
        if control.is_null() {
            return false;
        }
        let entries = (&raw const (*control).walsnds).cast::<pg_sys::WalSnd>();
        let count = usize::try_from(pg_sys::max_wal_senders).unwrap_or(0);
        (0..count).any(|index| std::ptr::read_volatile(&raw const (*entries.add(index)).pid) == pid)
    }
}
