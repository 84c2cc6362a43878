//! The settings `strata.*`. The supervisor gives them on the server's command line, but for the pageserver's address, which may change
//! while the server runs and so stands in a file; `docs/settings.md` lists them.
//!
//! An empty `strata.pageserver` means local files, an empty `strata.safekeepers` means no quorum: both are said by
//! `strata_smgr_mode()` and `strata_safekeepers`, so that nobody takes one for the other.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicU8, Ordering};

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use strata_common::{Lsn, NodeId, TenantTimelineId, Term};

pub static TENANT_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub static TIMELINE_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub static PAGESERVER: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub static SAFEKEEPERS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub static TERM: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub static START_LSN: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub static LFC_KEPT_TERM: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Defines every setting. Call once, from `_PG_init` in the postmaster.
pub fn register() {
    let text = |name: &'static CStr, short: &'static CStr, setting: &'static GucSetting<Option<CString>>| {
        let flags = GucFlags::DISALLOW_IN_FILE | GucFlags::DISALLOW_IN_AUTO_FILE;
        GucRegistry::define_string_guc(
            name,
            short,
            c"Set by the compute supervisor.",
            setting,
            GucContext::Postmaster,
            flags,
        );
    };
    text(c"strata.tenant_id", c"Tenant that this server works for (32 hex digits).", &TENANT_ID);
    text(c"strata.timeline_id", c"Timeline that this server writes (32 hex digits).", &TIMELINE_ID);
    // SAFETY: the hook touches nothing but its arguments, and cannot panic.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"strata.pageserver",
            c"Where pages come from, host:port; empty: local files.",
            c"Set by the compute supervisor. The address can change while the server runs, not whether there is one.",
            &PAGESERVER,
            GucContext::Sighup,
            GucFlags::DISALLOW_IN_AUTO_FILE,
            Some(check_pageserver),
            None,
            None,
        );
    }
    text(
        c"strata.safekeepers",
        c"Who keeps the log, id=host:port separated by commas; empty: no quorum.",
        &SAFEKEEPERS,
    );
    text(c"strata.term", c"Term in which the supervisor was elected.", &TERM);
    text(c"strata.start_lsn", c"Log position at which this server started.", &START_LSN);
    text(
        c"strata.lfc_kept_term",
        c"Term whose server left a local file cache that is still the newest; empty: none.",
        &LFC_KEPT_TERM,
    );
}

/// Whether the server has started, and if so, with a pageserver or without.
static STORAGE: AtomicU8 = AtomicU8::new(UNDECIDED);
const UNDECIDED: u8 = 0;
const WITH_PAGESERVER: u8 = 1;
const WITHOUT: u8 = 2;

/// From now on there is a pageserver, or there is none, as long as the server lives. Call at the end of `_PG_init` in the postmaster.
pub fn fix_storage() {
    let storage = if value(&PAGESERVER).is_empty() { WITHOUT } else { WITH_PAGESERVER };
    STORAGE.store(storage, Ordering::Relaxed);
}

/// Check hook: an address with a port, and none only where there was none. It never looks at the setting itself: a parallel worker frees
/// the value that it was forked with, tries the built-in one and only then takes its leader's (guc.c, RestoreGUCState).
unsafe extern "C-unwind" fn check_pageserver(
    wanted: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the server passes a text, or none, and takes the reason as it is, without freeing it (guc.c).
    unsafe {
        if pg_sys::InitializingParallelWorker {
            return true;
        }
        let wanted = if (*wanted).is_null() { c"" } else { CStr::from_ptr(*wanted) };
        let unfit = if wanted.is_empty() { WITH_PAGESERVER } else { WITHOUT };
        let reason = if STORAGE.load(Ordering::Relaxed) == unfit {
            c"whether pages come from a pageserver is decided at the server's start"
        } else if !wanted.is_empty() && !is_address(wanted) {
            c"an address is host:port"
        } else {
            return true;
        };
        pg_sys::GUC_check_errdetail_string = reason.as_ptr().cast_mut();
        false
    }
}

/// Whether it is `host:port`.
fn is_address(text: &CStr) -> bool {
    let parts = text.to_str().ok().and_then(|text| text.rsplit_once(':'));
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
}

/// The value of a text setting; empty if it is not set.
pub fn value(setting: &'static GucSetting<Option<CString>>) -> String {
    setting.get().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The timeline that this server works for.
pub fn timeline() -> Result<TenantTimelineId, String> {
    let tenant = value(&TENANT_ID).parse().map_err(|error| format!("strata.tenant_id: {error}"))?;
    let timeline = value(&TIMELINE_ID).parse().map_err(|error| format!("strata.timeline_id: {error}"))?;
    Ok(TenantTimelineId { tenant, timeline })
}

/// In which term this server writes, and from where on; `None`: it writes no log that others keep.
pub fn writer() -> Result<Option<(Term, Lsn)>, String> {
    let (term, start_lsn) = (value(&TERM), value(&START_LSN));
    if term.is_empty() {
        return Ok(None);
    }
    let number = term.parse().map_err(|_| format!("strata.term is '{term}', not a number"))?;
    let start_lsn = start_lsn.parse().map_err(|error| format!("strata.start_lsn: {error}"))?;
    Ok(Some((Term(number), start_lsn)))
}

/// The safekeepers with their addresses (`host:port`), in the order given.
pub fn safekeepers() -> Result<Vec<(NodeId, String)>, String> {
    let text = value(&SAFEKEEPERS);
    let one = |item: &str| {
        let bad = || format!("strata.safekeepers: '{item}' is not id=host:port");
        let (id, address) = item.trim().split_once('=').ok_or_else(bad)?;
        let id = id.trim().parse().map(NodeId).map_err(|_| bad())?;
        Ok((id, address.trim().to_owned()))
    };
    text.split(',').filter(|item| !item.trim().is_empty()).map(one).collect()
}
