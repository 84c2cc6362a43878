//! R9 and R12: commands on whole databases and tablespaces. What they do over kills is in `regress/tests/databases.rs`.

use std::os::unix::fs::chown;

use anyhow::{Result, ensure};
use strata_common::Guard;
use strata_regress::evict::EVICT;
use strata_regress::session::Session;
use strata_regress::sound;
use strata_regress::traps::{OrHarm, WAITING, show};
use strata_regress::whole::wait_until;

/// CREATE DATABASE by file_copy is one record; all relations of the copy change with it.
#[test]
fn r9_a_copied_database_is_there_at_once() -> Result<()> {
    show(Guard::CopiedDatabaseRaises, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(&compute, "CREATE DATABASE pattern")?;
        ground.whole.sql(
            &compute.in_database("pattern")?,
            "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n",
        )?;
        let mut watcher = Session::open(&compute)?;
        watcher.sql(WAITING)?;
        // It asks how large the template is, then waits for this lock: the log is held between the two.
        let mut locker = Session::open(&compute)?;
        locker.sql("BEGIN; ALTER DATABASE pattern RENAME TO renamed")?;
        let held = std::thread::scope(|scope| {
            let create = scope
                .spawn(|| ground.sql(&compute, "CREATE DATABASE copy TEMPLATE pattern STRATEGY file_copy"));
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            wait_until("CREATE DATABASE waits for a lock", || Ok(watcher.sql(waits)? == "1"))?;
            let held = ground.hold_log();
            locker.sql("ROLLBACK")?;
            create.join().map_err(|_| anyhow::anyhow!("the thread of the command panicked"))??;
            anyhow::Ok(held)
        })?;
        // Another copy page by page, for a session that begins in the first copy could not be seen waiting.
        let again = "CREATE DATABASE second TEMPLATE copy STRATEGY wal_log";
        ground.do_while_held(&mut watcher, held, || ground.sql(&compute, again)).or_harm()?;
        let place = compute.in_database("second")?;
        let rows = ground.whole.sql(&place, "SELECT count(*), sum(n) FROM t").or_harm()?;
        sound!(rows == "1000|500500", "the copy of the copy has {rows}");
        Ok(())
    })
}

/// A template of more than the pageserver can take in as one record: a hash index made for very many rows that are not there.
#[test]
fn r9_a_large_copy_is_refused() -> Result<()> {
    show(Guard::LargeCopyRefused, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(&compute, "CREATE DATABASE pattern")?;
        let place = compute.in_database("pattern")?;
        ground.whole.sql(
            &place,
            "CREATE TABLE t(n int); INSERT INTO t VALUES (1); UPDATE pg_class SET reltuples = 20000000, relpages = 1 WHERE relname = 't'",
        )?;
        ground.whole.sql(&place, "CREATE INDEX ON t USING hash (n)")?;
        let said = ground.sql(&compute, "CREATE DATABASE copy TEMPLATE pattern STRATEGY file_copy");
        let Err(refused) = said else {
            // It says that it cannot take the record in, and nothing after it.
            let mut problem = String::new();
            wait_until("the pageserver has met the record", || {
                let branch = &ground.whole.json(&["status"])?["branches"][0];
                problem = branch["problem"].to_string();
                Ok(branch["state"] != "active")
            })?;
            sound!(false, "{problem}");
            return Ok(());
        };
        ensure!(refused.to_string().contains("use strategy wal_log"), "{refused}");
        ground.sql(&compute, "CREATE DATABASE copy TEMPLATE template0 STRATEGY file_copy")?;
        Ok(())
    })
}

/// The same database number again, with the same relation numbers: nothing of the dropped one may be left.
#[test]
fn r9_a_dropped_database_is_forgotten() -> Result<()> {
    show(Guard::DropDatabaseForgets, |ground| {
        let compute = ground.compute(&["strata.keeper_interval=1h"])?;
        ground.sql(&compute, "CREATE DATABASE first OID = 60000 TEMPLATE template0")?;
        let first = compute.in_database("first")?;
        // Pages of a catalog that leave shared buffers inside their transaction are spilled.
        ground.whole.sql(&first, EVICT)?;
        ground.whole.sql(
            &first,
            "BEGIN; CREATE FUNCTION ghost() RETURNS int LANGUAGE sql AS 'SELECT 1';
             ALTER FUNCTION ghost() COST 7; SELECT evict('pg_proc'); COMMIT",
        )?;
        ground.sql(&compute, "DROP DATABASE first")?;
        ground
            .sql(&compute, "CREATE DATABASE second OID = 60000 TEMPLATE template0 STRATEGY file_copy")
            .or_harm()?;
        let second = compute.in_database("second")?;
        let ghosts = ground
            .whole
            .sql(
                &second,
                "SET enable_indexscan = off; SET enable_bitmapscan = off;
            SELECT count(*) FROM pg_proc WHERE proname = 'ghost'",
            )
            .or_harm()?;
        sound!(ghosts == "0", "the new database has {ghosts} function of the dropped one");
        Ok(())
    })
}

