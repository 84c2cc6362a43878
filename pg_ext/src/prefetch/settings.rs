//! Settings of prefetch.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;

static BUFFERS: GucSetting<i32> = GucSetting::<i32>::new(2048);
static INDEX_SCANS: GucSetting<bool> = GucSetting::<bool>::new(true);
static MAX: GucSetting<i32> = GucSetting::<i32>::new(256);

/// Pages that advice of the server itself reaches ahead, where the user says nothing. Its own defaults (1 and 10) are made for a disk
/// in the same machine.
const ADVICE: &std::ffi::CStr = c"32";

pub fn register() {
    GucRegistry::define_int_guc(
        c"strata.prefetch_buffers",
        c"Shared memory for pages that were asked for ahead; 0: nothing is asked for ahead.",
        c"All sessions share it. Slots for requests take about a tenth of it beside.",
        &BUFFERS,
        0,
        1 << 17,
        GucContext::Postmaster,
        GucFlags::UNIT_BLOCKS,
    );
    GucRegistry::define_int_guc(
        c"strata.prefetch_max",
        c"Pages that one session may have asked for ahead; 0: none.",
        c"Bounds the read-ahead of sequential scans and the server's own advice (effective_io_concurrency).",
        &MAX,
        0,
        4096,
        GucContext::Userset,
        GucFlags::UNIT_BLOCKS,
    );
    GucRegistry::define_bool_guc(
        c"strata.prefetch_index_scans",
        c"Asks for the pages that an index scan will read ahead of it.",
        c"Of btrees, from the entries of the index page that the scan is on.",
        &INDEX_SCANS,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// With remote storage the server gives more advice, unless the user has set it otherwise.
pub fn raise_advice() {
    for name in [c"effective_io_concurrency", c"maintenance_io_concurrency"] {
        // SAFETY: while libraries are loaded, settings may be set; the strings are static. The source is the weakest but the built-in
        // value, so whatever the user gave stays.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                ADVICE.as_ptr(),
                pg_sys::GucContext::PGC_POSTMASTER,
                pg_sys::GucSource::PGC_S_DYNAMIC_DEFAULT,
            );
        }
    }
}

pub fn buffers() -> usize {
    usize::try_from(BUFFERS.get()).unwrap_or(0)
}

pub fn index_scans() -> bool {
    INDEX_SCANS.get()
}

/// Pages of this session. Half of all at most: what a session holds in an open transaction without reading on is lost to others.
pub fn max() -> usize {
    usize::try_from(MAX.get()).unwrap_or(0).min(buffers().div_ceil(2))
}
