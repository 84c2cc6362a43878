//! V: visibility map and free space map.

use anyhow::Result;
use strata_common::Guard;
use strata_regress::sound;
use strata_regress::traps::show;

/// VACUUM says on the page, without moving its LSN, that all rows are visible. A page that comes back without that lets a DELETE
/// leave the visibility map's bit.
#[test]
fn v7_all_visible_outlives_an_eviction() -> Result<()> {
    show(Guard::AllVisible, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(
            &compute,
            "CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 50)",
        )?;
        ground.sql(&compute, "VACUUM t")?;
        // Clears the bit again: the map exists before the log is held, for making it raises what every read must reflect.
        ground.sql(&compute, "INSERT INTO t VALUES (51)")?;
        ground.caught_up(&compute)?;
        let held = ground.hold_log();
        ground.sql(&compute, "VACUUM t")?;
        ground.sql(&compute, "SELECT evict('t')")?;
        ground.sql_while_held(&compute, held, "DELETE FROM t WHERE id = 7")?;
        let left = ground
            .sql(&compute, "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM t")?;
        sound!(left == "50", "an index-only scan counts {left} rows of 50");
        Ok(())
    })
}
