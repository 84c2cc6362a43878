//! The storage manager's own settings, and which mode the server runs in.

use std::ffi::CString;
use std::num::NonZero;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use strata_smgr::LastWritten;
use strata_smgr::spin;

static COMPARE_LOCAL: GucSetting<bool> = GucSetting::<bool>::new(false);
static RELATION_SLOTS: GucSetting<i32> = GucSetting::<i32>::new(131_072);
static KEEPER_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static LAST_WRITTEN_CELLS: GucSetting<i32> = GucSetting::<i32>::new(CELLS_MIN);
static SPIN_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(50);

/// Counted once, in the postmaster: it takes reading files. Children inherit it.
static CORES: OnceLock<usize> = OnceLock::new();

/// Pages' cells of the table of last-written LSNs where nothing is said.
const CELLS_MIN: i32 = 1 << 17;
const CELLS_MAX: i32 = 1 << 24;

/// How permanent relations are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Mode {
    /// In files, as ever: our table is not used at all.
    Local = 0,
    /// On the pageserver.
    Remote = 1,
    /// A test aid: in files, with all bookkeeping of `Remote` beside it, every answer checked against the files.
    Compare = 2,
}

static MODE: AtomicU8 = AtomicU8::new(Mode::Local as u8);

/// How the server came to call us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Entry {
    /// By the hook that the patch adds.
    Registered = 0,
    /// Its own table was taken over.
    Stock = 1,
}

static ENTRY: AtomicU8 = AtomicU8::new(Entry::Registered as u8);

pub fn set_entry(entry: Entry) {
    ENTRY.store(entry as u8, Ordering::Release);
}

pub fn entry() -> Entry {
    if ENTRY.load(Ordering::Acquire) == Entry::Stock as u8 { Entry::Stock } else { Entry::Registered }
}

pub fn register() {
    crate::lfc::settings::register();
    crate::prefetch::settings::register();
    GucRegistry::define_bool_guc(
        c"strata.compare_local",
        c"Keeps local copies of pages and checks every answer of the storage manager against them (test aid).",
        c"With a pageserver: checks its pages against copies of what was written. Without one: checks the bookkeeping against files.",
        &COMPARE_LOCAL,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"strata.relation_slots",
        c"Relations whose class and sizes are kept in shared memory.",
        c"A power of two. Relations changed since the start need one each; about 100 bytes a slot.",
        &RELATION_SLOTS,
        1024,
        1 << 24,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"strata.keeper_interval",
        c"How often free space maps are saved and the spill store is tidied.",
        c"A compute that is lost loses what free space maps learned in that time; 2048 pages a round at most.",
        &KEEPER_INTERVAL,
        100,
        3_600_000,
        GucContext::Postmaster,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"strata.last_written_cells",
        c"Cells for pages of the table of last-written LSNs.",
        c"More cells make fewer reads wait for log that does not concern them; 8 bytes a cell, and up to 1 MB for whole forks and sizes.",
        &LAST_WRITTEN_CELLS,
        1024,
        1 << 28,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"strata.spin_limit",
        c"Microseconds that a session spins for an answer of the pageserver before it sleeps; 0: none.",
        c"Only while answers come within about that time, and not on a single core.",
        &SPIN_LIMIT,
        0,
        1000,
        GucContext::Userset,
        GucFlags::default(),
    );
    // Here, so that no session has to.
    cores();
    let cells = CString::new(default_cells(crate::lfc::pages_at_most()).to_string())
        .expect("digits hold no zero byte");
    // SAFETY: while libraries are loaded, settings of the server's start may be set; both strings end with 0 and are copied.
    unsafe {
        pg_sys::SetConfigOption(
            c"strata.last_written_cells".as_ptr(),
            cells.as_ptr(),
            pg_sys::GucContext::PGC_POSTMASTER,
            pg_sys::GucSource::PGC_S_DYNAMIC_DEFAULT,
        );
    }
}

/// By the size of the file cache.
fn default_cells(cached_pages: usize) -> i32 {
    let cells = i32::try_from(LastWritten::page_cells_for(cached_pages)).unwrap_or(CELLS_MAX);
    cells.clamp(CELLS_MIN, CELLS_MAX)
}

fn cores() -> usize {
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get))
}

/// How long a wait may spin; zero: not at all.
pub fn spin_limit() -> Duration {
    spin::limit(Duration::from_micros(u64::try_from(SPIN_LIMIT.get()).unwrap_or(0)), cores())
}

/// How often the keeper goes round.
pub fn keeper_interval_ms() -> u64 {
    u64::try_from(KEEPER_INTERVAL.get()).unwrap_or(10_000)
}

/// Compiled queries call built-in functions by their names, not through the server's table of functions, and may carry copies of
/// constant tables with them: both would go around what was taken over. A provider that does not exist is how the server itself
/// goes without compilation; no session can name another.
pub fn forbid_compiled_queries() {
    // SAFETY: while libraries are loaded, settings of the server's start may be set; the strings are static.
    unsafe {
        pg_sys::SetConfigOption(
            c"jit_provider".as_ptr(),
            c"not_with_strata".as_ptr(),
            pg_sys::GucContext::PGC_POSTMASTER,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

pub fn relation_slots() -> usize {
    usize::try_from(RELATION_SLOTS.get()).unwrap_or(1024).next_power_of_two()
}

pub fn last_written_cells() -> usize {
    usize::try_from(LAST_WRITTEN_CELLS.get()).unwrap_or(1024)
}

pub fn compare_wanted() -> bool {
    COMPARE_LOCAL.get()
}

pub fn set_mode(mode: Mode) {
    MODE.store(mode as u8, Ordering::Release);
}

pub fn mode() -> Mode {
    match MODE.load(Ordering::Acquire) {
        1 => Mode::Remote,
        2 => Mode::Compare,
        _ => Mode::Local,
    }
}
