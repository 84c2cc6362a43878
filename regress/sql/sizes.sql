-- Sizes come from the storage manager, not from files.
CREATE TABLE sized(n int, t text);
SELECT pg_relation_size('sized'), pg_relation_size('sized', 'init'), pg_table_size('sized') >= 0 AS table_size;
INSERT INTO sized SELECT n, repeat('x', 1000) FROM generate_series(1, 700) n;
SELECT pg_relation_size('sized');
CREATE INDEX sized_n ON sized(n);
SELECT pg_indexes_size('sized') = pg_relation_size('sized_n') AS index_size,
       pg_total_relation_size('sized') = pg_table_size('sized') + pg_indexes_size('sized') AS total;
DELETE FROM sized WHERE n > 7;
VACUUM (TRUNCATE) sized;
SELECT pg_relation_size('sized');
TRUNCATE sized;
SELECT pg_relation_size('sized');
SELECT pg_relation_size(0::regclass) IS NULL AS none;
SELECT pg_database_size('postgres') > 5000000 AS database, pg_database_size(current_database()) = pg_database_size((SELECT oid FROM pg_database WHERE datname = current_database())) AS by_oid;
SELECT pg_tablespace_size('pg_default') >= pg_database_size('postgres') AS tablespace;
CREATE VIEW no_storage AS SELECT 1 AS one;
SELECT pg_relation_size('no_storage');
CREATE UNLOGGED TABLE sized_unlogged AS SELECT generate_series(1, 1000) AS n;
SELECT pg_relation_size('sized_unlogged') > 0 AS main, pg_relation_size('sized_unlogged', 'init') AS init;
CREATE TEMP TABLE sized_temp AS SELECT generate_series(1, 1000) AS n;
SELECT pg_relation_size('sized_temp') > 0 AS temporary;
DROP VIEW no_storage;
DROP TABLE sized, sized_unlogged, sized_temp;
