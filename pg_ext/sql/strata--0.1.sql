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
