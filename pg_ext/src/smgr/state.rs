//! The storage manager's shared memory: the relation table with its locks, last-written LSNs, request slots, statistics.
//!
//! Laid out once by the postmaster; other processes inherit the addresses by fork. The cores in `strata-smgr` see slices.

use std::ffi::c_void;
use std::os::fd::IntoRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use pgrx::pg_sys;
use strata_common::{Lsn, RelTag};
use strata_smgr::last_written::{Head, relation_hash};
use strata_smgr::request_stats::KindStats;
use strata_smgr::slots::{Ask, Slot, SlotTable};
use strata_smgr::{LastWritten, RelEntry, RelPartition};

use super::settings;

/// Partitions of the relation table, each with a lock.
pub const PARTITIONS: usize = 16;
/// Processes beside the backends that may read pages (`NUM_AUXILIARY_PROCS` is 6 in `src/include/storage/proc.h`).
const AUXILIARY_PROCESSES: usize = 8;
const TRANCHE: &std::ffi::CStr = c"strata_relations";
/// Locks of the spill store, one for all forks that share its number.
const SPILL_LOCKS: usize = 64;
const SPILL_TRANCHE: &std::ffi::CStr = c"strata_spill";

/// Fixed part of the shared memory. Zeroes are its first state.
#[repr(C)]
struct Fixed {
    last_written: Head,
    stats: [KindStats; Ask::KINDS],
    /// Entries in use, per partition; guarded by the partition's lock.
    used: [usize; PARTITIONS],
    spilled_pages: AtomicU64,
    lost_wakeups: AtomicU64,
    spins: Spins,
    /// Counts removals of spill files, per lock.
    spill_generations: [AtomicU64; SPILL_LOCKS],
    keeper: Keeper,
}

/// Waits for answers that were spun for, since the server's start.
#[repr(C)]
pub struct Spins {
    /// The answer came meanwhile.
    pub answered: AtomicU64,
    /// It did not, and was slept for.
    pub in_vain: AtomicU64,
}

/// What the keeper has done since the server's start, and what it has found.
#[repr(C)]
pub struct Keeper {
    pub rounds: AtomicU64,
    /// Page images that it has put into the log.
    pub saved_pages: AtomicU64,
    /// Spilled pages that it has given back because the log can rebuild them.
    pub returned_pages: AtomicU64,
    /// Relations whose entries it has made forgettable.
    pub settled_relations: AtomicU64,
    /// No record of a running transaction ends at or below this (W6).
    pub quiet_below: AtomicU64,
}

#[derive(Clone, Copy)]
struct Layout {
    relations: usize,
    /// Of the table of last-written LSNs: its pages' cells.
    page_cells: usize,
    /// Processes, each with a slot and a bounce page.
    processes: usize,
    /// Slots of the processes, then those for what is asked for ahead.
    slots: usize,
}

/// Measured once, in the postmaster; children inherit it. Threads may ask for it, which must not read settings (trap P2).
static LAYOUT: OnceLock<Layout> = OnceLock::new();

impl Layout {
    /// The layout that `request` measured.
    fn now() -> Layout {
        *LAYOUT.get().expect("shared memory was asked for before it is used")
    }

    fn measure() -> Layout {
        // SAFETY: set before shared memory is sized (postinit.c, InitializeMaxBackends).
        let backends = usize::try_from(unsafe { pg_sys::MaxBackends }).unwrap_or(0);
        let processes = backends + AUXILIARY_PROCESSES;
        Layout {
            relations: settings::relation_slots() / PARTITIONS,
            page_cells: settings::last_written_cells(),
            processes,
            slots: processes + crate::prefetch::memory::slots(),
        }
    }

    /// Offsets of the parts after `Fixed`, each on a cache line, and the whole size.
    fn offsets(&self) -> [usize; 6] {
        let line = |bytes: usize| bytes.next_multiple_of(128);
        let relations = line(size_of::<Fixed>());
        let cells = relations + line(self.relations * PARTITIONS * size_of::<RelEntry>());
        let slots = cells + line(LastWritten::cells(self.page_cells) * size_of::<AtomicU64>());
        let marks = slots + line(self.slots * size_of::<Slot>());
        let bounce = marks + line(SlotTable::mark_words(self.slots) * size_of::<AtomicU64>());
        // Pages are copied in whole; aligned as the server aligns its own (PG_IO_ALIGN_SIZE).
        let bounce = bounce.next_multiple_of(4096);
        [relations, cells, slots, marks, bounce, bounce + self.processes * BLOCK]
    }
}

