//! The worker's replication slot: local log stays until a majority has it, also while the quorum is stalled (trap K15).
//!
//! A data directory is new at every start, so the slot is made at the worker's first start in it and found again when the worker
//! comes back. A slot that vanished in between was dropped by somebody: its log may be gone, and the server stops.

use std::ffi::CStr;

use pgrx::pg_sys;
use strata_common::Lsn;

use super::entry::Spin;

const NAME: &CStr = c"strata_quorum";

pub struct Slot {
    place: *mut pg_sys::ReplicationSlot,
    saved: Lsn,
    segment_bytes: u64,
}

impl Slot {
    /// Takes the slot, which must be as an earlier worker of this server left it: not dropped, and not moved ahead of `committed`,
    /// what a majority has. Without one before there must be none: the data directory is new.
    pub fn take(before: Option<Lsn>, start: Lsn, segment_bytes: u64) -> Slot {
        // SAFETY: replication slots are ready before any worker starts; errors end this worker.
        unsafe {
            let found = pg_sys::SearchNamedReplicationSlot(NAME.as_ptr(), true);
            if !found.is_null() {
                pg_sys::ReplicationSlotAcquire(NAME.as_ptr(), true);
                let restart = Lsn((*found).data.restart_lsn);
                let ours = before.is_some_and(|committed| restart <= committed.max(start));
                if !ours || !restart.is_valid() {
                    pgrx::PANIC!(
                        "the replication slot {NAME:?} was made or moved by somebody else, to {restart}: log that the quorum lacks may be gone"
                    );
                }
            } else if before.is_some() {
                pgrx::PANIC!(
                    "the replication slot {NAME:?} was dropped: log that the quorum lacks may be gone"
                );
            } else {
                let persistent = pg_sys::ReplicationSlotPersistency::RS_PERSISTENT;
                pg_sys::ReplicationSlotCreate(NAME.as_ptr(), false, persistent, false, false, false);
            }
            let mut slot = Slot { place: pg_sys::MyReplicationSlot, saved: Lsn::INVALID, segment_bytes };
            let known = Lsn((*slot.place).data.restart_lsn);
            slot.set(known.max(start));
            slot
        }
    }

    /// Log below `lsn` may be removed here. Written down once a segment.
    pub fn advance(&mut self, lsn: Lsn) {
        if lsn.segment_number(self.segment_bytes) > self.saved.segment_number(self.segment_bytes) {
            // SAFETY: this worker holds the slot.
            unsafe { self.set(lsn) };
        }
    }

    unsafe fn set(&mut self, lsn: Lsn) {
        // SAFETY: the slot is acquired by this process; its fields change under its spinlock (slot.c).
        unsafe {
            let locked = Spin::lock(&raw mut (*self.place).mutex);
            (*self.place).data.restart_lsn = lsn.0;
            drop(locked);
            pg_sys::ReplicationSlotMarkDirty();
            pg_sys::ReplicationSlotSave();
            pg_sys::ReplicationSlotsComputeRequiredLSN();
        }
        self.saved = lsn;
    }
}
