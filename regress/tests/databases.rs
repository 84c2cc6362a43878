//! Databases that are made and dropped: whole or not at all over losses (trap R9); a drop forgets what belongs to the database that it
//! drops, and nothing else (R5, CP-3).

use anyhow::{Context, Result, ensure};
use strata_regress::whole::{Compute, Whole};

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

/// One record of the log: where it ends and what it is.
struct Step {
    end: String,
    kind: String,
}

/// The records between two positions.
fn steps(whole: &Whole, compute: &Compute, from: &str, to: &str) -> Result<Vec<Step>> {
    let rows = whole.sql(
        &compute.connstr,
        &format!("SELECT end_lsn, resource_manager || '/' || record_type FROM pg_get_wal_records_info('{from}', '{to}')"),
    )?;
    rows.lines()
        .map(|row| {
            let (end, kind) = row.split_once('|').context("two columns")?;
            Ok(Step { end: end.to_owned(), kind: kind.to_owned() })
        })
        .collect()
}

/// Runs one command and returns its records.
fn logged(whole: &Whole, compute: &Compute, sql: &str) -> Result<Vec<Step>> {
    const NOW: &str = "SELECT pg_current_wal_insert_lsn()";
    let from = whole.sql(&compute.connstr, NOW)?;
    whole.sql(&compute.connstr, sql)?;
    let to = whole.sql(&compute.connstr, NOW)?;
    steps(whole, compute, &from, &to)
}

/// Places after which a compute may be lost: behind records of these kinds, and here and there between.
fn cuts<'a>(steps: &'a [Step], kinds: &[&str]) -> Vec<&'a Step> {
    let last = steps.len() - 1;
    let wanted = |at: usize, step: &Step| {
        kinds.contains(&step.kind.as_str()) || [last / 2, last - 1, last].contains(&at)
    };
    steps.iter().enumerate().filter(|(at, step)| wanted(*at, step)).map(|(_, step)| step).collect()
}

/// What a compute finds of database `d` that begins after this record: the log up to there is all that a majority had.
#[derive(PartialEq, Eq, Debug)]
enum Found {
    Nothing,
    /// DROP DATABASE has begun: only to be dropped again, as in vanilla.
    Invalid,
    Whole,
}

fn lost_after(whole: &Whole, step: &Step, number: usize) -> Result<Found> {
    let name = format!("cut{number}");
    whole.strata(&["branch", "create", &name, "--at-lsn", &step.end])?;
    let compute = whole.start_compute(&name, &["--branch", &name])?;
    let limit = whole.sql(&compute.connstr, "SELECT datconnlimit FROM pg_database WHERE datname = 'd'")?;
    let found = match limit.as_str() {
        "" => Found::Nothing,
        "-2" => Found::Invalid,
        _ => Found::Whole,
    };
    if found == Found::Whole {
        let rows = whole.sql(&compute.in_database("d")?, "SELECT count(*), sum(n) FROM t WHERE n > 0")?;
        ensure!(rows == "1000|500500", "after {} at {}: {rows}", step.kind, step.end);
    } else {
        if found == Found::Invalid {
            whole.sql(&compute.connstr, "DROP DATABASE d")?;
        }
        // The way is free for another.
        whole.sql(&compute.connstr, "CREATE DATABASE d TEMPLATE pattern")?;
        let rows = whole.sql(&compute.in_database("d")?, "SELECT count(*) FROM t")?;
        ensure!(rows == "1000", "made anew after {} at {}: {rows}", step.kind, step.end);
    }
    whole.lose_compute(&compute)?;
    Ok(found)
}

/// A database that is being made or dropped when the compute is lost is there whole or not at all (R9). What a loss leaves is a
/// prefix of the log, so the places of the blow are chosen by branches.
#[test]
fn a_loss_leaves_a_database_whole_or_not_at_all() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &["--set", "autovacuum=off"])?;
    whole.sql(&compute.connstr, "CREATE EXTENSION pg_walinspect")?;
    whole.sql(&compute.connstr, "CREATE DATABASE pattern")?;
    whole.sql(
        &compute.in_database("pattern")?,
        "CREATE TABLE t(n int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)",
    )?;
    let mut number = 0;
    let mut try_all = |cuts: &[&Step], order: &[Found]| -> Result<()> {
        let mut before = 0;
        for cut in cuts {
            number += 1;
            let found = lost_after(&whole, cut, number)?;
            let place = order.iter().position(|state| *state == found);
            let place = place.with_context(|| format!("after {} at {}: {found:?}", cut.kind, cut.end))?;
            ensure!(place >= before, "after {} at {}: {found:?}, but more before", cut.kind, cut.end);
            before = place;
        }
        ensure!(before == order.len() - 1, "the last cut is not the end");
        Ok(())
    };
    for (strategy, kind) in
        [("wal_log", "Database/CREATE_WAL_LOG"), ("file_copy", "Database/CREATE_FILE_COPY")]
    {
        let made =
            logged(&whole, &compute, &format!("CREATE DATABASE d TEMPLATE pattern STRATEGY {strategy}"))?;
        let at = cuts(&made, &[kind, "Transaction/COMMIT"]);
        ensure!(at.iter().any(|step| step.kind == kind), "no record {kind}");
        try_all(&at, &[Found::Nothing, Found::Whole])?;
        let dropped = logged(&whole, &compute, "DROP DATABASE d")?;
        let at = cuts(&dropped, &["Database/DROP", "Heap/INPLACE", "Transaction/COMMIT"]);
        ensure!(at.iter().any(|step| step.kind == "Database/DROP"), "no record of the drop");
        try_all(&at, &[Found::Whole, Found::Invalid, Found::Nothing])?;
    }
    Ok(())
}
