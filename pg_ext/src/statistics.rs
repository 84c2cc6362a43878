//! Statistics survive a clean stop (S12): autovacuum would not know what to do after it.
//!
//! The server writes them to a file when it has stopped, after the last record of its log. So the keeper has them written when no
//! session is left, and logs the file as its last message before the shutdown checkpoint; the pageserver lays it into base
//! backups of exactly that LSN. What the checkpointer counts after that is lost.

use pgrx::pg_sys;

/// Prefix of the message; `sidecar-pageserver/src/ingest/statistics.rs` reads it.
const PREFIX: &std::ffi::CStr = c"strata.pgstat";
/// `PGSTAT_STAT_PERMANENT_FILENAME` (`src/include/pgstat.h`).
const FILE: &str = "pg_stat/pgstat.stat";
/// Larger files are not kept: they would be one record, and one value at the pageserver.
const BYTES_MAX: usize = 16 << 20;

/// The beginning of `PgStat_LocalState` and of what it points at (`src/include/utils/pgstat_internal.h`).
#[repr(C)]
struct Local {
    shared: *mut Shared,
}

#[repr(C)]
struct Shared {
    raw_dsa_area: *mut std::ffi::c_void,
    hash_handle: u64,
    is_shut_down: bool,
}

unsafe extern "C-unwind" {
    #[allow(non_upper_case_globals, reason = "the server's name")]
    static pgStatLocal: Local;
    /// `src/backend/utils/activity/pgstat.c`.
    fn pgstat_before_server_shutdown(code: libc::c_int, argument: pg_sys::Datum);
    /// `src/include/replication/message.h`.
    fn LogLogicalMessage(
        prefix: *const std::ffi::c_char,
        message: *const std::ffi::c_char,
        size: usize,
        transactional: bool,
        flush: bool,
    ) -> pg_sys::XLogRecPtr;
}

/// Logs the statistics as they are. For a process without a transaction, when no other will report any more; nothing of the log may
/// come between this and the shutdown checkpoint.
pub fn save() {
    // SAFETY: writes the file and marks statistics as shut down, which the checkpointer does again at its own end: the mark is
    // taken back for it.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| pgstat_before_server_shutdown(0, pg_sys::Datum::from(0)));
        (*pgStatLocal.shared).is_shut_down = false;
    }
    match std::fs::read(FILE) {
        Ok(file) if file.len() <= BYTES_MAX => {
            // SAFETY: the message is copied into the record.
            unsafe {
                pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    LogLogicalMessage(PREFIX.as_ptr(), file.as_ptr().cast(), file.len(), false, true)
                })
            };
        }
        Ok(file) => {
            pgrx::log!("statistics of {} bytes are not kept, {BYTES_MAX} are possible", file.len());
        }
        Err(error) => pgrx::log!("statistics are not kept: could not read \"{FILE}\": {error}"),
    }
}
