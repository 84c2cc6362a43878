//! Two computes on one branch: the second is refused while the first lives, or takes over and fences it (SK-2, trap S2).

use std::time::Duration;

use anyhow::{Result, ensure};
use strata_regress::tpcb::{self, Load};
use strata_regress::whole::{Whole, processes_in, wait_until};

#[test]
fn a_second_compute_is_refused_or_takes_over() -> Result<()> {
    let whole = Whole::started()?;
    let first = whole.start_compute("first", &[])?;
    let scale = 2;
    tpcb::fill(&whole, &first, scale)?;

    let refused = whole.say(&["compute", "start", "second"])?;
    ensure!(
        !refused.ok && refused.stderr.contains("'first'"),
        "the refusal does not name the first: {refused:?}"
    );
    ensure!(refused.stderr.trim().lines().count() == 1, "not one sentence: {}", refused.stderr);

    let load = Load::start(&whole, &first, scale, 8, 60, 1)?;
    std::thread::sleep(Duration::from_secs(1));
    let second = whole.start_compute("second", &["--takeover"])?;
    let (acknowledged, unharmed) = load.finish()?;
    ensure!(!unharmed, "the first compute went on as if nothing had happened");
    ensure!(acknowledged.total() > 0, "the load did nothing before the takeover");
    wait_until("the first compute is gone", || Ok(processes_in(&first.pgdata)?.is_empty()))?;
    // No acknowledged row is lost, and none is there twice.
    tpcb::check(&whole, &second, &[acknowledged])?;
    let shown = whole.json(&["compute", "show", "first"])?;
    ensure!(shown["state"] == "fenced", "the first compute says: {shown}");
    Ok(())
}

#[test]
fn a_dead_compute_never_blocks() -> Result<()> {
    let whole = Whole::started()?;
    let first = whole.start_compute("first", &[])?;
    whole.sql(&first.connstr, "CREATE TABLE t AS SELECT 1 AS n")?;
    whole.lose_compute(&first)?;
    let second = whole.start_compute("second", &[])?;
    ensure!(whole.sql(&second.connstr, "SELECT n FROM t")? == "1", "the row is gone");
    Ok(())
}
