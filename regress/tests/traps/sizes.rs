//! W13 and W17: relations that are longer than the log says.

use anyhow::{Result, ensure};
use strata_common::Guard;
use strata_regress::sound;
use strata_regress::traps::{OrHarm, show};

/// COPY adds many blocks at once, and the log knows of none that it did not use: what lay there before is gone.
#[test]
fn w13_blocks_that_the_log_does_not_know_are_zero() -> Result<()> {
    show(Guard::ZerosBeyondEnd, |ground| {
        let compute = ground.compute(&[])?;
        // Blocks that were full before the cut, and then are added without being used.
        ground.sql(
            &compute,
            "BEGIN; CREATE TABLE t(id int); INSERT INTO t SELECT generate_series(1, 9000); TRUNCATE t;
             COPY t FROM PROGRAM 'seq 5000'; COMMIT",
        )?;
        let unused = ground.sql(
            &compute,
            "SELECT pg_relation_size('t') / 8192 - 1 > (SELECT max((ctid::text::point)[0]) FROM t)",
        )?;
        ensure!(unused == "t", "every block is used: the test shows nothing");
        ensure!(ground.sql(&compute, "SELECT evict('t')")? == "0", "not all pages have left");
        let count = ground.sql(&compute, "SELECT count(*) FROM t").or_harm()?;
        sound!(count == "5000", "{count} rows");
        // After a loss the log alone says how long it is.
        let compute = ground.next_compute(&compute, &[])?;
        let count = ground.sql(&compute, "SELECT count(*) FROM t").or_harm()?;
        sound!(count == "5000", "{count} rows on the next compute");
        Ok(())
    })
}

/// Blocks are added before they are logged, many at a time with large buffers: the size that the server goes by follows at once.
#[test]
fn w17_a_relation_is_as_long_as_it_was_made() -> Result<()> {
    show(Guard::GrownSize, |ground| {
        let compute = ground.bare_compute("a", &["shared_buffers=256MB"])?;
        ground.sql(&compute, "CREATE TABLE t(id int); COPY t FROM PROGRAM 'seq 50000'").or_harm()?;
        let count = ground.sql(&compute, "SELECT count(*) FROM t").or_harm()?;
        sound!(count == "50000", "{count} rows of 50000");
        Ok(())
    })
}