const BLOCK: usize = strata_common::BLOCK_BYTES;

static BASE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static LOCKS: AtomicPtr<pg_sys::LWLockPadded> = AtomicPtr::new(std::ptr::null_mut());
static SPILL_LOCK: AtomicPtr<pg_sys::LWLockPadded> = AtomicPtr::new(std::ptr::null_mut());
static DOORBELL: AtomicI32 = AtomicI32::new(-1);
pub static WAIT_EVENT: AtomicU32 = AtomicU32::new(pg_sys::PG_WAIT_EXTENSION);

/// Bytes of shared memory needed; also asks for the locks. Call from `shmem_request_hook`.
pub fn request() -> usize {
    // SAFETY: called from the request hook, the one place where this is allowed.
    unsafe {
        pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), PARTITIONS as i32);
        pg_sys::RequestNamedLWLockTranche(SPILL_TRANCHE.as_ptr(), SPILL_LOCKS as i32);
    }
    LAYOUT.get_or_init(Layout::measure).offsets()[5] + 4096
}

/// Lays the memory out. Call from `shmem_startup_hook` with AddinShmemInitLock held.
pub fn attach() {
    let layout = Layout::now();
    let offsets = layout.offsets();
    let mut found = false;
    // SAFETY: the size was requested; new memory is zero (`crate::shmem`), which is valid for all parts but the relation table, whose
    // cells are written one by one.
    unsafe {
        let base = pg_sys::ShmemInitStruct(c"strata storage".as_ptr(), offsets[5], &mut found);
        if !found {
            let cells = base.byte_add(offsets[0]).cast::<RelEntry>();
            for index in 0..layout.relations * PARTITIONS {
                cells.add(index).write(RelEntry::FREE);
            }
        }
        BASE.store(base, Ordering::Release);
        LOCKS.store(pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr()), Ordering::Release);
        SPILL_LOCK.store(pg_sys::GetNamedLWLockTranche(SPILL_TRANCHE.as_ptr()), Ordering::Release);
        WAIT_EVENT.store(pg_sys::WaitEventExtensionNew(c"StrataPageRequest".as_ptr()), Ordering::Release);
        if DOORBELL.load(Ordering::Acquire) < 0 {
            // Children inherit it by fork; a program started by one of them does not.
            match crate::workers::eventfd() {
                Ok(doorbell) => DOORBELL.store(doorbell.into_raw_fd(), Ordering::Release),
                Err(error) => pgrx::error!("the system gave no eventfd: {error}"),
            }
        }
    }
}

/// Whether this server laid the memory out.
pub fn is_attached() -> bool {
    !BASE.load(Ordering::Acquire).is_null()
}

fn part<T>(offset: usize) -> *mut T {
    let base = BASE.load(Ordering::Acquire);
    assert!(!base.is_null(), "the storage manager's shared memory is not there");
    // SAFETY: the offset lies inside the memory that `attach` laid out.
    unsafe { base.byte_add(offset).cast() }
}

fn fixed() -> &'static Fixed {
    // SAFETY: `used` is only reached through raw pointers below; the rest is atomics.
    unsafe { &*part::<Fixed>(0) }
}

pub fn last_written() -> LastWritten<'static> {
    let layout = Layout::now();
    let count = LastWritten::cells(layout.page_cells);
    // SAFETY: the cells were zero when `attach` laid them out, and live as long as the process.
    let cells = unsafe { std::slice::from_raw_parts(part::<AtomicU64>(layout.offsets()[1]), count) };
    LastWritten::new(&fixed().last_written, cells, layout.page_cells)
}

pub fn stats() -> &'static [KindStats; Ask::KINDS] {
    &fixed().stats
}

/// Answers whose owner slept on though it had been woken: there must be none (P7).
pub fn lost_wakeups() -> &'static AtomicU64 {
    &fixed().lost_wakeups
}

pub fn spins() -> &'static Spins {
    &fixed().spins
}

/// Pages put into the spill store since the server's start.
pub fn spilled_pages() -> &'static AtomicU64 {
    &fixed().spilled_pages
}

pub fn keeper() -> &'static Keeper {
    &fixed().keeper
}

pub fn slots() -> SlotTable<'static> {
    let layout = Layout::now();
    let offsets = layout.offsets();
    // SAFETY: zero when `attach` laid them out, which is the first state of slots and marks; all fields are atomics.
    unsafe {
        let slots = std::slice::from_raw_parts(part::<Slot>(offsets[2]), layout.slots);
        let words = SlotTable::mark_words(layout.slots);
        SlotTable::new(slots, std::slice::from_raw_parts(part::<AtomicU64>(offsets[3]), words))
    }
}

