-- GiST: splits of leaves, inner pages and the root, dead entries that leave before an insertion, pages deleted and used again.
CREATE TABLE gist_points (id int, p point) WITH (autovacuum_enabled = off);
CREATE INDEX gist_points_p ON gist_points USING gist (p);
INSERT INTO gist_points SELECT i, point(i, i % 7) FROM generate_series(1, 9000) i;
DELETE FROM gist_points WHERE id BETWEEN 1000 AND 3000;
-- A scan that meets dead rows marks their entries; an insertion into a full leaf removes them.
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT count(*), sum(id) FROM gist_points WHERE p <@ box(point(900, -1), point(3100, 9));
SELECT count(*), sum(id) FROM gist_points WHERE p <@ box(point(900, -1), point(3100, 9));
RESET enable_seqscan;
RESET enable_bitmapscan;
INSERT INTO gist_points SELECT i, point(i + 0.5, i % 7) FROM generate_series(1000, 3000) i;
DELETE FROM gist_points WHERE id BETWEEN 3500 AND 8900;
VACUUM gist_points;
-- Deleted pages are found by the next vacuum and used once no transaction can see them.
SELECT pg_current_xact_id(); SELECT pg_current_xact_id();
VACUUM gist_points;
SELECT pg_current_xact_id();
INSERT INTO gist_points SELECT i, point(i, i % 5) FROM generate_series(3000, 9000) i;

-- If images are on, changes from here on begin with one.
CHECKPOINT;
INSERT INTO gist_points SELECT i, point(i, i % 3) FROM generate_series(1, 1500) i;

-- Long keys that cannot be compressed make a tall tree, splits of inner pages and of one page into several.
CREATE TABLE gist_boxes (p polygon) WITH (autovacuum_enabled = off);
CREATE INDEX gist_boxes_p ON gist_boxes USING gist (p);
INSERT INTO gist_boxes
    SELECT polygon(box(point(i * 37 % 1000, i * 91 % 1000), point(i * 37 % 1000 + i % 13, i * 91 % 1000 + i % 17)))
    FROM generate_series(1, 4000) i;
CREATE TABLE gist_words (t tsvector) WITH (autovacuum_enabled = off);
CREATE INDEX gist_words_t ON gist_words USING gist (t tsvector_ops (siglen = 2000));
INSERT INTO gist_words
    SELECT to_tsvector('simple', (SELECT string_agg(md5((i * 31 + j)::text), ' ') FROM generate_series(1, 90) j))
    FROM generate_series(1, 400) i;
DELETE FROM gist_words WHERE ctid < '(20,1)';
VACUUM gist_words;

-- Short keys and very long ones on one page: half of its entries do not fit into one page.
CREATE TYPE textrange AS RANGE (subtype = text);
CREATE TABLE gist_mixed (r textrange) WITH (autovacuum_enabled = off);
CREATE INDEX gist_mixed_r ON gist_mixed USING gist (r);
INSERT INTO gist_mixed
    SELECT textrange(chr(64 + g) || 'z' || i, chr(64 + g) || 'z' || i || 'a')
    FROM generate_series(1, 20) g, generate_series(1, 50 + g * 2) i;
INSERT INTO gist_mixed
    SELECT textrange(chr(64 + g) || 'a' || i, chr(64 + g) || 'a' || i
        || (SELECT string_agg(md5((g * i * 91 + j)::text), '') FROM generate_series(1, 58) j))
    FROM generate_series(1, 20) g, generate_series(1, 6) i;

-- A build logs whole pages at its end, whichever way it goes.
CREATE TABLE gist_ranges (r int4range) WITH (autovacuum_enabled = off);
INSERT INTO gist_ranges SELECT int4range(i, i + 5) FROM generate_series(1, 3000) i;
CREATE INDEX gist_ranges_r ON gist_ranges USING gist (r);
CREATE INDEX gist_ranges_buffered ON gist_ranges USING gist (r) WITH (buffering = on);
CREATE INDEX gist_points_late ON gist_points USING gist (p);
INSERT INTO gist_ranges SELECT int4range(i, i + 900) FROM generate_series(1, 2000) i;
