//! What the keeper keeps: free space over stops and losses (V5), exact sequences over clean stops (W9), a spill store without
//! leftovers (W2, W6), and a relation table that never fills for good (R1).

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use strata_regress::whole::{Compute, Whole, wait_until};

/// Waits for a round of the keeper that began after this call.
fn a_whole_round(whole: &Whole, compute: &Compute) -> Result<()> {
    const ROUNDS: &str = "SELECT rounds FROM strata_keeper()";
    let before = whole.number(compute, ROUNDS)?;
    wait_until("the keeper has gone round", || Ok(whole.number(compute, ROUNDS)? >= before + 2))?;
    // What it has logged is safe when a later commit is.
    whole.sql(&compute.connstr, "SELECT pg_logical_emit_message(true, 'test', '')")?;
    Ok(())
}

/// Files of the spill store, and the bytes that they take on disk.
fn spill_files(compute: &Compute) -> Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(compute.pgdata.join("strata_spill"))? {
        // One may go while the folder is read.
        let Ok(metadata) = entry?.metadata() else { continue };
        files += 1;
        bytes += metadata.blocks() * 512;
    }
    Ok((files, bytes))
}

const FILL: &str = "INSERT INTO t SELECT n, repeat('x', 400) FROM generate_series(1, 20000) AS n";
/// Half of the table becomes free, and is known to be.
fn make_holes(whole: &Whole, compute: &Compute) -> Result<()> {
    whole.sql(&compute.connstr, "DELETE FROM t WHERE id % 2 = 0")?;
    whole.sql(&compute.connstr, "VACUUM (TRUNCATE false) t")?;
    Ok(())
}

const REFILL: &str = "INSERT INTO t SELECT 2 * n, repeat('x', 400) FROM generate_series(1, 9000) AS n";
const SIZE: &str = "SELECT pg_relation_size('t')";
const QUICK: [&str; 6] =
    ["--set", "strata.keeper_interval=200ms", "--set", "autovacuum=off", "--set", "shared_buffers=16MB"];

#[test]
fn free_space_is_found_again_after_a_stop_and_after_a_loss() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &QUICK)?;
    whole.sql(&compute.connstr, "CREATE EXTENSION strata; CREATE TABLE t(id int, filler text)")?;
    whole.sql(&compute.connstr, FILL)?;
    make_holes(&whole, &compute)?;
    let size = whole.number(&compute, SIZE)?;
    whole.stop_compute("a")?.context("a clean stop")?;

    let compute = whole.start_compute("a", &QUICK)?;
    whole.sql(&compute.connstr, REFILL)?;
    let after = whole.number(&compute, SIZE)?;
    ensure!(
        after == size,
        "after a clean stop half a table of {size} bytes was free, and it grew to {after}"
    );

    make_holes(&whole, &compute)?;
    a_whole_round(&whole, &compute)?;
    let map = whole.number(&compute, "SELECT pg_relation_size('t', 'fsm')")?;
    whole.lose_compute(&compute)?;
    let compute = whole.start_compute("b", &QUICK)?;
    ensure!(
        whole.number(&compute, "SELECT pg_relation_size('t', 'fsm')")? == map,
        "the map's size was {map}"
    );
    whole.sql(&compute.connstr, REFILL)?;
    let after = whole.number(&compute, SIZE)?;
    ensure!(after == size, "after a loss half a table of {size} bytes was free, and it grew to {after}");

    // A map is of the relation: dropped with it, and none is left for a relation that is gone.
    whole.sql(&compute.connstr, "TRUNCATE t")?;
    whole.sql(&compute.connstr, FILL)?;
    a_whole_round(&whole, &compute)?;
    whole.amcheck(&compute)?;
    ensure!(whole.number(&compute, "SELECT count(*) FROM t")? == 20000, "rows are missing");
    Ok(())
}