/// The number of this process's slot.
pub fn my_slot() -> usize {
    // SAFETY: set when the process took its entry.
    let number = unsafe { pg_sys::MyProcNumber };
    usize::try_from(number).expect("a process that reads pages has an entry")
}

/// The number of a slot of prefetch's pool.
pub fn prefetch_slot(number: usize) -> usize {
    Layout::now().processes + number
}

/// A page in shared memory that is this process's.
pub fn bounce_page() -> *mut u8 {
    part::<u8>(Layout::now().offsets()[4] + my_slot() * BLOCK)
}

pub fn doorbell() -> i32 {
    DOORBELL.load(Ordering::Acquire)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    Shared,
    Exclusive,
}

/// Runs `body` with the partition of `tag` locked. `body` must not raise errors, wait, or ask for another partition.
pub fn with_partition<T>(tag: RelTag, mode: LockMode, body: impl FnOnce(RelPartition<'_>) -> T) -> T {
    with_partition_number(partition_of(tag), mode, body)
}

/// Number of the partition that a relation's entry is in.
pub fn partition_of(tag: RelTag) -> usize {
    relation_hash(tag) as usize % PARTITIONS
}

/// The same by number, for walks over the whole table.
pub fn with_partition_number<T>(
    number: usize,
    mode: LockMode,
    body: impl FnOnce(RelPartition<'_>) -> T,
) -> T {
    let layout = Layout::now();
    let mode = if mode == LockMode::Shared {
        pg_sys::LWLockMode::LW_SHARED
    } else {
        pg_sys::LWLockMode::LW_EXCLUSIVE
    };
    // SAFETY: the lock exists; under it the cells and the count are this process's alone (shared mode: nobody writes, and our
    // callers only read).
    unsafe {
        let lock = &raw mut (*LOCKS.load(Ordering::Acquire).add(number)).lock;
        pg_sys::LWLockAcquire(lock, mode);
        let first = part::<RelEntry>(layout.offsets()[0]).add(number * layout.relations);
        let cells = std::slice::from_raw_parts_mut(first, layout.relations);
        let used = &mut *(&raw mut (*part::<Fixed>(0)).used).cast::<usize>().add(number);
        let result = body(RelPartition::new(cells, used));
        pg_sys::LWLockRelease(lock);
        result
    }
}

/// The generation of the spill files under one lock: it changes when files are removed, so that no process goes on with
/// descriptors of files that are gone.
pub struct Generation(&'static AtomicU64);

impl Generation {
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn begin_next(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `body` with the spill store of a fork locked. `body` may raise errors, which release the lock as any of the server's,
/// and may lock the relation's partition; nobody waits for a lock of the store with a partition locked.
pub fn with_spill<T>(rel: strata_common::RelFork, mode: LockMode, body: impl FnOnce(&Generation) -> T) -> T {
    // High bits: the low ones pick the relation's partition, and forks of one relation share nothing but by chance.
    let number =
        (relation_hash(rel.rel) >> 24).wrapping_add(u64::from(rel.fork.raw())) as usize % SPILL_LOCKS;
    let wanted = if mode == LockMode::Shared {
        pg_sys::LWLockMode::LW_SHARED
    } else {
        pg_sys::LWLockMode::LW_EXCLUSIVE
    };
    // SAFETY: the lock exists.
    unsafe {
        let lock = &raw mut (*SPILL_LOCK.load(Ordering::Acquire).add(number)).lock;
        pg_sys::LWLockAcquire(lock, wanted);
        let result = body(&Generation(&fixed().spill_generations[number]));
        pg_sys::LWLockRelease(lock);
        result
    }
}

/// A copy of a relation's entry.
pub fn entry(tag: RelTag) -> Option<RelEntry> {
    with_partition(tag, LockMode::Shared, |table| table.get(tag).copied())
}

/// Changes a relation's entry if there is one.
pub fn update<T>(tag: RelTag, change: impl FnOnce(&mut RelEntry) -> T) -> Option<T> {
    with_partition(tag, LockMode::Exclusive, |mut table| table.get_mut(tag).map(change))
}

/// Raises what an unknown read must reflect; at the start to the LSN at which the server starts (L7).
pub fn raise_floor(lsn: Lsn) {
    last_written().raise_floor(lsn);
}
