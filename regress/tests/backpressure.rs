//! Writers pause for a pageserver that is far behind: commits and growing relations, never for ever, and not once it has caught up (LV-1).

use anyhow::{Result, ensure};
use strata_regress::session::Session;
use strata_regress::traps::Ground;
use strata_regress::whole::{Compute, wait_until};

/// Log of more than the least limit, which is 1 MB.
const GROW: &str = "INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 8000) n";

const UPDATE: &str = "UPDATE t SET n = n WHERE n = 0";
const COUNT: &str = "SELECT count(*) FROM t";

fn pauses(ground: &Ground, compute: &Compute) -> Result<u64> {
    Ok(ground.sql(compute, "SELECT pauses FROM strata_backpressure()")?.parse()?)
}

fn prepared(limit: &str) -> Result<(Ground, Compute)> {
    let ground = Ground::whole()?;
    let compute = ground.compute(&[&format!("strata.max_pageserver_lag={limit}"), "shared_buffers=64MB"])?;
    ground.sql(&compute, "CREATE TABLE t(n int, text text); INSERT INTO t VALUES (0, '')")?;
    // All pages that a statement needs are in buffers later: what waits for the log that is held would wait for ever.
    for statement in
        [GROW, UPDATE, COUNT, "SELECT * FROM strata_backpressure()", "SELECT pg_terminate_backend(0)"]
    {
        ground.sql(&compute, statement)?;
    }
    ground.caught_up(&compute)?;
    Ok((ground, compute))
}

#[test]
fn writers_pause_and_go_on() -> Result<()> {
    let (ground, compute) = prepared("1MB")?;
    let mut watcher = Session::open(&compute)?;
    // What the watcher asks for again and again must not wait for a page later.
    let paused = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'StrataBackpressure'";
    ensure!(watcher.sql(paused)? == "0");
    let before = pauses(&ground, &compute)?;
    ground.sql(&compute, UPDATE)?;
    ensure!(pauses(&ground, &compute)? == before, "nobody pauses for a pageserver that keeps up");
    let held = ground.hold_log();
    // The first one may not have paused: its log was sent while it was written.
    for _ in 0..2 {
        ground.sql(&compute, GROW)?;
    }
    ensure!(pauses(&ground, &compute)? > before, "what grows did not pause");
    let row = watcher
        .sql("SELECT limit_bytes, lag_bytes > limit_bytes, paused_us >= 1000 FROM strata_backpressure()")?;
    ensure!(row == "1048576|t|t", "{row}");
    // A commit without growth pauses, too; a reader does not.
    let before = pauses(&ground, &compute)?;
    ground.sql(&compute, COUNT)?;
    ensure!(pauses(&ground, &compute)? == before, "a reader paused");
    ground.sql(&compute, UPDATE)?;
    ensure!(pauses(&ground, &compute)? > before, "a commit did not pause");

    // A session that pauses is seen, and ends as any other.
    let mut session = ground.session(&compute)?;
    let pid = session.run("SELECT pg_backend_pid()")?;
    session.start(&format!("{UPDATE}; ").repeat(200))?;
    wait_until("the session is seen to pause", || Ok(watcher.sql(paused)? != "0"))?;
    watcher.sql(&format!("SELECT pg_terminate_backend({pid})"))?;
    wait_until("it is gone", || {
        Ok(watcher.sql(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"))? == "0")
    })?;
    drop(held);
    ground.caught_up(&compute)?;
    let before = pauses(&ground, &compute)?;
    ground.sql(&compute, UPDATE)?;
    ensure!(pauses(&ground, &compute)? == before, "it has caught up");
    ensure!(ground.sql(&compute, COUNT)? == "24001");
    Ok(())
}

#[test]
fn no_limit_no_pause() -> Result<()> {
    let (ground, compute) = prepared("0")?;
    let held = ground.hold_log();
    for _ in 0..2 {
        ground.sql(&compute, GROW)?;
    }
    let row = ground.sql(
        &compute,
        "SELECT limit_bytes IS NULL, lag_bytes > 4000000, pauses FROM strata_backpressure()",
    )?;
    ensure!(row == "t|t|0", "{row}");
    drop(held);
    Ok(())
}