#[test]
fn sequences_go_on_with_the_next_value_after_a_clean_stop() -> Result<()> {
    let whole = Whole::started()?;
    let quick = ["--set", "strata.keeper_interval=200ms", "--set", "shared_buffers=1MB"];
    let mut compute = whole.start_compute("a", &quick)?;
    whole.sql(
        &compute.connstr,
        "CREATE SEQUENCE just_used; CREATE SEQUENCE written; CREATE SEQUENCE evicted; CREATE SEQUENCE fresh;
         CREATE TABLE big AS SELECT n, repeat('x', 200) FROM generate_series(1, 30000) AS n",
    )?;
    let mut expected = 0;
    for _ in 0..3 {
        // One page is dirty in its buffer, one was written and stays there, one has left.
        let take = |name: &str| {
            whole.number(&compute, &format!("SELECT nextval('{name}') FROM generate_series(1, 5)"))
        };
        expected += 5;
        ensure!(take("evicted")? == expected, "evicted");
        whole.sql(&compute.connstr, "CHECKPOINT; SELECT count(*) FROM big")?;
        ensure!(take("written")? == expected, "written");
        whole.sql(&compute.connstr, "CHECKPOINT")?;
        ensure!(take("just_used")? == expected, "just_used");
        whole.stop_compute("a")?.context("a clean stop")?;
        compute = whole.start_compute("a", &quick)?;
    }
    ensure!(whole.number(&compute, "SELECT nextval('fresh')")? == 1, "fresh");
    // After a loss there may be a gap, as in vanilla after a crash, but no value comes twice.
    let last = whole.number(&compute, "SELECT nextval('just_used') FROM generate_series(1, 3)")?;
    ensure!(last == expected + 3, "{last} follows {expected}");
    whole.lose_compute(&compute)?;
    let compute = whole.start_compute("b", &quick)?;
    let next = whole.number(&compute, "SELECT nextval('just_used')")?;
    ensure!(next > last && next <= last + 33, "{next} follows {last}");
    Ok(())
}

#[test]
fn statistics_survive_a_clean_stop_and_nothing_else() -> Result<()> {
    const SEEN: &str = "SELECT n_tup_ins || '|' || n_dead_tup FROM pg_stat_user_tables WHERE relname = 't'";
    let whole = Whole::started()?;
    let calm = ["--set", "autovacuum=off"];
    let compute = whole.start_compute("a", &calm)?;
    whole.sql(
        &compute.connstr,
        "CREATE TABLE t AS SELECT generate_series(1, 700) AS n; DELETE FROM t WHERE n <= 300",
    )?;
    // A session's message of the same name is none of the server's.
    whole.sql(&compute.connstr, "SELECT pg_logical_emit_message(false, 'strata.pgstat', 'nonsense')")?;
    let end = whole.stop_compute("a")?.context("a clean stop")?;
    let compute = whole.start_compute("a", &calm)?;
    let seen = whole.sql(&compute.connstr, SEEN)?;
    ensure!(seen == "700|300", "after a clean stop: {seen}");
    // A branch that begins at that very moment has them, too.
    whole.strata(&["branch", "create", "copy", "--at-lsn", &end])?;
    let copy = whole.start_compute("c", &[&calm[..], &["--branch", "copy"]].concat())?;
    let seen = whole.sql(&copy.connstr, SEEN)?;
    ensure!(seen == "700|300", "on a branch at the end of the log: {seen}");
    // As vanilla after a crash, a compute that was lost leaves none.
    whole.sql(&compute.connstr, "INSERT INTO t VALUES (1)")?;
    whole.lose_compute(&compute)?;
    let compute = whole.start_compute("b", &calm)?;
    let seen = whole.sql(&compute.connstr, SEEN)?;
    ensure!(seen == "0|0", "after a loss: {seen}");
    Ok(())
}

/// Two commands fill a table in one transaction, under so few buffers that its pages leave with command ids.
const SPILL: &str = "BEGIN; CREATE TABLE s(id int, filler text);
    INSERT INTO s SELECT n, repeat('x', 400) FROM generate_series(1, 5000) AS n;
    INSERT INTO s SELECT n, repeat('y', 400) FROM generate_series(1, 5000) AS n;
    SELECT count(*) FROM pg_ls_dir('strata_spill'); COMMIT";

