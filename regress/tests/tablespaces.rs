//! Tablespaces of users (traps R9, R12): those without a location keep relations apart and survive the loss of the compute, and are
//! dropped only when nothing is in them, wherever that is stored; a location on a disk is refused.

use anyhow::{Result, ensure};
use strata_regress::whole::Whole;

fn refusal(whole: &Whole, connstr: &str, sql: &str, text: &str) -> Result<()> {
    let Err(error) = whole.sql(connstr, sql) else { anyhow::bail!("{sql} was not refused") };
    ensure!(error.to_string().contains(text), "{sql}: {error}");
    Ok(())
}

const NOT_EMPTY: &str = "tablespace \"apart\" is not empty";

#[test]
fn in_place_tablespaces_survive_and_are_dropped_when_empty() -> Result<()> {
    let whole = Whole::started()?;
    let setting = ["--set", "shared_buffers=1MB", "--set", "allow_in_place_tablespaces=on"];
    let compute = whole.start_compute("a", &setting)?;
    whole.sql(&compute.connstr, "CREATE TABLESPACE apart LOCATION ''")?;
    whole.sql(&compute.connstr, "CREATE DATABASE guest")?;
    whole.sql(&compute.connstr, "CREATE DATABASE inside TABLESPACE apart")?;
    whole.sql(
        &compute.connstr,
        "CREATE TABLE kept(n int PRIMARY KEY USING INDEX TABLESPACE apart) TABLESPACE apart;
         INSERT INTO kept SELECT generate_series(1, 5000);
         CREATE UNLOGGED TABLE emptied(n int) TABLESPACE apart; INSERT INTO emptied VALUES (1);
         CREATE TEMPORARY TABLE passing(n int) TABLESPACE apart; INSERT INTO passing VALUES (1)",
    )?;
    let guest = compute.in_database("guest")?;
    whole.sql(&guest, "CREATE TABLE never_filled(n int) TABLESPACE apart")?;
    refusal(&whole, &compute.connstr, "DROP TABLESPACE apart", NOT_EMPTY)?;

    whole.lose_compute(&compute)?;
    let compute = whole.start_compute("a", &setting)?;
    let rows = "SELECT count(*), sum(n), (SELECT count(*) FROM emptied) FROM kept";
    ensure!(whole.sql(&compute.connstr, rows)? == "5000|12502500|0", "rows were lost");
    let sizes = "SELECT pg_tablespace_size('apart') >= pg_table_size('kept'),
                 pg_database_size('postgres') >= (SELECT sum(pg_relation_size(oid)) FROM pg_class)";
    ensure!(whole.sql(&compute.connstr, sizes)? == "t|t", "sizes leave relations out");
    whole.sql(&compute.connstr, "INSERT INTO emptied VALUES (2)")?;
    let inside = compute.in_database("inside")?;
    whole.sql(&inside, "CREATE TABLE t AS SELECT generate_series(1, 100) AS n")?;
    // Each of the three keeps it from being dropped: a database at home in it, tables of this one, an empty table of a guest.
    refusal(&whole, &compute.connstr, "DROP TABLESPACE apart", NOT_EMPTY)?;
    whole.sql(&compute.connstr, "DROP DATABASE inside")?;
    refusal(&whole, &compute.connstr, "DROP TABLESPACE apart", NOT_EMPTY)?;
    whole.sql(&compute.connstr, "ALTER TABLE kept SET TABLESPACE pg_default; ALTER INDEX kept_pkey SET TABLESPACE pg_default; DROP TABLE emptied")?;
    refusal(&whole, &compute.connstr, "DROP TABLESPACE apart", NOT_EMPTY)?;
    whole.sql(&compute.connstr, "DROP DATABASE guest")?;
    whole.sql(&compute.connstr, "DROP TABLESPACE apart")?;

    whole.lose_compute(&compute)?;
    let compute = whole.start_compute("a", &setting)?;
    ensure!(
        whole.sql(&compute.connstr, "SELECT count(*), sum(n) FROM kept")? == "5000|12502500",
        "moved rows were lost"
    );
    whole.amcheck(&compute)
}

#[test]
fn a_location_on_a_disk_is_refused() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &[])?;
    refusal(
        &whole,
        &compute.connstr,
        "CREATE TABLESPACE t LOCATION '/tmp'",
        "is not supported with remote storage",
    )?;
    refusal(&whole, &compute.connstr, "CREATE TABLESPACE t LOCATION '/no/such/folder'", "does not exist")?;
    refusal(&whole, &compute.connstr, "CREATE TABLESPACE t LOCATION ''", "must be an absolute path")
}
