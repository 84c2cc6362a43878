//! The working set of this server's life so far: which pages were asked for below shared buffers, as a sketch in shared memory
//! (`strata_lfc::working_set`).

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use pgrx::pg_sys;
use pgrx::prelude::*;
use strata_common::hash::page_hash;
use strata_common::{BlockNumber, RelFork};
use strata_lfc::working_set::{Second, WORDS, Window, WorkingSet};

static WORDS_AT: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());

pub const fn shared_bytes() -> usize {
    WORDS * size_of::<AtomicU32>()
}

/// Attaches to the place in shared memory; call from `shmem_startup_hook` with AddinShmemInitLock held.
pub fn attach() {
    let mut found = false;
    // SAFETY: the size was requested; zeroes are an empty sketch.
    unsafe {
        let place = pg_sys::ShmemInitStruct(c"strata working set".as_ptr(), shared_bytes(), &mut found);
        if !found {
            std::ptr::write_bytes(place.cast::<u8>(), 0, shared_bytes());
        }
        WORDS_AT.store(place.cast(), Ordering::Release);
    }
}

/// `None` in a server that was not started with the library preloaded.
fn sketch() -> Option<WorkingSet<'static>> {
    let words = WORDS_AT.load(Ordering::Acquire);
    // SAFETY: laid out by `attach`, as long as the process lives; all words are atomics.
    (!words.is_null()).then(|| WorkingSet::new(unsafe { std::slice::from_raw_parts(words, WORDS) }))
}

/// Seconds of a clock that all processes share and nobody sets; the coarse one, which costs a few nanoseconds.
fn now() -> Second {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    Second(u32::try_from(time.tv_sec).unwrap_or(u32::MAX))
}

/// These pages were asked for.
pub fn touch(rel: RelFork, first: BlockNumber, count: u32) {
    let Some(sketch) = sketch() else { return };
    let now = now();
    for block in first.0..first.0.saturating_add(count) {
        sketch.touch(page_hash(rel, BlockNumber(block)), now);
    }
}

/// Different pages asked for in the last `seconds`, or since the start or the last reset; null in a server without the library.
#[pg_extern]
pub fn strata_working_set_pages(seconds: Option<f64>) -> Option<i64> {
    let window = match seconds {
        None => Window::Ever,
        Some(seconds) if seconds >= 1.0 => Window::Last(seconds.min(f64::from(u32::MAX)) as u32),
        Some(_) => pgrx::error!("a window of the working set is one second or longer"),
    };
    let pages = sketch()?.pages(window, now());
    Some(i64::try_from(pages).unwrap_or(i64::MAX))
}

/// Forgets what was asked for until now.
#[pg_extern]
fn strata_working_set_reset() {
    if let Some(sketch) = sketch() {
        sketch.reset();
    }
}
