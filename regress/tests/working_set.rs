//! The working set that a server estimates, against tables of known size.

use anyhow::{Result, ensure};
use strata_regress::whole::{Whole, wait_until};

/// Pages of catalogs that a session may touch beside the table.
const CATALOGS: f64 = 200.0;
/// Three standard errors of the sketch.
const ERROR: f64 = 0.05;

#[test]
fn pages_asked_for_below_shared_buffers_are_counted_once_and_for_a_while() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &["--set", "shared_buffers=1MB", "--set", "autovacuum=off"])?;
    let number = |sql: &str| Ok::<f64, anyhow::Error>(whole.number(&compute, sql)? as f64);
    whole.sql(
        &compute.connstr,
        "CREATE EXTENSION strata; CREATE TABLE t AS SELECT n, repeat('x', 900) AS filler FROM generate_series(1, 20000) n",
    )?;
    let size = number("SELECT pg_relation_size('t') / 8192")?;
    ensure!(size > 2000.0, "the table has {size} pages");
    // Too large for shared buffers: each scan asks for every page.
    whole.sql(&compute.connstr, "SELECT strata_working_set_reset()")?;
    for scans in 1..=3 {
        whole.sql(&compute.connstr, "SELECT count(*) FROM t")?;
        let seen = number("SELECT strata_working_set_size()")?;
        ensure!(
            seen >= size * (1.0 - ERROR) && seen <= (size + CATALOGS) * (1.0 + ERROR),
            "after {scans} scans of {size} pages the working set has {seen}"
        );
    }
    let of_an_hour = number("SELECT strata_working_set_size(interval '1 hour')")?;
    ensure!(of_an_hour >= size * (1.0 - ERROR), "in an hour {of_an_hour} of {size} pages");
    wait_until("the scans are more than two seconds ago", || {
        Ok(number("SELECT strata_working_set_size(interval '2 seconds')")? <= CATALOGS)
    })?;
    whole.sql(&compute.connstr, "SELECT strata_working_set_reset()")?;
    let left = number("SELECT strata_working_set_size()")?;
    ensure!(left <= CATALOGS, "after a reset {left} pages are left");
    Ok(())
}
