-- Row locks of several sessions, locks on rows that were updated since, multixacts and their freezing.
CREATE EXTENSION dblink;
SELECT dblink_connect('other', :'conn');
CREATE TABLE locked (id int PRIMARY KEY, v int) WITH (autovacuum_enabled = off);
INSERT INTO locked SELECT i, 0 FROM generate_series(1, 600) i;
VACUUM (FREEZE) locked;
-- The other session updates; this one locks the version that it still sees, and the newer ones with it.
SELECT dblink_exec('other', 'BEGIN');
SELECT dblink_exec('other', 'UPDATE locked SET v = 1 WHERE id <= 30');
BEGIN;
SELECT count(*) FROM (SELECT 1 FROM locked WHERE id <= 30 FOR KEY SHARE) l;
COMMIT;
SELECT dblink_exec('other', 'COMMIT');
-- Shared by two, then updated under the locks.
SELECT dblink_exec('other', 'BEGIN');
SELECT count(*) FROM dblink('other', 'SELECT id FROM locked WHERE id BETWEEN 100 AND 300 FOR KEY SHARE') AS t(id int);
BEGIN;
SELECT count(*) FROM (SELECT 1 FROM locked WHERE id BETWEEN 100 AND 200 FOR SHARE) l;
UPDATE locked SET v = 2 WHERE id BETWEEN 150 AND 250;
SAVEPOINT s;
SELECT count(*) FROM (SELECT 1 FROM locked WHERE id BETWEEN 260 AND 290 FOR NO KEY UPDATE) l;
ROLLBACK TO s;
COMMIT;
SELECT dblink_exec('other', 'COMMIT');
DELETE FROM locked WHERE id BETWEEN 180 AND 190;
SELECT count(*) FROM locked;
VACUUM locked;
-- Locks alone on rows of frozen pages; foreign keys take them too.
VACUUM (FREEZE) locked;
SELECT count(*) FROM (SELECT 1 FROM locked WHERE id BETWEEN 400 AND 450 FOR UPDATE) l;
CREATE TABLE child (id int REFERENCES locked (id)) WITH (autovacuum_enabled = off);
INSERT INTO child SELECT i FROM generate_series(300, 420) i;
SELECT dblink_exec('other', 'BEGIN');
SELECT count(*) FROM dblink('other', 'SELECT id FROM locked WHERE id BETWEEN 300 AND 400 FOR SHARE') AS t(id int);
BEGIN;
INSERT INTO child SELECT i FROM generate_series(300, 400) i;
UPDATE child SET id = id WHERE id < 350;
COMMIT;
SELECT dblink_exec('other', 'ROLLBACK');
VACUUM (FREEZE) locked;
VACUUM (FREEZE) child;

-- Two sessions insert the same key at once: one of the speculative rows is taken back.
CREATE FUNCTION slow_key(k int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM pg_sleep(0.04); RETURN k; END $$;
CREATE TABLE raced (k int) WITH (autovacuum_enabled = off);
CREATE UNIQUE INDEX raced_k ON raced (slow_key(k));
SELECT dblink_send_query('other', 'INSERT INTO raced VALUES (1) ON CONFLICT DO NOTHING');
INSERT INTO raced VALUES (1) ON CONFLICT DO NOTHING;
SELECT * FROM dblink_get_result('other') AS t(r text);
SELECT * FROM dblink_get_result('other') AS t(r text);
SELECT dblink_send_query('other', 'INSERT INTO raced VALUES (2) ON CONFLICT DO NOTHING');
INSERT INTO raced VALUES (2) ON CONFLICT DO NOTHING;
SELECT * FROM dblink_get_result('other') AS t(r text);
SELECT * FROM dblink_get_result('other') AS t(r text);
SELECT dblink_send_query('other', 'INSERT INTO raced VALUES (3) ON CONFLICT DO NOTHING');
INSERT INTO raced VALUES (3) ON CONFLICT DO NOTHING;
SELECT * FROM dblink_get_result('other') AS t(r text);
SELECT * FROM dblink_get_result('other') AS t(r text);
SELECT dblink_disconnect('other');
