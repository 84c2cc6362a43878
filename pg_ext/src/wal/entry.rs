//! Our entry in the walsenders' table: through it backends wake the worker when log is flushed, and the worker wakes backends
//! when a majority has their commits. The worker is no walsender: it opens no connection and runs no replication command
//! (`docs/facts/quorum-worker.md`; Postgres: `replication/walsender_private.h`, `replication/syncrep.c`).
//!
//! `synchronous_standby_names` holds a name that cannot be typed, so that no client can pose as the quorum (trap K15), set with
//! a source that ALTER SYSTEM and reload do not beat (trap S14).

use std::sync::atomic::{AtomicU8, Ordering};

use pgrx::pg_sys;
use strata_common::Lsn;

/// What `synchronous_standby_names` is: one name with a byte that no application name may hold (`pg_clean_ascii`).
const STANDBY_NAMES: &std::ffi::CStr = c"\"strata\xff\"";

/// The user's `max_wal_senders`, put back when the process entries are counted.
static USERS_WALSENDERS: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);

/// From `_PG_init`: waiting for the quorum is on, for good.
pub fn require_quorum() {
    // SAFETY: a setting that the server defines, set in the postmaster while libraries load.
    unsafe {
        pg_sys::SetConfigOption(
            c"synchronous_standby_names".as_ptr(),
            STANDBY_NAMES.as_ptr(),
            pg_sys::GucContext::PGC_POSTMASTER,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// From `_PG_init`: one process entry less than table entries, so that the last real walsender never finds the table full,
/// which would crash the server.
pub fn reserve_table_entry() {
    // SAFETY: plain variables of the postmaster, read by InitializeMaxBackends after libraries are loaded (postinit.c).
    unsafe {
        if pg_sys::max_wal_senders < 1 {
            pgrx::error!("strata needs max_wal_senders of at least 1");
        }
        USERS_WALSENDERS.store(pg_sys::max_wal_senders, Ordering::Relaxed);
        pg_sys::max_wal_senders -= 1;
    }
}

/// From `shmem_request_hook`, after the process entries are counted: the table gets its full size.
pub fn restore_table_size() {
    let users = USERS_WALSENDERS.load(Ordering::Relaxed);
    if users >= 0 {
        // SAFETY: as above; the table's size is asked for after this hook (ipci.c).
        unsafe { pg_sys::max_wal_senders = users };
    }
}

/// The entry, held by this process until it exits.
pub struct Entry {
    place: *mut pg_sys::WalSnd,
}

impl Entry {
    /// Takes a free entry. `None` if there is none, which `reserve_table_entry` rules out.
    pub fn claim() -> Option<Entry> {
        // SAFETY: the table lies in shared memory and has max_wal_senders entries; each is written under its spinlock.
        unsafe {
            let entries = (&raw mut (*pg_sys::WalSndCtl).walsnds).cast::<pg_sys::WalSnd>();
            for index in 0..usize::try_from(pg_sys::max_wal_senders).unwrap_or(0) {
                let place = entries.add(index);
                let locked = Spin::lock(&raw mut (*place).mutex);
                if (*place).pid != 0 {
                    continue;
                }
                (*place).pid = pg_sys::MyProcPid;
                (*place).state = pg_sys::WalSndState::WALSNDSTATE_STREAMING;
                (*place).sentPtr = 0;
                (*place).needreload = false;
                (*place).write = 0;
                (*place).flush = 0;
                (*place).apply = 0;
                (*place).writeLag = -1;
                (*place).flushLag = -1;
                (*place).applyLag = -1;
                (*place).sync_standby_priority = 1;
                (*place).latch = pg_sys::MyLatch;
                (*place).replyTime = 0;
                (*place).kind = pg_sys::ReplicationKind::REPLICATION_KIND_PHYSICAL;
                drop(locked);
                pg_sys::MyWalSnd = place;
                pg_sys::on_shmem_exit(Some(give_back), pg_sys::Datum::from(0));
                return Some(Entry { place });
            }
        }
        None
    }

    /// A majority has the log up to `lsn`: whoever waits for that goes on.
    pub fn release(&mut self, sent: Lsn, lsn: Lsn) {
        // SAFETY: the entry is ours; SyncRepReleaseWaiters takes its own locks, and this is the process of MyWalSnd.
        unsafe {
            let locked = Spin::lock(&raw mut (*self.place).mutex);
            (*self.place).sentPtr = sent.0;
            (*self.place).write = lsn.0;
            (*self.place).flush = lsn.0;
            (*self.place).apply = lsn.0;
            drop(locked);
            pg_sys::SyncRepReleaseWaiters();
        }
    }
}

unsafe extern "C-unwind" fn give_back(_code: libc::c_int, _arg: pg_sys::Datum) {
    // SAFETY: runs in the process that claimed the entry, once.
    unsafe {
        let place = pg_sys::MyWalSnd;
        if place.is_null() {
            return;
        }
        pg_sys::MyWalSnd = std::ptr::null_mut();
        let locked = Spin::lock(&raw mut (*place).mutex);
        (*place).latch = std::ptr::null_mut();
        (*place).pid = 0;
        drop(locked);
    }
}

/// A spinlock of the server, held (`storage/s_lock.h`: one byte, 0 is free, taken by atomic exchange on x86-64).
pub struct Spin {
    lock: *mut pg_sys::slock_t,
}

impl Spin {
    /// # Safety
    /// `lock` is an initialised spinlock in shared memory. Code that holds it neither errors nor sleeps.
    pub unsafe fn lock(lock: *mut pg_sys::slock_t) -> Spin {
        // SAFETY: slock_t is one byte here; the server's own code accesses it by atomic exchange only.
        unsafe {
            let byte = AtomicU8::from_ptr(lock.cast::<u8>());
            if byte.swap(1, Ordering::Acquire) != 0 {
                pg_sys::s_lock(lock, c"strata".as_ptr(), 0, c"Spin::lock".as_ptr());
            }
        }
        Spin { lock }
    }
}

const _: () = assert!(size_of::<pg_sys::slock_t>() == 1);

impl Drop for Spin {
    fn drop(&mut self) {
        // SAFETY: as in `lock`; this process holds it.
        unsafe { AtomicU8::from_ptr(self.lock.cast::<u8>()).store(0, Ordering::Release) };
    }
}
