//! Kinds of work, each followed at once by the loss of the compute and a new one: tiny buffers, where every page is evicted, and
//! normal ones, where sizes run ahead of the log (trap W17). `pg_amcheck` must find nothing.

use anyhow::{Result, ensure};
use strata_regress::whole::{Compute, Whole};

/// A kind of work: what it does, and a query whose answer must be the same before and after the loss.
struct Work {
    name: &'static str,
    sql: &'static [&'static str],
    check: &'static str,
}

const WORKS: &[Work] = &[
    Work {
        name: "create table as, index build",
        sql: &[
            "CREATE TABLE big AS SELECT n, md5(n::text) AS text, repeat('x', (n % 300)::int) AS filler FROM generate_series(1, 300000) n",
            "CREATE INDEX big_n ON big(n); CREATE INDEX big_text ON big(text)",
        ],
        check: "SELECT count(*), sum(n), sum(length(filler)), min(text), max(text) FROM big",
    },
    Work {
        name: "vacuum",
        sql: &["DELETE FROM big WHERE n % 3 = 0", "VACUUM big", "UPDATE big SET filler = 'y' WHERE n % 5 = 0", "VACUUM (FREEZE, ANALYZE) big"],
        check: "SELECT count(*), sum(n), count(*) FILTER (WHERE filler = 'y') FROM big",
    },
    Work {
        name: "rewrite",
        sql: &["ALTER TABLE big ALTER COLUMN n TYPE bigint USING n + 1", "CLUSTER big USING big_n"],
        check: "SELECT count(*), sum(n), pg_typeof(max(n)) FROM big",
    },
    Work {
        name: "truncate and drop",
        sql: &[
            "CREATE TABLE gone AS SELECT generate_series(1, 50000) AS n",
            "CREATE TABLE emptied AS SELECT generate_series(1, 50000) AS n",
            "DROP TABLE gone; TRUNCATE emptied; INSERT INTO emptied SELECT generate_series(1, 10)",
        ],
        check: "SELECT count(*), sum(n), pg_relation_size('emptied'), to_regclass('gone') IS NULL FROM emptied",
    },
    Work {
        name: "databases",
        sql: &["CREATE DATABASE by_log STRATEGY wal_log", "CREATE DATABASE by_copy STRATEGY file_copy"],
        check: "SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database",
    },
    Work {
        name: "two-phase",
        sql: &[
            "CREATE TABLE prepared(n int)",
            "BEGIN; INSERT INTO prepared SELECT generate_series(1, 1000); PREPARE TRANSACTION 'one'",
            "BEGIN; INSERT INTO prepared VALUES (-1); PREPARE TRANSACTION 'two'",
            "COMMIT PREPARED 'one'",
        ],
        check: "SELECT count(*), (SELECT string_agg(gid, ',') FROM pg_prepared_xacts) FROM prepared",
    },
    Work {
        name: "savepoints",
        sql: &[
            "CREATE TABLE saved(n int)",
            "DO $$ BEGIN FOR i IN 1..5000 LOOP BEGIN INSERT INTO saved VALUES (i);
               IF i % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$",
        ],
        check: "SELECT count(*), sum(n) FROM saved",
    },
    Work {
        name: "sequences",
        sql: &["CREATE SEQUENCE s", "SELECT nextval('s') FROM generate_series(1, 100)"],
        check: "SELECT 'before ' || (100 < nextval('s'))::text",
    },
];

fn do_and_lose(buffers: &str) -> Result<()> {
    let whole = Whole::started()?;
    let setting = format!("shared_buffers={buffers}");
    let start = |whole: &Whole, name: &str| {
        whole.start_compute(name, &["--set", &setting, "--set", "max_prepared_transactions=10"])
    };
    let mut compute = start(&whole, "a")?;
    for work in WORKS {
        for sql in work.sql {
            whole.sql(&compute.connstr, sql)?;
        }
        let before = whole.sql(&compute.connstr, work.check)?;
        whole.lose_compute(&compute)?;
        compute = start(&whole, "a")?;
        let after = whole.sql(&compute.connstr, work.check)?;
        ensure!(before == after, "{} with {buffers}: before the loss {before}, after it {after}", work.name);
        whole.amcheck(&compute)?;
    }
    new_databases_work(&whole, &compute)
}

fn new_databases_work(whole: &Whole, compute: &Compute) -> Result<()> {
    for database in ["by_log", "by_copy"] {
        let connstr = compute.in_database(database)?;
        whole.sql(
            &connstr,
            "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n; SELECT count(*) FROM pg_class",
        )?;
    }
    Ok(())
}

#[test]
fn with_one_megabyte_of_buffers() -> Result<()> {
    do_and_lose("1MB")
}

#[test]
fn with_normal_buffers() -> Result<()> {
    do_and_lose("128MB")
}

#[test]
fn multixacts() -> Result<()> {
    let whole = Whole::started()?;
    let mut compute = whole.start_compute("a", &["--set", "shared_buffers=1MB"])?;
    whole.sql(
        &compute.connstr,
        "CREATE TABLE m(id int PRIMARY KEY, n int); INSERT INTO m SELECT generate_series(1, 500), 0",
    )?;
    let script = whole.scratch().join("share.pgbench");
    std::fs::write(
        &script,
        "\\set id random(1, 480)\nBEGIN;\nSELECT 1 FROM m WHERE id BETWEEN :id AND :id + 20 FOR SHARE;\n\
         UPDATE m SET n = n + 1 WHERE id = 500 AND false;\nSELECT 1 FROM m WHERE id = :id FOR KEY SHARE;\nCOMMIT;\n",
    )?;
    let script = script.display().to_string();
    whole.run("pgbench", &["-n", "-c", "6", "-j", "1", "-t", "300", "-f", &script, &compute.connstr])?;
    let check = "SELECT count(*), sum(n), (SELECT next_multixact_id::text::bigint > 100 FROM pg_control_checkpoint()) FROM m";
    whole.sql(&compute.connstr, "CHECKPOINT")?;
    let before = whole.sql(&compute.connstr, check)?;
    whole.lose_compute(&compute)?;
    compute = whole.start_compute("b", &["--set", "shared_buffers=1MB"])?;
    let after = whole.sql(&compute.connstr, check)?;
    ensure!(before == after && after.ends_with("|t"), "before the loss {before}, after it {after}");
    // Rows locked by members of lost transactions can be updated, deleted and frozen.
    whole.sql(&compute.connstr, "UPDATE m SET n = n + 1; DELETE FROM m WHERE id % 2 = 0")?;
    whole.sql(&compute.connstr, "VACUUM FREEZE m")?;
    ensure!(whole.sql(&compute.connstr, "SELECT count(*), sum(n) FROM m")? == "250|250", "wrong rows");
    whole.amcheck(&compute)
}