#[test]
fn r9_a_dropped_databases_number_is_free() -> Result<()> {
    show(Guard::DropDatabaseRaises, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(&compute, "CREATE DATABASE first OID = 60000 TEMPLATE template0")?;
        ground.caught_up(&compute)?;
        let mut watcher = Session::open(&compute)?;
        watcher.sql(WAITING)?;
        let held = ground.hold_log();
        ground
            .do_while_held(&mut watcher, held, || {
                ground.sql(&compute, "DROP DATABASE first")?;
                ground.sql(&compute, "CREATE DATABASE second OID = 60000 TEMPLATE template0")
            })
            .or_harm()?;
        let place = compute.in_database("second")?;
        ground.whole.sql(&place, "CREATE TABLE t AS SELECT 1").or_harm()?;
        Ok(())
    })
}

/// To move a database is to copy it: refused, for there is one place only. What a move would show is the copy before the pageserver
/// has it.
#[test]
fn r9_a_database_is_not_moved() -> Result<()> {
    show(Guard::DatabaseMoveRefused, |ground| {
        let compute = ground.compute(&["allow_in_place_tablespaces=on"])?;
        ground.sql(&compute, "CREATE TABLESPACE apart LOCATION ''")?;
        ground.sql(&compute, "CREATE DATABASE guest")?;
        let guest = compute.in_database("guest")?;
        ground.whole.sql(&guest, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")?;
        ground.caught_up(&compute)?;
        let mut watcher = Session::open(&compute)?;
        watcher.sql(WAITING)?;
        let held = ground.hold_log();
        let moved = ground.sql(&compute, "ALTER DATABASE guest SET TABLESPACE apart");
        let rows = ground
            .do_while_held(&mut watcher, held, || ground.whole.sql(&guest, "SELECT count(*), sum(n) FROM t"))
            .or_harm()?;
        sound!(rows == "1000|500500", "after the move: {rows}");
        let Err(refused) = moved else { anyhow::bail!("the move was not refused") };
        ensure!(refused.to_string().contains("is not supported with remote storage"), "{refused}");
        Ok(())
    })
}

/// A folder on this compute's disk is not there on the next one.
#[test]
fn r9_a_tablespace_has_no_location() -> Result<()> {
    show(Guard::LocationRefused, |ground| {
        let compute = ground.compute(&[])?;
        let folder = ground.whole.scratch().join("place");
        std::fs::create_dir(&folder)?;
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&compute.pgdata)?);
        chown(&folder, Some(owner), None)?;
        let made = ground.sql(&compute, &format!("CREATE TABLESPACE t LOCATION '{}'", folder.display()));
        let Err(refused) = made else {
            let compute = ground.next_compute(&compute, &[])?;
            let now = ground
                .sql(&compute, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 't'")
                .or_harm()?;
            sound!(
                now == folder.to_string_lossy(),
                "the tablespace's location is '{now}' on the next compute"
            );
            anyhow::bail!("the location was not refused");
        };
        ensure!(refused.to_string().contains("is not supported with remote storage"), "{refused}");
        Ok(())
    })
}

/// The folder of a tablespace is empty whatever is in it.
#[test]
fn r12_a_tablespace_with_relations_is_not_dropped() -> Result<()> {
    show(Guard::TablespaceLooked, |ground| {
        let compute = ground.compute(&["allow_in_place_tablespaces=on"])?;
        ground.sql(&compute, "CREATE TABLESPACE apart LOCATION ''")?;
        ground.sql(&compute, "CREATE TABLE t TABLESPACE apart AS SELECT 1 AS n")?;
        let dropped = ground.sql(&compute, "DROP TABLESPACE apart");
        sound!(dropped.is_err(), "a tablespace with a table in it was dropped");
        ground.sql(&compute, "DROP TABLE t")?;
        ground.sql(&compute, "DROP TABLESPACE apart")?;
        Ok(())
    })
}
