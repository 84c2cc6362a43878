//! What a process waits for, as `pg_stat_activity` shows it (type `Extension`).

use std::sync::atomic::{AtomicU32, Ordering};

use pgrx::pg_sys;

/// The wait, as long as it lasts; an unwinding ends it too. Two stores, so it may stand around what is done in microseconds.
pub struct WaitEvent;

impl WaitEvent {
    /// `event` is a number that the server gave for a name (`WaitEventExtensionNew`).
    pub fn begin(event: &AtomicU32) -> WaitEvent {
        // SAFETY: the variable points at this process's entry, or at a local one before there is any (wait_event.c).
        unsafe { *pg_sys::my_wait_event_info = event.load(Ordering::Relaxed) };
        WaitEvent
    }
}

impl Drop for WaitEvent {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { *pg_sys::my_wait_event_info = 0 };
    }
}
