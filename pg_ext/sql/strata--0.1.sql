-- The SQL objects of the extension `strata`, version 0.1. Kept by hand; a test compares it with the library's exported functions.
\echo Use "CREATE EXTENSION strata" to load this file. \quit

CREATE FUNCTION strata_version() RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'strata_version_wrapper';
COMMENT ON FUNCTION strata_version() IS 'version of the extension and of the Postgres it was built for';

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

REVOKE ALL ON FUNCTION strata_lsns(), strata_last_written_lsn(regclass, text, bigint), strata_page_request_stats(),
    strata_spilled_pages(), strata_keeper() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION strata_lsns(), strata_last_written_lsn(regclass, text, bigint), strata_page_request_stats(),
    strata_spilled_pages(), strata_keeper() TO pg_monitor;
GRANT SELECT ON strata_page_requests TO pg_monitor;
