-- The visibility map: bits set by VACUUM, cleared by every kind of change, cut off by truncation (traps V1, V4, V7).
SET wal_compression = zstd;
CREATE TABLE seen (id int PRIMARY KEY, v int, pad text) WITH (autovacuum_enabled = off);
INSERT INTO seen SELECT i, 0, repeat('s', 200) FROM generate_series(1, 3000) i;
VACUUM seen;
UPDATE seen SET v = 1 WHERE id = 1;
UPDATE seen SET v = 1 WHERE id BETWEEN 500 AND 520;
DELETE FROM seen WHERE id BETWEEN 700 AND 705;
VACUUM (FREEZE) seen;
-- Both pages of one update are all-visible: two bits go.
DELETE FROM seen WHERE id > 2900;
VACUUM seen;
UPDATE seen SET pad = repeat('t', 300), id = -id WHERE id BETWEEN 1000 AND 1010;
INSERT INTO seen SELECT i, 0, repeat('i', 150) FROM generate_series(5001, 5100) i;
VACUUM (FREEZE) seen;
-- Row locks clear ALL_FROZEN only.
SELECT count(*) FROM (SELECT 1 FROM seen WHERE id BETWEEN 1100 AND 1140 FOR UPDATE) locked;
SELECT count(*) FROM (SELECT 1 FROM seen WHERE id BETWEEN 1500 AND 1540 FOR KEY SHARE) locked;
VACUUM (FREEZE) seen;
COPY seen (id) FROM PROGRAM 'seq 6000 6300';
VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) seen;
-- Truncation of the heap, with bits beyond the cut that must not come back.
DELETE FROM seen WHERE id > 1200;
VACUUM seen;
INSERT INTO seen SELECT i, 0, repeat('r', 200) FROM generate_series(10001, 11500) i;
VACUUM seen;
-- A second map page: more than 32672 heap pages would be large, so an update that crosses pages far apart stands in.
UPDATE seen SET pad = pad || repeat('m', 400) WHERE id BETWEEN 10050 AND 10100;
SELECT count(*) FROM seen WHERE id > 0;
-- Aborted changes leave the bits cleared.
VACUUM seen;
BEGIN; DELETE FROM seen WHERE id BETWEEN 10200 AND 10300; ROLLBACK;
SELECT count(*) FROM seen;
VACUUM (FREEZE) seen;
