-- Btree: growth to several levels, deletion of pages and subtrees, the fast root, reuse of deleted pages.
-- Long keys that cannot be compressed make tall trees out of few rows.
CREATE TABLE tall (k text) WITH (autovacuum_enabled = off);
ALTER TABLE tall ALTER k SET STORAGE PLAIN;
CREATE INDEX tall_k ON tall (k);
INSERT INTO tall SELECT lpad(((i * 7919) % 1500)::text, 1500, 'k') FROM generate_series(1, 1500) i;
DELETE FROM tall WHERE right(k, 4) ~ '^[k0-9]*$' AND ltrim(k, 'k')::int BETWEEN 100 AND 1300;
VACUUM tall;
SELECT pg_current_xact_id(); SELECT pg_current_xact_id();
VACUUM tall;
SELECT pg_current_xact_id();
INSERT INTO tall SELECT lpad(i::text, 1500, 'k') FROM generate_series(100, 500) i;
-- Down to one page a level: its level becomes the fast root (UNLINK_PAGE_META), and its split moves it (INSERT_META).
CREATE TABLE shrunk (k text) WITH (autovacuum_enabled = off);
ALTER TABLE shrunk ALTER k SET STORAGE PLAIN;
CREATE INDEX shrunk_k ON shrunk (k);
INSERT INTO shrunk SELECT lpad(i::text, 1200, '0') FROM generate_series(1, 600) i;
DELETE FROM shrunk WHERE k::int < 599;
VACUUM shrunk;
VACUUM shrunk;
INSERT INTO shrunk SELECT lpad(i::text, 1200, '0') FROM generate_series(1000, 1100) i;
-- The same from the other end, so that pages without a right sibling are met.
DELETE FROM shrunk WHERE k::int > 1000;
VACUUM shrunk;

-- Ordinary keys: splits to the right end and in the middle, new roots.
CREATE TABLE keys (a int, b text) WITH (autovacuum_enabled = off);
CREATE UNIQUE INDEX keys_a ON keys (a);
CREATE INDEX keys_b ON keys (b) INCLUDE (a);
INSERT INTO keys SELECT i, md5(i::text) FROM generate_series(1, 4000) i;
DELETE FROM keys WHERE a BETWEEN 500 AND 2500;
VACUUM keys;
SELECT pg_current_xact_id(); SELECT pg_current_xact_id();
VACUUM keys;
SELECT pg_current_xact_id();
INSERT INTO keys SELECT i, md5(i::text) FROM generate_series(5000, 6500) i;
-- An index that was empty gets its first root; index builds log whole pages.
CREATE TABLE bare (a int);
CREATE INDEX bare_a ON bare (a);
INSERT INTO bare VALUES (1);
CREATE INDEX keys_late ON keys (b, a);
REINDEX INDEX keys_a;
