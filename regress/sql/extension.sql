-- What CREATE EXTENSION brings, and what it answers on any compute.
CREATE EXTENSION strata;
SELECT strata_version() LIKE 'strata % for PostgreSQL 17%' AS version;
SELECT strata_smgr_mode() IN ('registered', 'stock') AS remote;
\dx+ strata
-- Three or any other odd number of safekeepers, each once.
SELECT count(*) % 2 = 1 AS odd, count(*) = count(DISTINCT id) AS distinct_ids FROM strata_safekeepers;
SELECT count(*) > 0 AS some_stream FROM strata_safekeepers WHERE state = 'streaming';
-- The log's positions are ordered.
SELECT insert_lsn >= flush_lsn AS inserted, flush_lsn >= quorum_commit_lsn AS flushed FROM strata_lsns();
-- Nobody has to wait for a pageserver that keeps up.
SELECT limit_bytes = 1024 * 1048576.0 AS by_default, coalesce(lag_bytes, 0) < limit_bytes AS keeps_up FROM strata_backpressure();
-- A page that was written can be asked for at its last-written LSN.
CREATE TABLE lw AS SELECT generate_series(1, 1000) AS n;
CHECKPOINT;
SELECT strata_last_written_lsn('lw') <= pg_current_wal_insert_lsn() AS within_log,
       strata_last_written_lsn('lw') > '0/0' AS known;
SELECT strata_last_written_lsn('lw', 'nonsense');
SELECT strata_last_written_lsn('lw', 'main', -1);
-- The working set is a number of pages over a window of at least a second.
SELECT strata_working_set_size() >= 0 AS ever, strata_working_set_size('10 minutes') >= 0 AS ten_minutes,
       strata_working_set_size("window" => interval '1 hour') >= 0 AS by_name;
-- Monitoring is for pg_monitor, not for everybody.
CREATE ROLE strata_nobody;
CREATE ROLE strata_watcher IN ROLE pg_monitor;
SET ROLE strata_nobody;
SELECT count(*) FROM strata_safekeepers;
RESET ROLE;
SET ROLE strata_watcher;
SELECT count(*) > 0 AS allowed FROM strata_safekeepers;
RESET ROLE;
-- Every view is for it.
SELECT string_agg(c.oid::regclass::text, ', ') AS not_for_pg_monitor
    FROM pg_depend d JOIN pg_class c ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'strata')
        AND NOT has_table_privilege('pg_monitor', c.oid, 'SELECT');
DROP ROLE strata_nobody, strata_watcher;
DROP TABLE lw;
DROP EXTENSION strata;
