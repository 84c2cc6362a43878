//! Shared memory of prefetch: counters, the pool's bits, and the pages that answers wait in. Its request slots lie with all others, in
//! `smgr::state`, because the communicator looks through them together.

use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use pgrx::pg_sys;
use strata_common::BLOCK_BYTES;
use strata_smgr::prefetch::{Pool, pool};

use super::settings;

/// Requests under way at most; with those of all processes fewer than a pageserver reads from one stream at a time.
const SLOTS_MAX: usize = 512;
/// As the server aligns its own pages (PG_IO_ALIGN_SIZE).
const ALIGN: usize = 4096;

/// What became of pages that were asked for ahead, since the server's start.
#[repr(C)]
#[derive(Default)]
pub struct Counters {
    pub requested: AtomicU64,
    pub used: AtomicU64,
    /// Of those used: the reader had to wait.
    pub waited: AtomicU64,
    /// L3: changed, or perhaps changed, between request and use.
    pub expired: AtomicU64,
    /// Given up without having been read, and lost.
    pub wasted: AtomicU64,
    /// Not read, but put into the file cache.
    pub cached: AtomicU64,
    /// The pageserver gave no page; they are asked for again if they are read.
    pub refused: AtomicU64,
    /// Of those requested: for index scans.
    pub index_scans: AtomicU64,
}

#[derive(Clone, Copy)]
struct Layout {
    slots: usize,
    pages: usize,
}

/// Measured once, in the postmaster; children inherit it.
static LAYOUT: OnceLock<Layout> = OnceLock::new();
static BASE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
pub static WAIT_EVENT: AtomicU32 = AtomicU32::new(pg_sys::PG_WAIT_EXTENSION);

impl Layout {
    fn now() -> Layout {
        *LAYOUT.get_or_init(|| {
            let pages = settings::buffers();
            Layout { slots: pages.min(SLOTS_MAX), pages }
        })
    }

    /// Offsets of the bits and of the pages, and the whole size with room to align.
    fn offsets(self) -> [usize; 3] {
        let bits = size_of::<Counters>().next_multiple_of(128);
        let pages = bits + pool::words(self.slots, self.pages) * size_of::<AtomicU64>();
        [bits, pages, pages + ALIGN + self.pages * BLOCK_BYTES]
    }
}

/// Request slots wanted beside those of the processes. Call from `shmem_request_hook` or later.
pub fn slots() -> usize {
    Layout::now().slots
}

/// Bytes of shared memory. Call from `shmem_request_hook`.
pub fn request() -> usize {
    let layout = Layout::now();
    if layout.pages == 0 { 0 } else { layout.offsets()[2] }
}

/// Lays the memory out. Call from `shmem_startup_hook` with AddinShmemInitLock held.
pub fn attach() {
    let layout = Layout::now();
    if layout.pages == 0 {
        return;
    }
    let mut found = false;
    // SAFETY: the size was requested; zeroes are valid for the counters and the bits, and pages are filled before they are read.
    unsafe {
        let base = pg_sys::ShmemInitStruct(c"strata prefetch".as_ptr(), layout.offsets()[2], &mut found);
        if !found {
            std::ptr::write_bytes(base.cast::<u8>(), 0, layout.offsets()[1]);
        }
        BASE.store(base, Ordering::Release);
        WAIT_EVENT.store(pg_sys::WaitEventExtensionNew(c"StrataPrefetchedPage".as_ptr()), Ordering::Release);
    }
}

pub fn is_attached() -> bool {
    !BASE.load(Ordering::Acquire).is_null()
}

fn part<T>(offset: usize) -> *mut T {
    let base = BASE.load(Ordering::Acquire);
    assert!(!base.is_null(), "the shared memory of prefetch is not there");
    // SAFETY: the offset lies inside the memory that `attach` laid out.
    unsafe { base.byte_add(offset).cast() }
}

pub fn counters() -> &'static Counters {
    // SAFETY: zeroed by `attach`, as long as the process lives; all fields are atomics.
    unsafe { &*part::<Counters>(0) }
}

pub fn pool() -> Pool<'static> {
    let layout = Layout::now();
    let words = pool::words(layout.slots, layout.pages);
    // SAFETY: as above.
    let bits = unsafe { std::slice::from_raw_parts(part::<AtomicU64>(layout.offsets()[0]), words) };
    Pool::new(bits, layout.slots, layout.pages)
}

fn first_page() -> usize {
    (part::<u8>(Layout::now().offsets()[1]) as usize).next_multiple_of(ALIGN)
}

/// Address of a page, the same in every process.
pub fn address_of(page: usize) -> u64 {
    assert!(page < Layout::now().pages, "a page of the pool");
    (first_page() + page * BLOCK_BYTES) as u64
}

/// The page at an address.
pub fn page_at(address: u64) -> usize {
    (address as usize - first_page()) / BLOCK_BYTES
}
