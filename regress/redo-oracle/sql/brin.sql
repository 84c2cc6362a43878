-- BRIN: summaries made, grown in place and out of their page, taken back; a map of ranges that needs more pages.
CREATE TABLE ranges (id int, note text) WITH (autovacuum_enabled = off);
CREATE INDEX ranges_brin ON ranges USING brin (id, note) WITH (pages_per_range = 1);
INSERT INTO ranges SELECT i, 'n' FROM generate_series(1, 9000) i;
SELECT brin_summarize_new_values('ranges_brin');
-- Wider bounds: replaced in place while there is room, then moved to other pages, fresh ones among them.
UPDATE ranges SET note = repeat('w', 40) WHERE id % 100 = 0;
UPDATE ranges SET note = 'a' || repeat(md5(id::text), 4) WHERE id % 150 = 0;
CHECKPOINT;
UPDATE ranges SET note = 'z' || repeat(md5(id::text), 20) WHERE id % 170 = 0;
UPDATE ranges SET note = '!' || repeat(md5(id::text), 30) WHERE id % 190 = 0;
UPDATE ranges SET note = '~' || repeat(md5(id::text), 36) WHERE id % 210 = 0;
SELECT brin_desummarize_range('ranges_brin', 3);
SELECT brin_desummarize_range('ranges_brin', 4);
SELECT brin_summarize_range('ranges_brin', 4);
DELETE FROM ranges WHERE id % 3 = 0;
VACUUM ranges;
INSERT INTO ranges SELECT i, repeat('k', 60) FROM generate_series(20000, 21000) i;
VACUUM ranges;
-- More ranges than a page of the map has (1360): the next one takes the place of a page of tuples, which move away.
CREATE TABLE wide (id int, pad text) WITH (autovacuum_enabled = off, toast_tuple_target = 8160);
ALTER TABLE wide ALTER pad SET STORAGE PLAIN;
CREATE INDEX wide_brin ON wide USING brin (id) WITH (pages_per_range = 1);
CREATE INDEX wide_inclusion ON wide USING brin (int4range(id, id + 5) range_inclusion_ops) WITH (pages_per_range = 2, autosummarize = off);
CREATE INDEX wide_bloom ON wide USING brin (id int4_bloom_ops) WITH (pages_per_range = 32);
CREATE INDEX wide_multi ON wide USING brin (id int4_minmax_multi_ops) WITH (pages_per_range = 16);
INSERT INTO wide SELECT i, repeat('p', 5000) FROM generate_series(1, 1390) i;
VACUUM wide;
CHECKPOINT;
INSERT INTO wide SELECT i, 'short' FROM generate_series(5000, 5200) i;
SELECT brin_summarize_new_values('wide_multi');
CREATE UNLOGGED TABLE unlogged_ranges (id int);
CREATE INDEX ON unlogged_ranges USING brin (id);
INSERT INTO unlogged_ranges SELECT generate_series(1, 500);
