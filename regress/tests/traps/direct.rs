//! W3 and W5: pages that are new to the log are not asked for as of before it.

use anyhow::{Result, ensure};
use strata_common::Guard;
use strata_regress::sound;
use strata_regress::traps::{Ground, OrHarm, Stuck, WAITING, show};
use strata_regress::whole::{Compute, wait_until};

/// CREATE INDEX CONCURRENTLY with the log held back between making the index and filling it; what it said. If it comes to wait for a
/// page, the log goes on.
fn built_with_log_held(ground: &Ground, compute: &Compute, index: &str, then: &str) -> Result<String> {
    // Its records of running transactions would make even the first pages newer than what the pageserver has.
    let _writer = ground.stop_process(compute, "background writer")?;
    let mut other = ground.session(compute)?;
    other.run("BEGIN")?;
    other.run("LOCK TABLE t IN ROW EXCLUSIVE MODE")?;
    let mut builder = ground.session(compute)?;
    builder.start(&format!("CREATE INDEX CONCURRENTLY i ON t USING {index}"))?;
    builder.wait_until("wait_event_type = 'Lock'")?;
    ground.sql(compute, "SELECT pg_logical_emit_message(true, 'test', '')")?;
    ground.caught_up(compute)?;
    let held = ground.hold_log();
    other.run("COMMIT")?;
    let (mut stuck, mut built) = (Stuck::default(), false);
    wait_until("the index is built, or its build waits for the log", || {
        built = builder.is("state = 'idle'")?;
        Ok(built || stuck.look(&ground.sql(compute, WAITING)?))
    })?;
    if !built {
        drop(held);
        let said = builder.finish()?;
        return Ok(format!("{said}{}", ground.sql(compute, then).or_harm()?));
    }
    let said = builder.finish()?;
    sound!(!said.contains("ERROR"), "{said}");
    ground.sql(compute, "SELECT evict('i')")?;
    ground.sql_while_held(compute, held, then).or_harm()
}

/// An index that was built without log is logged at the end; only then can its pages be asked for.
#[test]
fn w3_a_built_index_is_not_read_as_of_before_it() -> Result<()> {
    show(Guard::PageLsn, |ground| {
        let compute = ground.compute(&["strata.keeper_interval=1h"])?;
        ground.sql(&compute, "CREATE TABLE t AS SELECT generate_series(1, 5000) AS n")?;
        let seen = built_with_log_held(
            ground,
            &compute,
            "gist (int4range(n, n + 1))",
            "SET enable_seqscan = off; SELECT count(*) FROM t WHERE int4range(n, n + 1) && int4range(301, 401)",
        )?;
        sound!(seen == "100", "the index gives '{seen}' instead of 100 rows");
        Ok(())
    })
}

/// A btree is loaded past shared buffers.
#[test]
fn w5_a_loaded_index_is_not_read_as_of_before_it() -> Result<()> {
    show(Guard::DirectLsn, |ground| {
        let compute = ground.compute(&["strata.keeper_interval=1h"])?;
        ground.sql(&compute, "CREATE TABLE t AS SELECT generate_series(1, 5000) AS n")?;
        let seen = built_with_log_held(
            ground,
            &compute,
            "btree (n)",
            "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM t WHERE n < 1000",
        )?;
        sound!(seen == "999", "the index gives '{seen}' instead of 999 rows");
        Ok(())
    })
}

/// Loads, rewrites and copies go past shared buffers and make their relation longer.
#[test]
fn w5_what_is_written_directly_makes_its_relation_longer() -> Result<()> {
    show(Guard::DirectSize, |ground| {
        let compute = ground.bare_compute("a", &[])?;
        let whole = |what: &str| -> Result<()> {
            let counts = "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*), count(v) FROM t WHERE n > 0";
            let seen = ground.sql(&compute, counts).or_harm()?;
            sound!(seen == "5000|5000", "after {what}: {seen}");
            Ok(())
        };
        ground.sql(
            &compute,
            "CREATE TABLE t AS SELECT n, repeat('x', 100) AS v FROM generate_series(1, 5000) AS n",
        )?;
        for (what, command) in [
            ("an index's load", "CREATE INDEX i ON t(n)"),
            ("a table's rewrite", "CLUSTER t USING i"),
            ("VACUUM FULL", "VACUUM FULL t"),
            ("a sorted build", "CREATE INDEX sorted ON t USING gist (point(n, n))"),
            ("SET LOGGED", "BEGIN; ALTER TABLE t SET UNLOGGED; ALTER TABLE t SET LOGGED; COMMIT"),
        ] {
            ground.sql(&compute, command).or_harm()?;
            whole(what)?;
        }
        ensure!(ground.sql(&compute, "SELECT count(*) FROM t")? == "5000", "rows are missing");
        Ok(())
    })
}
