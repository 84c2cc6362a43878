//! `strata compute set`: settings of a compute that runs, or is down; all of a call or none, kept for the next start as those of
//! `--set` are. That no query fails while the cache is resized by it shows `lfc_resized.rs`.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use strata_regress::refusal::{check_row, keep_a_row, refuses};
use strata_regress::whole::{Compute, Whole, wait_until};

fn set(whole: &Whole, arguments: &[&str]) -> Result<Value> {
    whole.json(&[&["compute", "set", "a"], arguments].concat())
}

fn shows(whole: &Whole, compute: &Compute, name: &str, expected: &str) -> Result<()> {
    let found = whole.sql(&compute.connstr, &format!("SHOW {name}"))?;
    ensure!(found == expected, "{name} is '{found}', not '{expected}'");
    Ok(())
}

/// kill -9 of the postmaster alone: the supervisor starts another.
fn crash(whole: &Whole, compute: &Compute) -> Result<()> {
    let term = || anyhow::Ok(whole.json(&["compute", "show", "a"])?["term"].clone());
    let before = term()?;
    kill(compute.postmaster()?, Signal::SIGKILL)?;
    wait_until("the supervisor has started another Postgres", || {
        let shown = whole.json(&["compute", "show", "a"])?;
        Ok(shown["state"] == "running" && shown["term"] != before)
    })
}

#[test]
fn what_a_reload_can_change_is_changed_at_once_and_kept() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &["--set", "shared_buffers=1MB", "--set", "work_mem=3MB"])?;
    let said = set(&whole, &["Work_Mem=7MB", "shared_buffers=2MB", "strata.lfc_size_limit=4MB"])?;
    ensure!(said["state"] == "running", "{said}");
    ensure!(said["applied"] == json!(["strata.lfc_size_limit", "work_mem"]), "{said}");
    ensure!(said["at_next_start"] == json!(["shared_buffers"]), "{said}");
    ensure!(said["settings"]["work_mem"] == "7MB" && said["settings"]["shared_buffers"] == "2MB", "{said}");
    shows(&whole, &compute, "work_mem", "7MB")?;
    shows(&whole, &compute, "strata.lfc_size_limit", "4MB")?;
    shows(&whole, &compute, "shared_buffers", "1MB")?;
    let pending = "SELECT string_agg(name, ',') FROM pg_settings WHERE pending_restart";
    ensure!(whole.sql(&compute.connstr, pending)? == "shared_buffers", "the server shows what is pending");

    // After a crash the server has what it had; only a start has what waits for one.
    crash(&whole, &compute)?;
    shows(&whole, &compute, "work_mem", "7MB")?;
    shows(&whole, &compute, "shared_buffers", "1MB")?;
    let said = set(&whole, &["--reset", "strata.lfc_size_limit", "maintenance_work_mem=9MB"])?;
    ensure!(said["applied"] == json!(["maintenance_work_mem", "strata.lfc_size_limit"]), "{said}");
    shows(&whole, &compute, "strata.lfc_size_limit", "-1")?;
    whole.stop_compute("a")?.context("a clean stop")?;
    let compute = whole.start_compute("a", &[])?;
    for (name, value) in [
        ("work_mem", "7MB"),
        ("maintenance_work_mem", "9MB"),
        ("shared_buffers", "2MB"),
        ("strata.lfc_size_limit", "-1"),
    ] {
        shows(&whole, &compute, name, value)?;
    }
    let said = set(&whole, &["work_mem=", "shared_buffers=", "wal_keep_size="])?;
    ensure!(said["applied"] == json!(["work_mem"]), "{said}");
    ensure!(said["at_next_start"] == json!(["shared_buffers"]), "{said}");
    shows(&whole, &compute, "work_mem", "4MB")?;
    ensure!(set(&whole, &[])?["settings"] == json!({ "maintenance_work_mem": "9MB" }), "what is kept");
    // A further library is a matter of the command line.
    let said = set(&whole, &["shared_preload_libraries=auto_explain"])?;
    ensure!(said["at_next_start"] == json!(["shared_preload_libraries"]), "{said}");
    whole.stop_compute("a")?.context("a clean stop")?;
    let compute = whole.start_compute("a", &[])?;
    shows(&whole, &compute, "shared_preload_libraries", "strata,auto_explain")
}

/// A reload takes them, a start does not: the server that is up goes on, and one that has to start anew has the former ones.
#[test]
fn settings_with_which_no_server_starts_do_not_end_a_compute() -> Result<()> {
    let whole = Whole::started()?;
    let compute = keep_a_row(&whole)?;
    let said = set(&whole, &["ssl=on", "work_mem=7MB"])?;
    ensure!(said["applied"] == json!(["ssl", "work_mem"]), "{said}");
    crash(&whole, &compute)?;
    shows(&whole, &compute, "ssl", "off")?;
    shows(&whole, &compute, "work_mem", "4MB")?;
    let problem = whole.json(&["compute", "show", "a"])?["problem"].clone();
    ensure!(
        problem.as_str().is_some_and(|problem| problem.contains("it runs with the former ones")),
        "{problem}"
    );
    set(&whole, &["ssl=", "work_mem=8MB"])?;
    crash(&whole, &compute)?;
    shows(&whole, &compute, "work_mem", "8MB")
}

