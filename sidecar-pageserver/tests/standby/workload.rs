//! What the primary does: every record type (`strata_regress::scripts`), and beside it sessions that share row locks, subtransactions
//! and multixacts over many SLRU pages, databases that come and go, rewritten catalogs, prepared transactions; checkpoints all the time.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow};
use strata_regress::postgres::Cluster;
use strata_regress::scripts;

/// Of the primary, and of the standby, which must have as much as the log asks for. No full-page images, so that redo does all the work;
/// one of the scripts turns them on for a while.
pub const SETTINGS: [(&str, &str); 8] = [
    ("wal_level", "logical"),
    ("wal_keep_size", "100GB"),
    ("max_wal_size", "100GB"),
    ("max_prepared_transactions", "20"),
    ("track_commit_timestamp", "on"),
    ("autovacuum", "off"),
    ("allow_in_place_tablespaces", "on"),
    ("shared_buffers", "128MB"),
];

/// Once, in database `postgres`.
const TABLES: &str = r"
CREATE TABLE load (id int PRIMARY KEY, v text, n int) WITH (fillfactor = 70);
INSERT INTO load SELECT g, repeat('x', g % 300), g FROM generate_series(1, 8000) g;
CREATE INDEX ON load (n);
CREATE SEQUENCE steps;
CREATE TABLE m (id int PRIMARY KEY, v int);
INSERT INTO m SELECT i, 0 FROM generate_series(1, 3000) i;
CREATE UNLOGGED TABLE u (id int PRIMARY KEY, v text);
CREATE INDEX ON u USING gin (to_tsvector('simple', v));
CREATE UNLOGGED SEQUENCE us;
VACUUM (FREEZE, ANALYZE) load;
";

/// Sessions that share row locks while others update.
const LOAD: &str = r"
\set a random(1, 2000)
\set b random(1, 20)
BEGIN;
SELECT 1 FROM load WHERE id = :a FOR SHARE;
SAVEPOINT s;
UPDATE load SET n = n + 1 WHERE id = :a + 1 AND n % 7 <> 0;
SELECT 1 FROM m WHERE id = :b FOR KEY SHARE;
SELECT nextval('steps');
COMMIT;
DELETE FROM load WHERE id = 2100 + :client_id * 1000 + :a % 400;
INSERT INTO load VALUES (2100 + :client_id * 1000 + :a % 400, 'again', :a);
";

/// Transactions within transactions, kept and undone, and multixacts of one session.
const NESTED: &str = r"
CALL subtransactions(9000, 3);
BEGIN; CALL subtransactions(500, 7); ROLLBACK;
DO $$
BEGIN
  FOR i IN 1..3000 LOOP
    PERFORM 1 FROM m WHERE id = i FOR KEY SHARE;
    BEGIN
      UPDATE m SET v = v + 1 WHERE id = i;
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
  END LOOP;
END $$;
VACUUM load; VACUUM m;
BEGIN; CALL subtransactions(70, 2); PREPARE TRANSACTION 'with subtransactions';
BEGIN; INSERT INTO s VALUES (-1); PREPARE TRANSACTION 'undone';
INSERT INTO u SELECT g, 'unlogged words ' || g FROM generate_series(1, 500) g; TRUNCATE u;
COMMIT PREPARED 'with subtransactions'; ROLLBACK PREPARED 'undone';
VACUUM (FREEZE) s; DELETE FROM s WHERE i % 4 = 0; VACUUM s;
ALTER TABLE s SET UNLOGGED; INSERT INTO s VALUES (5); ALTER TABLE s SET LOGGED;
DELETE FROM s; VACUUM s;
CALL subtransactions(9000, 5);
BEGIN; CALL subtransactions(20, 2); PREPARE TRANSACTION 'left for a while';
";

