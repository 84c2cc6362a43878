//! Pages that a test wants out of shared buffers.

/// Makes `evict('t')` in a database, which puts all pages of a relation out of shared buffers and counts those that stay, and
/// `evict('t', 2)` for those of one fork.
pub const EVICT: &str = "
    CREATE EXTENSION IF NOT EXISTS pg_buffercache;
    CREATE FUNCTION evict(regclass) RETURNS bigint LANGUAGE sql AS
    $$ SELECT count(*) FILTER (WHERE NOT pg_buffercache_evict(bufferid)) FROM pg_buffercache
       WHERE relfilenode = pg_relation_filenode($1) AND reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) $$;
    CREATE FUNCTION evict(regclass, int) RETURNS bigint LANGUAGE sql AS
    $$ SELECT count(*) FILTER (WHERE NOT pg_buffercache_evict(bufferid)) FROM pg_buffercache
       WHERE relfilenode = pg_relation_filenode($1) AND relforknumber = $2
         AND reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) $$;";
