//! Many connections at once, reading and writing, most pages not in shared buffers: nobody is forgotten (a wake-up that is
//! lost is counted), everything acknowledged is there, and a backend takes no more memory of its own than vanilla's, but for a
//! megabyte. Small in CI; 500 connections in full size, for `STRATA_TEST_SECONDS` (`make soak`: an hour).

use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use strata_regress::postgres::{Cluster, Installation};
use strata_regress::size;
use strata_regress::suites::postgres_tree;
use strata_regress::tpcb::{self, Load};
use strata_regress::whole::{Whole, sets, wait_until};

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
    /// How long the load goes on when all of them are at work.
    seconds: u32,
}

const SMALL: Size = Size { readers: 60, writers: 12, seconds: 15 };
const FULL: Size = Size { readers: 420, writers: 80, seconds: 120 };

impl Size {
    fn wanted() -> Result<Size> {
        let mut size = if size::is_full() { FULL } else { SMALL };
        if let Ok(seconds) = std::env::var("STRATA_TEST_SECONDS") {
            size.seconds = seconds.parse().context("STRATA_TEST_SECONDS is a number of seconds")?;
        }
        Ok(size)
    }

    /// Long after clients are told to end: what ends those of a test that was killed.
    fn seconds_max(&self) -> u32 {
        self.seconds + 900
    }
}

/// pgbench's SELECTs in the background, until they are told to end.
struct Readers(Child);

impl Readers {
    fn start(mut pgbench: Command, size: &Size, connstr: &str) -> Result<Readers> {
        pgbench.args(["-n", "-S", "-M", "prepared", "-j", "1"]);
        pgbench.args(["-c", &size.readers.to_string(), "-T", &size.seconds_max().to_string(), connstr]);
        pgbench.stdout(std::process::Stdio::null());
        pgbench.spawn().context("cannot start pgbench").map(Readers)
    }

    /// All of them have to end without an error.
    fn end(mut self) -> Result<()> {
        tpcb::time_is_up(&self.0)?;
        ensure!(self.0.wait()?.success(), "a reader saw an error");
        Ok(())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
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
    let readers = Readers::start(cluster.client("pgbench", "postgres"), size, "postgres")?;
    let seen = look(size, |query| cluster.sql(query));
    drop(readers);
    seen
}

#[test]
fn many_connections_are_all_served() -> Result<()> {
    let size = Size::wanted()?;
    let theirs = vanilla_memory_kb(&size)?;
    let whole = Whole::started()?;
    let settings = SETTINGS.map(|(name, value)| format!("{name}={value}"));
    let settings = settings.iter().map(String::as_str).chain(["strata.lfc_max_size=0"]);
    let compute = whole.start_compute("a", &sets(settings))?;
    tpcb::fill(&whole, &compute, SCALE)?;
    let load = Load::start(&whole, &compute, SCALE, size.writers, size.seconds_max(), 1)?;
    let readers = Readers::start(whole.program("pgbench"), &size, &compute.connstr)?;
    let at_first = look(&size, |query| whole.sql(&compute.connstr, query))?;
    // Not a wait for something: the load itself.
    std::thread::sleep(Duration::from_secs(size.seconds.into()));
    let ours = look(&size, |query| whole.sql(&compute.connstr, query))?;
    wait_until("every writer has committed", || {
        let writers = "SELECT count(DISTINCT split_part(filler, ' ', 2)) FROM pgbench_history";
        Ok(whole.number(&compute, writers)? == i64::from(size.writers))
    })?;
    load.end()?;
    readers.end()?;
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
        "{} connections for {} s: {} commits, {asked} page requests; a backend has {at_first} kB of its own at first and {ours} kB in the end, vanilla's {theirs} kB",
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
