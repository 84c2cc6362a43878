//! Whole clusters whose Postgres has no patch of ours: built from the same source, and Debian's binary. Every way in which pages
//! are written is used, followed by the loss of the compute; a branch moves between servers; a server whose program is not as
//! expected does not start.

use anyhow::{Context, Result, ensure};
use strata_regress::refusal::refuses;
use strata_regress::stock::{Elf, changed_tree, flavours, jump, tree};
use strata_regress::tpcb::{self, Load};
use strata_regress::whole::{Compute, Whole};
use strata_smgr::stock::verify;

const BUFFERS: &[&str] = &["--set", "shared_buffers=1MB", "--set", "maintenance_work_mem=1MB"];

/// Ways of writing pages around shared buffers (bulk writes end in `smgrregistersync`), and through them.
const BULK: &[(&str, &str)] = &[
    ("CREATE TABLE AS", "CREATE TABLE b AS SELECT n, md5(n::text) AS t FROM generate_series(1, 60000) n"),
    ("CREATE INDEX", "CREATE INDEX b_t ON b(t); CREATE UNIQUE INDEX b_n ON b(n)"),
    ("VACUUM FULL", "DELETE FROM b WHERE n % 7 = 0"),
    ("VACUUM FULL", "VACUUM FULL b"),
    ("CLUSTER", "CLUSTER b USING b_t"),
    ("a rewrite", "ALTER TABLE b ALTER COLUMN n TYPE bigint"),
    ("REINDEX", "REINDEX TABLE b"),
    ("an empty index", "CREATE TABLE e(a int PRIMARY KEY, b text UNIQUE)"),
    ("to unlogged and back", "ALTER TABLE b SET UNLOGGED; ALTER TABLE b SET LOGGED"),
    (
        "a view's content",
        "CREATE MATERIALIZED VIEW v AS SELECT t, n FROM b WHERE n < 20000; REFRESH MATERIALIZED VIEW v",
    ),
    ("a new database", "CREATE DATABASE other STRATEGY wal_log"),
    ("truncate and fill", "TRUNCATE e; INSERT INTO e SELECT n, n::text FROM generate_series(1, 3000) n"),
    ("a sequence", "CREATE SEQUENCE s; SELECT count(nextval('s')) FROM generate_series(1, 100)"),
];

/// An unlogged table and a temporary one, in one session: each goes to files.
const LOCAL: &str = "
    CREATE UNLOGGED TABLE u AS SELECT n, md5(n::text) AS t FROM generate_series(1, 20000) n;
    CREATE INDEX u_t ON u(t);
    CREATE TEMP TABLE tt AS SELECT * FROM u;
    CREATE INDEX tt_t ON tt(t);
    UPDATE tt SET n = n + 1;
    TRUNCATE u; INSERT INTO u SELECT n, md5(n::text) FROM generate_series(1, 500) n;
    SET enable_seqscan = off;
    SELECT (SELECT count(*) FROM u), (SELECT count(*) FROM tt), (SELECT n FROM tt WHERE t = md5('77')),
           pg_relation_filepath('tt') LIKE 'base/%/t%', pg_relation_size('tt') > 1000000";

const CONTENT: &str = "
    SELECT (SELECT count(*) || '/' || coalesce(sum(n), 0) || '/' || min(t) FROM b), (SELECT count(*) FROM e),
           (SELECT count(*) FROM v), pg_relation_size('b'), pg_relation_size('b_t'), nextval('s') > 100";

/// A compiled query would call the server's own size functions, which look at files.
const COMPILED: &str = "
    SET jit = on; SET jit_above_cost = 0; SET jit_inline_above_cost = 0; SET jit_optimize_above_cost = 0;
    SELECT pg_jit_available(), pg_relation_size(oid) > 1000000, pg_total_relation_size(oid) > pg_relation_size(oid)
    FROM pg_class WHERE relname = 'b'";

/// Files of relations below `base`, temporary ones left out: those of unlogged tables.
fn files(compute: &Compute) -> Result<usize> {
    let mut count = 0;
    for database in std::fs::read_dir(compute.pgdata.join("base"))? {
        for file in std::fs::read_dir(database?.path())? {
            let name = file?.file_name().to_string_lossy().into_owned();
            count += usize::from(name.starts_with(|first: char| first.is_ascii_digit()));
        }
    }
    Ok(count)
}

fn mode(whole: &Whole, compute: &Compute) -> Result<String> {
    whole.sql(&compute.connstr, "CREATE EXTENSION IF NOT EXISTS strata")?;
    whole.sql(&compute.connstr, "SELECT strata_smgr_mode()")
}

