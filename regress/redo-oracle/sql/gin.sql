-- GIN: entry tree, posting trees, pending list; growth, vacuum, deletion of pages and their reuse.
-- Long keys that cannot be compressed make a tall entry tree out of few rows.
CREATE TABLE gin_tall (a text[]) WITH (autovacuum_enabled = off);
CREATE INDEX gin_tall_a ON gin_tall USING gin (a) WITH (fastupdate = off);
INSERT INTO gin_tall
    SELECT ARRAY[(SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 55) j)]
    FROM generate_series(1, 150) i;

-- One key, many rows: a posting list becomes a posting tree; rows come and go in the middle of its lists.
CREATE TABLE gin_tree (id int, a int[]) WITH (autovacuum_enabled = off);
CREATE INDEX gin_tree_a ON gin_tree USING gin (a) WITH (fastupdate = off);
INSERT INTO gin_tree SELECT i, ARRAY[7] FROM generate_series(1, 9000) i;
DELETE FROM gin_tree WHERE id % 3 = 0;
VACUUM gin_tree;
INSERT INTO gin_tree SELECT i, ARRAY[7] FROM generate_series(9001, 13000) i;
DELETE FROM gin_tree WHERE id BETWEEN 100 AND 5000;
VACUUM gin_tree;
INSERT INTO gin_tree SELECT i, ARRAY[7] FROM generate_series(1, 5000) i;

-- A posting tree of many leaves; those in the middle become empty and go.
CREATE TABLE gin_wide (id int, a int[]) WITH (autovacuum_enabled = off);
INSERT INTO gin_wide SELECT i, ARRAY[1, 1000 + i % 500] FROM generate_series(1, 60000) i;
CREATE INDEX gin_wide_a ON gin_wide USING gin (a) WITH (fastupdate = on);
DELETE FROM gin_wide WHERE id BETWEEN 5000 AND 55000;
VACUUM gin_wide;
-- Deleted pages may be used again once no transaction can see them.
SELECT pg_current_xact_id(); SELECT pg_current_xact_id();
VACUUM gin_wide;
INSERT INTO gin_wide SELECT i, ARRAY[1, 1000 + i % 500] FROM generate_series(1, 9000) i;
SELECT gin_clean_pending_list('gin_wide_a');
DELETE FROM gin_wide WHERE id % 2 = 0;
VACUUM gin_wide;

-- If images are on, changes from here on begin with one.
CHECKPOINT;
INSERT INTO gin_tree SELECT i, ARRAY[7] FROM generate_series(1, 500) i;
DELETE FROM gin_tree WHERE id % 5 = 0;
VACUUM gin_tree;

-- Pending list: single rows fill its last page, and one row has more keys than a page holds.
CREATE TABLE gin_pending (a int[]) WITH (autovacuum_enabled = off);
CREATE INDEX gin_pending_a ON gin_pending USING gin (a) WITH (fastupdate = on);
INSERT INTO gin_pending SELECT ARRAY[i, i + 1, i % 7] FROM generate_series(1, 600) i;
INSERT INTO gin_pending SELECT array_agg(i) FROM generate_series(1, 3000) i;
INSERT INTO gin_pending SELECT array_agg(i) FROM generate_series(1, 3000) i;
INSERT INTO gin_pending VALUES (NULL), ('{}'), ('{NULL}'), ('{1,NULL}');
SELECT gin_clean_pending_list('gin_pending_a');
INSERT INTO gin_pending SELECT ARRAY[i, i * 2] FROM generate_series(1, 100) i;
DELETE FROM gin_pending WHERE a[1] < 200;
VACUUM gin_pending;
