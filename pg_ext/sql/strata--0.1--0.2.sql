-- From 0.1 to 0.2 of the extension `strata`: the working set, the local file cache, prefetch. A test compares the outcome with `strata--0.2.sql`.
\echo Use "ALTER EXTENSION strata UPDATE" to load this file. \quit

COMMENT ON FUNCTION strata_version() IS 'version of the library and of the Postgres it was built for; that of the SQL objects is in pg_extension';

CREATE FUNCTION strata_working_set_pages(seconds double precision) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'strata_working_set_pages_wrapper';
COMMENT ON FUNCTION strata_working_set_pages(double precision) IS 'see strata_working_set_size';

CREATE FUNCTION strata_working_set_size("window" interval DEFAULT NULL) RETURNS bigint
    LANGUAGE sql VOLATILE PARALLEL SAFE
    RETURN strata_working_set_pages(extract(epoch FROM $1)::double precision);
COMMENT ON FUNCTION strata_working_set_size(interval) IS
    'about how many different pages were asked for below shared buffers in the last while, or since the server''s start or the last reset (standard error 1.6 %)';

CREATE FUNCTION strata_working_set_reset() RETURNS void
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'strata_working_set_reset_wrapper';
COMMENT ON FUNCTION strata_working_set_reset() IS 'the working set is counted anew from here';
REVOKE ALL ON FUNCTION strata_working_set_reset() FROM PUBLIC;

CREATE FUNCTION strata_lfc_counters(
    OUT state text, OUT max_pages bigint, OUT limit_pages bigint, OUT used_pages bigint, OUT hits bigint,
    OUT misses bigint, OUT writes bigint, OUT damaged bigint, OUT skipped bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE ROWS 1
    AS 'MODULE_PATHNAME', 'strata_lfc_counters_wrapper';

CREATE VIEW strata_lfc_stats AS SELECT * FROM strata_lfc_counters();
COMMENT ON VIEW strata_lfc_stats IS
    'the local file cache: on, off or failed; its places; what it answered and kept since the server''s start; pages found damaged, and not kept because all places were in use';

CREATE VIEW strata_stat_file_cache AS
    SELECT hits AS file_cache_hits, misses AS file_cache_misses, used_pages AS file_cache_used, writes AS file_cache_writes,
        round(100.0 * hits / nullif(hits + misses, 0), 2) AS file_cache_hit_ratio
    FROM strata_lfc_counters();
COMMENT ON VIEW strata_stat_file_cache IS 'hits, misses, used pages, writes and hit ratio (percent) of the local file cache';

CREATE FUNCTION strata_lfc_pages(
    OUT reltablespace oid, OUT reldatabase oid, OUT relfilenode oid, OUT relforknumber smallint, OUT relblocknumber bigint,
    OUT as_of pg_lsn, OUT uses integer, OUT queue text) RETURNS SETOF record
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'strata_lfc_pages_wrapper';
COMMENT ON FUNCTION strata_lfc_pages() IS 'every page of the local file cache, and as of when it is the newest';

CREATE VIEW strata_lfc_pages AS SELECT * FROM strata_lfc_pages();
COMMENT ON VIEW strata_lfc_pages IS 'every page of the local file cache, and as of when it is the newest';
GRANT SELECT ON strata_lfc_pages TO pg_monitor;

CREATE FUNCTION strata_lfc_state() RETURNS bytea
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'strata_lfc_state_wrapper';
COMMENT ON FUNCTION strata_lfc_state() IS 'which pages the local file cache holds, for strata_lfc_prewarm on any compute of this tenant';

CREATE FUNCTION strata_lfc_prewarm(state bytea DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'strata_lfc_prewarm_wrapper';
COMMENT ON FUNCTION strata_lfc_prewarm(bytea) IS
    'reads pages that a cache held, by default this compute''s in its former life, as far as there is room; how many were read';
REVOKE ALL ON FUNCTION strata_lfc_prewarm(bytea) FROM PUBLIC;

CREATE FUNCTION strata_lfc_state_put() RETURNS bigint
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'strata_lfc_state_put_wrapper';
COMMENT ON FUNCTION strata_lfc_state_put() IS
    'puts the list of the hottest pages of the local file cache into the object store now, whatever list is there; how many it names';
REVOKE ALL ON FUNCTION strata_lfc_state_put() FROM PUBLIC;

CREATE FUNCTION strata_lfc_prewarm_remote() RETURNS bigint
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'strata_lfc_prewarm_remote_wrapper';
COMMENT ON FUNCTION strata_lfc_prewarm_remote() IS
    'as strata_lfc_prewarm, with the list of this branch, or failing that of the one it comes from, in the object store';
REVOKE ALL ON FUNCTION strata_lfc_prewarm_remote() FROM PUBLIC;

CREATE FUNCTION strata_lfc_prewarm_counters(
    OUT pid integer, OUT total bigint, OUT read bigint, OUT present bigint, OUT skipped bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE ROWS 1
    AS 'MODULE_PATHNAME', 'strata_lfc_prewarm_counters_wrapper';

CREATE VIEW strata_lfc_prewarm_progress AS SELECT * FROM strata_lfc_prewarm_counters();
COMMENT ON VIEW strata_lfc_prewarm_progress IS
    'the prewarming that runs (pid), or ran last: pages of its list, read, already present, and passed over because they are gone, changed or without room';

CREATE FUNCTION strata_prefetch_counters(
    OUT requested bigint, OUT used bigint, OUT waited bigint, OUT expired bigint, OUT wasted bigint, OUT refused bigint,
    OUT open_requests bigint, OUT unanswered bigint, OUT held_pages bigint, OUT index_scans bigint, OUT cached bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE ROWS 1
    AS 'MODULE_PATHNAME', 'strata_prefetch_counters_wrapper';

CREATE VIEW strata_stat_prefetch AS SELECT * FROM strata_prefetch_counters();
COMMENT ON VIEW strata_stat_prefetch IS
    'pages asked for ahead since the server''s start: requested; used, and how often the reader still had to wait; expired (changed meanwhile), wasted (never read, and lost), refused; then requests and pages held now, and requests without an answer yet; of those requested the pages that index scans were to read; and those that were not read but put into the file cache';

CREATE FUNCTION strata_backpressure(
    OUT limit_bytes bigint, OUT lag_bytes bigint, OUT pauses bigint, OUT paused_us bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE ROWS 1
    AS 'MODULE_PATHNAME', 'strata_backpressure_wrapper';
COMMENT ON FUNCTION strata_backpressure() IS
    'log that the pageserver may be behind, and is behind; how often, and for how long, writers have paused for it since the server''s start';

REVOKE ALL ON FUNCTION strata_working_set_pages(double precision), strata_working_set_size(interval), strata_lfc_counters(),
    strata_lfc_pages(), strata_lfc_state(), strata_lfc_prewarm_counters(), strata_prefetch_counters(), strata_backpressure() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION strata_working_set_pages(double precision), strata_working_set_size(interval), strata_lfc_counters(),
    strata_lfc_pages(), strata_lfc_state(), strata_lfc_prewarm_counters(), strata_prefetch_counters(), strata_backpressure() TO pg_monitor;
GRANT SELECT ON strata_stat_prefetch, strata_lfc_stats, strata_stat_file_cache, strata_lfc_prewarm_progress TO pg_monitor;
