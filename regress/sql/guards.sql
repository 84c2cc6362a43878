-- Settings that could undo durability are out of reach, for superusers too.
ALTER SYSTEM SET synchronous_standby_names = '';
SELECT pg_reload_conf();
SELECT pg_sleep(0.1);
SELECT current_setting('synchronous_standby_names') <> '' AS quorum_required;
ALTER SYSTEM RESET synchronous_standby_names;
SET fsync = on;
SET strata.term = '7';
ALTER SYSTEM SET strata.term = '7';
SHOW restart_after_crash;
SHOW full_page_writes;
-- What has no place here is refused.
CREATE TABLESPACE elsewhere LOCATION '/tmp/elsewhere';
ALTER DATABASE postgres SET TABLESPACE pg_default;
