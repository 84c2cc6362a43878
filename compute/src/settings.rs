//! The settings that a compute's Postgres gets: guards on the command line, which neither ALTER SYSTEM nor ALTER ROLE beats
//! (trap S14), defaults in `postgresql.conf`, the user's in a file that it includes, and last the pageserver's address, which may
//! change while the server runs.

use std::collections::BTreeMap;
use std::fmt::Write;

use strata_common::Term;

use crate::cache;
use crate::handoff::Started;
use crate::spec::{self, Spec};

/// Arguments of `postgres` for a start; `kept_cache`: see `cache::proven`.
pub fn guards(spec: &Spec, started: &Started, kept_cache: Option<Term>) -> Vec<String> {
    let safekeepers: Vec<String> =
        spec.safekeepers.iter().map(|s| format!("{}={}", s.id, s.address)).collect();
    let pairs = [
        ("listen_addresses", spec.host.clone()),
        ("port", spec.port.to_string()),
        ("unix_socket_directories", String::new()),
        (spec::PRELOADED, spec::preloaded(&spec.settings)),
        // The quorum keeps the log and the pageserver the pages: nothing local is ever read after a crash.
        ("fsync", "off".to_owned()),
        ("full_page_writes", "off".to_owned()),
        ("wal_level", "replica".to_owned()),
        ("wal_log_hints", "off".to_owned()),
        // Local pages are gone after a crash: the supervisor starts anew instead (trap S7).
        ("restart_after_crash", "off".to_owned()),
        // The proposer worker takes one entry; every walsender is refused (trap S16).
        ("max_wal_senders", "1".to_owned()),
        ("max_slot_wal_keep_size", "-1".to_owned()),
        ("archive_mode", "off".to_owned()),
        // Its log begins where the server does, and would be kept until it is summed up.
        ("summarize_wal", "off".to_owned()),
        ("zero_damaged_pages", "off".to_owned()),
        ("ignore_checksum_failure", "off".to_owned()),
        ("wal_init_zero", "off".to_owned()),
        ("wal_recycle", "off".to_owned()),
        ("strata.tenant_id", spec.timeline.tenant.to_string()),
        ("strata.timeline_id", spec.timeline.timeline.to_string()),
        ("strata.safekeepers", safekeepers.join(",")),
        ("strata.term", started.term.to_string()),
        ("strata.start_lsn", started.start_lsn.to_string()),
        ("strata.lfc_kept_term", kept_cache.map_or_else(String::new, |term| term.to_string())),
    ];
    pairs.into_iter().flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]).collect()
}

/// `postgresql.conf`: defaults that suit a compute; then it includes what the user set.
pub fn postgresql_conf(spec: &Spec) -> String {
    let mut text = String::from(
        "# Written at every start of the compute; settings are given with 'strata compute start --set' and 'strata compute set'.\n\
         max_prepared_transactions = 64\n\
         min_wal_size = 32MB\n\
         max_wal_size = 1GB\n\
         log_line_prefix = '%m [%p] '\n",
    );
    set(&mut text, "strata.lfc_path", &cache::pages(spec).display().to_string());
    set(&mut text, "strata.lfc_max_size", &format!("{}MB", cache::default_mib(spec)));
    // The last one counts.
    writeln!(text, "include '{USER_CONF}'\ninclude '{PAGESERVER_CONF}'").expect("writing to a string");
    text
}

/// The file with the pageserver's address, beside `postgresql.conf`.
pub const PAGESERVER_CONF: &str = "pageserver.conf";

pub fn pageserver_conf(spec: &Spec) -> String {
    let mut text = String::from("# Written at every start of the compute, and when its pageserver moves.\n");
    set(&mut text, "strata.pageserver", &spec.pageserver);
    text
}

/// The file with the user's settings, beside `postgresql.conf`; changed while the server runs.
pub const USER_CONF: &str = "compute.conf";

