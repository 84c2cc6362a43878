-- Generic records, which extensions write: bloom builds, inserts, vacuums and inserts again. Messages, which do nothing.
CREATE EXTENSION bloom;
CREATE TABLE signed (a int, b int, t text) WITH (autovacuum_enabled = off);
INSERT INTO signed SELECT i, i % 100, 'before' FROM generate_series(1, 1000) i;
CREATE INDEX signed_bloom ON signed USING bloom (a, b);
INSERT INTO signed SELECT i, i % 100, 'x' FROM generate_series(1, 4000) i;
DELETE FROM signed WHERE a % 3 = 0 OR a BETWEEN 1000 AND 2500;
VACUUM signed;
INSERT INTO signed SELECT i, i, 'y' FROM generate_series(1, 500) i;
DELETE FROM signed;
VACUUM signed;
INSERT INTO signed SELECT i, i, 'z' FROM generate_series(1, 700) i;
SELECT pg_logical_emit_message(true, 'oracle', 'with the transaction');
SELECT pg_logical_emit_message(false, 'oracle', 'at once');