#[test]
fn spilled_pages_go_when_their_transaction_has_ended() -> Result<()> {
    let whole = Whole::started()?;
    let few = ["--set", "shared_buffers=1MB", "--set", "autovacuum=off"];
    let quick = [&few[..], &["--set", "strata.keeper_interval=200ms"]].concat();
    let compute = whole.start_compute("a", &quick)?;
    whole.sql(&compute.connstr, "CREATE EXTENSION strata")?;
    ensure!(whole.number(&compute, SPILL)? > 0, "nothing was spilled: the test shows nothing");
    wait_until("the spill store is empty", || {
        // Nothing is written meanwhile: entries go by themselves.
        Ok(spill_files(&compute)? == (0, 0))
    })?;
    ensure!(
        whole.number(&compute, "SELECT returned_pages FROM strata_keeper()")? > 100,
        "who gave them back?"
    );
    let read = "SELECT count(*) FROM s WHERE filler IN (repeat('x', 400), repeat('y', 400))";
    ensure!(whole.number(&compute, read)? == 10_000, "rows are missing");
    whole.stop_compute("a")?.context("a clean stop")?;

    // Without the keeper's help: pages that are written again leave no files either, nor does a dropped relation.
    let rare = [&few[..], &["--set", "strata.keeper_interval=1h"]].concat();
    let compute = whole.start_compute("b", &rare)?;
    whole.sql(&compute.connstr, "DROP TABLE s")?;
    whole.sql(&compute.connstr, SPILL)?;
    let (files, bytes) = spill_files(&compute)?;
    ensure!(files > 0 && bytes > 1 << 20, "nothing was spilled: {files} files, {bytes} bytes");
    whole.sql(&compute.connstr, "UPDATE s SET filler = 'z'; CHECKPOINT")?;
    let of_table = |compute: &Compute| {
        whole.number(
            compute,
            "SELECT count(*) FROM pg_ls_dir('strata_spill') AS f WHERE f LIKE '%_' || pg_relation_filenode('s') || '_0%'",
        )
    };
    ensure!(of_table(&compute)? == 0, "files of the table were left: {:?}", spill_files(&compute)?);
    whole.sql(&compute.connstr, "DROP TABLE s")?;
    whole.sql(&compute.connstr, SPILL)?;
    let filenode = whole.number(&compute, "SELECT pg_relation_filenode('s')")?;
    whole.sql(&compute.connstr, "DROP TABLE s; CHECKPOINT")?;
    let gone =
        format!("SELECT count(*) FROM pg_ls_dir('strata_spill') AS f WHERE f LIKE '%\\_{filenode}\\_%'");
    ensure!(whole.number(&compute, &gone)? == 0, "files of a dropped table were left");
    Ok(())
}

/// CREATE DATABASE is cancelled when it has made a part of the relations; nothing of it may stay. The next one of the same number
/// has what its template has.
fn cut_a_database_short(whole: &Whole, compute: &Compute) -> Result<()> {
    const TRIES: u32 = 20;
    const CREATE: &str = "CREATE DATABASE cut OID 70000 TEMPLATE big STRATEGY wal_log";
    const BUSY: &str =
        "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE cut%'";
    let sql = |sql: &str| whole.sql(&compute.connstr, sql);
    sql("CREATE DATABASE big STRATEGY wal_log")?;
    let fill = "CREATE TABLE filler AS SELECT n, repeat('x', 1000) AS x FROM generate_series(1, 20000) AS n";
    whole.sql(&compute.in_database("big")?, fill)?;
    let logged = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
    for _ in 0..TRIES {
        let begin = whole.number(compute, logged)?;
        let mut psql = whole.program("psql");
        psql.args(["-X", "-q", "-v", "VERBOSITY=sqlstate", "-d", &compute.connstr, "-c", CREATE]);
        let mut psql = psql.stderr(std::process::Stdio::piped()).spawn()?;
        // A template that nobody has touched is about eight megabytes of log: this is in the middle of the larger one.
        wait_until("a part of the database is made", || {
            Ok(psql.try_wait()?.is_some() || whole.number(compute, logged)? > begin + (4 << 20))
        })?;
        sql(&format!("SELECT pg_cancel_backend(pid) FROM ({BUSY}) AS busy(pid) WHERE pid > 0"))?;
        let said = psql.wait_with_output()?;
        if said.status.success() {
            sql("DROP DATABASE cut")?;
            continue;
        }
        ensure!(said.stderr == b"ERROR:  57014\n", "{}", String::from_utf8_lossy(&said.stderr));
        ensure!(whole.number(compute, logged)? > begin + (4 << 20), "it had not begun");
        ensure!(
            sql("SELECT count(*) FROM pg_database WHERE datname = 'cut'")? == "0",
            "the database is there"
        );
        sql(CREATE)?;
        let rows = whole.sql(&compute.in_database("cut")?, "SELECT count(*), sum(n) FROM filler")?;
        ensure!(rows == "20000|200010000", "the next database of this number has {rows}");
        sql("DROP DATABASE cut")?;
        sql("DROP DATABASE big")?;
        return Ok(());
    }
    anyhow::bail!("{TRIES} databases were made before they could be cancelled")
}

