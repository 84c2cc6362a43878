//! W1 and W2: pages that were never logged, and indexes that are built before they are logged.

use anyhow::{Context, Result, ensure};
use strata_common::Guard;
use strata_regress::sound;
use strata_regress::traps::{Ground, OrHarm, show, show_all};
use strata_regress::whole::Compute;

use crate::plain_index;

/// So few buffers that an index leaves them while it is built; the keeper stays away.
const FEW: [&str; 3] = ["shared_buffers=1MB", "maintenance_work_mem=1MB", "strata.keeper_interval=1h"];

/// An index method, what is indexed, and a question to it.
const METHODS: [[&str; 3]; 4] = [
    ["gin", "gin (numbers)", "numbers @> ARRAY[17]"],
    ["gist", "gist (int4range(n, n + 5))", "int4range(n, n + 5) && int4range(300, 900)"],
    ["spgist", "spgist ((repeat(n::text, 9)))", "repeat(n::text, 9) = repeat('17', 9)"],
    ["plain", "plain (n)", "n = 19999"],
];

fn prepare(ground: &Ground) -> Result<Compute> {
    let compute = ground.compute(&FEW)?;
    plain_index::install(ground, &compute)?;
    ground.sql(
        &compute,
        "CREATE TABLE words AS SELECT n, ARRAY[n % 500, n % 701, n] AS numbers FROM generate_series(1, 20000) AS n",
    )?;
    Ok(compute)
}

/// The index and the table give the same rows.
fn agrees(ground: &Ground, compute: &Compute, condition: &str) -> Result<()> {
    let count = |off: &str| {
        let off: Vec<String> = off.split(' ').map(|method| format!("SET enable_{method} = off; ")).collect();
        ground
            .sql(compute, &format!("{}SELECT count(*) FROM words WHERE {condition}", off.concat()))
            .or_harm()
    };
    let (by_index, by_table) = (count("seqscan")?, count("bitmapscan indexscan indexonlyscan")?);
    sound!(by_index == by_table, "{condition}: {by_index} rows by the index, {by_table} by the table");
    ensure!(by_table != "0", "{condition}: no rows, which shows nothing");
    Ok(())
}

/// Another extension may have a bug: a page with content that was never logged. It stops the server instead of losing the page.
#[test]
fn w1_a_page_that_was_never_logged_stops_the_server() -> Result<()> {
    show(Guard::NotLogged, |ground| {
        let compute = ground.compute(&["strata.keeper_interval=1h"])?;
        plain_index::install(ground, &compute)?;
        ground.sql(&compute, "CREATE TABLE t AS SELECT 1 AS n")?;
        ground.sql(&compute, "SELECT smuggle('t')")?;
        ensure!(ground.sql(&compute, "SELECT count(*) FROM t")? == "2", "nothing was smuggled");
        let Ok(said) = ground.sql(&compute, "SELECT evict('t'); SELECT count(*) FROM t") else {
            return Ok(());
        };
        sound!(said == "0\n2", "a page went away in silence: '{said}'");
        Ok(())
    })
}

/// Pages of an index that leave before they are logged exist nowhere else.
fn outlives_its_build(number: usize) -> Result<()> {
    let [name, index, condition] = METHODS[number];
    show(Guard::BuildPages, |ground| {
        let compute = prepare(ground)?;
        let before = ground.sql(&compute, "SELECT strata_spilled_pages()")?;
        ground.sql(&compute, &format!("CREATE INDEX i ON words USING {index}")).or_harm()?;
        agrees(ground, &compute, condition)?;
        let after = ground.sql(&compute, "SELECT strata_spilled_pages()")?;
        ensure!(before != after, "{name}: nothing was spilled");
        Ok(())
    })
}

#[test]
fn w2_gin_pages_outlive_their_build() -> Result<()> {
    outlives_its_build(0)
}

#[test]
fn w2_gist_pages_outlive_their_build() -> Result<()> {
    outlives_its_build(1)
}

#[test]
fn w2_spgist_pages_outlive_their_build() -> Result<()> {
    outlives_its_build(2)
}

#[test]
fn w2_pages_of_an_extensions_index_outlive_their_build() -> Result<()> {
    outlives_its_build(3)
}

