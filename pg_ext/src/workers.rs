//! Our background workers: how they are declared and set up, and when they may leave at a fast stop.
//!
//! A worker of ours serves the backends until the last of them is gone: a commit that waits for the quorum, or a page that an
//! aborting transaction needs, would otherwise wait for ever (trap S8). So all ignore SIGTERM until only they and the
//! checkpointer, which writes the shutdown checkpoint after them, are left; the keeper, whose last work the others serve too,
//! goes first. Walsenders outlive that moment and are not counted (postmaster.c, PM_WAIT_BACKENDS and PM_SHUTDOWN).

use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};

use pgrx::pg_sys;

use crate::parent_death;

/// How long a worker sleeps at a time that waits for its end.
const STOPPING_MS: i64 = 1000;

/// How many workers the extension has.
pub const COUNT: usize = 3;

/// A worker's place in `Registry`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Worker {
    Proposer = 0,
    Communicator = 1,
    Keeper = 2,
}

/// What the postmaster needs to know of a worker.
pub struct Declaration {
    pub name: &'static CStr,
    /// The exported function that is its main program.
    pub function: &'static CStr,
    pub start: pg_sys::BgWorkerStartTime::Type,
}

/// Declares a worker to the postmaster; call from `_PG_init`. One that fails is started again after a second.
pub fn declare(declaration: &Declaration) {
    // SAFETY: a zeroed struct of plain arrays and numbers, filled before it is passed on.
    unsafe {
        let mut worker: pg_sys::BackgroundWorker = std::mem::zeroed();
        put(&mut worker.bgw_name, declaration.name);
        put(&mut worker.bgw_type, declaration.name);
        put(&mut worker.bgw_library_name, c"strata");
        put(&mut worker.bgw_function_name, declaration.function);
        worker.bgw_flags = pg_sys::BGWORKER_SHMEM_ACCESS as i32;
        worker.bgw_start_time = declaration.start;
        worker.bgw_restart_time = 1;
        pg_sys::RegisterBackgroundWorker(&mut worker);
    }
}

fn put<const N: usize>(field: &mut [std::ffi::c_char; N], text: &CStr) {
    let bytes = text.to_bytes_with_nul();
    assert!(bytes.len() <= N, "{text:?} fits into its field");
    for (place, byte) in field.iter_mut().zip(bytes) {
        *place = *byte as std::ffi::c_char;
    }
}

static TERMINATE: AtomicBool = AtomicBool::new(false);

/// Remembers the stop; when it may be served is `may_leave`'s to say.
unsafe extern "C-unwind" fn on_terminate(_signal: libc::c_int) {
    TERMINATE.store(true, Ordering::SeqCst);
    // SAFETY: SetLatch may be called from signal handlers.
    unsafe { pg_sys::SetLatch(pg_sys::MyLatch) };
}

/// A worker's first calls, as bgworker.c prescribes; says to the others that this process is `worker`.
pub fn set_up(worker: Worker) {
    parent_death::arm();
    // SAFETY: handlers are set before signals are let through; the callback's form is the server's.
    unsafe {
        pg_sys::pqsignal(libc::SIGTERM, Some(on_terminate));
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::on_shmem_exit(Some(on_exit), pg_sys::Datum::from(worker as usize));
    }
    if let Some(registry) = registry() {
        // SAFETY: a plain variable of the server.
        registry.pids[worker as usize].store(unsafe { pg_sys::MyProcPid }, Ordering::Release);
    }
}

static RELOAD: AtomicBool = AtomicBool::new(false);

unsafe extern "C-unwind" fn on_hangup(_signal: libc::c_int) {
    RELOAD.store(true, Ordering::SeqCst);
    // SAFETY: SetLatch may be called from signal handlers.
    unsafe { pg_sys::SetLatch(pg_sys::MyLatch) };
}

/// From now on this worker follows the settings when they are read again; without this it keeps those of its start. It reads them once in any
/// case: until here a signal was lost (bgworker.c, BackgroundWorkerMain).
pub fn reload_on_hangup() {
    RELOAD.store(true, Ordering::SeqCst);
    // SAFETY: the handler's form is the server's.
    unsafe { pg_sys::pqsignal(libc::SIGHUP, Some(on_hangup)) };
}

/// Reads the settings again if somebody has asked for it.
pub fn reload_if_wanted() {
    if RELOAD.swap(false, Ordering::SeqCst) {
        // SAFETY: outside a transaction, as the server's own workers do (interrupt.c).
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: libc::c_int, worker: pg_sys::Datum) {
    if let Some(registry) = registry() {
        registry.pids[worker.value()].store(0, Ordering::Release);
    }
}

/// Whether the server stops.
pub fn stop_is_wanted() -> bool {
    TERMINATE.load(Ordering::SeqCst)
}

/// Whether the server stops and `worker` has nobody left to serve.
pub fn may_leave(worker: Worker) -> bool {
    TERMINATE.load(Ordering::SeqCst)
        && (worker == Worker::Keeper || !runs(Worker::Keeper))
        && nobody_is_served()
}

fn runs(worker: Worker) -> bool {
    registry().is_some_and(|registry| registry.pids[worker as usize].load(Ordering::Acquire) != 0)
}

/// Sleeps until the latch is set or time is over; ends with the postmaster.
pub fn nap(milliseconds: i64) {
    nap_for(milliseconds, pg_sys::PG_WAIT_EXTENSION);
}

/// The same, shown as this wait event.
pub fn nap_for(milliseconds: i64, event: u32) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the latch is this process's own.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, milliseconds, event);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// Runs `start` with all signals blocked: a thread that it starts never runs the server's handlers (trap P2).
pub fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: signal sets are plain memory that the calls fill; the mask is put back at once.
    unsafe {
        let (mut all, mut before) = std::mem::zeroed::<(libc::sigset_t, libc::sigset_t)>();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let result = start();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        result
    }
}

/// A counter that wakes who polls it.
pub fn eventfd() -> std::io::Result<OwnedFd> {
    // SAFETY: eventfd(2) gives a new descriptor that nobody else owns, or -1.
    unsafe {
        match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
            -1 => Err(std::io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
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

/// No backend, and no auxiliary process but the checkpointer.
fn nobody_is_served() -> bool {
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

/// Why a server stops whose term is over.
pub fn beaten(text: &str) -> String {
    format!("another compute was elected, this server stops: {text}")
}

/// Ends the whole server at once, showing nothing that waits: processes that wait for a commit or a page die with it.
pub fn stop_server(why: &str) -> ! {
    pgrx::log!("{why}");
    // SAFETY: a signal to the postmaster, whose pid is set in every child; then this process ends without another word.
    unsafe {
        libc::kill(pg_sys::PostmasterPid, libc::SIGQUIT);
        loop {
            let events = pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
            pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, STOPPING_MS, pg_sys::PG_WAIT_EXTENSION);
        }
    }
}
