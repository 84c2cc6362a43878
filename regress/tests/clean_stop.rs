//! A clean stop ships the log to the end of the shutdown checkpoint, and the next compute begins exactly there; after a loss it
//! begins at most one handoff record above what the majority had (traps S1, S8).

use anyhow::{Context, Result, ensure};
use strata_common::Lsn;
use strata_regress::whole::Whole;

/// Largest distance that a handoff record can add: itself, alignment, and a page and a segment header.
const HANDOFF_BYTES_MAX: u64 = 114 + 8 + 24 + 40;

#[test]
fn the_next_compute_begins_where_the_log_ended() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &[])?;
    whole.sql(&compute.connstr, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")?;
    for _ in 0..3 {
        let end = whole.stop_compute("a")?.context("a clean stop says where the log ends")?;
        let compute = whole.start_compute("a", &[])?;
        let first = whole.sql(&compute.connstr, "SELECT pg_current_wal_lsn()")?;
        ensure!(first == end, "the log ended at {end}, the next compute begins at {first}");
        let count = whole.sql(&compute.connstr, "SELECT count(*) FROM t")?;
        ensure!(count == "1000", "{count} rows instead of 1000");
    }
    Ok(())
}

#[test]
fn after_a_loss_only_the_handoff_record_is_added() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &[])?;
    whole.sql(&compute.connstr, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")?;
    whole.lose_compute(&compute)?;
    let held = whole.strata(&["lsn", "main"])?;
    let flushed = highest_flush(&whole)?.max(held.trim().parse::<Lsn>()?);
    let compute = whole.start_compute("b", &[])?;
    let first: Lsn = whole.sql(&compute.connstr, "SELECT pg_current_wal_lsn()")?.parse()?;
    let added = first.checked_sub(held.trim().parse::<Lsn>()?).context("the log went backwards")?;
    ensure!(
        first <= flushed + HANDOFF_BYTES_MAX,
        "held up to {flushed}, begins at {first} ({added} bytes more)"
    );
    ensure!(whole.sql(&compute.connstr, "SELECT count(*) FROM t")? == "1000", "rows are missing");
    Ok(())
}

/// The highest flush LSN that any safekeeper reports on its status page.
fn highest_flush(whole: &Whole) -> Result<Lsn> {
    let status = whole.json(&["status"])?;
    let branches = status["branches"].as_array().context("branches")?;
    let flush = branches.iter().filter_map(|branch| branch["flush_lsn"].as_str()?.parse().ok()).max();
    Ok(flush.unwrap_or(Lsn::INVALID))
}
