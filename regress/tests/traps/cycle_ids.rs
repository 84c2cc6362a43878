//! W8: a page of a btree that splits while its index is vacuumed.

use anyhow::{Context, Result, ensure};
use strata_common::Guard;
use strata_regress::sound;
use strata_regress::traps::show;

/// A vacuum goes through an index in the order of its blocks. A split that moves entries to a block that it has passed already marks
/// both halves, and the vacuum goes back. Without the mark entries of removed rows stay, and find whatever comes to their place.
#[test]
fn w8_a_split_under_vacuum_outlives_an_eviction() -> Result<()> {
    show(Guard::CycleIds, |ground| {
        let compute = ground.compute(&["strata.keeper_interval=1h"])?;
        ground.sql(
            &compute,
            "CREATE EXTENSION pageinspect; CREATE TABLE t(k int, v text);
             INSERT INTO t SELECT 2 * n, 'old' FROM generate_series(1, 4000) n; CREATE INDEX i ON t(k)",
        )?;
        // The second leaf becomes free, and the next transaction lets it be used again.
        let first_keys =
            "SELECT (regexp_match(data, '^(..) (..) (..)'))::text FROM bt_page_items('i', 2) LIMIT 1";
        ground.sql(&compute, first_keys).context("the index has a second leaf")?;
        ground.sql(&compute, "DELETE FROM t WHERE k BETWEEN 700 AND 1800")?;
        ground.sql(&compute, "VACUUM t")?;
        ground.sql(&compute, "INSERT INTO t VALUES (1, 'old'); DELETE FROM t WHERE k = 1")?;
        ground.sql(&compute, "VACUUM (INDEX_CLEANUP on) t")?;
        let free = "SELECT count(*) FROM generate_series(1, pg_relation_size('i') / 8192 - 1) AS block,
            LATERAL bt_page_stats('i', block) AS page WHERE page.type = 'd'";
        ensure!(ground.sql(&compute, free)? != "0", "no page of the index is free");
        // Rows of later leaves die; an index-only scan of an earlier one stops the vacuum there.
        ground.sql(&compute, "DELETE FROM t WHERE k BETWEEN 6200 AND 6300")?;
        let mut scan = ground.session(&compute)?;
        scan.run("SET enable_seqscan = off; SET enable_bitmapscan = off")?;
        scan.run("BEGIN")?;
        scan.run("DECLARE c CURSOR FOR SELECT k FROM t WHERE k > 4000 ORDER BY k")?;
        scan.run("FETCH c")?;
        let mut vacuum = ground.session(&compute)?;
        vacuum.start("VACUUM (INDEX_CLEANUP on, PARALLEL 0) t")?;
        vacuum.wait_until("wait_event = 'BufferPin'")?;
        // The leaf with the dead rows splits, and its right half goes to the free page.
        ground.sql(&compute, "INSERT INTO t SELECT 2 * n + 1, 'new' FROM generate_series(2950, 3140) n")?;
        ground.sql(&compute, "SELECT evict('i')")?;
        scan.run("COMMIT")?;
        vacuum.finish()?;
        // The places of the removed rows are taken.
        ground.sql(&compute, "INSERT INTO t SELECT 100000 + n, 'later' FROM generate_series(1, 3000) n")?;
        let found = ground.sql(
            &compute,
            "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM t WHERE k BETWEEN 6200 AND 6300 AND v = 'later'",
        )?;
        sound!(found == "0", "the index finds {found} other rows under keys of removed ones");
        Ok(())
    })
}
