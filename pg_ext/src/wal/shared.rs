//! What the proposer worker tells the rest of the server, in shared memory: how far the quorum and the pageserver are, and the
//! state of each safekeeper. Numbers are plain atomics; a reader sees each of them whole.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use pgrx::pg_sys;

/// Most safekeepers that a server can have.
pub const SAFEKEEPERS_MAX: usize = 9;

#[repr(C)]
pub struct Shared {
    /// A worker of this server has made the slot.
    pub slot_made: AtomicBool,
    pub term: AtomicU64,
    /// Log that was handed to the proposer, and what a majority has.
    pub sent_lsn: AtomicU64,
    pub commit_lsn: AtomicU64,
    pub pageserver_received_lsn: AtomicU64,
    pub pageserver_disk_consistent_lsn: AtomicU64,
    pub pageserver_remote_consistent_lsn: AtomicU64,
    /// Of writers, for a pageserver that was far behind (`backpressure`): how often, and for how long.
    pub pauses: AtomicU64,
    pub paused_micros: AtomicU64,
    pub safekeeper_count: AtomicU32,
    pub safekeepers: [SafekeeperSlot; SAFEKEEPERS_MAX],
}

#[repr(C)]
pub struct SafekeeperSlot {
    pub id: AtomicU64,
    /// Number of a state's name in `STATES`.
    pub state: AtomicU32,
    pub term: AtomicU64,
    pub flush_lsn: AtomicU64,
    pub commit_lsn: AtomicU64,
}

/// Names of a safekeeper's states, as the driver gives them; shared memory holds their numbers.
const STATES: [&str; 6] = ["unknown", "down", "joining", "catching up", "streaming", "learner"];

pub fn state_number(name: &str) -> u32 {
    STATES.iter().position(|state| *state == name).map_or(0, |number| number as u32)
}

pub fn state_name(number: u32) -> &'static str {
    STATES.get(number as usize).copied().unwrap_or(STATES[0])
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());

pub const fn shared_bytes() -> usize {
    size_of::<Shared>()
}

/// Attaches to the place in shared memory; call from `shmem_startup_hook` with AddinShmemInitLock held.
pub fn attach() {
    let mut found = false;
    // SAFETY: the size was requested; zeroes are a valid Shared.
    unsafe {
        let place =
            pg_sys::ShmemInitStruct(c"strata quorum".as_ptr(), shared_bytes(), &mut found).cast::<Shared>();
        if !found {
            std::ptr::write_bytes(place, 0, 1);
        }
        SHARED.store(place, Ordering::Release);
    }
}

/// `None` in a server that was not started with the library preloaded.
pub fn get() -> Option<&'static Shared> {
    // SAFETY: null, or a place in shared memory that lives as long as the process.
    unsafe { SHARED.load(Ordering::Acquire).as_ref() }
}
