//! W4, W6, W7, W9 and W18: pages that hold what the log does not.

use anyhow::{Context, Result, ensure};
use strata_common::Guard;
use strata_regress::sound;
use strata_regress::traps::{Ground, OrHarm, show, show_all};
use strata_regress::whole::{Compute, wait_until};

const CALM: [&str; 1] = ["strata.keeper_interval=1h"];
const BUSY: [&str; 1] = ["strata.keeper_interval=200ms"];

/// Waits until the keeper has looked at everything that was there when this was called.
fn keeper_went_round(ground: &Ground, compute: &Compute) -> Result<()> {
    let rounds = || -> Result<u64> {
        ground.sql(compute, "SELECT rounds FROM strata_keeper()")?.parse().context("a number of rounds")
    };
    let before = rounds()?;
    wait_until("the keeper has gone round", || Ok(rounds()? >= before + 2))
}

/// Only flushed log is sent. With the writer of the log away nobody else flushes it.
#[test]
fn w4_the_log_is_flushed_before_a_page_of_it_is_asked_for() -> Result<()> {
    show(Guard::FlushFirst, |ground| {
        let compute = ground.compute(&CALM)?;
        ground.sql(&compute, "CREATE TABLE t AS SELECT generate_series(1, 5000) AS id")?;
        let _writer = ground.stop_process(&compute, "walwriter")?;
        let mut reader = ground.session(&compute)?;
        reader.run("SET synchronous_commit = off")?;
        reader.run("CREATE INDEX i ON t(id)")?;
        reader.run("SET enable_seqscan = off")?;
        reader.start("SELECT count(*) FROM t WHERE id = 4000")?;
        let end = |condition: &str| {
            ground.sql(
                &compute,
                &format!("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM t%' AND ({condition})"),
            )
        };
        let for_ever = "wait_event IN ('StrataPageRequest', 'StrataPrefetchedPage') AND (SELECT max(strata_last_written_lsn('i', 'main', block)) FROM generate_series(0, 3) AS block)
            > (SELECT flush_lsn FROM strata_lsns())";
        let mut waits_for_ever = false;
        wait_until("the reader has its row or waits for ever", || {
            waits_for_ever = end(for_ever)? != "0";
            Ok(waits_for_ever || end("state = 'idle'")? != "0")
        })?;
        sound!(!waits_for_ever, "a reader waits for log that nobody has flushed");
        ensure!(reader.finish()? == "1", "another row");
        Ok(())
    })
}

/// A cursor sees the rows of its own transaction as they were when it was opened, wherever their pages have been since.
#[test]
fn w6_command_ids_outlive_an_eviction() -> Result<()> {
    /// What is done while the cursor is open, with a table of 50 old rows, and what it must see.
    const CASES: [[&str; 2]; 6] = [
        ["update", "UPDATE t SET v = 'new'; INSERT INTO t SELECT n, 'late' FROM generate_series(51, 60) n"],
        ["delete", "DELETE FROM t WHERE id < 40"],
        ["delete of an updated row", "UPDATE t SET v = 'new' WHERE id < 9; DELETE FROM t WHERE id < 9"],
        ["lock", "INSERT INTO t VALUES (51, 'late'); SELECT id FROM t WHERE id = 51 FOR UPDATE"],
        ["multi-insert", "COPY t(id) FROM PROGRAM 'seq 51 90'"],
        ["in a subtransaction", "SAVEPOINT s; UPDATE t SET v = 'new'; RELEASE s"],
    ];
    show_all(&[Guard::CommandIds], |ground| {
        let compute = ground.compute(&CALM)?;
        ground.sql(&compute, "CREATE TABLE other(id int)")?;
        let shown = CASES.iter().map(|[name, change]| {
            ground.sql(
                &compute,
                "DROP TABLE IF EXISTS t; CREATE TABLE t(id int, v text DEFAULT 'late'); INSERT INTO t SELECT n, 'old' FROM generate_series(1, 50) n",
            )?;
            let said = ground.sql(
                &compute,
                &format!(
                    "BEGIN; INSERT INTO other VALUES (1); UPDATE t SET v = 'old' WHERE id = 1;
                     DECLARE before CURSOR FOR SELECT count(*), min(v), max(v) FROM t; {change};
                     SELECT evict('t'); FETCH before; COMMIT"
                ),
            )?;
            let seen: Vec<&str> = said.lines().rev().take(2).collect();
            ensure!(seen.get(1) == Some(&"0"), "{name}: not all pages have left: {said}");
            let check = || -> Result<()> {
                sound!(seen[0] == "50|old|old", "the cursor saw '{}'", seen[0]);
                Ok(())
            };
            Ok((*name, check()))
        });
        shown.collect()
    })
}

