//! Unlogged relations live on the compute's disk and are empty after any stop; what became logged, or permanent, survives
//! (traps R11, R13). Temporary ones are nobody's business but their session's.

use anyhow::{Context, Result, ensure};
use strata_regress::whole::{Compute, Whole};

const MAKE: &str = "
    CREATE UNLOGGED TABLE unlogged(id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, t text);
    INSERT INTO unlogged(t) SELECT 'x' FROM generate_series(1, 20000);
    REINDEX INDEX unlogged_pkey;
    CREATE UNLOGGED SEQUENCE counter;
    SELECT nextval('counter') FROM generate_series(1, 5);
    CREATE TABLE demoted(a int PRIMARY KEY);
    INSERT INTO demoted SELECT generate_series(1, 1000);
    ALTER TABLE demoted SET UNLOGGED;
    CREATE UNLOGGED TABLE promoted(a int PRIMARY KEY);
    INSERT INTO promoted SELECT generate_series(1, 500);
    ALTER TABLE promoted SET LOGGED;
    CREATE TEMP TABLE temporary AS SELECT generate_series(1, 10) AS n;";

fn counts(whole: &Whole, compute: &Compute) -> Result<String> {
    whole.sql(
        &compute.connstr,
        "SELECT (SELECT count(*) FROM unlogged), (SELECT count(*) FROM demoted), (SELECT count(*) FROM promoted)",
    )
}

fn usable(whole: &Whole, compute: &Compute) -> Result<()> {
    let id = whole.sql(&compute.connstr, "INSERT INTO unlogged(t) VALUES ('after') RETURNING id")?;
    ensure!(id == "1", "the unlogged table's sequence goes on at {id}");
    whole.sql(&compute.connstr, "INSERT INTO demoted VALUES (1)")?;
    ensure!(
        whole.sql(&compute.connstr, "SELECT nextval('counter')")? == "1",
        "the unlogged sequence was kept"
    );
    whole.amcheck(compute)
}

#[test]
fn empty_after_a_loss_and_after_a_clean_stop() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &["--set", "shared_buffers=1MB"])?;
    whole.sql(&compute.connstr, MAKE)?;
    ensure!(counts(&whole, &compute)? == "20000|1000|500", "before the loss: {}", counts(&whole, &compute)?);

    // A rebuilt index is read by its own file, not by what it had before the INIT fork was made.
    let by_index =
        whole.sql(&compute.connstr, "SET enable_seqscan = off; SELECT t FROM unlogged WHERE id = 19999")?;
    ensure!(by_index == "x", "the rebuilt index of an unlogged table answers '{by_index}'");
    whole.amcheck(&compute)?;

    whole.lose_compute(&compute)?;
    let compute = whole.start_compute("a", &["--set", "shared_buffers=1MB"])?;
    ensure!(counts(&whole, &compute)? == "0|0|500", "after the loss: {}", counts(&whole, &compute)?);
    usable(&whole, &compute)?;

    whole.stop_compute("a")?.context("a clean stop")?;
    let compute = whole.start_compute("a", &["--set", "shared_buffers=1MB"])?;
    ensure!(counts(&whole, &compute)? == "0|0|500", "after the stop: {}", counts(&whole, &compute)?);
    usable(&whole, &compute)
}
