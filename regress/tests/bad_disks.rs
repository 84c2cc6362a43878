//! Disks that are full or cannot be written, under a safekeeper, the pageserver and the object store: what is committed stays
//! committed and readable, nothing is acknowledged too early, `status` names the trouble, and it goes on when there is room.
//!
//! A small disk is a file system of its own; only root can mount one.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use strata_common::Lsn;
use strata_regress::mounts::{Mount, can_mount};
use strata_regress::refusal::{check_row, keep_a_row, refuses};
use strata_regress::whole::{Compute, Whole, wait_until};

/// Daemons with layers so small and short-lived that a test sees them written.
const SMALL_LAYERS: [(&str, &str); 2] =
    [("STRATA_PAGESERVER_LAYER_MIB", "1"), ("STRATA_PAGESERVER_LAYER_AGE_S_MAX", "1")];

fn start(whole: &Whole, arguments: &[&str]) -> Result<()> {
    let output = whole.command(arguments).envs(SMALL_LAYERS).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What a node says keeps it from moving.
fn problem(whole: &Whole, kind: &str, id: u64) -> Result<String> {
    Ok(whole.node(kind, id)?["problem"].as_str().context("problem")?.to_owned())
}

fn wait_problem(whole: &Whole, kind: &str, id: u64, words: &str) -> Result<()> {
    wait_until(&format!("status says '{words}' of {kind} {id}"), || {
        Ok(problem(whole, kind, id)?.contains(words))
    })
}

fn wait_no_problem(whole: &Whole, kind: &str, id: u64) -> Result<()> {
    wait_until(&format!("{kind} {id} is well again"), || Ok(problem(whole, kind, id)?.is_empty()))
}

fn branch(whole: &Whole, key: &str) -> Result<String> {
    let branches = whole.json(&["branch", "list"])?;
    Ok(branches[0][key].as_str().with_context(|| format!("no {key} in {branches}"))?.to_owned())
}

fn branch_lsn(whole: &Whole, key: &str) -> Result<Lsn> {
    branch(whole, key)?.parse().with_context(|| format!("{key} is no LSN"))
}

fn wait_stored(whole: &Whole) -> Result<()> {
    wait_until("everything is in the object store", || {
        Ok(branch_lsn(whole, "remote_consistent_lsn")?.0 + 1 >= branch_lsn(whole, "lsn")?.0)
    })
}

/// Starts psql in the background.
fn session(whole: &Whole, compute: &Compute, sql: &str) -> Result<Child> {
    let mut psql: Command = whole.program("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &compute.connstr, "-c", sql]);
    psql.spawn().context("cannot start psql")
}

/// A column of the view of safekeepers.
fn of_safekeeper(whole: &Whole, compute: &Compute, id: u64, column: &str) -> Result<String> {
    whole.sql(&compute.connstr, &format!("SELECT {column} FROM strata_safekeepers WHERE id = {id}"))
}

fn wait_caught_up(whole: &Whole, compute: &Compute, id: u64) -> Result<()> {
    wait_until(&format!("safekeeper {id} has caught up"), || {
        let behind = "flush_lsn < (SELECT max(commit_lsn) FROM strata_safekeepers)";
        Ok(of_safekeeper(whole, compute, id, behind)? == "f")
    })
}

#[test]
fn full_under_safekeepers() -> Result<()> {
    if !can_mount("full_under_safekeepers") {
        return Ok(());
    }
    let whole = Whole::initialised(&[])?;
    let disks = [2, 3].map(|id| Mount::small_disk(&whole.dir().join(format!("safekeeper-{id}")), 160));
    let [second, third] = disks;
    let (second, third) = (second?, third?);
    whole.strata(&["start"])?;
    let compute = keep_a_row(&whole)?;
    whole.sql(&compute.connstr, "CREATE EXTENSION strata; CREATE TABLE big(n int, t text)")?;
    let write = |from: u32| {
        let (from, to) = (from + 1, from + 60_000);
        let sql = format!("INSERT INTO big SELECT n, repeat('x', 400) FROM generate_series({from}, {to}) n");
        whole.sql(&compute.connstr, &sql)
    };
    let rows = || whole.sql(&compute.connstr, "SELECT count(*), count(DISTINCT n) FROM big");

    // One is full: commits go on with the other two, and it acknowledges nothing.
    third.fill()?;
    write(0)?;
    write(60_000)?;
    wait_problem(&whole, "safekeepers", 3, "the disk is full")?;
    let stuck = of_safekeeper(&whole, &compute, 3, "flush_lsn")?;
    write(120_000)?;
    ensure!(of_safekeeper(&whole, &compute, 3, "flush_lsn")? == stuck, "a full disk acknowledged something");
    wait_no_problem(&whole, "safekeepers", 1)?;
    ensure!(rows()? == "180000|180000", "rows after one disk filled up: {}", rows()?);

    // Two are full: a commit waits, and is neither acknowledged nor seen.
    second.fill()?;
    let mut waiting = session(
        &whole,
        &compute,
        "INSERT INTO big SELECT -n, repeat('y', 400) FROM generate_series(1, 100000) n",
    )?;
    wait_problem(&whole, "safekeepers", 2, "the disk is full")?;
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        ensure!(waiting.try_wait()?.is_none(), "a commit was acknowledged by one of three");
        ensure!(rows()? == "180000|180000", "a commit of one of three is seen");
    }
    // Room on one of them is enough.
    second.make_room()?;
    ensure!(waiting.wait()?.success(), "the commit that waited failed");
    ensure!(rows()? == "280000|280000", "rows after there was room: {}", rows()?);
    wait_no_problem(&whole, "safekeepers", 2)?;
    third.make_room()?;
    wait_no_problem(&whole, "safekeepers", 3)?;
    wait_caught_up(&whole, &compute, 3)?;
    // The two that were full now carry everything.
    wait_caught_up(&whole, &compute, 2)?;
    whole.kill_node("safekeepers", 1)?;
    whole.lose_compute(&compute)?;
    let compute = whole.start_compute("a", &[])?;
    check_row(&whole, &compute)?;
    ensure!(whole.sql(&compute.connstr, "SELECT count(DISTINCT n) FROM big")? == "280000", "rows are lost");
    Ok(())
}

#[test]
fn full_under_the_pageserver() -> Result<()> {
    if !can_mount("full_under_the_pageserver") {
        return Ok(());
    }
    let whole = Whole::initialised(&[])?;
    let disk = Mount::small_disk(&whole.dir().join("pageserver-1"), 120)?;
    start(&whole, &["start"])?;
    let small = ["--set", "shared_buffers=1MB", "--set", "autovacuum=off"];
    let compute = whole.start_compute("a", &small)?;
    let fill = "CREATE TABLE old AS SELECT n, repeat('x', 100) AS t FROM generate_series(1, 50000) n;
                CREATE TABLE new(n int)";
    whole.sql(&compute.connstr, fill)?;
    wait_stored(&whole)?;
    disk.fill()?;
    whole.sql(&compute.connstr, "INSERT INTO new SELECT generate_series(1, 5000)")?;
    wait_problem(&whole, "pageservers", 1, "No space left on device")?;
    wait_until("the branch's problem is named", || {
        Ok(branch(&whole, "problem")?.contains("No space left on device"))
    })?;
    let stuck = branch_lsn(&whole, "remote_consistent_lsn")?;
    // Reads and commits go on.
    let both = "SELECT (SELECT count(*) FROM old), (SELECT count(*) FROM new)";
    ensure!(whole.sql(&compute.connstr, both)? == "50000|5000", "reads beside a full disk");
    whole.sql(&compute.connstr, "INSERT INTO new SELECT generate_series(5001, 6000)")?;
    // Killed, it comes back on the full disk: the object store and the log have everything.
    whole.kill_node("pageservers", 1)?;
    start(&whole, &["pageserver", "start", "1"])?;
    ensure!(whole.sql(&compute.connstr, both)? == "50000|6000", "reads after a restart on a full disk");
    wait_problem(&whole, "pageservers", 1, "No space left on device")?;
    ensure!(branch_lsn(&whole, "remote_consistent_lsn")? == stuck, "a full disk made progress");
    disk.make_room()?;
    wait_no_problem(&whole, "pageservers", 1)?;
    wait_stored(&whole)?;
    whole.lose_compute(&compute)?;
    let compute = whole.start_compute("a", &small)?;
    ensure!(whole.sql(&compute.connstr, both)? == "50000|6000", "reads after there was room");
    Ok(())
}

#[test]
fn an_object_store_that_cannot_be_written() -> Result<()> {
    if !can_mount("an_object_store_that_cannot_be_written") {
        return Ok(());
    }
    let whole = Whole::initialised(&[])?;
    let objects = whole.dir().join("objects");
    start(&whole, &["start"])?;
    let compute = keep_a_row(&whole)?;
    // While it runs: work goes on, the trouble is named, nothing is called remote-consistent.
    let mount = Mount::read_only(&objects)?;
    whole.sql(&compute.connstr, "CREATE TABLE t AS SELECT generate_series(1, 20000) AS n")?;
    wait_problem(&whole, "pageservers", 1, "Read-only file system")?;
    let stuck = branch_lsn(&whole, "remote_consistent_lsn")?;
    let count = "SELECT count(*) FROM t";
    ensure!(
        whole.sql(&compute.connstr, count)? == "20000",
        "reads beside an object store that cannot be written"
    );
    ensure!(stuck < branch_lsn(&whole, "lsn")?, "what was not written counts as written");
    // At a start: refused, and the sentence names the folder.
    whole.kill_node("pageservers", 1)?;
    let expected = [
        "pageserver 1 did not start",
        "object store",
        &objects.display().to_string(),
        "Read-only file system",
    ];
    refuses(&whole, &["pageserver", "start", "1"], &expected)?;
    refuses(&whole, &["start"], &expected)?;
    mount.writable()?;
    start(&whole, &["pageserver", "start", "1"])?;
    ensure!(whole.sql(&compute.connstr, count)? == "20000", "rows after the object store could be written");
    wait_stored(&whole)?;
    check_row(&whole, &compute)
}

#[test]
fn a_file_in_the_place_of_the_object_store() -> Result<()> {
    let whole = Whole::started()?;
    let compute = keep_a_row(&whole)?;
    whole.strata(&["stop"])?;
    drop(compute);
    let (objects, aside) = (whole.dir().join("objects"), whole.scratch().join("aside"));
    std::fs::rename(&objects, &aside)?;
    std::fs::write(&objects, "a file")?;
    let place = objects.display().to_string();
    refuses(&whole, &["start"], &["pageserver 1 did not start", "object store", &place])?;
    std::fs::remove_file(&objects)?;
    std::fs::rename(&aside, &objects)?;
    whole.strata(&["start"])?;
    check_row(&whole, &whole.start_compute("a", &[])?)
}
