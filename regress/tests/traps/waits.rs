//! P7: who waits for an answer is woken when it is there. A lost wake-up harms nobody but its owner, who sleeps for a moment longer
//! and looks again: so it is counted.

use anyhow::Result;
use strata_common::Guard;
use strata_regress::sound;
use strata_regress::traps::show;

#[test]
fn p7_who_waits_for_an_answer_is_woken() -> Result<()> {
    show(Guard::OwnersWoken, |ground| {
        // Who spins needs no wake-up.
        let compute =
            ground.compute(&["strata.lfc_max_size=0", "strata.prefetch_max=0", "strata.spin_limit=0"])?;
        ground.sql(
            &compute,
            "CREATE TABLE t AS SELECT n, repeat('x', 500) AS x FROM generate_series(1, 8000) n",
        )?;
        ground.sql(&compute, "SELECT evict('t')")?;
        ground.sql(&compute, "SELECT count(x) FROM t")?;
        let counters: serde_json::Value =
            serde_json::from_str(&ground.sql(&compute, "SHOW strata.counters")?)?;
        let lost = &counters["lost_wakeups"];
        sound!(*lost == 0, "{lost} answers were slept through");
        Ok(())
    })
}