pub fn user_conf(settings: &BTreeMap<String, String>) -> String {
    let mut text = String::from("# Written by 'strata compute start' and 'strata compute set'.\n");
    // Libraries stand on the command line.
    for (name, value) in settings.iter().filter(|(name, _)| *name != spec::PRELOADED) {
        set(&mut text, name, value);
    }
    text
}

/// One line; the escapes are those that guc-file.l reads (GUC_scanstr): a value may hold anything but the byte 0.
fn set(text: &mut String, name: &str, value: &str) {
    write!(text, "{name} = '").expect("writing to a string");
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\'' => text.push_str("''"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text.push_str("'\n");
}

/// `pg_hba.conf`: loopback only, no password (the server listens nowhere else).
pub const PG_HBA_CONF: &str =
    "local all all trust\nhost all all 127.0.0.1/32 trust\nhost all all ::1/128 trust\n";

#[cfg(test)]
pub(crate) fn test_spec() -> Spec {
    serde_json::from_value(serde_json::json!({
        "name": "c", "branch": "main",
        "timeline": { "tenant": "00".repeat(16), "timeline": "11".repeat(16) },
        "system_id": 1, "wal_segment_bytes": 16777216,
        "safekeepers": [{ "id": 1, "address": "127.0.0.1:1" }, { "id": 2, "address": "127.0.0.1:2" }],
        "pageserver": "127.0.0.1:3", "bin_dir": "/b", "data_dir": "/d", "host": "127.0.0.1", "port": 5,
        "uid": 1, "gid": 1, "settings": { "search_path": "o'x\\y" }, "state_file": "/s",
    }))
    .expect("a spec")
}

#[cfg(test)]
mod tests {
    use strata_common::Lsn;

    use super::*;
    use crate::spec::GUARDED_SETTINGS;

    const STARTED: Started = Started { term: Term(3), start_lsn: Lsn(0x10) };

    #[test]
    fn every_guard_of_durability_is_on_the_command_line_or_never_read() {
        let given = guards(&test_spec(), &STARTED, None);
        let elsewhere =
            ["archive_command", "archive_library", "data_directory", "hot_standby", "primary_conninfo"];
        // The extension sets this one itself, with a value that cannot be typed.
        let by_extension = ["synchronous_standby_names"];
        for name in GUARDED_SETTINGS {
            let on_line = given.iter().any(|argument| argument.starts_with(&format!("{name}=")));
            assert!(on_line || elsewhere.contains(name) || by_extension.contains(name), "{name}");
        }
        assert!(given.contains(&"strata.safekeepers=1=127.0.0.1:1,2=127.0.0.1:2".to_owned()));
        assert!(given.contains(&"strata.start_lsn=0/10".to_owned()));
    }

    #[test]
    fn values_are_quoted() {
        assert!(user_conf(&test_spec().settings).ends_with("\nsearch_path = 'o''x\\\\y'\n"));
        let injected = BTreeMap::from([("log_line_prefix".to_owned(), " '\r\nfsync = 'on' ".to_owned())]);
        assert!(user_conf(&injected).ends_with("\nlog_line_prefix = ' ''\\r\\nfsync = ''on'' '\n"));
    }

    #[test]
    fn the_address_counts_whatever_the_user_says() {
        let text = postgresql_conf(&test_spec());
        assert!(text.ends_with("include 'compute.conf'\ninclude 'pageserver.conf'\n"), "{text}");
        assert!(pageserver_conf(&test_spec()).ends_with("\nstrata.pageserver = '127.0.0.1:3'\n"));
    }

    #[test]
    fn libraries_stand_on_the_command_line_only() {
        let mut spec = test_spec();
        spec.settings.insert(spec::PRELOADED.into(), "pg_stat_statements".into());
        let given = guards(&spec, &STARTED, None);
        assert!(given.contains(&"shared_preload_libraries=strata,pg_stat_statements".to_owned()));
        assert!(!postgresql_conf(&spec).contains("shared_preload_libraries"));
        assert!(!user_conf(&spec.settings).contains("shared_preload_libraries"));
    }
}
