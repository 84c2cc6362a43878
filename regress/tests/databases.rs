//! DROP DATABASE forgets what belongs to the database that it drops, and nothing else (traps R9, R5, CP-3).

use anyhow::{Result, ensure};
use strata_regress::whole::Whole;

/// Asked for by name, a database that does not exist has the number 0, which is also where shared catalogs are: their sizes and
/// spilled pages were thrown away, and the next VACUUM met its own free space map "beyond EOF".
#[test]
fn dropping_no_database_forgets_nothing() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &[])?;
    let sql = |sql: &str| whole.sql(&compute.connstr, sql);
    sql("DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('CREATE ROLE many_%s', i);
         EXECUTE format('ALTER ROLE many_%s SET work_mem = 64', i); END LOOP; END $$")?;
    sql("VACUUM pg_db_role_setting")?;
    let size = "SELECT pg_relation_size('pg_db_role_setting', 'fsm')";
    let before = sql(size)?;
    ensure!(before != "0", "the catalog has no free space map, so nothing is shown");
    sql("DROP DATABASE IF EXISTS nowhere")?;
    ensure!(sql(size)? == before, "the size of the free space map of a shared catalog was forgotten");
    sql("DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('DROP ROLE many_%s', i); END LOOP; END $$")?;
    sql("VACUUM pg_db_role_setting")?;
    Ok(())
}
