-- Settings that could undo durability are out of reach, for superusers too.
ALTER SYSTEM SET synchronous_standby_names = '';
ALTER SYSTEM SET work_mem = '8MB';
ALTER SYSTEM RESET work_mem;
ALTER SYSTEM RESET ALL;
SELECT current_setting('synchronous_standby_names') <> '' AS quorum_required;
SET fsync = on;
SET strata.term = '7';
SHOW restart_after_crash;
SHOW full_page_writes;
-- Those that need no restart are refused on every way to them.
SET zero_damaged_pages = on;
BEGIN;
SET LOCAL zero_damaged_pages = 1;
ROLLBACK;
SELECT set_config('zero_damaged_pages', 'yes', false);
UPDATE pg_settings SET setting = 'on' WHERE name = 'zero_damaged_pages';
ALTER ROLE postgres SET zero_damaged_pages = on;
ALTER ROLE postgres IN DATABASE postgres SET zero_damaged_pages = on;
ALTER DATABASE postgres SET zero_damaged_pages = on;
CREATE FUNCTION with_setting() RETURNS int LANGUAGE sql SET zero_damaged_pages = on AS 'SELECT 1';
CREATE FUNCTION without_setting() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER FUNCTION without_setting() SET zero_damaged_pages = on;
DROP FUNCTION without_setting();
SET ignore_checksum_failure = on;
ALTER ROLE ALL SET ignore_checksum_failure = on;
-- What keeps them off is allowed.
SET zero_damaged_pages = off;
SET zero_damaged_pages = DEFAULT;
RESET ignore_checksum_failure;
SELECT name, setting FROM pg_settings WHERE name IN ('zero_damaged_pages', 'ignore_checksum_failure') ORDER BY name;
-- What has no place here is refused.
CREATE TABLESPACE elsewhere LOCATION '/tmp';
ALTER DATABASE postgres SET TABLESPACE pg_default;
