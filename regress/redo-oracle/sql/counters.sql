-- What records change beside pages: origins, tablespaces, settings. Transaction ids, multixacts and their members begin shortly before
-- new pages and segments of their SLRUs, so that the other scripts reach these.
SET wal_compression = pglz;
SELECT pg_replication_origin_create('oracle_origin');
SELECT pg_replication_origin_advance('oracle_origin', '0/1234');
SELECT pg_replication_origin_session_setup('oracle_origin');
CREATE TABLE from_elsewhere (a int);
BEGIN; SELECT pg_replication_origin_xact_setup('0/2222', now()); INSERT INTO from_elsewhere VALUES (1); COMMIT;
BEGIN; SELECT pg_replication_origin_xact_setup('0/3333', now()); INSERT INTO from_elsewhere VALUES (2); ROLLBACK;
SELECT pg_replication_origin_session_reset();
SELECT pg_replication_origin_drop('oracle_origin');
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE brief LOCATION '';
CREATE TABLE in_brief (a int PRIMARY KEY) TABLESPACE brief;
INSERT INTO in_brief SELECT generate_series(1, 300);
DROP TABLE in_brief;
CHECKPOINT;
DROP TABLESPACE brief;
-- Full-page images change to the other setting and back; the checkpointer notices at its own time.
CREATE PROCEDURE await_images(wanted bool) LANGUAGE plpgsql AS $$ BEGIN
    LOOP
        CHECKPOINT;
        EXIT WHEN (SELECT full_page_writes = wanted FROM pg_control_checkpoint());
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT current_setting('full_page_writes')::bool AS images, NOT current_setting('full_page_writes')::bool AS others \gset
ALTER SYSTEM SET full_page_writes = :'others';
SELECT pg_reload_conf();
CALL await_images(:'others');
INSERT INTO from_elsewhere SELECT generate_series(3, 100);
ALTER SYSTEM RESET full_page_writes;
SELECT pg_reload_conf();
CALL await_images(:'images');
-- Subtransactions over the ends of SLRU pages and segments.
CREATE TABLE many_nested (a int);
DO $$ BEGIN FOR i IN 1..1500 LOOP BEGIN INSERT INTO many_nested VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$;
