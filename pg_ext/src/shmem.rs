//! Shared memory of the extension: how much is asked for, and who attaches to what.
//!
//! Postgres calls the request hook once all libraries are loaded and the number of processes is known, and the startup hook in
//! every process that attaches (ipci.c). Each part says its size and attaches to its own named area.
//!
//! A new area is zero. Its memory is mapped anonymously, or a System V segment that did not exist before (`PGSharedMemoryCreate`,
//! src/backend/port/sysv_shmem.c); after a crash the old one is let go and another made (`PostmasterStateMachine`, postmaster.c); and no
//! byte of it is given out twice (`ShmemAllocRaw`, shmem.c). So large parts that begin as zeroes are not written at the start: the system
//! gives their memory when it is used.

use std::sync::atomic::{AtomicUsize, Ordering};

use pgrx::pg_sys;

use crate::{lfc, smgr, wal, workers, working_set};

static PREVIOUS_REQUEST: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS_STARTUP: AtomicUsize = AtomicUsize::new(0);

/// Installs the hooks; call once, from `_PG_init` in the postmaster.
pub fn install() {
    // SAFETY: hooks of the right types; the ones before ours are called first.
    unsafe {
        PREVIOUS_REQUEST.store(pg_sys::shmem_request_hook.map_or(0, |hook| hook as usize), Ordering::Relaxed);
        pg_sys::shmem_request_hook = Some(on_request);
        PREVIOUS_STARTUP.store(pg_sys::shmem_startup_hook.map_or(0, |hook| hook as usize), Ordering::Relaxed);
        pg_sys::shmem_startup_hook = Some(on_startup);
    }
}

/// # Safety
/// `address` is 0 or the address of a hook of this type.
unsafe fn call_previous(address: usize) {
    // SAFETY: an `Option` of a function pointer is the pointer, or 0 for none.
    let previous: Option<unsafe extern "C-unwind" fn()> = unsafe { std::mem::transmute(address) };
    if let Some(previous) = previous {
        // SAFETY: hooks take and give nothing.
        unsafe { previous() };
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_request() {
    // SAFETY: the address was stored by `install`; this is the one place where space may be asked for.
    unsafe {
        call_previous(PREVIOUS_REQUEST.load(Ordering::Relaxed));
        wal::on_shmem_request();
        let sizes = [
            workers::shared_bytes(),
            wal::shared::shared_bytes(),
            working_set::shared_bytes(),
            lfc::request(),
            smgr::on_shmem_request(),
        ];
        // Each area begins on a cache line.
        pg_sys::RequestAddinShmemSpace(sizes.iter().map(|size| size.next_multiple_of(128)).sum());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_startup() {
    // SAFETY: the lock is the one that guards the table of areas.
    unsafe {
        call_previous(PREVIOUS_STARTUP.load(Ordering::Relaxed));
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(ADDIN_SHMEM_INIT_LOCK)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        workers::attach();
        wal::shared::attach();
        wal::backpressure::attach();
        working_set::attach();
        lfc::attach();
        smgr::on_shmem_startup();
        pg_sys::LWLockRelease(lock);
    }
}

/// Number of AddinShmemInitLock in the main lock array (`storage/lwlocknames.h`, generated from `lwlocklist.h`).
const ADDIN_SHMEM_INIT_LOCK: usize = 21;
