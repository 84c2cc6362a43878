//! V: visibility map and free space map.

use anyhow::{Context, Result, ensure};
use strata_common::Guard;
use strata_regress::sound;
use strata_regress::traps::{Ground, show, show_all};
use strata_regress::whole::Compute;

/// Rows by an index-only scan, which believes the visibility map.
fn index_only_count(table: &str) -> String {
    format!("SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM {table}")
}

/// V1 and V2: on a branch that is made right after the change, with the compute killed, nothing but the log can have cleared the map's
/// bits. A change that is rolled back leaves an index entry that only the bit keeps from being looked at.
#[test]
fn v1_changes_clear_map_bits() -> Result<()> {
    const GUARDS: [Guard; 6] = [
        Guard::InsertClears,
        Guard::UpdateOldClears,
        Guard::UpdateNewClears,
        Guard::DeleteClears,
        Guard::LockClears,
        Guard::MultiInsertClears,
    ];
    /// The first page of each table is full, the second is not. Table, change, and rows that there are then.
    const CHANGES: [[&str; 3]; 6] = [
        ["inserted", "BEGIN; INSERT INTO inserted VALUES (51, 'x'); ROLLBACK", "50"],
        ["moved_from", "UPDATE moved_from SET id = 1001 WHERE id = 1", "50"],
        ["moved_to", "BEGIN; UPDATE moved_to SET id = 1001 WHERE id = 1; ROLLBACK", "50"],
        ["deleted", "DELETE FROM deleted WHERE id = 7", "49"],
        ["locked", "SELECT id FROM locked WHERE id = 7 FOR UPDATE", "50"],
        ["copied", "BEGIN; COPY copied(id) FROM PROGRAM 'seq 51 60'; ROLLBACK", "50"],
    ];
    show_all(&GUARDS, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(&compute, "CREATE EXTENSION pg_visibility")?;
        for [table, ..] in CHANGES {
            ground.sql(
                &compute,
                &format!(
                    "CREATE TABLE {table}(id int PRIMARY KEY, v text);
                     INSERT INTO {table} SELECT n, repeat('x', 150) FROM generate_series(1, 50) AS n"
                ),
            )?;
            ground.sql(&compute, &format!("VACUUM (FREEZE) {table}"))?;
            let bits =
                ground.sql(&compute, &format!("SELECT * FROM pg_visibility_map_summary('{table}')"))?;
            ensure!(bits == "2|2", "{table}: bits {bits}");
        }
        for [_, change, _] in CHANGES {
            ground.sql(&compute, change)?;
        }
        // What was rolled back is in the log of this commit.
        ground.sql(&compute, "SELECT pg_logical_emit_message(true, 'test', '')")?;
        ground.whole.lose_compute(&compute)?;
        ground.whole.strata(&["branch", "create", "after"])?;
        let compute = ground.whole.start_compute("b", &["--branch", "after", "--set", "autovacuum=off"])?;
        let check = |table: &str, rows: &str| -> Result<()> {
            let count = ground.sql(&compute, &index_only_count(table))?;
            sound!(count == rows, "an index-only scan of '{table}' counts {count} rows of {rows}");
            let wrong = ground.sql(&compute, &format!("SELECT count(*) FROM pg_check_frozen('{table}')"))?;
            sound!(wrong == "0", "{wrong} rows of '{table}' lie on pages called frozen and are not");
            Ok(())
        };
        Ok(CHANGES.map(|[table, _, rows]| (table, check(table, rows))).into())
    })
}

/// Rows that are rolled back on blocks that were cut off before and are added again.
const ADD_AND_ROLL_BACK: &str = "BEGIN; INSERT INTO t SELECT generate_series(3001, 4500); ROLLBACK";

fn long_table(ground: &Ground) -> Result<Compute> {
    let compute = ground.compute(&["strata.keeper_interval=1h"])?;
    ground
        .sql(&compute, "CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 2000)")?;
    ground.sql(&compute, "VACUUM t")?;
    ground.sql(&compute, "DELETE FROM t WHERE id > 500")?;
    Ok(compute)
}

fn blocks(ground: &Ground, compute: &Compute) -> Result<u64> {
    let blocks = ground.sql(compute, "SELECT pg_relation_size('t') / 8192")?;
    blocks.parse().context("a number of blocks")
}

/// VACUUM calls emptied pages visible to all and cuts them off. Pages that are added there inherit nothing.
#[test]
fn v4_a_cut_clears_the_maps_tail_in_the_log() -> Result<()> {
    show(Guard::CutTail, |ground| {
        let compute = long_table(ground)?;
        let before = blocks(ground, &compute)?;
        ground.sql(&compute, "VACUUM t")?;
        ensure!(blocks(ground, &compute)? < before, "nothing was cut off");
        ensure!(ground.sql(&compute, "SELECT evict('t', 2)")? == "0", "not all pages have left");
        ground.sql(&compute, ADD_AND_ROLL_BACK)?;
        let count = ground.sql(&compute, &index_only_count("t"))?;
        sound!(count == "500", "an index-only scan counts {count} rows of 500");
        Ok(())
    })
}

/// The cut moves no LSN of the map's page, and a pageserver that lags still has the bits.
#[test]
fn v4_a_map_is_not_read_as_of_before_a_cut() -> Result<()> {
    show(Guard::CutMaps, |ground| {
        let compute = long_table(ground)?;
        ground.sql(&compute, "VACUUM (TRUNCATE false) t")?;
        let before = blocks(ground, &compute)?;
        ground.caught_up(&compute)?;
        let held = ground.hold_log();
        ground.sql(&compute, "VACUUM t")?;
        ensure!(blocks(ground, &compute)? < before, "nothing was cut off");
        ensure!(ground.sql(&compute, "SELECT evict('t', 2)")? == "0", "not all pages have left");
        ground.sql_while_held(&compute, held, ADD_AND_ROLL_BACK)?;
        let count = ground.sql(&compute, &index_only_count("t"))?;
        sound!(count == "500", "an index-only scan counts {count} rows of 500");
        Ok(())
    })
}

/// VACUUM says on the page, without moving its LSN, that all rows are visible. A page that comes back without that lets a DELETE
/// leave the visibility map's bit.
#[test]
fn v7_all_visible_outlives_an_eviction() -> Result<()> {
    show(Guard::AllVisible, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(
            &compute,
            "CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 50)",
        )?;
        ground.sql(&compute, "VACUUM t")?;
        // Clears the bit again: the map exists before the log is held, for making it raises what every read must reflect.
        ground.sql(&compute, "INSERT INTO t VALUES (51)")?;
        ground.caught_up(&compute)?;
        let held = ground.hold_log();
        ground.sql(&compute, "VACUUM t")?;
        ground.sql(&compute, "SELECT evict('t')")?;
        ground.sql_while_held(&compute, held, "DELETE FROM t WHERE id = 7")?;
        let left = ground.sql(&compute, &index_only_count("t"))?;
        sound!(left == "50", "an index-only scan counts {left} rows of 50");
        Ok(())
    })
}