/// An updater that shares a row with a locker is in a multixact, which is not looked up when a page is written.
#[test]
fn w6_command_ids_of_a_multixact_outlive_an_eviction() -> Result<()> {
    show(Guard::MultiRuns, |ground| {
        let compute = ground.compute(&CALM)?;
        // The first page is full, so that the row's new version, which has a command id of its own, lies elsewhere.
        ground.sql(
            &compute,
            "CREATE TABLE other(id int); CREATE TABLE t(id int PRIMARY KEY, v text);
             INSERT INTO t SELECT n, repeat('x', 150) FROM generate_series(1, 50) n",
        )?;
        let mut locker = ground.session(&compute)?;
        locker.run("BEGIN")?;
        locker.run("SELECT id FROM t WHERE id = 1 FOR KEY SHARE")?;
        let seen = ground.sql(
            &compute,
            "BEGIN; INSERT INTO other VALUES (1); DECLARE before CURSOR FOR SELECT count(*) FROM t;
             UPDATE t SET v = repeat('y', 150) WHERE id = 1;
             SELECT evict('t'), (SELECT ctid::text LIKE '(0,%' FROM t WHERE id = 1); FETCH before; COMMIT",
        )?;
        ensure!(seen.starts_with("0|f"), "the row's versions lie on one page: {seen}");
        sound!(seen == "0|f\n50", "the cursor saw '{seen}'");
        Ok(())
    })
}

/// Pages that no running transaction can have changed are not looked at: a bound that is too high would skip one that was.
#[test]
fn w6_a_long_transaction_keeps_its_pages() -> Result<()> {
    show(Guard::QuietBound, |ground| {
        let compute = ground.compute(&BUSY)?;
        ground.sql(
            &compute,
            "CREATE TABLE other(id int); CREATE TABLE t AS SELECT generate_series(1, 50) AS id",
        )?;
        let mut long = ground.session(&compute)?;
        long.run("BEGIN; INSERT INTO other VALUES (1)")?;
        long.run("DECLARE before CURSOR FOR SELECT count(*) FROM t")?;
        long.run("DELETE FROM t")?;
        ground.sql(&compute, "INSERT INTO other VALUES (2)")?;
        keeper_went_round(ground, &compute)?;
        ensure!(ground.sql(&compute, "SELECT evict('t')")? == "0", "not all pages have left");
        let seen = long.run("FETCH before")?;
        sound!(seen == "50", "the cursor saw '{seen}'");
        Ok(())
    })
}

/// A page that was spilled and given back comes from the log again, and not from a pageserver that has not got so far.
#[test]
fn w6_a_page_that_is_given_back_is_not_read_older() -> Result<()> {
    show(Guard::SpillRaises, |ground| {
        let compute = ground.compute(&BUSY)?;
        ground.sql(
            &compute,
            "CREATE TABLE other(id int); CREATE TABLE t AS SELECT n AS id, 'old' AS v FROM generate_series(1, 50) n",
        )?;
        ground.sql(&compute, "SELECT evict('t')")?;
        ground.sql(&compute, "SELECT count(*) FROM t")?;
        ground.caught_up(&compute)?;
        let held = ground.hold_log();
        ground.sql(
            &compute,
            "BEGIN; INSERT INTO other VALUES (1); UPDATE t SET v = 'new'; SELECT evict('t'); COMMIT",
        )?;
        wait_until("the keeper has given the page back", || {
            Ok(ground.sql(&compute, "SELECT returned_pages FROM strata_keeper()")? != "0")
        })?;
        let seen = ground.sql_while_held(&compute, held, "SELECT count(*), min(v) FROM t")?;
        sound!(seen == "50|new", "a committed update is gone: '{seen}'");
        Ok(())
    })
}

