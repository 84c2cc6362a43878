//! What goes on in the server, as far as spilled pages depend on it: running transactions and vacuums of btrees (W6–W8).

use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::pg_sys;
use strata_common::Lsn;
use strata_smgr::evict::{self, Running};
use strata_smgr::quiet::{self, Sample};

use super::state;

/// Answers for one page or many; each question is asked of the server once.
#[derive(Default)]
pub struct Now {
    oldest: Option<Option<u32>>,
    vacuums: Option<Vec<u16>>,
}

impl Running for Now {
    fn transaction(&mut self, xid: u32) -> bool {
        // SAFETY: reads shared memory under the locks that it takes itself. On a standby anything may run.
        let oldest = *self.oldest.get_or_insert_with(|| unsafe {
            (!pg_sys::RecoveryInProgress()).then(|| pg_sys::GetOldestActiveTransactionId().into_inner())
        });
        oldest.is_none_or(|oldest| evict::may_run(xid, oldest))
    }

    fn vacuum(&mut self, cycle_id: u16) -> bool {
        self.vacuums.get_or_insert_with(running_vacuums).contains(&cycle_id)
    }
}

/// No record of a running transaction ends at or below this.
pub fn quiet_below() -> Lsn {
    Lsn(state::keeper().quiet_below.load(Ordering::Acquire))
}

/// The next transaction id, after the end of the log as `Sample` wants it; and the oldest that runs.
pub fn sample() -> (Sample, u64) {
    let insert_lsn = super::log_position::insert_lsn();
    // SAFETY: these read shared memory under the locks that they take themselves.
    let (next_xid, oldest) = unsafe {
        (pg_sys::ReadNextFullTransactionId().value, pg_sys::GetOldestActiveTransactionId().into_inner())
    };
    // Read after the oldest was found, so that it is not behind it.
    // SAFETY: as above.
    let next_now = unsafe { pg_sys::ReadNextFullTransactionId().value };
    (Sample { insert_lsn, next_xid }, quiet::with_epoch(oldest, next_now))
}

/// `BTVacInfo` (`src/backend/access/nbtree/nbtutils.c`), which the server shares by name.
#[repr(C)]
struct Vacuums {
    cycle_counter: u16,
    running: i32,
    running_max: i32,
    first: [Vacuum; 0],
}

#[repr(C)]
struct Vacuum {
    index: pg_sys::LockRelId,
    cycle_id: u16,
}

unsafe extern "C-unwind" {
    /// `src/include/access/nbtree.h`.
    fn BTreeShmemSize() -> usize;
}

static VACUUMS: AtomicPtr<Vacuums> = AtomicPtr::new(std::ptr::null_mut());

/// Number of BtreeVacuumLock in the main lock array (`src/include/storage/lwlocklist.h`).
const BTREE_VACUUM_LOCK: usize = 20;

/// Finds the server's list of vacuums; from `shmem_startup_hook`, which runs when the server's own parts are there.
pub fn attach() {
    let mut found = false;
    // SAFETY: the name and the size are the server's; a wrong size is an ERROR, which ends the start.
    unsafe {
        let place = pg_sys::ShmemInitStruct(c"BTree Vacuum State".as_ptr(), BTreeShmemSize(), &mut found);
        if !found {
            pgrx::error!("this server keeps its vacuums of btrees elsewhere");
        }
        VACUUMS.store(place.cast(), Ordering::Release);
    }
}

fn running_vacuums() -> Vec<u16> {
    let place = VACUUMS.load(Ordering::Acquire);
    // SAFETY: found by `attach`; the list changes under this lock only.
    unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(BTREE_VACUUM_LOCK)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
        let count = usize::try_from((*place).running).unwrap_or(0);
        let first = (&raw const (*place).first).cast::<Vacuum>();
        let ids = (0..count).map(|index| (*first.add(index)).cycle_id).collect();
        pg_sys::LWLockRelease(lock);
        ids
    }
}
