-- Sequences: first use, the look-ahead of 32 values, cycling, restarts, and one that is not logged.
SET wal_compression = off;
CREATE SEQUENCE counted;
SELECT count(nextval('counted')) FROM generate_series(1, 200);
SELECT setval('counted', 5000);
SELECT setval('counted', 10, false);
SELECT nextval('counted');
ALTER SEQUENCE counted RESTART WITH 77;
CREATE SEQUENCE rounds MINVALUE 1 MAXVALUE 5 CYCLE CACHE 3;
SELECT count(nextval('rounds')) FROM generate_series(1, 40);
CREATE SEQUENCE downwards INCREMENT -7 CACHE 20;
SELECT count(nextval('downwards')) FROM generate_series(1, 100);
CREATE TABLE numbered (id serial, v int GENERATED ALWAYS AS IDENTITY);
INSERT INTO numbered SELECT FROM generate_series(1, 100);
TRUNCATE numbered RESTART IDENTITY;
BEGIN; SELECT nextval('counted'); ROLLBACK;
CREATE UNLOGGED SEQUENCE unlogged_count;
SELECT count(nextval('unlogged_count')) FROM generate_series(1, 50);