/// With a library that is not there no session begins, but for the one that takes it back.
#[test]
fn a_bad_setting_of_sessions_can_be_taken_back() -> Result<()> {
    let whole = Whole::started()?;
    let compute = keep_a_row(&whole)?;
    set(&whole, &["session_preload_libraries=nope", "statement_timeout=1ms"])?;
    wait_until("no session begins", || Ok(whole.sql(&compute.connstr, "SELECT 1").is_err()))?;
    set(&whole, &["session_preload_libraries=", "statement_timeout="])?;
    wait_until("sessions begin", || Ok(whole.sql(&compute.connstr, "SELECT 1").is_ok()))
}

#[test]
fn any_value_arrives_as_it_was_given() -> Result<()> {
    let whole = Whole::started()?;
    let hard = " it's \"so\" \\ 'on'\nfsync = on\r\t#=% é ";
    let start = ["--set", &format!("application_name={hard}"), "--set", "autovacuum=off"];
    let compute = whole.start_compute("a", &start)?;
    // psql names itself: the value of the file is asked for.
    let of_file = |name: &str| {
        let sql = format!(
            "SELECT encode(convert_to(reset_val, 'UTF8'), 'hex') FROM pg_settings WHERE name = '{name}'"
        );
        whole.sql(&compute.connstr, &sql)
    };
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (name, value) in [("log_line_prefix", hard), ("search_path", "\"$user\", \"a b\""), ("my.own", hard)]
    {
        set(&whole, &[&format!("{name}={value}")])?;
        let found = of_file(name)?;
        ensure!(found == hex(value) || name == "my.own", "{name} is {found}, not {}", hex(value));
    }
    let found =
        whole.sql(&compute.connstr, "SELECT encode(convert_to(current_setting('my.own'), 'UTF8'), 'hex')")?;
    ensure!(found == hex(hard), "my.own is {found}");
    shows(&whole, &compute, "fsync", "off")?;
    whole.stop_compute("a")?.context("a clean stop")?;
    whole.start_compute("a", &[])?;
    ensure!(of_file("log_line_prefix")? == hex(hard), "it is the same after a start");
    Ok(())
}

#[test]
fn what_is_refused_changes_nothing() -> Result<()> {
    let whole = Whole::started()?;
    let compute = keep_a_row(&whole)?;
    let good = "work_mem=9MB";
    let cases: &[(&[&str], &[&str])] = &[
        (&[good, "nope=1"], &["compute 'a'", "unrecognized configuration parameter \"nope\""]),
        (
            &[good, "maintenance_work_mem=12banana"],
            &["invalid value", "maintenance_work_mem", "banana", "Valid units"],
        ),
        (&[good, "strata.lfc_size_limit=banana"], &["invalid value", "strata.lfc_size_limit"]),
        (&[good, "shared_buffers=banana"], &["invalid value", "shared_buffers"]),
        (&[good, "max_connections=-5"], &["max_connections"]),
        (&[good, "fsync=on"], &["guards durability"]),
        (&[good, "--reset", "fsync"], &["guards durability"]),
        (&[good, "strata.term=7"], &["set by strata"]),
        (&[good, "wal_recycle=on"], &["'wal_recycle' is set by strata"]),
        (&[good, "server_version=18"], &["'server_version' only tells something"]),
        (&[good, "include=/etc/passwd"], &["no setting"]),
        (&[good, "work_mem=8MB"], &["named twice"]),
        (&[good, "work_mem"], &["not GUC=VALUE"]),
        (&[good, "shared_preload_libraries='x y'"], &["no name of a library"]),
    ];
    let untouched = |compute: &Compute| {
        // Whatever lies in the server's files would be read now.
        whole.sql(&compute.connstr, "SELECT pg_reload_conf()")?;
        shows(&whole, compute, "work_mem", "4MB")?;
        ensure!(set(&whole, &[])?["settings"] == json!({}), "something is kept");
        let errors =
            whole.sql(&compute.connstr, "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL")?;
        ensure!(errors == "0", "the server's files are not as they were");
        Ok(())
    };
    for (arguments, words) in cases {
        refuses(&whole, &[&["compute", "set", "a"], *arguments].concat(), words)?;
        untouched(&compute)?;
    }
    refuses(&whole, &["compute", "set", "b", good], &["no compute 'b'"])?;

    // A server that stands still.
    let pid = compute.postmaster()?;
    kill(pid, Signal::SIGSTOP)?;
    let refused = refuses(&whole, &["compute", "set", "a", good], &["does not answer within"]);
    kill(pid, Signal::SIGCONT)?;
    refused?;
    untouched(&compute)?;
    check_row(&whole, &compute)?;

    // A compute that is down: stored, and checked by Postgres without a server.
    whole.stop_compute("a")?.context("a clean stop")?;
    for bad in
        ["nope=1", "maintenance_work_mem=banana", "shared_buffers=banana", "server_version=18", "fsync=on"]
    {
        let name = bad.split('=').next().context("a name")?;
        refuses(&whole, &["compute", "set", "a", good, bad], &[name])?;
        ensure!(set(&whole, &[])?["settings"] == json!({}), "something is kept");
    }
    let said = set(&whole, &[good, "my.own=1"])?;
    ensure!(said["state"] == "stopped" && said["at_next_start"] == json!(["my.own", "work_mem"]), "{said}");
    let compute = whole.start_compute("a", &[])?;
    shows(&whole, &compute, "work_mem", "9MB")?;
    check_row(&whole, &compute)
}
