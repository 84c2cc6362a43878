//! Positions in the log: where the last record ended, and making sure that a position can be asked for (traps L1, W4).

use pgrx::pg_sys;
use strata_common::{Guard, Lsn};
use strata_smgr::insert_lsn::end_of_last_record;

/// End of the last record inserted by anybody.
pub fn insert_lsn() -> Lsn {
    // SAFETY: these read shared memory. In recovery nothing is inserted: what is replayed counts.
    unsafe {
        if pg_sys::RecoveryInProgress() {
            return Lsn(pg_sys::GetXLogReplayRecPtr(std::ptr::null_mut()));
        }
        end_of_last_record(Lsn(pg_sys::GetXLogInsertRecPtr()), pg_sys::wal_segment_size as u64)
    }
}

/// End of this backend's last record in its transaction; 0 if it has written none.
pub fn my_last_record_end() -> Lsn {
    // SAFETY: a plain variable of this backend (xlog.c).
    Lsn(unsafe { pg_sys::XactLastRecEnd })
}

/// Only flushed log is sent: whoever waits for more would wait for ever (W4).
pub fn flush_to(lsn: Lsn) {
    // SAFETY: as above; XLogFlush may be called wherever pages are read.
    unsafe {
        if Guard::FlushFirst.holds()
            && !pg_sys::RecoveryInProgress()
            && Lsn(pg_sys::GetFlushRecPtr(std::ptr::null_mut())) < lsn
        {
            pg_sys::XLogFlush(lsn.0);
        }
    }
}
