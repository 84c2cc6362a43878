//! R: relations' sizes, existence, life and death. Databases and tablespaces are in `databases`, numbers that come again in `reuse`.

use anyhow::{Result, ensure};
use strata_common::Guard;
use strata_regress::session::Session;
use strata_regress::sound;
use strata_regress::traps::{Ground, OrHarm, Stuck, WAITING, show, show_double, show_each};
use strata_regress::whole::wait_until;

/// So few that the relation table is full with what `CROWD` makes.
const FEW_SLOTS: [&str; 2] = ["strata.relation_slots=1024", "strata.keeper_interval=1h"];

/// More relations than `FEW_SLOTS` has room for.
const CROWD: &str = "DO $$ BEGIN FOR i IN 1..1300 LOOP EXECUTE format('CREATE TABLE crowd%s()', i);
    IF i % 50 = 0 THEN COMMIT; END IF; END LOOP; END $$";

/// Asks for all of them again and again, so that whatever may be forgotten is.
const MEET_CROWD: &str = "DO $$ BEGIN FOR i IN 1..4 LOOP
    PERFORM sum(pg_relation_size(oid)) FROM pg_class WHERE relname LIKE 'crowd%'; END LOOP; END $$";

/// A free space map is in no log. While the server lives its size is known to the relation table only.
#[test]
fn r1_a_size_ahead_of_the_log_is_not_forgotten() -> Result<()> {
    show(Guard::SizesAheadOfTheLog, |ground| {
        let compute = ground.compute(&FEW_SLOTS)?;
        ground.sql(
            &compute,
            "CREATE TABLE t(id int, filler text); INSERT INTO t SELECT n, repeat('x', 400) FROM generate_series(1, 2000) n;
             DELETE FROM t WHERE id % 2 = 0",
        )?;
        ground.sql(&compute, "VACUUM (TRUNCATE false) t")?;
        let size = "SELECT pg_relation_size('t', 'fsm')";
        let before = ground.sql(&compute, size)?;
        ensure!(before != "0", "there is no free space map");
        ground.sql(&compute, CROWD)?;
        ground.sql(&compute, MEET_CROWD)?;
        let after = ground.sql(&compute, size)?;
        sound!(after == before, "a free space map of {before} bytes has {after} now");
        Ok(())
    })
}

/// A new table that the pageserver has not heard of: its size is known here, and if it were not, the question would wait.
#[test]
fn r1_a_new_relation_exists_at_once() -> Result<()> {
    show_double([Guard::SizesAheadOfTheLog, Guard::CreateRaises], |ground| {
        let compute = ground.compute(&FEW_SLOTS)?;
        ground.sql(&compute, CROWD)?;
        ground.caught_up(&compute)?;
        let mut session = Session::open(&compute)?;
        let mut watcher = Session::open(&compute)?;
        watcher.sql(WAITING)?;
        let held = ground.hold_log();
        ground
            .do_while_held(&mut watcher, held, || {
                session.sql("CREATE TABLE t(id int)")?;
                session.sql(MEET_CROWD)?;
                session.sql("INSERT INTO t VALUES (1)")
            })
            .or_harm()?;
        let rows = session.sql("SELECT count(*) FROM t").or_harm()?;
        sound!(rows == "1", "{rows} rows of one");
        Ok(())
    })
}

/// A hash index grows by many blocks of which only the last is logged. TRUNCATE in the transaction that made the table cuts in
/// place; blocks that the index gets again later are zeros, not what lay there before.
#[test]
fn r4_what_was_cut_off_does_not_come_back() -> Result<()> {
    show(Guard::TruncationRaises, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(&compute, "CREATE EXTENSION pg_prewarm; CREATE EXTENSION pgstattuple")?;
        let mut session = Session::open(&compute)?;
        let mut watcher = Session::open(&compute)?;
        watcher.sql(WAITING)?;
        session.sql("BEGIN; CREATE TABLE t(n int); CREATE INDEX t_hash ON t USING hash (n)")?;
        session.sql("INSERT INTO t SELECT generate_series(1, 20000)")?;
        session.sql("SELECT evict('t_hash')")?;
        session.sql("SELECT count(*) FROM pgstathashindex('t_hash')")?;
        ground.sql(&compute, "SELECT pg_logical_emit_message(true, 'flushed', '')")?;
        ground.caught_up(&compute)?;
        let held = ground.hold_log();
        session.sql("TRUNCATE t; INSERT INTO t SELECT generate_series(1, 3000)")?;
        // Blocks that nobody has touched yet.
        let gaps = session.sql(
            "SELECT count(*) FROM generate_series(0, pg_relation_size('t_hash') / 8192 - 1) b WHERE b NOT IN
               (SELECT relblocknumber FROM pg_buffercache WHERE relfilenode = pg_relation_filenode('t_hash'))",
        )?;
        ensure!(gaps != "0", "the index has no gaps: the test shows nothing");
        ground.do_while_held(&mut watcher, held, || {
            session.sql(
                "SELECT pg_prewarm('t_hash', 'buffer', 'main', b, b)
                 FROM generate_series(0, pg_relation_size('t_hash') / 8192 - 1) b WHERE b NOT IN
                   (SELECT relblocknumber FROM pg_buffercache WHERE relfilenode = pg_relation_filenode('t_hash'))",
            )
        })?;
        let items = session.sql("SELECT live_items FROM pgstathashindex('t_hash')").or_harm()?;
        sound!(items == "3000", "the index has {items} entries of 3000 rows");
        session.sql("COMMIT")?;
        Ok(())
    })
}

