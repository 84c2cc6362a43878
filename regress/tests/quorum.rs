//! Safekeepers die under load: one is not noticed, two stop commits and nothing else, and nothing that waits is seen or
//! acknowledged before a majority has it (SK-1, traps S9, K16).

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use strata_regress::tpcb::{self, Load};
use strata_regress::whole::{Compute, Whole, wait_until};

const SCALE: u32 = 2;

fn loaded() -> Result<(Whole, Compute)> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &["--set", "max_prepared_transactions=10"])?;
    whole.sql(&compute.connstr, "CREATE EXTENSION strata")?;
    tpcb::fill(&whole, &compute, SCALE)?;
    Ok((whole, compute))
}

#[test]
fn one_safekeeper_killed_is_not_noticed_and_catches_up() -> Result<()> {
    let (whole, compute) = loaded()?;
    let load = Load::start(&whole, &compute, SCALE, 8, 8, 1)?;
    std::thread::sleep(Duration::from_secs(2));
    whole.kill_node("safekeepers", 2)?;
    let (acknowledged, unharmed) = load.finish()?;
    ensure!(unharmed, "a client saw an error");
    tpcb::check(&whole, &compute, &[acknowledged])?;
    whole.strata(&["safekeeper", "start", "2"])?;
    wait_until("the safekeeper that lagged has caught up", || {
        let behind = "SELECT count(*) FROM strata_safekeepers WHERE flush_lsn < (SELECT max(commit_lsn) FROM strata_safekeepers)";
        Ok(whole.sql(&compute.connstr, behind)? == "0")
    })
}

#[test]
fn two_killed_stop_commits_until_one_returns() -> Result<()> {
    let (whole, compute) = loaded()?;
    whole.sql(&compute.connstr, "CREATE TABLE seen(n int); INSERT INTO seen VALUES (1)")?;
    whole.kill_node("safekeepers", 1)?;
    whole.kill_node("safekeepers", 2)?;
    let mut waiting = session(&whole, &compute, "INSERT INTO seen VALUES (2)")?;
    wait_until("a commit waits for the quorum", || Ok(waiting_commits(&whole, &compute)? == 1))?;
    // Reads of what is committed go on, and do not see what waits.
    ensure!(whole.sql(&compute.connstr, "SELECT count(*) FROM seen")? == "1", "a waiting commit is seen");
    ensure!(waiting.try_wait()?.is_none(), "a commit without a quorum was acknowledged");
    whole.strata(&["safekeeper", "start", "1"])?;
    ensure!(waiting.wait()?.success(), "the commit that waited failed");
    ensure!(
        whole.sql(&compute.connstr, "SELECT count(*) FROM seen")? == "2",
        "the commit that waited is not seen"
    );
    Ok(())
}

