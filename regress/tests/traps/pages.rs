//! W: pages that change without enough WAL.

use anyhow::Result;
use strata_common::Guard;
use strata_regress::sound;
use strata_regress::traps::show;

/// A cursor sees the rows of its own transaction as they were when it was opened, wherever their pages have been since.
#[test]
fn w6_command_ids_outlive_an_eviction() -> Result<()> {
    show(Guard::CommandIds, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(
            &compute,
            "CREATE TABLE t(id int, v text); INSERT INTO t SELECT n, 'old' FROM generate_series(1, 50) n",
        )?;
        let seen = ground.sql(
            &compute,
            "BEGIN; UPDATE t SET v = 'old' WHERE id = 1; DECLARE before CURSOR FOR SELECT count(*), min(v), max(v) FROM t; UPDATE t SET v = 'new';
             INSERT INTO t SELECT n, 'late' FROM generate_series(51, 60) n;
             SELECT evict('t'); FETCH before; COMMIT",
        )?;
        sound!(seen == "0\n50|old|old", "the cursor saw '{seen}'");
        Ok(())
    })
}