#[test]
fn a_small_relation_table_serves_thousands_of_relations() -> Result<()> {
    const TABLES: i64 = 1500;
    let whole = Whole::started()?;
    let small = ["--set", "strata.relation_slots=1024", "--set", "strata.keeper_interval=200ms"];
    let compute = whole.start_compute("a", &small)?;
    whole.sql(&compute.connstr, "CREATE EXTENSION strata")?;
    for first in (0..TABLES).step_by(50) {
        let make = format!(
            "DO $$ BEGIN FOR i IN {first}..{} LOOP
                EXECUTE format('CREATE TABLE t%s(id int PRIMARY KEY)', i);
                EXECUTE format('INSERT INTO t%s SELECT generate_series(1, 10)', i);
            END LOOP; END $$",
            first + 49
        );
        whole.sql(&compute.connstr, &make)?;
        // Free space and visibility maps, too.
        whole.sql(&compute.connstr, &format!("DELETE FROM t{first} WHERE id < 5"))?;
        whole.sql(&compute.connstr, &format!("VACUUM t{first}"))?;
    }
    whole.sql(&compute.connstr, "CREATE UNLOGGED TABLE u(id int PRIMARY KEY); INSERT INTO u VALUES (1)")?;
    for round in 0..3 {
        whole.sql(&compute.connstr, &format!("CREATE DATABASE d{round} STRATEGY wal_log"))?;
    }
    whole.sql(&compute.connstr, "DROP DATABASE d1")?;
    cut_a_database_short(&whole, &compute)?;
    a_whole_round(&whole, &compute)?;

    let sum = "DO $$ DECLARE n bigint; total bigint := 0; BEGIN
        FOR i IN 0..1499 LOOP EXECUTE format('SELECT count(*) FROM t%s', i) INTO n; total := total + n; END LOOP;
        IF total <> 1500 * 10 - 30 * 4 THEN RAISE EXCEPTION 'rows: %', total; END IF; END $$";
    whole.sql(&compute.connstr, sum)?;
    ensure!(
        whole.number(&compute, "SELECT settled_relations FROM strata_keeper()")? > 1000,
        "who made room?"
    );
    ensure!(whole.sql(&compute.connstr, "SELECT * FROM u")? == "1", "the unlogged table");
    // The shutdown checkpoint needs no communicator.
    whole.sql(
        &compute.connstr,
        "DO $$ BEGIN FOR i IN 0..99 LOOP EXECUTE format('UPDATE t%s SET id = id + 100', i); END LOOP; END $$",
    )?;
    whole.stop_compute("a")?.context("a clean stop")?;
    let compute = whole.start_compute("a", &small)?;
    whole.sql(&compute.connstr, sum)?;
    whole.amcheck(&compute)?;
    Ok(())
}

/// W2: such an index is made in one transaction and filled in another, and its pages leave before they are logged.
#[test]
fn an_index_built_concurrently_under_few_buffers_is_whole_after_a_loss() -> Result<()> {
    let whole = Whole::started()?;
    let few = ["--set", "shared_buffers=1MB", "--set", "maintenance_work_mem=1MB"];
    let compute = whole.start_compute("a", &few)?;
    whole.sql(
        &compute.connstr,
        "CREATE EXTENSION strata;
         CREATE TABLE words AS SELECT n, ARRAY[n % 500, n % 701, n] AS numbers FROM generate_series(1, 20000) AS n",
    )?;
    let spilled = whole.number(&compute, "SELECT strata_spilled_pages()")?;
    for index in
        ["USING gin (numbers)", "USING spgist ((numbers[1]::text))", "USING gist (int4range(n, n + 5))"]
    {
        whole.sql(&compute.connstr, &format!("CREATE INDEX CONCURRENTLY ON words {index}"))?;
    }
    ensure!(whole.number(&compute, "SELECT strata_spilled_pages()")? > spilled, "nothing was spilled");
    whole.lose_compute(&compute)?;
    let compute = whole.start_compute("b", &few)?;
    for condition in
        ["numbers @> ARRAY[17]", "numbers[1]::text = '17'", "int4range(n, n + 5) && int4range(300, 900)"]
    {
        let count = |by: &str| {
            let sql = format!("SET enable_{by} = off; SELECT count(*) FROM words WHERE {condition}");
            whole.number(&compute, &sql)
        };
        let (by_index, by_table) = (
            count("seqscan")?,
            count("bitmapscan = off; SET enable_indexscan = off; SET enable_indexonlyscan")?,
        );
        ensure!(
            by_index == by_table && by_table > 0,
            "{condition}: {by_index} by index, {by_table} by table"
        );
    }
    Ok(())
}
