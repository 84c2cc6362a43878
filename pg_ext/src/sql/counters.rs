//! `SHOW strata.counters`: what monitoring wants to know of this server, as one JSON document, in any database and without the extension's
//! SQL objects, which a database may not have. For members of pg_read_all_settings, as pg_monitor is. Every number comes from the
//! function behind the SQL view of its name.

use std::ffi::{CStr, CString, c_char};
use std::fmt::Write;
use std::sync::atomic::Ordering;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;

use crate::{lfc, prefetch, smgr, working_set};

static COUNTERS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Seconds for which the working set is shown.
const WINDOWS: [u32; 4] = [60, 300, 900, 3600];

/// Defines the setting; call once, from `_PG_init` in the postmaster.
pub fn register() {
    let flags = GucFlags::NO_SHOW_ALL
        | GucFlags::NO_RESET_ALL
        | GucFlags::DISALLOW_IN_FILE
        | GucFlags::SUPERUSER_ONLY;
    // SAFETY: the hook is guarded against panics and returns memory of the caller's context.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"strata.counters",
            c"Counters and sizes of this server, as JSON.",
            c"What the views of the extension show, for monitoring.",
            &COUNTERS,
            GucContext::Internal,
            flags,
            None,
            None,
            Some(show),
        );
    }
}

/// The server copies the text at once (guc.c, ShowGUCOption).
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn show() -> *const c_char {
    let text = CString::new(document()).expect("names and numbers have no byte 0");
    // SAFETY: copies into the memory context of the command that asks.
    unsafe { pg_sys::pstrdup(CStr::as_ptr(&text)) }
}

fn document() -> String {
    let lists = [working_sets(), file_cache(), ahead(), page_requests(), waits(), lsns()];
    format!("{{{}}}", lists.join(","))
}

/// `"name":{"key":value,…}`; null without values.
fn object(name: &str, values: Option<Vec<(&str, String)>>) -> String {
    let Some(values) = values else { return format!("\"{name}\":null") };
    let fields: Vec<String> = values.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("\"{name}\":{{{}}}", fields.join(","))
}

fn number(value: i64) -> String {
    value.to_string()
}

fn known(value: Option<i64>) -> String {
    value.map_or_else(|| "null".to_owned(), number)
}

fn working_sets() -> String {
    let pages = |seconds: Option<u32>| known(working_set::strata_working_set_pages(seconds.map(f64::from)));
    let mut text = "\"working_set_pages\":{".to_owned();
    for seconds in WINDOWS {
        write!(text, "\"{seconds}\":{},", pages(Some(seconds))).expect("writing to a string");
    }
    text + &format!("\"ever\":{}}}", pages(None))
}

fn file_cache() -> String {
    let row = lfc::sql::strata_lfc_counters().next();
    object(
        "file_cache",
        row.map(|(state, max, limit, used, hits, misses, writes, damaged, skipped)| {
            vec![
                ("state", format!("\"{state}\"")),
                ("max_pages", number(max)),
                ("limit_pages", number(limit)),
                ("used_pages", number(used)),
                ("hits", number(hits)),
                ("misses", number(misses)),
                ("writes", number(writes)),
                ("damaged", number(damaged)),
                ("skipped", number(skipped)),
            ]
        }),
    )
}

fn ahead() -> String {
    let row = prefetch::sql::strata_prefetch_counters().next();
    object(
        "prefetch",
        row.map(
            |(
                requested,
                used,
                waited,
                expired,
                wasted,
                refused,
                open_requests,
                unanswered,
                held_pages,
                index_scans,
                cached,
            )| {
                vec![
                    ("requested", number(requested)),
                    ("used", number(used)),
                    ("waited", number(waited)),
                    ("expired", number(expired)),
                    ("wasted", number(wasted)),
                    ("refused", number(refused)),
                    ("open_requests", number(open_requests)),
                    ("unanswered", number(unanswered)),
                    ("held_pages", number(held_pages)),
                    ("index_scans", number(index_scans)),
                    ("cached", number(cached)),
                ]
            },
        ),
    )
}

fn page_requests() -> String {
    let rows = smgr::sql::strata_page_request_stats();
    let kinds = rows.map(|(kind, requests, blocks, errors, micros, latency)| {
        let cells: Vec<String> = latency.into_iter().map(number).collect();
        format!(
            "{{\"kind\":\"{kind}\",\"requests\":{requests},\"blocks\":{blocks},\"errors\":{errors},\"total_us\":{micros},\"latency\":[{}]}}",
            cells.join(",")
        )
    });
    format!("\"page_requests\":[{}]", kinds.collect::<Vec<_>>().join(","))
}

fn waits() -> String {
    let counts = smgr::state::is_attached().then(|| {
        let spins = smgr::state::spins();
        [smgr::state::lost_wakeups(), &spins.answered, &spins.in_vain]
            .map(|cell| cell.load(Ordering::Relaxed))
    });
    let [lost, answered, in_vain] = counts.unwrap_or_default();
    format!("\"lost_wakeups\":{lost},\"spins_answered\":{answered},\"spins_in_vain\":{in_vain}")
}

fn lsns() -> String {
    let row = smgr::sql::strata_lsns().next();
    object(
        "lsns",
        row.map(|(insert, flush, quorum, received, disk, remote)| {
            vec![
                ("insert", number(insert)),
                ("flush", number(flush)),
                ("quorum_commit", known(quorum)),
                ("pageserver_received", known(received)),
                ("pageserver_disk_consistent", known(disk)),
                ("pageserver_remote_consistent", known(remote)),
            ]
        }),
    )
}
