-- Heap and Heap2: every way in which rows come, change, go and are cleaned up after.
CREATE TABLE plain (id int PRIMARY KEY, v int, note text) WITH (autovacuum_enabled = off);
INSERT INTO plain SELECT i, 0, repeat('n', i % 60) FROM generate_series(1, 3000) i;
UPDATE plain SET v = v + 1 WHERE id % 10 = 0;
UPDATE plain SET v = v + 1, note = note || 'x' WHERE id % 10 = 0;
UPDATE plain SET id = id + 100000 WHERE id % 50 = 0;
DELETE FROM plain WHERE id % 7 = 0;
SELECT count(*) FROM plain;
UPDATE plain SET v = -v WHERE id BETWEEN 100 AND 300;
UPDATE plain SET v = -v WHERE id BETWEEN 100 AND 300;
SELECT count(*) FROM plain WHERE id BETWEEN 100 AND 300;
VACUUM plain;
INSERT INTO plain SELECT i, 1, NULL FROM generate_series(200001, 200400) i;
VACUUM (FREEZE) plain;

-- An update whose new version starts a page (UPDATE+INIT), with and without old row images in the log.
CREATE TABLE fat (id int PRIMARY KEY, body text) WITH (autovacuum_enabled = off, toast_tuple_target = 8160);
ALTER TABLE fat ALTER body SET STORAGE PLAIN;
INSERT INTO fat SELECT i, repeat(chr(65 + i % 26), 3500) FROM generate_series(1, 40) i;
UPDATE fat SET body = repeat('w', 5000) WHERE id % 3 = 0;
ALTER TABLE fat REPLICA IDENTITY FULL;
UPDATE fat SET body = repeat('z', 6000) WHERE id % 4 = 0;
DELETE FROM fat WHERE id % 5 = 0;
VACUUM fat;

-- Shared beginnings and ends of old and new version are left out of the record.
CREATE TABLE parts (a int, b text, c int, d text) WITH (fillfactor = 60, autovacuum_enabled = off);
INSERT INTO parts SELECT i, repeat('b', 40), i, repeat('d', 40) FROM generate_series(1, 500) i;
UPDATE parts SET c = c + 1;
UPDATE parts SET a = a + 1 WHERE c % 2 = 0;
UPDATE parts SET d = d || 'e' WHERE c % 3 = 0;
UPDATE parts SET a = NULL, b = NULL WHERE c % 5 = 0;
UPDATE parts SET b = 'new', c = NULL WHERE a % 7 = 0;

-- Values kept out of line, and their removal.
CREATE TABLE toasted (id int, body text) WITH (autovacuum_enabled = off);
ALTER TABLE toasted ALTER body SET STORAGE EXTERNAL;
INSERT INTO toasted SELECT i, repeat(md5(i::text), 300) FROM generate_series(1, 60) i;
UPDATE toasted SET body = body || 'tail' WHERE id % 3 = 0;
DELETE FROM toasted WHERE id % 4 = 0;
VACUUM toasted;

-- COPY: many rows in one record, over fresh pages, over pages that are all-visible, and frozen from the start.
CREATE TABLE copied (a int) WITH (autovacuum_enabled = off);
COPY copied FROM PROGRAM 'seq 1 4000';
VACUUM (FREEZE) copied;
DELETE FROM copied WHERE a % 2 = 0;
VACUUM copied;
COPY copied FROM PROGRAM 'seq 1 3000';
BEGIN;
CREATE TABLE copied_frozen (a int) WITH (autovacuum_enabled = off);
COPY copied_frozen FROM PROGRAM 'seq 1 2000' WITH (FREEZE);
COMMIT;
DELETE FROM copied_frozen WHERE a < 50;

-- A row that moves to another partition leaves a mark; a table that is truncated; work that is thrown away.
CREATE TABLE split_up (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE split_low PARTITION OF split_up FOR VALUES FROM (0) TO (100);
CREATE TABLE split_high PARTITION OF split_up FOR VALUES FROM (100) TO (200);
INSERT INTO split_up SELECT i, 'p' FROM generate_series(0, 199) i;
UPDATE split_up SET k = k + 100 WHERE k < 20;
TRUNCATE split_up;
INSERT INTO split_up SELECT i, 'again' FROM generate_series(0, 50) i;
BEGIN; DELETE FROM plain WHERE id < 200; INSERT INTO plain VALUES (-1, 1, 'lost'); ROLLBACK;
BEGIN; SAVEPOINT s; UPDATE plain SET v = 5 WHERE id < 50; ROLLBACK TO s; DELETE FROM plain WHERE id < 20; COMMIT;
SELECT count(*) FROM plain;
VACUUM plain;

-- Rows written and changed by the same transaction: combo command ids.
BEGIN;
CREATE TABLE combo (a int, b int) WITH (autovacuum_enabled = off);
INSERT INTO combo SELECT i, 0 FROM generate_series(1, 300) i;
UPDATE combo SET b = 1 WHERE a % 2 = 0;
DELETE FROM combo WHERE a % 3 = 0;
SELECT count(*) FROM (SELECT 1 FROM combo WHERE a % 5 = 0 FOR UPDATE) locked;
COMMIT;

-- Pruning with redirects, dead and unused line pointers, in a page that a query visits and in VACUUM's two passes.
CREATE TABLE pruned (id int PRIMARY KEY, v int, pad text) WITH (fillfactor = 40, autovacuum_enabled = off);
INSERT INTO pruned SELECT i, 0, repeat('p', 80) FROM generate_series(1, 800) i;
UPDATE pruned SET v = v + 1;
UPDATE pruned SET v = v + 1;
SELECT sum(v) FROM pruned;
UPDATE pruned SET v = v + 1;
SELECT sum(v) FROM pruned;
DELETE FROM pruned WHERE id % 3 = 0;
SELECT sum(v) FROM pruned;
VACUUM (INDEX_CLEANUP off) pruned;
VACUUM (INDEX_CLEANUP on) pruned;
DELETE FROM pruned WHERE id > 600;
VACUUM pruned;
CREATE TABLE unindexed (id int, pad text) WITH (autovacuum_enabled = off);
INSERT INTO unindexed SELECT i, repeat('u', 100) FROM generate_series(1, 600) i;
DELETE FROM unindexed WHERE id % 2 = 0;
VACUUM unindexed;

-- Catalog rows that are overwritten in place.
ANALYZE;
VACUUM (ANALYZE) plain;

-- A heap rewritten while logical decoding needs the old row positions.
SELECT 1 FROM pg_create_logical_replication_slot('oracle_slot', 'pgoutput');
CREATE TABLE like_catalog (a int PRIMARY KEY, b text) WITH (user_catalog_table = true);
INSERT INTO like_catalog SELECT i, 'v' FROM generate_series(1, 200) i;
UPDATE like_catalog SET b = 'w' WHERE a % 2 = 0;
DELETE FROM like_catalog WHERE a % 5 = 0;
VACUUM FULL like_catalog;
CLUSTER like_catalog USING like_catalog_pkey;
SELECT pg_drop_replication_slot('oracle_slot');
ALTER TABLE plain ADD COLUMN extra int DEFAULT (random() * 10)::int;
VACUUM FULL parts;
