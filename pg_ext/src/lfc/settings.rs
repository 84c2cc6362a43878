//! Settings of the local file cache.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

static MAX_SIZE: GucSetting<i32> = GucSetting::<i32>::new(0);
static SIZE_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(-1);
static STATE_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(300);
static PATH: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"strata_lfc"));

/// 64 TiB in MiB.
const SIZE_MAX_MIB: i32 = 64 << 20;

pub fn register() {
    GucRegistry::define_int_guc(
        c"strata.lfc_max_size",
        c"Largest size of the local file cache; 0: no cache.",
        c"Its index and strata.last_written_cells take about 16 kB of shared memory for each MB.",
        &MAX_SIZE,
        0,
        SIZE_MAX_MIB,
        GucContext::Postmaster,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_int_guc(
        c"strata.lfc_size_limit",
        c"Size up to which the local file cache is used at present; -1: the largest.",
        c"The cache grows and shrinks to it while the server runs.",
        &SIZE_LIMIT,
        -1,
        SIZE_MAX_MIB,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_int_guc(
        c"strata.lfc_state_interval",
        c"How often the list of cached pages is put into the object store, if it has changed; 0: never.",
        c"strata_lfc_prewarm_remote() reads the pages of that list, also after a loss.",
        &STATE_INTERVAL,
        0,
        7 * 24 * 3600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_string_guc(
        c"strata.lfc_path",
        c"File of the local file cache.",
        c"A relative path begins in the data directory. At its default place the cache outlives a clean stop.",
        &PATH,
        GucContext::Postmaster,
        GucFlags::default(),
    );
}

/// Largest size, MiB.
pub fn max_mib() -> u32 {
    u32::try_from(MAX_SIZE.get()).unwrap_or(0)
}

/// Size that may be used now, MiB.
pub fn limit_mib() -> u32 {
    u32::try_from(SIZE_LIMIT.get()).unwrap_or(u32::MAX).min(max_mib())
}

/// How often the list of cached pages is put into the object store; zero: never.
pub fn state_interval() -> Duration {
    Duration::from_secs(u64::try_from(STATE_INTERVAL.get()).unwrap_or(0))
}

pub fn path() -> PathBuf {
    PathBuf::from(crate::guc::value(&PATH))
}
