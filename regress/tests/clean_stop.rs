//! A clean stop ships the log to the end of the shutdown checkpoint, and the next compute begins exactly there; after a loss it
//! begins at most one handoff record above what the majority had (traps S1, S8).
//!
//! Where a compute begins is what its supervisor says, and the checkpoint that its server started from. Not where the server's log is
//! when a client comes: the background writer and the keeper log by themselves, on a slow machine before that.

use anyhow::{Context, Result, ensure};
use strata_common::Lsn;
use strata_regress::whole::{Compute, Whole, wait_until};

/// Largest distance that a handoff record, a shutdown checkpoint, can add: itself, alignment, and a page and a segment header.
const HANDOFF_BYTES_MAX: u64 = 114 + 8 + 24 + 40;

/// A compute whose server makes no checkpoint by itself, and where it begins.
fn start(whole: &Whole, name: &str) -> Result<(Compute, Lsn)> {
    let shown = whole.json(&["compute", "start", name, "--set", "checkpoint_timeout=1d"])?;
    let first = shown["start_lsn"].as_str().context("a compute begins somewhere")?.parse()?;
    let compute = Compute::from_json(&shown)?;
    // The server's own word: the last record before the place.
    let seen = "SELECT checkpoint_lsn || ' ' || pg_current_wal_lsn() FROM pg_control_checkpoint()";
    let seen = whole.sql(&compute.connstr, seen)?;
    let (checkpoint, now) = seen.split_once(' ').context("two LSNs")?;
    let (checkpoint, now): (Lsn, Lsn) = (checkpoint.parse()?, now.parse()?);
    ensure!(
        checkpoint < first && first <= checkpoint + HANDOFF_BYTES_MAX && first <= now,
        "it is to begin at {first}, with the checkpoint at {checkpoint}, and is at {now}"
    );
    Ok((compute, first))
}

#[test]
fn the_next_compute_begins_where_the_log_ended() -> Result<()> {
    let whole = Whole::started()?;
    let (compute, _) = start(&whole, "a")?;
    whole.sql(&compute.connstr, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")?;
    for _ in 0..3 {
        let end: Lsn = whole.stop_compute("a")?.context("a clean stop says where the log ends")?.parse()?;
        let (compute, first) = start(&whole, "a")?;
        ensure!(first == end, "the log ended at {end}, the next compute begins at {first}");
        let count = whole.sql(&compute.connstr, "SELECT count(*) FROM t")?;
        ensure!(count == "1000", "{count} rows instead of 1000");
    }
    Ok(())
}

#[test]
fn after_a_loss_only_the_handoff_record_is_added() -> Result<()> {
    let whole = Whole::started()?;
    let (compute, _) = start(&whole, "a")?;
    whole.sql(&compute.connstr, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")?;
    whole.lose_compute(&compute)?;
    let mut flushed = Lsn::INVALID;
    wait_until("what was on its way to the safekeepers has come", || {
        let before = std::mem::replace(&mut flushed, highest_flush(&whole)?);
        Ok(before == flushed)
    })?;
    let held: Lsn = whole.strata(&["lsn", "main"])?.trim().parse()?;
    let (compute, first) = start(&whole, "b")?;
    ensure!(held < first && first <= flushed + HANDOFF_BYTES_MAX, "held {held}, on disks {flushed}, {first}");
    ensure!(whole.sql(&compute.connstr, "SELECT count(*) FROM t")? == "1000", "rows are missing");
    Ok(())
}

/// The highest flush LSN that any safekeeper reports.
fn highest_flush(whole: &Whole) -> Result<Lsn> {
    let status = whole.json(&["status"])?;
    let branches = status["branches"].as_array().context("branches")?;
    let flush: Option<Lsn> =
        branches.iter().filter_map(|branch| branch["flush_lsn"].as_str()?.parse().ok()).max();
    flush.context("no safekeeper says how far it is")
}
