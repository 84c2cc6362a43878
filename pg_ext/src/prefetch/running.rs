//! Which plan this process is running just now, so that a read can be traced to the scan that wants it.
//!
//! A frame for each run of the executor lies on the C stack. The frames hang in the server's own list of error contexts: an error that
//! passes a frame takes it off that list, because whoever catches it puts the list back (PG_TRY, the main loop), and a process that
//! exits empties it (`proc_exit_prepare`). So a frame that is found there is of a call that has not ended, and so are its query and
//! its plan, which nobody frees while the executor runs it. Messages of parallel workers are shown with the list as it was when the workers
//! were started (`parallel.c`), but a plan that may run again in another call does not use workers, so none is left when a run ends.
//! Nothing else is remembered of a plan: a cursor between two fetches is in no frame.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgrx::pg_sys;

use super::{plan, scans};

static PREVIOUS_RUN: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS_END: AtomicUsize = AtomicUsize::new(0);

type RunHook = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc, pg_sys::ScanDirection::Type, u64, bool);
type EndHook = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc);

/// The functions without a guard: their errors pass us as they are thrown.
mod raw {
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        pub fn standard_ExecutorRun(
            query: *mut pg_sys::QueryDesc,
            direction: pg_sys::ScanDirection::Type,
            count: u64,
            execute_once: bool,
        );
        pub fn standard_ExecutorEnd(query: *mut pg_sys::QueryDesc);
    }
}

/// Entries of the list of error contexts that are looked at for the innermost frame; between it and a read there are few.
const CONTEXTS_MAX: usize = 32;

/// One run of the executor.
#[repr(C)]
pub struct Frame {
    context: pg_sys::ErrorContextCallback,
    pub query: *mut pg_sys::QueryDesc,
    /// Rows that the caller wants of this run; 0: all.
    pub count: u64,
    /// Whether the caller has had rows of this query before.
    pub is_continued: bool,
    /// The scan that was found last.
    pub found: Cell<Option<plan::Found>>,
}

/// Installs the hooks; call once, from `_PG_init` in the postmaster.
pub fn install() {
    // SAFETY: hooks of the right types; those before are called by ours.
    unsafe {
        let run = pg_sys::ExecutorRun_hook;
        PREVIOUS_RUN.store(run.map_or(0, |hook| hook as usize), Ordering::Relaxed);
        pg_sys::ExecutorRun_hook = Some(on_run);
        let end = pg_sys::ExecutorEnd_hook;
        PREVIOUS_END.store(end.map_or(0, |hook| hook as usize), Ordering::Relaxed);
        pg_sys::ExecutorEnd_hook = Some(on_end);
    }
}

/// Marks a frame in the list; it has nothing to add to a message.
unsafe extern "C-unwind" fn say_nothing(_frame: *mut c_void) {}

/// An error may pass: nothing here has to be cleaned up.
unsafe extern "C-unwind" fn on_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    execute_once: bool,
) {
    // SAFETY: the query is the server's and started. The frame is in the list while this call lasts, and no longer: the server itself
    // relies on that for all contexts. The address is a hook of this very type, or 0.
    unsafe {
        let is_continued = (*(*query).estate).es_total_processed > 0;
        if !is_continued {
            scans::forget(query);
        }
        let previous = pg_sys::error_context_stack;
        let mut frame = Frame {
            context: pg_sys::ErrorContextCallback {
                previous,
                callback: Some(say_nothing),
                arg: std::ptr::null_mut(),
            },
            query,
            count,
            is_continued,
            found: Cell::new(None),
        };
        let place = &raw mut frame;
        (*place).context.arg = place.cast();
        pg_sys::error_context_stack = &raw mut (*place).context;
        let hook: Option<RunHook> = std::mem::transmute(PREVIOUS_RUN.load(Ordering::Relaxed));
        hook.unwrap_or(raw::standard_ExecutorRun)(query, direction, count, execute_once);
        pg_sys::error_context_stack = previous;
    }
}

/// The query is over: nobody reads what was asked for its scans.
unsafe extern "C-unwind" fn on_end(query: *mut pg_sys::QueryDesc) {
    scans::forget(query);
    // SAFETY: as above.
    unsafe {
        let hook: Option<EndHook> = std::mem::transmute(PREVIOUS_END.load(Ordering::Relaxed));
        hook.unwrap_or(raw::standard_ExecutorEnd)(query);
    }
}

/// Calls `look` with the innermost run of the executor, if one is under way.
pub fn with_innermost<T>(look: impl FnOnce(&Frame) -> Option<T>) -> Option<T> {
    // SAFETY: entries of the list are alive (see above), and one with our callback is a frame's, which nothing else points to mutably.
    unsafe {
        let mut context = pg_sys::error_context_stack;
        for _ in 0..CONTEXTS_MAX {
            if context.is_null() {
                return None;
            }
            let is_ours = (*context)
                .callback
                .is_some_and(|callback| callback as usize == say_nothing as *const () as usize);
            if is_ours {
                return look(&*(*context).arg.cast::<Frame>());
            }
            context = (*context).previous;
        }
        None
    }
}
