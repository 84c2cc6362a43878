//! R5 and R14: a relation number that comes again, as after a wrap of OIDs. Postgres looks for a file of that name only, and
//! relations of ours have none.

use anyhow::{Context, Result, ensure};
use strata_common::Guard;
use strata_regress::counters::move_counters;
use strata_regress::session::Session;
use strata_regress::sound;
use strata_regress::traps::{Ground, OrHarm, WAITING, show};
use strata_regress::whole::Compute;

const CALM: [&str; 1] = ["strata.keeper_interval=1h"];

/// A compute with table `old`, whose relation number is not its OID, and whose number the next new relation gets, if nothing
/// keeps it from it.
fn after_a_wrap(ground: &Ground) -> Result<(Compute, u32)> {
    after_a_wrap_with(ground, &CALM)
}

fn after_a_wrap_with(ground: &Ground, settings: &[&str]) -> Result<(Compute, u32)> {
    let compute = ground.compute(settings)?;
    ground.sql(
        &compute,
        "CREATE TABLE old AS SELECT n, repeat('x', 400) AS filler FROM generate_series(1, 1000) n",
    )?;
    ground.sql(&compute, "VACUUM FULL old")?;
    let number: u32 = ground.sql(&compute, "SELECT pg_relation_filenode('old')")?.parse()?;
    let end = ground.whole.stop_compute(&compute.name)?.context("a clean stop")?;
    move_counters(&ground.whole, &compute.pgdata, &end, &[], |checkpoint| checkpoint.next_oid = number)?;
    Ok((ground.bare_compute("b", settings)?, number))
}

fn ensure_reused(ground: &Ground, compute: &Compute, number: u32) -> Result<()> {
    let got = ground.sql(compute, "SELECT pg_relation_filenode('new')")?;
    ensure!(
        got == number.to_string(),
        "the new table has number {got}, not {number}: the test shows nothing"
    );
    Ok(())
}

#[test]
fn r14_a_number_in_use_is_not_given_again() -> Result<()> {
    show(Guard::ReuseRefused, |ground| {
        let (compute, number) = after_a_wrap(ground)?;
        match ground.sql(&compute, "CREATE TABLE new(n int)") {
            Err(refused) => {
                ensure!(refused.to_string().contains("is in use on the pageserver; try again"), "{refused}")
            }
            Ok(_) => ensure_reused(ground, &compute, number)?,
        }
        // As the message says; the next number is free.
        ground
            .sql(
                &compute,
                "CREATE TABLE IF NOT EXISTS new(n int); INSERT INTO new SELECT generate_series(1, 10)",
            )
            .or_harm()?;
        let rows =
            ground.sql(&compute, "SELECT count(*), sum(n), (SELECT count(*) FROM new) FROM old").or_harm()?;
        sound!(rows == "1000|500500|10", "the old table has {rows} after a new one was made");
        Ok(())
    })
}

/// The pageserver has not heard of the drop when the number comes again.
#[test]
fn r5_a_dropped_relations_number_is_free() -> Result<()> {
    show(Guard::DropRaises, |ground| {
        let (compute, number) = after_a_wrap(ground)?;
        let mut watcher = Session::open(&compute)?;
        watcher.sql(WAITING)?;
        ground.sql(&compute, "SELECT count(*) FROM old")?;
        ground.caught_up(&compute)?;
        let held = ground.hold_log();
        ground
            .do_while_held(&mut watcher, held, || {
                ground.sql(&compute, "DROP TABLE old")?;
                ground.sql(&compute, "CREATE TABLE new(n int)")
            })
            .or_harm()?;
        ensure_reused(ground, &compute, number)?;
        let rows = ground
            .sql(&compute, "INSERT INTO new VALUES (1) RETURNING (SELECT count(*) FROM new)")
            .or_harm()?;
        sound!(rows == "0", "the new table begins with {rows} rows");
        Ok(())
    })
}

#[test]
fn r5_spilled_pages_go_with_their_relation() -> Result<()> {
    show(Guard::DropPurgesSpill, |ground| {
        let (compute, number) = after_a_wrap(ground)?;
        ground.sql(
            &compute,
            "BEGIN; DELETE FROM old WHERE n = 1; DELETE FROM old; SELECT evict('old'); COMMIT",
        )?;
        ground.sql(&compute, "DROP TABLE old")?;
        ground.sql(&compute, "CREATE TABLE new(n int, filler text)")?;
        ensure_reused(ground, &compute, number)?;
        // One page is spilled, of others the log has all.
        ground.sql(&compute, "BEGIN; INSERT INTO new VALUES (1, ''); INSERT INTO new VALUES (2, ''); SELECT evict('new'); COMMIT").or_harm()?;
        ground
            .sql(&compute, "INSERT INTO new SELECT n, repeat('y', 400) FROM generate_series(3, 500) n")
            .or_harm()?;
        ground.sql(&compute, "SELECT evict('new')").or_harm()?;
        let rows = ground.sql(&compute, "SELECT count(*), sum(n) FROM new").or_harm()?;
        sound!(rows == "500|125250", "the new table has {rows}");
        Ok(())
    })
}

/// CP-2: the file cache has every page of a table that is dropped; the next one with its number is as long, and finds none of them.
#[test]
fn cp_2_a_reused_number_finds_no_page_of_the_old_table() -> Result<()> {
    let ground = Ground::whole()?;
    let (compute, number) =
        after_a_wrap_with(&ground, &["strata.keeper_interval=1h", "strata.lfc_max_size=64MB"])?;
    let cached = format!(
        "SELECT count(*) FROM strata_lfc_pages WHERE relfilenode = {number} AND relforknumber = 0
             AND reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    let pages = "SELECT pg_relation_size('old') / 8192";
    ground.sql(&compute, "SELECT sum(length(filler)) FROM old; SELECT evict('old')")?;
    let before = ground.sql(&compute, &cached)?;
    ensure!(before == ground.sql(&compute, pages)?, "the cache has {before} pages: the test shows nothing");
    ground.sql(&compute, "DROP TABLE old")?;
    ground.sql(&compute, "CREATE TABLE new(n int, filler text)")?;
    ensure_reused(&ground, &compute, number)?;
    ensure!(ground.sql(&compute, "SELECT count(*) FROM new")? == "0", "an empty table has rows");
    ground.sql(&compute, "INSERT INTO new SELECT n, repeat('y', 400) FROM generate_series(1, 1000) n")?;
    for _ in 0..2 {
        ground.sql(&compute, "SELECT evict('new')")?;
        let rows = ground.sql(&compute, "SELECT count(*), sum(n), min(filler) = repeat('y', 400), max(filler) = repeat('y', 400) FROM new")?;
        ensure!(rows == "1000|500500|t|t", "the new table has {rows}");
    }
    Ok(())
}
