-- The SQL objects of the extension `strata`, version 0.2. Kept by hand; a test compares it with the library's exported functions.
\echo Use "CREATE EXTENSION strata" to load this file. \quit

CREATE FUNCTION strata_version() RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'strata_version_wrapper';
COMMENT ON FUNCTION strata_version() IS 'version of the library and of the Postgres it was built for; that of the SQL objects is in pg_extension';

CREATE FUNCTION strata_smgr_mode() RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'strata_smgr_mode_wrapper';
COMMENT ON FUNCTION strata_smgr_mode() IS 'how pages are stored: registered (remote, by the server''s registration hook), stock (remote, by taking over an unpatched server''s table) or local (files)';

CREATE FUNCTION strata_safekeepers_raw(
    OUT id bigint, OUT address text, OUT state text, OUT term bigint,
    OUT flush_lsn bigint, OUT commit_lsn bigint, OUT lag_bytes bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'strata_safekeepers_wrapper';
REVOKE ALL ON FUNCTION strata_safekeepers_raw() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION strata_safekeepers_raw() TO pg_monitor;

CREATE VIEW strata_safekeepers AS
    SELECT id, address, state, term, '0/0'::pg_lsn + flush_lsn AS flush_lsn,
           '0/0'::pg_lsn + commit_lsn AS commit_lsn, lag_bytes
    FROM strata_safekeepers_raw();
COMMENT ON VIEW strata_safekeepers IS 'each safekeeper as the proposer sees it: state, term, how far it has the log, and how far behind it is';
GRANT SELECT ON strata_safekeepers TO pg_monitor;

CREATE FUNCTION strata_lsns(
    OUT insert_lsn pg_lsn, OUT flush_lsn pg_lsn, OUT quorum_commit_lsn pg_lsn, OUT pageserver_received_lsn pg_lsn,
    OUT pageserver_disk_consistent_lsn pg_lsn, OUT pageserver_remote_consistent_lsn pg_lsn) RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT ROWS 1
    AS 'MODULE_PATHNAME', 'strata_lsns_wrapper';
COMMENT ON FUNCTION strata_lsns() IS 'how far the log is here, at a majority of safekeepers, and at the pageserver';

CREATE FUNCTION strata_last_written_lsn(relation regclass, fork text DEFAULT 'main', block bigint DEFAULT 0) RETURNS pg_lsn
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'strata_last_written_lsn_wrapper';
COMMENT ON FUNCTION strata_last_written_lsn(regclass, text, bigint) IS 'what a read of this block must reflect at least';

CREATE FUNCTION strata_page_request_stats(
    OUT kind text, OUT requests bigint, OUT blocks bigint, OUT errors bigint, OUT total_us bigint,
    OUT latency_histogram bigint[]) RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT ROWS 4
    AS 'MODULE_PATHNAME', 'strata_page_request_stats_wrapper';
COMMENT ON FUNCTION strata_page_request_stats() IS 'requests to the pageserver since the server''s start';

CREATE VIEW strata_page_requests AS
    SELECT kind, requests, blocks, errors,
        round(total_us::numeric / nullif(requests, 0), 1) AS mean_us, latency_histogram
    FROM strata_page_request_stats();
COMMENT ON VIEW strata_page_requests IS
    'requests to the pageserver by kind; the n-th number of the histogram counts latencies below 2^(n-1) microseconds';

CREATE FUNCTION strata_spilled_pages() RETURNS bigint
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'strata_spilled_pages_wrapper';
COMMENT ON FUNCTION strata_spilled_pages() IS 'pages kept locally because the log cannot rebuild them, since the server''s start';

CREATE FUNCTION strata_keeper(
    OUT rounds bigint, OUT saved_pages bigint, OUT returned_pages bigint, OUT settled_relations bigint,
    OUT quiet_below pg_lsn) RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT ROWS 1
    AS 'MODULE_PATHNAME', 'strata_keeper_wrapper';
COMMENT ON FUNCTION strata_keeper() IS
    'what the keeper has done since the server''s start: rounds, page images saved in the log, spilled pages given back, relations settled';

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

REVOKE ALL ON FUNCTION strata_lsns(), strata_last_written_lsn(regclass, text, bigint), strata_page_request_stats(),
    strata_spilled_pages(), strata_keeper(), strata_working_set_pages(double precision),
    strata_working_set_size(interval), strata_lfc_counters(), strata_lfc_pages(), strata_lfc_state(),
    strata_lfc_prewarm_counters(), strata_prefetch_counters(), strata_backpressure() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION strata_lsns(), strata_last_written_lsn(regclass, text, bigint), strata_page_request_stats(),
    strata_spilled_pages(), strata_keeper(), strata_working_set_pages(double precision),
    strata_working_set_size(interval), strata_lfc_counters(), strata_lfc_pages(), strata_lfc_state(),
    strata_lfc_prewarm_counters(), strata_prefetch_counters(), strata_backpressure() TO pg_monitor;
GRANT SELECT ON strata_stat_prefetch, strata_page_requests, strata_lfc_stats, strata_stat_file_cache, strata_lfc_prewarm_progress TO pg_monitor;
