-- The large size only: the same kinds of changes over more pages, and structures that few rows do not reach.
SET synchronous_commit = off;
CREATE TABLE large_gin (id int, a int[]) WITH (autovacuum_enabled = off);
CREATE INDEX large_gin_a ON large_gin USING gin (a) WITH (fastupdate = off);
INSERT INTO large_gin SELECT i, ARRAY[1, 1000 + i % 5000] FROM generate_series(1, 60000) i;
DELETE FROM large_gin WHERE id BETWEEN 10000 AND 50000;
VACUUM large_gin;
INSERT INTO large_gin SELECT i, ARRAY[1, 1000 + i % 5000] FROM generate_series(1, 20000) i;
DELETE FROM large_gin WHERE id % 2 = 0;
VACUUM large_gin;
CREATE TABLE large_entries (a text[]);
CREATE INDEX large_entries_a ON large_entries USING gin (a) WITH (fastupdate = off);
INSERT INTO large_entries
    SELECT ARRAY[(SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 55) j)] FROM generate_series(1, 1500) i;

CREATE TABLE large_gist (id int, p point) WITH (autovacuum_enabled = off);
CREATE INDEX large_gist_p ON large_gist USING gist (p);
INSERT INTO large_gist SELECT i, point(i, 0) FROM generate_series(1, 30000) i;
DELETE FROM large_gist WHERE id BETWEEN 6000 AND 29000;
VACUUM large_gist;
SELECT pg_current_xact_id(); SELECT pg_current_xact_id();
VACUUM large_gist;
SELECT pg_current_xact_id();
INSERT INTO large_gist SELECT i, point(i, 0) FROM generate_series(1, 30000) i;

CREATE TABLE large_hash (id int, k int) WITH (autovacuum_enabled = off);
CREATE INDEX large_hash_k ON large_hash USING hash (k);
INSERT INTO large_hash SELECT i, i % 3 FROM generate_series(1, 12000) i;
DELETE FROM large_hash WHERE id % 5 <> 0;
VACUUM large_hash;
INSERT INTO large_hash SELECT i, i % 3 FROM generate_series(1, 12000) i;
DELETE FROM large_hash WHERE id % 7 = 0; VACUUM large_hash;
DELETE FROM large_hash WHERE id % 2 = 0; VACUUM large_hash;
INSERT INTO large_hash SELECT i, i FROM generate_series(1, 20000) i;
DELETE FROM large_hash WHERE id > 3000; VACUUM large_hash;

-- An index that begins with more than 512 buckets.
CREATE TABLE large_hash_late (k int);
COPY large_hash_late FROM PROGRAM 'seq 1 30000';
CREATE INDEX large_hash_late_k ON large_hash_late USING hash (k) WITH (fillfactor = 10);
INSERT INTO large_hash_late SELECT generate_series(30001, 40000);

CREATE TABLE large_btree (id int, k int) WITH (autovacuum_enabled = off);
CREATE INDEX large_btree_k ON large_btree (k);
CREATE UNIQUE INDEX large_btree_id ON large_btree (id);
INSERT INTO large_btree SELECT i, i % 20 FROM generate_series(1, 40000) i;
DELETE FROM large_btree WHERE id BETWEEN 1000 AND 30000;
VACUUM large_btree; SELECT pg_current_xact_id(); VACUUM large_btree;
INSERT INTO large_btree SELECT i, i % 20 FROM generate_series(100000, 120000) i;
UPDATE large_btree SET k = k + 1 WHERE id % 3 = 0;
UPDATE large_btree SET k = k - 1;
DELETE FROM large_btree WHERE k BETWEEN 3 AND 9; VACUUM large_btree;

CREATE TABLE large_text (id int, t text) WITH (autovacuum_enabled = off);
CREATE INDEX large_text_t ON large_text USING spgist (t);
INSERT INTO large_text SELECT i, md5(i::text) FROM generate_series(1, 20000) i;
DELETE FROM large_text WHERE id % 2 = 0; VACUUM large_text;
INSERT INTO large_text SELECT i, chr(33 + i % 90) || chr(33 + (i / 90) % 90) || repeat('x', i % 400) || i FROM generate_series(1, 15000) i;
INSERT INTO large_text SELECT i, repeat('longprefix', 100) || chr(33 + i % 90) || i FROM generate_series(1, 5000) i;
DELETE FROM large_text WHERE id % 3 = 0; VACUUM large_text;
INSERT INTO large_text SELECT i, chr(200 + i % 3000) || i FROM generate_series(1, 9000) i;
CREATE TABLE large_points (id int, p point) WITH (autovacuum_enabled = off);
CREATE INDEX large_points_quad ON large_points USING spgist (p);
CREATE INDEX large_points_kd ON large_points USING spgist (p kd_point_ops);
INSERT INTO large_points SELECT i, point(i * 7919 % 10007, i * 104729 % 10009) FROM generate_series(1, 10000) i;
DELETE FROM large_points WHERE id % 2 = 0; VACUUM large_points;
INSERT INTO large_points SELECT i, point(i % 10, i % 7) FROM generate_series(1, 10000) i;
DELETE FROM large_points; VACUUM large_points;
INSERT INTO large_points SELECT i, NULL FROM generate_series(1, 3000) i;

CREATE TABLE large_nested (a int);
DO $$ BEGIN FOR i IN 1..70000 LOOP BEGIN INSERT INTO large_nested VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$;
CREATE TABLE large_heap (a int, b text) WITH (autovacuum_enabled = off);
INSERT INTO large_heap SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i;
VACUUM (FREEZE) large_heap;
DELETE FROM large_heap WHERE a > 3000; VACUUM large_heap;
UPDATE large_heap SET b = 'y' WHERE a % 10 = 0;
DELETE FROM large_heap WHERE a % 10 = 1;
SELECT count(*) FROM (SELECT 1 FROM large_heap WHERE a % 10 = 2 FOR UPDATE) s;
VACUUM (FREEZE) large_heap;
SELECT count(*) FROM (SELECT 1 FROM large_heap FOR UPDATE) s;
