//! What a supervisor is told (`Spec`) and what it says of itself (`State`), both as JSON files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use strata_common::{Lsn, NodeId, SystemId, TenantTimelineId, Term};

/// A safekeeper and where it answers, `host:port`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub id: NodeId,
    pub address: String,
}

/// One compute: which timeline it writes, who keeps it, where its Postgres lives.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub name: String,
    pub branch: String,
    pub timeline: TenantTimelineId,
    pub system_id: SystemId,
    pub wal_segment_bytes: u32,
    pub safekeepers: Vec<Endpoint>,
    /// `host:port`.
    pub pageserver: String,
    pub bin_dir: PathBuf,
    /// Emptied and laid down anew at every start.
    pub data_dir: PathBuf,
    pub host: String,
    pub port: u16,
    pub uid: u32,
    pub gid: u32,
    /// Settings of the user; those that were changed since by a reload are kept here, so that a start after a crash has them too.
    pub settings: BTreeMap<String, String>,
    pub state_file: PathBuf,
}

impl Spec {
    pub fn read(path: &Path) -> anyhow::Result<Spec> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no spec", path.display()))
    }
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Starting,
    Running,
    Stopping,
    Stopped,
    /// Another compute was elected; this one may never commit again.
    Fenced,
    Failed,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct State {
    pub phase: Phase,
    pub pid: u32,
    pub pgid: u32,
    pub connstr: String,
    pub data_dir: PathBuf,
    pub term: Option<Term>,
    /// Where this Postgres's own log begins.
    pub start_lsn: Option<Lsn>,
    /// End of the shutdown checkpoint that a majority holds; only after a clean stop.
    pub end_lsn: Option<Lsn>,
    /// Milliseconds of each step of the last start.
    pub timings_ms: BTreeMap<String, u64>,
    /// What it waits for, or why it ended. Empty: nothing to say.
    pub problem: String,
    /// Where `/metrics` and `/status` are served, `host:port`.
    #[serde(default)]
    pub metrics: Option<String>,
}

/// Settings that hold durability or our own place in the server up (trap S14); a user cannot give them.
pub const GUARDED_SETTINGS: &[&str] = &[
    "archive_command",
    "archive_library",
    "archive_mode",
    "data_directory",
    "fsync",
    "full_page_writes",
    "hot_standby",
    "ignore_checksum_failure",
    "listen_addresses",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "port",
    "primary_conninfo",
    "restart_after_crash",
    "summarize_wal",
    "synchronous_standby_names",
    "unix_socket_directories",
    "wal_level",
    "wal_log_hints",
    "zero_damaged_pages",
];

/// Settings of the extension that are the user's.
const TUNABLE_SETTINGS: &[&str] = &[
    "strata.compare_local",
    "strata.keeper_interval",
    "strata.last_written_cells",
    "strata.lfc_max_size",
    "strata.lfc_path",
    "strata.lfc_size_limit",
    "strata.lfc_state_interval",
    "strata.max_pageserver_lag",
    "strata.prefetch_buffers",
    "strata.prefetch_max",
    "strata.prefetch_index_scans",
    "strata.relation_slots",
    "strata.spin_limit",
];

/// What a configuration file takes for a command.
const DIRECTIVES: &[&str] = &["include", "include_dir", "include_if_exists"];

/// Settings with a least value: below it our workers, or prepared transactions that are alive, have no place.
const LEAST_VALUES: &[(&str, u32)] =
    &[("max_prepared_transactions", 10), ("max_replication_slots", 2), ("max_worker_processes", 4)];

/// Refuses a setting, or a value of one, that is not the user's to give.
pub fn check_setting(name: &str, value: &str) -> anyhow::Result<()> {
    let name = name.trim().to_ascii_lowercase();
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    if !plain {
        bail!("'{name}' is no name of a setting");
    }
    if DIRECTIVES.contains(&name.as_str()) {
        bail!("'{name}' is no setting: give the settings themselves");
    }
    let own = name.starts_with("strata.") && !TUNABLE_SETTINGS.contains(&name.as_str());
    if own || GUARDED_SETTINGS.contains(&name.as_str()) {
        bail!("'{name}' is set by strata and guards durability: it cannot be given");
    }
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.$/".contains(&b));
    if name == PRELOADED
        && let Some(library) = further_libraries(value).find(|library| !plain(library))
    {
        bail!("'{library}' is no name of a library: '{PRELOADED}' takes names with commas between them");
    }
    if let Some((_, least)) = LEAST_VALUES.iter().find(|(guarded, _)| *guarded == name)
        && value.trim().parse::<u32>().is_ok_and(|value| value < *least)
    {
        bail!("'{name}' must be at least {least} here");
    }
    Ok(())
}

/// The libraries that a compute preloads: ours first, then the user's. One that takes the server's storage manager over makes the
/// start fail (trap S14).
pub const PRELOADED: &str = "shared_preload_libraries";
const OWN_LIBRARY: &str = "strata";

/// The user's libraries of a value of `shared_preload_libraries`, where ours may or may not be named.
fn further_libraries(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != OWN_LIBRARY)
}

/// What the server's command line says of `shared_preload_libraries`, given the user's settings.
pub fn preloaded(settings: &BTreeMap<String, String>) -> String {
    let given = settings.get(PRELOADED).map_or("", String::as_str);
    std::iter::once(OWN_LIBRARY).chain(further_libraries(given)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_preloaded_first_whatever_the_user_adds() {
        let with = |value: &str| preloaded(&BTreeMap::from([(PRELOADED.to_owned(), value.to_owned())]));
        for (given, expected) in [
            ("", "strata"),
            ("strata", "strata"),
            ("pg_stat_statements", "strata,pg_stat_statements"),
            (" auto_explain , strata,pg_stat_statements,", "strata,auto_explain,pg_stat_statements"),
            ("$libdir/a-b.so", "strata,$libdir/a-b.so"),
        ] {
            assert_eq!(with(given), expected);
            assert!(check_setting(" Shared_Preload_Libraries", given).is_ok());
        }
        for bad in ["\"a\"", "a b", "a'", "a;b"] {
            assert!(check_setting(PRELOADED, bad).is_err(), "{bad}");
        }
        assert_eq!(preloaded(&BTreeMap::new()), "strata");
    }

    #[test]
    fn guarded_settings_are_refused_however_they_are_written() {
        for bad in ["fsync", " FSYNC ", "strata.term", "Strata.Term", "", "a b", "work_mem; fsync", "Include"]
        {
            assert!(check_setting(bad, "1").is_err(), "{bad}");
        }
        assert!(check_setting("work_mem", "1MB").is_ok());
        assert!(check_setting("strata.keeper_interval", "1s").is_ok());
        assert!(check_setting("strata.relation_slots", "1024").is_ok());
        assert!(check_setting("max_worker_processes", "3").is_err());
        assert!(check_setting("max_worker_processes", "8").is_ok());
    }

    #[test]
    fn guarded_settings_are_sorted() {
        assert!(GUARDED_SETTINGS.is_sorted());
    }
}
