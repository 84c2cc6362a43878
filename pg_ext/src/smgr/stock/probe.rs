//! Calls the server's functions once with recorders in the table, to see them come through it.
//!
//! The relation has a database that cannot exist. Were a file looked for after all, none would be found, and the server would say
//! so with an error, which is caught: the server does not start.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

use pgrx::PgTryBuilder;
use pgrx::pg_sys::{self, BlockNumber, Oid, RelFileLocatorBackend, SMgrRelation, SMgrRelationData};

use crate::smgr::ffi::{FSmgr, RawFork};

/// The slots that were reached, a bit each.
static REACHED: AtomicU32 = AtomicU32::new(0);

fn reached(slot: u32) {
    REACHED.fetch_or(1 << slot, Ordering::Relaxed);
}

pub static TABLE: FSmgr = FSmgr {
    smgr_init: None,
    smgr_shutdown: None,
    smgr_open: open,
    smgr_close: close,
    smgr_create: create,
    smgr_exists: exists,
    smgr_unlink: unlink,
    smgr_extend: extend,
    smgr_zeroextend: zeroextend,
    smgr_prefetch: prefetch,
    smgr_readv: readv,
    smgr_writev: writev,
    smgr_writeback: writeback,
    smgr_nblocks: nblocks,
    smgr_truncate: truncate,
    smgr_immedsync: immedsync,
    smgr_registersync: registersync,
};

macro_rules! recorders {
    ($($slot:literal $name:ident($($type:ty),*) $(-> $result:ty = $answer:expr)?;)*) => {
        $(unsafe extern "C-unwind" fn $name($(_: $type),*) $(-> $result)? {
            reached($slot);
            $($answer)?
        })*
    };
}

recorders! {
    2 open(SMgrRelation);
    3 close(SMgrRelation, RawFork);
    4 create(SMgrRelation, RawFork, bool);
    5 exists(SMgrRelation, RawFork) -> bool = false;
    6 unlink(RelFileLocatorBackend, RawFork, bool);
    7 extend(SMgrRelation, RawFork, BlockNumber, *const c_void, bool);
    8 zeroextend(SMgrRelation, RawFork, BlockNumber, c_int, bool);
    9 prefetch(SMgrRelation, RawFork, BlockNumber, c_int) -> bool = false;
    10 readv(SMgrRelation, RawFork, BlockNumber, *mut *mut c_void, BlockNumber);
    11 writev(SMgrRelation, RawFork, BlockNumber, *mut *const c_void, BlockNumber, bool);
    12 writeback(SMgrRelation, RawFork, BlockNumber, BlockNumber);
    13 nblocks(SMgrRelation, RawFork) -> BlockNumber = 0;
    14 truncate(SMgrRelation, RawFork, BlockNumber, BlockNumber);
    15 immedsync(SMgrRelation, RawFork);
    16 registersync(SMgrRelation, RawFork);
}

const DEFAULT_TABLESPACE: u32 = 1663;
/// The highest number; the server gives out database numbers from a counter that wraps far below it in practice.
const NO_DATABASE: u32 = u32::MAX;

/// # Safety
/// In the postmaster while libraries are loaded, with the recorders in the server's table.
pub unsafe fn run() -> Result<(), String> {
    // SAFETY: all zero is a closed relation (smgr.h); nothing keeps its address.
    let mut relation: SMgrRelationData = unsafe { std::mem::zeroed() };
    relation.smgr_rlocator.locator.spcOid = Oid::from(DEFAULT_TABLESPACE);
    relation.smgr_rlocator.locator.dbOid = Oid::from(NO_DATABASE);
    relation.smgr_rlocator.locator.relNumber = Oid::from(1);
    relation.smgr_rlocator.backend = pg_sys::INVALID_PROC_NUMBER;
    relation.smgr_cached_nblocks = [pg_sys::InvalidBlockNumber; 4];
    let reln = &raw mut relation;
    let main = pg_sys::ForkNumber::MAIN_FORKNUM;
    let mut page = [0u8; pg_sys::BLCKSZ as usize];
    let mut pages = [(&raw mut page).cast::<c_void>()];
    let mut sources = [(&raw const page).cast::<c_void>()];
    let source = sources[0];
    // SAFETY: the server's own functions on a relation that is nobody else's, none of which needs shared memory (smgr.c).
    let calls: [(u32, &str, &mut dyn FnMut()); 12] = unsafe {
        [
            (5, "smgrexists", &mut || _ = pg_sys::smgrexists(reln, main)),
            (3, "smgrrelease", &mut || pg_sys::smgrrelease(reln)),
            (9, "smgrprefetch", &mut || _ = pg_sys::smgrprefetch(reln, main, 0, 1)),
            (13, "smgrnblocks", &mut || _ = pg_sys::smgrnblocks(reln, main)),
            (10, "smgrreadv", &mut || pg_sys::smgrreadv(reln, main, 0, pages.as_mut_ptr(), 1)),
            (12, "smgrwriteback", &mut || pg_sys::smgrwriteback(reln, main, 0, 1)),
            (16, "smgrregistersync", &mut || pg_sys::smgrregistersync(reln, main)),
            (15, "smgrimmedsync", &mut || pg_sys::smgrimmedsync(reln, main)),
            (4, "smgrcreate", &mut || pg_sys::smgrcreate(reln, main, false)),
            (11, "smgrwritev", &mut || pg_sys::smgrwritev(reln, main, 0, sources.as_mut_ptr(), 1, true)),
            (7, "smgrextend", &mut || pg_sys::smgrextend(reln, main, 0, source, true)),
            (8, "smgrzeroextend", &mut || pg_sys::smgrzeroextend(reln, main, 1, 1, true)),
        ]
    };
    for (slot, name, call) in calls {
        REACHED.store(0, Ordering::Relaxed);
        let whole = PgTryBuilder::new(std::panic::AssertUnwindSafe(|| {
            call();
            true
        }))
        .catch_others(|_| false)
        .execute();
        if !whole || REACHED.load(Ordering::Relaxed) != 1 << slot {
            return Err(format!("{name} does not come through the table"));
        }
    }
    Ok(())
}