/// The pageserver goes away between DROP TABLE and its COMMIT: forks of which this server knows nothing must not be asked for.
#[test]
fn r6_a_transaction_ends_without_the_pageserver() -> Result<()> {
    show(Guard::NoNetworkInCommit, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(
            &compute,
            "CREATE TABLE gone AS SELECT generate_series(1, 1000) AS n; CREATE TABLE kept AS SELECT 1 AS n;
             CREATE TABLE old AS SELECT 1 AS n",
        )?;
        let compute = ground.next_compute(&compute, &[])?;
        let mut watcher = Session::open(&compute)?;
        watcher.sql(WAITING)?;
        let mut session = Session::open(&compute)?;
        session.sql("INSERT INTO kept VALUES (2)")?;
        // What an abort and a commit need of the catalogs is in buffers afterwards.
        session
            .sql("BEGIN; CREATE TABLE made(n int); INSERT INTO made VALUES (1); DROP TABLE old; ROLLBACK")?;
        session.sql("BEGIN; DROP TABLE gone")?;
        let mut aborting = Session::open(&compute)?;
        aborting.sql("BEGIN; CREATE TABLE made(n int); INSERT INTO made VALUES (1); TRUNCATE kept")?;
        ground.whole.kill_node("pageservers", 1)?;
        aborting.sql("ROLLBACK")?;
        std::thread::scope(|scope| {
            let commit = scope.spawn(|| session.sql("COMMIT; INSERT INTO kept VALUES (3)"));
            let mut stuck = Stuck::default();
            wait_until("the commit is over or waits", || {
                Ok(commit.is_finished() || stuck.look(&watcher.sql(WAITING)?))
            })?;
            sound_or_back(ground, commit.is_finished(), "a commit waits for the pageserver")?;
            commit.join().map_err(|_| anyhow::anyhow!("the thread of the commit panicked"))?
        })?;
        ground.whole.strata(&["pageserver", "start", "1"])?;
        let compute = ground.next_compute(&compute, &[])?;
        let left = "SELECT to_regclass('gone') IS NULL, to_regclass('made') IS NULL, (SELECT sum(n) FROM kept), (SELECT n FROM old)";
        let left = ground.sql(&compute, left)?;
        sound!(left == "t|t|6|1", "after commit and abort without the pageserver: {left}");
        Ok(())
    })
}

/// A harm during which the pageserver is away: it comes back, so that nothing waits for ever.
fn sound_or_back(ground: &Ground, is_sound: bool, harm: &str) -> Result<()> {
    if !is_sound {
        ground.whole.strata(&["pageserver", "start", "1"])?;
    }
    sound!(is_sound, "{harm}");
    Ok(())
}

/// A file of the spill store that cannot be removed after the commit of DROP TABLE.
#[test]
fn r6_what_cannot_be_removed_after_a_commit_is_a_warning() -> Result<()> {
    show(Guard::UnlinkWarns, |ground| {
        let compute = ground.compute(&["strata.keeper_interval=1h"])?;
        ground.sql(
            &compute,
            "BEGIN; CREATE TABLE t(n int); INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); SELECT evict('t'); COMMIT",
        )?;
        let node = ground.sql(&compute, "SELECT pg_relation_filenode('t')")?;
        let mut replaced = 0;
        for entry in std::fs::read_dir(compute.pgdata.join("strata_spill"))? {
            let path = entry?.path();
            if path.to_string_lossy().contains(&format!("_{node}_")) {
                std::fs::remove_file(&path)?;
                std::fs::create_dir(&path)?;
                replaced += 1;
            }
        }
        ensure!(replaced > 0, "nothing was spilled: the test shows nothing");
        ground.sql(&compute, "DROP TABLE t").or_harm()?;
        let gone = ground.sql(&compute, "SELECT to_regclass('t') IS NULL").or_harm()?;
        sound!(gone == "t", "the table is still there");
        Ok(())
    })
}