/// Databases, tablespaces and rewritten catalogs. A table that the load uses is locked before its indexes are: no deadlocks.
const FILES: &str = r"
CREATE DATABASE d_copy TEMPLATE template0 STRATEGY file_copy;
CREATE DATABASE d_log TEMPLATE template0 STRATEGY wal_log;
CREATE TABLESPACE place LOCATION '';
CREATE DATABASE d_place TEMPLATE template1 STRATEGY wal_log TABLESPACE place;
CREATE TABLE placed (a int PRIMARY KEY, b text) TABLESPACE place;
INSERT INTO placed SELECT i, repeat('p', 200) FROM generate_series(1, 2000) i;
VACUUM FULL pg_class; VACUUM FULL pg_type; VACUUM FULL pg_attribute; VACUUM FULL pg_proc;
VACUUM FULL pg_database; VACUUM FULL pg_authid; REINDEX TABLE pg_shdepend;
VACUUM FULL placed; DELETE FROM placed WHERE a > 100; VACUUM placed;
ALTER TABLE placed SET TABLESPACE pg_default;
CREATE TABLE big AS SELECT i, repeat('b', 400) AS t FROM generate_series(1, 6000) i;
CREATE INDEX ON big (i); CREATE INDEX ON big USING brin (i);
DELETE FROM big WHERE i > 1500; VACUUM big; INSERT INTO big SELECT i, 'again' FROM generate_series(1, 3000) i;
TRUNCATE big; INSERT INTO big VALUES (1, 'alone');
ROLLBACK PREPARED 'left for a while';
DROP DATABASE d_copy; ALTER DATABASE d_place SET TABLESPACE pg_default; DROP DATABASE d_place; DROP TABLESPACE place;
BEGIN; LOCK TABLE load IN ACCESS EXCLUSIVE MODE; REINDEX TABLE load; COMMIT;
CLUSTER load USING load_pkey; DROP TABLE placed; DROP TABLE big;
";

/// Before a round goes over the same names again.
const CLEAR: &str = "
DROP DATABASE IF EXISTS work; DROP DATABASE IF EXISTS by_log; DROP DATABASE IF EXISTS d_log; DROP TABLESPACE IF EXISTS elsewhere;
CREATE DATABASE work;
";

/// Last of all, with everything that `planted` makes mistakes in.
const LAST: &str = "
CREATE TABLE last (id int, v text) WITH (autovacuum_enabled = off);
INSERT INTO last SELECT g, repeat('l', 300) FROM generate_series(1, 2000) g;
DELETE FROM last WHERE id > 500;
VACUUM last;
VACUUM FULL pg_class;
INSERT INTO m VALUES (100001, 1); CHECKPOINT;
BEGIN; INSERT INTO s VALUES (-2); SAVEPOINT a; INSERT INTO s VALUES (-3); PREPARE TRANSACTION 'stays';
CREATE TABLE marked (id int, v text); INSERT INTO marked VALUES (1, 'the planted row');
";

const CHECKPOINTS: &str = "CHECKPOINT; SELECT pg_sleep(0.02); CHECKPOINT; SELECT pg_sleep(0.01); CHECKPOINT; SELECT pg_sleep(0.04);";

/// Says that the work is done, even if it failed.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn side_by_side(primary: &Cluster, works: &[&(dyn Fn() -> Result<()> + Sync)]) -> Result<()> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let checkpoints = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                primary.sql(CHECKPOINTS)?;
            }
            anyhow::Ok(())
        });
        let outcomes = {
            let _done = Done(&done);
            let threads: Vec<_> = works.iter().map(|work| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        };
        for outcome in outcomes.into_iter().chain([checkpoints.join()]) {
            outcome.map_err(|_| anyhow!("a part of the workload panicked"))??;
        }
        Ok(())
    })
}

pub fn run(primary: &Cluster, rounds: u32, large: bool) -> Result<()> {
    primary.sql(scripts::SUBTRANSACTIONS)?;
    primary.sql(TABLES)?;
    for round in 0..rounds {
        primary.sql(CLEAR)?;
        let of_scripts = || {
            let more = (large && round == 0).then_some(&scripts::LARGE);
            scripts::ALL.iter().chain(more).try_for_each(|script| script.run(primary, "work"))
        };
        let load = || primary.pgbench(LOAD, 4, 1500).map(|_| ()).context("load");
        // One after the other: the transaction that one leaves open is ended by the other.
        let rest = || {
            primary.sql(NESTED).context("nested")?;
            primary.sql(FILES).context("files")?;
            Ok(())
        };
        side_by_side(primary, &[&of_scripts, &load, &rest]).with_context(|| format!("round {round}"))?;
        let freeze = || scripts::freeze_everything(primary);
        side_by_side(primary, &[&freeze])?;
    }
    primary.pgbench(LOAD, 4, 100)?;
    primary.sql(LAST)?;
    Ok(())
}