/// Starts psql in the background.
fn session(whole: &Whole, compute: &Compute, sql: &str) -> Result<Child> {
    let mut psql = whole.program("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &compute.connstr]);
    for statement in sql.split(';').filter(|statement| !statement.trim().is_empty()) {
        psql.args(["-c", statement]);
    }
    psql.spawn().context("cannot start psql")
}

fn waiting_commits(whole: &Whole, compute: &Compute) -> Result<usize> {
    let waits =
        whole.sql(&compute.connstr, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")?;
    waits.parse().context("a number")
}

#[test]
fn a_disturbed_commit_is_neither_seen_nor_acknowledged() -> Result<()> {
    let (whole, compute) = loaded()?;
    let connstr = &compute.connstr;
    whole.sql(connstr, "CREATE TABLE t(n int)")?;
    whole.sql(connstr, "BEGIN; INSERT INTO t VALUES (100); PREPARE TRANSACTION 'ready'")?;
    whole.kill_node("safekeepers", 1)?;
    whole.kill_node("safekeepers", 2)?;
    let sessions = [
        "INSERT INTO t VALUES (1)",
        "SET synchronous_commit=local; INSERT INTO t VALUES (2)",
        "SET synchronous_commit=remote_write; INSERT INTO t VALUES (3)",
        // In the commit, which is what the timeout must not end.
        "BEGIN; INSERT INTO t VALUES (4); SET LOCAL statement_timeout='500ms'; COMMIT",
        "BEGIN; INSERT INTO t VALUES (5); PREPARE TRANSACTION 'new'",
        "COMMIT PREPARED 'ready'",
        "DO $$ BEGIN INSERT INTO t VALUES (6); COMMIT; END $$",
    ];
    let mut children = Vec::new();
    for sql in sessions {
        // A DO block has semicolons of its own.
        let child = if sql.starts_with("DO") {
            whole.program("psql").args(["-X", "-q", "-d", connstr, "-c", sql]).spawn()?
        } else {
            session(&whole, &compute, sql)?
        };
        children.push(child);
    }
    wait_until("all commits wait", || Ok(waiting_commits(&whole, &compute)? == sessions.len()))?;
    for function in ["pg_cancel_backend", "pg_cancel_backend", "pg_terminate_backend"] {
        whole.sql(
            connstr,
            &format!("SELECT {function}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"),
        )?;
        let until = Instant::now() + Duration::from_millis(700);
        while Instant::now() < until {
            ensure!(waiting_commits(&whole, &compute)? == sessions.len(), "{function} ended a wait");
            ensure!(
                whole.sql(connstr, "SELECT count(*) FROM t")? == "0",
                "{function} showed a commit without a quorum"
            );
        }
    }
    for (child, sql) in children.iter_mut().zip(sessions) {
        ensure!(child.try_wait()?.is_none(), "acknowledged without a quorum: {sql}");
    }
    whole.strata(&["safekeeper", "start", "2"])?;
    for child in &mut children {
        child.wait()?;
    }
    // All of them are there now: what waited was committed, and their backends were terminated after the answer.
    let rows = whole.sql(connstr, "SELECT string_agg(n::text, ',' ORDER BY n) FROM t")?;
    ensure!(rows == "1,2,3,4,6,100", "after the quorum came back: {rows}");
    let prepared = whole.sql(connstr, "SELECT string_agg(gid, ',') FROM pg_prepared_xacts")?;
    ensure!(prepared == "new", "prepared transactions: {prepared}");
    Ok(())
}

#[test]
fn a_fast_stop_without_a_quorum_ends_and_shows_nothing() -> Result<()> {
    let (whole, compute) = loaded()?;
    whole.sql(&compute.connstr, "CREATE TABLE t(n int)")?;
    whole.kill_node("safekeepers", 1)?;
    whole.kill_node("safekeepers", 3)?;
    let mut waiting = session(&whole, &compute, "INSERT INTO t VALUES (1)")?;
    wait_until("a commit waits for the quorum", || Ok(waiting_commits(&whole, &compute)? == 1))?;
    let end = whole.stop_compute("a")?;
    ensure!(end.is_none(), "a stop without a quorum claims that the log ends at {end:?}");
    ensure!(!waiting.wait()?.success(), "the commit that waited was acknowledged");
    Ok(())
}

#[test]
fn a_wiped_safekeeper_comes_back_as_a_learner() -> Result<()> {
    let (whole, compute) = loaded()?;
    whole.kill_node("safekeepers", 3)?;
    let dir = whole.node("safekeepers", 3)?["dir"].as_str().context("dir")?.to_owned();
    std::fs::remove_dir_all(&dir)?;
    whole.strata(&["safekeeper", "start", "3"])?;
    whole.sql(&compute.connstr, "CREATE TABLE t AS SELECT generate_series(1, 10000) AS n")?;
    wait_until("the wiped safekeeper has caught up as a learner", || {
        let row = "SELECT count(*) FROM strata_safekeepers WHERE id = 3 AND state = 'learner'
                   AND flush_lsn >= (SELECT max(commit_lsn) FROM strata_safekeepers)";
        Ok(whole.sql(&compute.connstr, row)? == "1")
    })?;
    // It counts for nothing: with one voter gone two are left and commits go on; with a second gone they must wait.
    whole.kill_node("safekeepers", 1)?;
    let mut waiting = session(&whole, &compute, "INSERT INTO t VALUES (0)")?;
    wait_until("a commit waits for the quorum", || Ok(waiting_commits(&whole, &compute)? == 1))?;
    ensure!(waiting.try_wait()?.is_none(), "a learner was counted");
    whole.strata(&["safekeeper", "start", "1"])?;
    ensure!(waiting.wait()?.success(), "the commit that waited failed");
    Ok(())
}