/// A start without recovery resets nothing: MAIN of an unlogged relation comes with the base backup.
#[test]
fn r11_unlogged_relations_begin_as_their_init_fork() -> Result<()> {
    show(Guard::MainFromInit, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(
            &compute,
            "CREATE UNLOGGED TABLE u(id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int); INSERT INTO u(n) VALUES (1), (2);
             CREATE UNLOGGED SEQUENCE s; SELECT nextval('s')",
        )?;
        let compute = ground.next_compute(&compute, &[])?;
        let left = ground.sql(&compute, "SELECT count(*) FROM u").or_harm()?;
        sound!(left == "0", "{left} rows have survived");
        let row = ground.sql(&compute, "INSERT INTO u(n) VALUES (3) RETURNING id, nextval('s')").or_harm()?;
        sound!(row == "1|1", "identity and sequence go on with {row}");
        Ok(())
    })
}

#[test]
fn r11_an_init_fork_is_remote() -> Result<()> {
    show(Guard::InitIsRemote, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(&compute, "CREATE UNLOGGED TABLE u(id int PRIMARY KEY)").or_harm()?;
        let compute = ground.next_compute(&compute, &[])?;
        ground.sql(&compute, "INSERT INTO u VALUES (1)").or_harm()?;
        Ok(())
    })
}

/// REINDEX makes an unlogged index's INIT fork when its MAIN is filled. A large one begins with a block of zeros, which says
/// nothing of what it is.
#[test]
fn r11_an_init_fork_made_later_leaves_main_alone() -> Result<()> {
    show(Guard::InitAfterMain, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(
            &compute,
            "CREATE UNLOGGED TABLE u(id int PRIMARY KEY); INSERT INTO u SELECT generate_series(1, 20000)",
        )?;
        ground.sql(&compute, "REINDEX INDEX u_pkey").or_harm()?;
        let found = ground
            .sql(&compute, "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM u WHERE id = 17777")
            .or_harm()?;
        sound!(found == "1", "the index finds {found} rows of one");
        Ok(())
    })
}

/// The server's own functions look at files, of which there are none.
#[test]
fn r12_size_functions_know_remote_relations() -> Result<()> {
    use Guard::*;
    let functions = [
        RelationSize,
        TableSize,
        IndexesSize,
        TotalRelationSize,
        DatabaseSizeByOid,
        DatabaseSizeByName,
        TablespaceSizeByOid,
        TablespaceSizeByName,
    ];
    show_each(&functions, |ground| {
        let compute = ground.bare_compute("a", &[])?;
        let begin = "DROP TABLE IF EXISTS t; CREATE TABLE t(id int PRIMARY KEY, filler text);
             INSERT INTO t SELECT n, repeat('x', 400) FROM generate_series(1, 4000) n";
        ground.sql(&compute, begin)?;
        let rows = ground.sql(
            &compute,
            "WITH wrong AS (SELECT * FROM (VALUES
               ('pg_relation_size', pg_relation_size('t'), 4000 / 18 * 8192, 4000 / 17 * 8192),
               ('pg_table_size', pg_table_size('t'), pg_relation_size('t'), pg_relation_size('t') + 65536),
               ('pg_indexes_size', pg_indexes_size('t'), pg_relation_size('t_pkey'), pg_relation_size('t_pkey') + 65536),
               ('pg_total_relation_size', pg_total_relation_size('t'), pg_table_size('t') + pg_indexes_size('t'), pg_table_size('t') + pg_indexes_size('t')),
               ('pg_database_size(oid)', pg_database_size((SELECT oid FROM pg_database WHERE datname = 'postgres')), 6000000, 60000000),
               ('pg_database_size(name)', pg_database_size('postgres'), 6000000, 60000000),
               ('pg_tablespace_size(oid)', pg_tablespace_size(1663), 20000000, 120000000),
               ('pg_tablespace_size(name)', pg_tablespace_size('pg_default'), 20000000, 120000000)) AS f(name, bytes, least, most)
             WHERE NOT bytes BETWEEN least AND most)
             SELECT string_agg(name || ' says ' || bytes, ', ') FROM wrong",
        );
        let wrong = rows?;
        ground.whole.lose_compute(&compute)?;
        sound!(wrong.is_empty(), "{wrong}");
        Ok(())
    })
}