/// Once such a page is in the log its spilled state is of the past.
#[test]
fn w2_a_spilled_page_dies_when_it_is_logged() -> Result<()> {
    show_all(&[Guard::EntryDies], |ground| {
        let compute = prepare(ground)?;
        let shown = METHODS.iter().map(|[name, index, condition]| {
            let changed = || -> Result<()> {
                ground.sql(&compute, &format!("CREATE INDEX i ON words USING {index}")).or_harm()?;
                ground.sql(&compute, "INSERT INTO words SELECT * FROM words").or_harm()?;
                ground.sql(&compute, "CHECKPOINT; SELECT evict('i')").or_harm()?;
                agrees(ground, &compute, condition)
            };
            let outcome = changed();
            ground.sql(
                &compute,
                "DROP INDEX IF EXISTS i; DELETE FROM words WHERE ctid > (SELECT max(ctid) FROM (SELECT ctid FROM words LIMIT 20000) AS o)",
            )?;
            Ok((*name, outcome))
        });
        shown.collect()
    })
}

/// A method that forgets to log must not commit what only the spill store has: the next compute would not find it.
#[test]
fn w2_a_commit_of_pages_that_were_never_logged_is_refused() -> Result<()> {
    show(Guard::OnlyCopies, |ground| {
        let compute = prepare(ground)?;
        let built =
            ground.sql(&compute, "SET plain.forget_to_log = on; CREATE INDEX i ON words USING plain (n)");
        if let Err(error) = built {
            let text = format!("{error:#}");
            ensure!(text.contains("was never written to the log"), "refused for another reason: {text}");
            ensure!(
                ground.sql(&compute, "SELECT count(*) FROM pg_class WHERE relname = 'i'")? == "0",
                "it is there"
            );
            return Ok(());
        }
        let compute = ground.next_compute(&compute, &FEW)?;
        agrees(ground, &compute, "n = 19999")
    })
}

/// A relation that is emptied in the transaction that made it is cut, not made anew: its spilled pages must not show again in
/// blocks that are added without being written.
#[test]
fn w2_a_cut_cuts_spilled_pages() -> Result<()> {
    show(Guard::SpillCut, |ground| {
        let compute = ground.compute(&["strata.keeper_interval=1h"])?;
        let seen = ground.sql(
            &compute,
            "BEGIN; CREATE TABLE t(id int); INSERT INTO t SELECT generate_series(1, 9000); SELECT evict('t');
             TRUNCATE t; COPY t FROM PROGRAM 'seq 4000'; SELECT evict('t'); SELECT count(*) FROM t; COMMIT",
        )?;
        sound!(seen == "0\n0\n4000", "rows of before a TRUNCATE: '{seen}'");
        Ok(())
    })
}

/// Spilled pages leave with their relation, and with their database.
#[test]
fn w2_nothing_of_what_was_dropped_stays_in_the_store() -> Result<()> {
    const SPILL: &str = "BEGIN; CREATE TABLE s(id int); INSERT INTO s SELECT generate_series(1, 9000);
        INSERT INTO s SELECT generate_series(1, 9000); CHECKPOINT;";
    show_all(&[Guard::DropPurgesSpill, Guard::DropDatabaseForgets], |ground| {
        let compute = ground.compute(&["strata.keeper_interval=1h"])?;
        let files = |pattern: &str| {
            ground.sql(
                &compute,
                &format!("SELECT count(*) FROM pg_ls_dir('strata_spill') AS f WHERE f LIKE '{pattern}'"),
            )
        };
        let filenode = "SELECT pg_relation_filenode('s')";
        let relation = |end: &str| -> Result<()> {
            let number = ground.sql(&compute, &format!("{SPILL} {filenode}; {end}"))?;
            let pattern = format!("%\\_{}\\_%", number.lines().next().unwrap_or_default());
            if end == "COMMIT" {
                ensure!(files(&pattern)? != "0", "nothing was spilled");
                ground.sql(&compute, "DROP TABLE s")?;
            }
            let left = files(&pattern)?;
            sound!(left == "0", "{left} files of a relation that is gone ({end})");
            Ok(())
        };
        let database = || -> Result<()> {
            ground.sql(&compute, "CREATE DATABASE d")?;
            let number = ground.sql(&compute, "SELECT oid FROM pg_database WHERE datname = 'd'")?;
            let pattern = format!("%\\_{number}\\_%");
            let port = compute.port;
            let place = format!("host=127.0.0.1 port={port} user=postgres dbname=d");
            ground.whole.sql(&place, &format!("{SPILL} COMMIT")).context("in the other database")?;
            ensure!(files(&pattern)? != "0", "nothing was spilled");
            ground.sql(&compute, "DROP DATABASE d")?;
            let left = files(&pattern)?;
            sound!(left == "0", "{left} files of a database that is gone");
            Ok(())
        };
        Ok(vec![
            ("a dropped relation", relation("COMMIT")),
            ("one that was never committed", relation("ROLLBACK")),
            ("a database", database()),
        ])
    })
}
