//! The cache's shared memory: partitions of the index, a lock for each, and counters. Zeroes are their first state.

use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use pgrx::pg_sys;
use strata_common::BLOCK_BYTES;
use strata_lfc::partition::Head;
use strata_lfc::{Entry, PageName, Partition, Place};

use super::{Counters, file, kept, settings};
use crate::smgr::settings::{Mode, mode};

/// Parts of the index, each with a lock (C6).
pub const PARTITIONS: usize = 64;
const TRANCHE: &std::ffi::CStr = c"strata_lfc";
const PAGES_PER_MIB: usize = (1 << 20) / BLOCK_BYTES;

/// Sizes of a partition's parts. Measured once, in the postmaster; children inherit it.
#[derive(Clone, Copy)]
struct Layout {
    places: usize,
    buckets: usize,
}

static LAYOUT: OnceLock<Layout> = OnceLock::new();
static BASE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static LOCKS: AtomicPtr<pg_sys::LWLockPadded> = AtomicPtr::new(std::ptr::null_mut());

impl Layout {
    fn now() -> Layout {
        *LAYOUT.get().expect("shared memory was asked for before it is used")
    }

    /// Offsets of head, buckets, entries and ghosts in a partition, and its size.
    fn offsets(self) -> [usize; 5] {
        let line = |bytes: usize| bytes.next_multiple_of(128);
        let buckets = line(size_of::<Head>());
        let entries = buckets + line(self.buckets * size_of::<AtomicU32>());
        let ghosts = entries + line(self.places * size_of::<Entry>());
        [0, buckets, entries, ghosts, ghosts + line(self.places * size_of::<AtomicU64>())]
    }

    fn bytes(self) -> usize {
        size_of::<Counters>().next_multiple_of(128) + PARTITIONS * self.offsets()[4]
    }
}

/// Bytes of shared memory; also asks for the locks. Call from `shmem_request_hook`.
pub fn request() -> usize {
    if settings::max_mib() == 0 || mode() != Mode::Remote {
        return 0;
    }
    let places = pages_at_most().div_ceil(PARTITIONS);
    let layout = *LAYOUT.get_or_init(|| Layout { places, buckets: places.next_power_of_two() });
    // SAFETY: called from the request hook, the one place where this is allowed.
    unsafe { pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), PARTITIONS as i32) };
    layout.bytes()
}

/// Lays the memory out and makes the file, or goes on with what a former server left. Call from `shmem_startup_hook` with AddinShmemInitLock held.
pub fn attach() {
    let Some(layout) = LAYOUT.get() else { return };
    let mut found = false;
    // SAFETY: the size was requested; new memory is zero (`crate::shmem`), which is valid for all parts.
    unsafe {
        let base = pg_sys::ShmemInitStruct(c"strata file cache".as_ptr(), layout.bytes(), &mut found);
        BASE.store(base, Ordering::Release);
        LOCKS.store(pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr()), Ordering::Release);
    }
    file::name_waits();
    if !found {
        let limit = settings::limit_mib();
        counters().limit_mib.store(limit, Ordering::Release);
        // Nobody else is there yet.
        (0..PARTITIONS)
            .for_each(|number| without_lock(number, |partition| partition.set_limit(places_for(limit))));
        if kept::restore() {
            // Free places hold bytes of former pages. What is above the limit, `follow_limit` gives back to the disk.
            counters().limit_mib.store(settings::max_mib(), Ordering::Release);
        } else {
            make_file();
        }
        // Children open it for themselves.
        file::close();
        kept::write_at_exit();
    }
}

fn make_file() {
    if let Err(error) = file::make() {
        pgrx::error!(
            "could not make file \"{}\" for the local file cache: {error}; set strata.lfc_path to a place that the server may write to, or strata.lfc_max_size to 0",
            settings::path().display()
        );
    }
}

pub fn is_attached() -> bool {
    !BASE.load(Ordering::Acquire).is_null()
}

fn base() -> *mut c_void {
    let base = BASE.load(Ordering::Acquire);
    assert!(!base.is_null(), "the file cache's shared memory is not there");
    base
}

pub fn counters() -> &'static Counters {
    // SAFETY: zero when `attach` laid it out, as long as the process lives; all fields are atomics.
    unsafe { &*base().cast::<Counters>() }
}

/// Places of one partition if so many MiB may be used.
pub fn places_for(mib: u32) -> u32 {
    u32::try_from((mib as usize * PAGES_PER_MIB).div_ceil(PARTITIONS)).unwrap_or(u32::MAX)
}

/// Pages of the largest size that is set; known before shared memory is laid out.
pub fn pages_at_most() -> usize {
    settings::max_mib() as usize * PAGES_PER_MIB
}

/// Places that the whole cache may ever have.
pub fn places_in_file() -> u64 {
    (Layout::now().places * PARTITIONS) as u64
}

pub fn partition_of(name: PageName) -> usize {
    name.hash() as usize % PARTITIONS
}

/// Number of a place in the file, pages. Independent of how large the cache may be: one that is kept may be given another size.
pub fn place_in_file(partition: usize, place: Place) -> u64 {
    u64::from(place.0) * PARTITIONS as u64 + partition as u64
}

/// The partition that a place of the file belongs to, and its number there.
pub fn place_of(in_file: u64) -> (usize, Place) {
    let place = u32::try_from(in_file / PARTITIONS as u64).unwrap_or(u32::MAX);
    ((in_file % PARTITIONS as u64) as usize, Place(place))
}

/// For what needs no lock.
pub fn without_lock<T>(number: usize, body: impl FnOnce(Partition<'static>) -> T) -> T {
    let layout = Layout::now();
    let [head, buckets, entries, ghosts, bytes] = layout.offsets();
    // SAFETY: laid out and zeroed by `attach`; all parts are made of atomics.
    unsafe {
        let start = base().byte_add(size_of::<Counters>().next_multiple_of(128) + number * bytes);
        body(Partition::new(
            &*start.byte_add(head).cast::<Head>(),
            std::slice::from_raw_parts(start.byte_add(buckets).cast::<AtomicU32>(), layout.buckets),
            std::slice::from_raw_parts(start.byte_add(entries).cast::<Entry>(), layout.places),
            std::slice::from_raw_parts(start.byte_add(ghosts).cast::<AtomicU64>(), layout.places),
        ))
    }
}

/// Runs `body` with the partition locked for readers. `body` must not raise errors or wait.
pub fn shared<T>(number: usize, body: impl FnOnce(Partition<'static>) -> T) -> T {
    locked(number, pg_sys::LWLockMode::LW_SHARED, body)
}

/// Runs `body` with the partition locked. `body` must not raise errors or wait.
pub fn exclusive<T>(number: usize, body: impl FnOnce(Partition<'static>) -> T) -> T {
    locked(number, pg_sys::LWLockMode::LW_EXCLUSIVE, body)
}

fn locked<T>(number: usize, mode: pg_sys::LWLockMode::Type, body: impl FnOnce(Partition<'static>) -> T) -> T {
    // SAFETY: the lock exists and is released again here.
    unsafe {
        let lock = &raw mut (*LOCKS.load(Ordering::Acquire).add(number)).lock;
        pg_sys::LWLockAcquire(lock, mode);
        let result = without_lock(number, body);
        pg_sys::LWLockRelease(lock);
        result
    }
}
