-- Btree: duplicates in posting lists, their splits by a row identifier in between, deletion of some of their rows.
CREATE TABLE dup (id int, k int) WITH (autovacuum_enabled = off, fillfactor = 50);
CREATE INDEX dup_k ON dup (k);
INSERT INTO dup SELECT i, i % 8 FROM generate_series(1, 6000) i;
DELETE FROM dup WHERE id % 3 = 0;
VACUUM dup;
-- The freed places lie inside the ranges of existing lists: INSERT_POST, and splits with a list in the way.
INSERT INTO dup SELECT i, (i * 31) % 8 FROM generate_series(1, 3000) i;
UPDATE dup SET k = (k + 1) % 8 WHERE id % 4 = 0;
DELETE FROM dup WHERE id % 5 = 0;
VACUUM dup;
INSERT INTO dup SELECT i, i % 3 FROM generate_series(1, 3000) i;
-- Dead entries found by index scans are deleted when the page is full; so are old versions (bottom-up).
SET enable_seqscan = off;
SET enable_bitmapscan = off;
DELETE FROM dup WHERE id % 2 = 0;
SELECT count(id) FROM dup WHERE k >= 0;
SELECT count(id) FROM dup WHERE k >= 0;
INSERT INTO dup SELECT i, i % 8 FROM generate_series(1, 4000) i;
CREATE TABLE churn (id int PRIMARY KEY, a int, b int) WITH (autovacuum_enabled = off);
CREATE INDEX churn_a ON churn (a);
CREATE INDEX churn_b ON churn (b);
INSERT INTO churn SELECT i, i % 10, i FROM generate_series(1, 400) i;
DO $$ BEGIN FOR round IN 1..8 LOOP UPDATE churn SET b = b + 1; COMMIT; END LOOP; END $$;
VACUUM churn;
RESET enable_seqscan;
RESET enable_bitmapscan;

-- Page splits with a list in the way, on either side: lists made by an index build, with gaps that later rows fall into,
-- and no merging that would make room first.
CREATE TABLE holes (k text, n int) WITH (autovacuum_enabled = off);
ALTER TABLE holes ALTER k SET STORAGE PLAIN;
INSERT INTO holes SELECT repeat(chr(97 + i % 20), 250), i FROM generate_series(1, 8000) i;
DELETE FROM holes WHERE n % 5 < 2;
VACUUM holes;
CREATE INDEX holes_k ON holes (k);
ALTER INDEX holes_k SET (deduplicate_items = off);
INSERT INTO holes SELECT repeat(chr(97 + (i * 13) % 20), 250), -i FROM generate_series(1, 3000) i;