/// A speculative insertion that finds somebody else's row takes its own back, and knows it by its token.
#[test]
fn w7_a_speculative_insertion_outlives_an_eviction() -> Result<()> {
    show(Guard::SpeculativeTokens, |ground| {
        let compute = ground.compute(&CALM)?;
        // Between its row and its index entry the first session asks for the key a second time, and waits.
        ground.sql(
            &compute,
            "CREATE FUNCTION key(id int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                 IF current_setting('trap.asked', true) IN ('0', '1') THEN
                     IF current_setting('trap.asked') = '1' THEN PERFORM pg_advisory_lock(7); END IF;
                     PERFORM set_config('trap.asked', (current_setting('trap.asked')::int + 1)::text, false);
                 END IF;
                 RETURN id; END $$;
             CREATE TABLE t(id int, v text); INSERT INTO t VALUES (0, 'other'); CREATE UNIQUE INDEX ON t(key(id))",
        )?;
        let mut gate = ground.session(&compute)?;
        gate.run("SELECT pg_advisory_lock(7)")?;
        let mut first = ground.session(&compute)?;
        first.run("SET trap.asked = 0")?;
        first.start("INSERT INTO t VALUES (1, 'first') ON CONFLICT DO NOTHING")?;
        first.wait_until("wait_event = 'advisory'")?;
        ground.sql(&compute, "INSERT INTO t VALUES (1, 'second')")?;
        ensure!(ground.sql(&compute, "SELECT evict('t')")? == "0", "not all pages have left");
        gate.run("SELECT pg_advisory_unlock(7)")?;
        let said = first.finish()?;
        sound!(!said.contains("ERROR"), "{said}");
        let rows = ground.sql(&compute, "SELECT string_agg(v, ',' ORDER BY id) FROM t")?;
        sound!(rows == "other,second", "rows: {rows}");
        Ok(())
    })
}

/// Values are logged 32 ahead: a page that came from the log would go on there.
#[test]
fn w9_a_sequence_goes_on_after_an_eviction_and_after_a_stop() -> Result<()> {
    show_all(&[Guard::SequenceAhead, Guard::SequenceImages], |ground| {
        let compute = ground.compute(&CALM)?;
        ground.sql(&compute, "CREATE SEQUENCE s")?;
        let next = |compute: &Compute, expected: &str| -> Result<()> {
            let value = ground.sql(compute, "SELECT nextval('s')")?;
            sound!(value == expected, "{value} instead of {expected}");
            Ok(())
        };
        next(&compute, "1")?;
        ensure!(ground.sql(&compute, "SELECT evict('s')")? == "0", "the page has not left");
        let eviction = next(&compute, "2");
        ground.sql(&compute, "SELECT setval('s', 10); SELECT nextval('s')")?;
        ground.whole.stop_compute("a")?.context("a clean stop")?;
        let compute = ground.bare_compute("a", &CALM)?;
        Ok(vec![("an eviction", eviction), ("a clean stop", next(&compute, "12"))])
    })
}

/// Free space that was found by VACUUM is used, though its map was evicted: else a table that is updated grows for ever.
#[test]
fn w18_free_space_outlives_an_eviction() -> Result<()> {
    show(Guard::FreeSpaceSpilled, |ground| {
        let compute = ground.compute(&CALM)?;
        let size = holes(ground, &compute)?;
        ensure!(ground.sql(&compute, "SELECT evict('t', 1)")? == "0", "not all pages have left");
        refill(ground, &compute, &size)
    })
}

/// What the keeper has logged of free space the next compute has, though this one is lost.
#[test]
fn v5_free_space_outlives_a_compute() -> Result<()> {
    show(Guard::FreeSpaceImages, |ground| {
        let compute = ground.compute(&BUSY)?;
        let size = holes(ground, &compute)?;
        keeper_went_round(ground, &compute)?;
        ground.sql(&compute, "SELECT pg_logical_emit_message(true, 'test', '')")?;
        let compute = ground.next_compute(&compute, &BUSY)?;
        refill(ground, &compute, &size)
    })
}

/// A table of which half is free; its size.
fn holes(ground: &Ground, compute: &Compute) -> Result<String> {
    ground.sql(
        compute,
        "CREATE TABLE t(id int, v text); INSERT INTO t SELECT n, repeat('x', 400) FROM generate_series(1, 6000) AS n;
         DELETE FROM t WHERE id % 2 = 0",
    )?;
    ground.sql(compute, "VACUUM (TRUNCATE false) t")?;
    ground.sql(compute, "SELECT pg_relation_size('t')")
}

fn refill(ground: &Ground, compute: &Compute, size: &str) -> Result<()> {
    ground
        .sql(compute, "INSERT INTO t SELECT n, repeat('x', 400) FROM generate_series(1, 2500) AS n")
        .or_harm()?;
    let now = ground.sql(compute, "SELECT pg_relation_size('t')")?;
    sound!(now == size, "half of {size} bytes was free, and the table grew to {now}");
    Ok(())
}
