-- The SQL objects of the extension `strata`, version 0.1. Kept by hand; a test compares it with the library's exported functions.
\echo Use "CREATE EXTENSION strata" to load this file. \quit

CREATE FUNCTION strata_version() RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'strata_version_wrapper';
COMMENT ON FUNCTION strata_version() IS 'version of the extension and of the Postgres it was built for';

CREATE FUNCTION strata_smgr_mode() RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'strata_smgr_mode_wrapper';
COMMENT ON FUNCTION strata_smgr_mode() IS 'how pages are stored: registered (remote, by the server''s registration hook) or local (files)';

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