fn keeps_what_it_is_given(flavour: &str) -> Result<()> {
    let whole = Whole::started_on(tree(flavour)?)?;
    let mut compute = whole.start_compute("a", BUFFERS)?;
    ensure!(mode(&whole, &compute)? == "stock", "{flavour}: {}", mode(&whole, &compute)?);

    for (name, sql) in BULK {
        whole.sql(&compute.connstr, sql).context(*name)?;
    }
    // What became logged again has left its files; a dropped relation's first one goes with a checkpoint, as ever.
    whole.sql(&compute.connstr, "CHECKPOINT")?;
    ensure!(files(&compute)? == 0, "{flavour}: relations have files");
    let local = whole.sql(&compute.connstr, LOCAL)?;
    ensure!(local == "500|20000|78|t|t", "{flavour}: unlogged and temporary relations: {local}");
    ensure!(files(&compute)? > 0, "{flavour}: an unlogged table has no file");
    let compiled = whole.sql(&compute.connstr, COMPILED)?;
    ensure!(compiled == "f|t|t", "{flavour}: sizes in a query that could be compiled: {compiled}");
    let before = whole.sql(&compute.connstr, CONTENT)?;
    whole.amcheck(&compute)?;
    whole.lose_compute(&compute)?;
    compute = whole.start_compute("a", BUFFERS)?;
    let after = whole.sql(&compute.connstr, CONTENT)?;
    ensure!(before == after, "{flavour}: before the loss {before}, after it {after}");
    ensure!(
        whole.sql(&compute.connstr, "SELECT count(*) FROM u")? == "0",
        "{flavour}: unlogged content is kept"
    );
    whole.amcheck(&compute)?;

    // Under load, lost in the middle of it.
    tpcb::fill(&whole, &compute, 3)?;
    let mut told = Vec::new();
    for round in 1..=2 {
        let mut load = Load::start(&whole, &compute, 3, 4, 60, round)?;
        let enough = "SELECT count(*) > 300 FROM pgbench_history WHERE filler LIKE ";
        strata_regress::whole::wait_until("the load has done something", || {
            Ok(whole.sql(&compute.connstr, &format!("{enough}'{round} %'"))? == "t")
        })?;
        ensure!(load.is_running()?, "the load ended before the blow");
        whole.lose_compute(&compute)?;
        told.push(load.finish()?.0);
        compute = whole.start_compute("a", BUFFERS)?;
        tpcb::check(&whole, &compute, &told)?;
    }
    for sql in ["DROP TABLE b, e CASCADE", "DROP DATABASE other", "VACUUM"] {
        whole.sql(&compute.connstr, sql)?;
    }
    whole.stop_compute("a")?.context("a clean stop")?;
    compute = whole.start_compute("a", BUFFERS)?;
    tpcb::check(&whole, &compute, &told)?;
    whole.amcheck(&compute)
}

#[test]
fn the_build_without_patches() -> Result<()> {
    keeps_what_it_is_given("vanilla")
}

#[test]
fn the_binary_of_debian() -> Result<()> {
    if flavours().contains(&"debian") { keeps_what_it_is_given("debian") } else { Ok(()) }
}

#[test]
fn a_branch_moves_between_servers() -> Result<()> {
    let mut whole = Whole::started()?;
    let compute = whole.start_compute("a", &[])?;
    ensure!(mode(&whole, &compute)? == "registered", "the patched server has the hook");
    whole.sql(&compute.connstr, "CREATE TABLE moved(n int PRIMARY KEY, by text)")?;
    let mut expected = 0;
    for flavour in ["patched"].into_iter().chain(flavours()).chain(["patched"]) {
        whole.stop_compute("a")?;
        whole.use_tree(tree(flavour)?);
        let compute = whole.start_compute("a", &[])?;
        let mode = mode(&whole, &compute)?;
        ensure!(mode == if flavour == "patched" { "registered" } else { "stock" }, "{flavour}: {mode}");
        let insert = format!(
            "INSERT INTO moved SELECT n, '{flavour}' FROM generate_series({expected} + 1, {expected} + 1000) n; REINDEX TABLE moved"
        );
        whole.sql(&compute.connstr, &insert)?;
        expected += 1000;
        let count = whole.sql(&compute.connstr, "SELECT count(*), max(n) FROM moved")?;
        ensure!(count == format!("{expected}|{expected}"), "{flavour}: {count}");
        whole.amcheck(&compute)?;
    }
    Ok(())
}

/// Starts a compute on a server that was changed; it must refuse, and the unchanged one must find everything as it was.
fn refuses_when(changes: &str, expected: &[&str], change: impl FnOnce(&mut Elf) -> Result<()>) -> Result<()> {
    let good = tree("vanilla")?;
    let mut whole = Whole::started_on(good.clone())?;
    let compute = whole.start_compute("a", &[])?;
    whole.sql(&compute.connstr, "CREATE TABLE kept AS SELECT 42 AS n")?;
    whole.stop_compute("a")?;
    let bad = whole.scratch().join("tree");
    changed_tree(&good, &bad, change)?;
    whole.use_tree(bad);
    let words = [&["its own storage manager cannot be taken over"], expected].concat();
    refuses(&whole, &["compute", "start", "a"], &words).context(changes.to_owned())?;
    whole.use_tree(good);
    let compute = whole.start_compute("a", &[])?;
    ensure!(whole.sql(&compute.connstr, "SELECT n FROM kept")? == "42", "{changes}: the row is gone");
    Ok(())
}

#[test]
fn an_unknown_table_is_refused() -> Result<()> {
    refuses_when("two slots exchanged", &["slot smgr_readv of the table", "mdreadv"], |elf| {
        let program = elf.program()?;
        let (table, functions) = (verify(&program)?.table, program.functions()?);
        elf.point(table + 10 * 8, functions.get("mdwritev")?.address)?;
        elf.point(table + 11 * 8, functions.get("mdreadv")?.address)
    })
}

#[test]
fn code_that_goes_around_the_table_is_refused() -> Result<()> {
    refuses_when("a direct jump", &["smgrreadv refers to mdreadv"], |elf| {
        let functions = elf.program()?.functions()?;
        let at = functions.get("smgrreadv")?.address;
        elf.put(at, &jump(at, functions.get("mdreadv")?.address))
    })
}

#[test]
fn an_unknown_form_of_the_direct_call_is_refused() -> Result<()> {
    refuses_when("a call for a jump", &["smgrregistersync", "has an unknown form"], |elf| {
        let program = elf.program()?;
        let plan = verify(&program)?;
        // The jump becomes a call: what follows would be run after it.
        elf.put(plan.patch.context("the build without patches needs one")?.address, &[0xe8])
    })
}
