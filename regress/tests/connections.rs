//! Many connections at once, reading and writing, most pages not in shared buffers: nobody is forgotten (a wake-up that is
//! lost is counted), everything acknowledged is there, and a backend takes no more memory of its own than vanilla's, but for a
//! megabyte. Small in CI; 500 connections in full size, for `STRATA_TEST_SECONDS` (`make soak`: an hour).

use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use strata_regress::postgres::{Cluster, Installation};
use strata_regress::suites::postgres_tree;
use strata_regress::tpcb::{self, Load};
use strata_regress::whole::{Whole, wait_until};

/// pgbench's scale: more branches than writers, or they would mostly wait for each other's row.
const SCALE: u32 = 20;
const SETTINGS: [(&str, &str); 4] = [
    ("shared_buffers", "16MB"),
    ("max_connections", "600"),
    // The median of many: one worker of autovacuum more or less is not seen.
    ("autovacuum_naptime", "5s"),
    ("max_wal_size", "4GB"),
];
const MEGABYTE_KB: u64 = 1024;

struct Size {
    readers: u32,
    writers: u32,
    seconds: u32,
}

const SMALL: Size = Size { readers: 60, writers: 12, seconds: 20 };
const FULL: Size = Size { readers: 420, writers: 80, seconds: 120 };

fn size() -> Result<Size> {
    let mut size =
        if std::env::var("STRATA_TEST_SIZE").is_ok_and(|size| size == "full") { FULL } else { SMALL };
    if let Ok(seconds) = std::env::var("STRATA_TEST_SECONDS") {
        size.seconds = seconds.parse().context("STRATA_TEST_SECONDS is a number of seconds")?;
    }
    Ok(size)
}

/// pgbench's SELECTs in the background.
fn readers(mut pgbench: Command, size: &Size, connstr: &str) -> Result<Child> {
    pgbench.args(["-n", "-S", "-M", "prepared", "-j", "1"]);
    pgbench.args(["-c", &size.readers.to_string(), "-T", &size.seconds.to_string(), connstr]);
    pgbench.stdout(std::process::Stdio::null());
    pgbench.spawn().context("cannot start pgbench")
}

/// Median of what backends have of their own, in kB (`RssAnon`).
fn own_memory_kb(pids: &str) -> Result<u64> {
    let mut each = Vec::new();
    for pid in pids.lines() {
        // One may have ended meanwhile.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        each.extend(line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()));
    }
    each.sort_unstable();
    each.get(each.len() / 2).copied().context("there are no backends")
}

const BACKENDS: &str =
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

/// Waits until all readers have a query behind them, and looks.
fn look(size: &Size, sql: impl Fn(&str) -> Result<String>) -> Result<u64> {
    let mut pids = String::new();
    wait_until("all clients are at work", || {
        pids = sql(&format!("{BACKENDS} AND query LIKE 'SELECT abalance%'"))?;
        Ok(pids.lines().count() >= size.readers as usize)
    })?;
    own_memory_kb(&pids)
}

fn vanilla_memory_kb(size: &Size) -> Result<u64> {
    let mut cluster = Cluster::init(&Installation::at(postgres_tree()?.join("bin"))?, &[])?;
    cluster.start(&SETTINGS)?;
    let filled =
        cluster.client("pgbench", "postgres").args(["-i", "-q", "-s", &SCALE.to_string()]).output()?;
    ensure!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));
    // Ended as soon as it was seen.
    let load = Size { seconds: 120, ..*size };
    let mut readers = readers(cluster.client("pgbench", "postgres"), &load, "postgres")?;
    let seen = look(size, |query| cluster.sql(query));
    readers.kill()?;
    readers.wait()?;
    seen
}

#[test]
fn many_connections_are_all_served() -> Result<()> {
    let size = size()?;
    let theirs = vanilla_memory_kb(&size)?;
    let whole = Whole::started()?;
    let sets = SETTINGS.map(|(name, value)| format!("{name}={value}"));
    let arguments: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let compute =
        whole.start_compute("a", &[&arguments[..], &["--set", "strata.lfc_max_size=0"]].concat())?;
    tpcb::fill(&whole, &compute, SCALE)?;
    let load = Load::start(&whole, &compute, SCALE, size.writers, size.seconds, 1)?;
    let mut readers = readers(whole.program("pgbench"), &size, &compute.connstr)?;
    let ours = look(&size, |query| whole.sql(&compute.connstr, query))?;
    ensure!(readers.wait()?.success(), "a reader saw an error");
    let (acknowledged, unharmed) = load.finish()?;
    ensure!(unharmed, "a writer saw an error");
    ensure!(acknowledged.by_client.len() == size.writers as usize, "a writer committed nothing");
    let asked = whole.sql(
        &compute.connstr,
        "CREATE EXTENSION IF NOT EXISTS strata; SELECT sum(requests) FROM strata_page_requests",
    )?;
    let document = whole.sql(&compute.connstr, "SHOW strata.counters")?;
    let counters: serde_json::Value = serde_json::from_str(&document)?;
    ensure!(counters["lost_wakeups"] == 0, "wake-ups were lost: {document}");
    eprintln!(
        "{} connections for {} s: {} commits, {asked} page requests; a backend has {ours} kB of its own, vanilla's {theirs} kB",
        size.readers + size.writers,
        size.seconds,
        acknowledged.total()
    );
    ensure!(ours <= theirs + MEGABYTE_KB, "a backend has {ours} kB of its own, vanilla's {theirs} kB");
    tpcb::check(&whole, &compute, &[acknowledged])?;
    whole.lose_compute(&compute)?;
    let compute = whole.start_compute("a", &[])?;
    whole.amcheck(&compute)
}
