//! Work for a real server that reaches every record type and the branches within them, one script a theme, and what no session can
//! do by itself: counters that begin shortly before new pages of the SLRUs, and freezing everywhere.
//!
//! The redo oracle counts what the scripts reach (`redo-oracle/coverage.rs`); the comparison with a standby runs them beside other
//! load. A script expects a database of its own.

use anyhow::{Context as _, Result};

use crate::postgres::{Cluster, run};

/// A script for `psql`.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    pub name: &'static str,
    pub sql: &'static str,
}

const fn script(name: &'static str, sql: &'static str) -> Script {
    Script { name, sql }
}

/// In the order in which they are run.
pub const ALL: [Script; 14] = [
    script("heap", include_str!("../redo-oracle/sql/heap.sql")),
    script("visibility", include_str!("../redo-oracle/sql/visibility.sql")),
    script("btree", include_str!("../redo-oracle/sql/btree.sql")),
    script("btree_posting", include_str!("../redo-oracle/sql/btree_posting.sql")),
    script("hash", include_str!("../redo-oracle/sql/hash.sql")),
    script("spgist", include_str!("../redo-oracle/sql/spgist.sql")),
    script("brin", include_str!("../redo-oracle/sql/brin.sql")),
    script("generic", include_str!("../redo-oracle/sql/generic.sql")),
    script("gin", include_str!("../redo-oracle/sql/gin.sql")),
    script("gist", include_str!("../redo-oracle/sql/gist.sql")),
    script("counters", include_str!("../redo-oracle/sql/counters.sql")),
    script("locks", include_str!("../redo-oracle/sql/locks.sql")),
    script("sequence", include_str!("../redo-oracle/sql/sequence.sql")),
    script("cluster", include_str!("../redo-oracle/sql/cluster.sql")),
];

/// Much work: for large sizes.
pub const LARGE: Script = script("large", include_str!("../redo-oracle/sql/large.sql"));

impl Script {
    /// Runs it in `database`; `:conn` is how a second session gets there.
    pub fn run(&self, cluster: &Cluster, database: &str) -> Result<()> {
        let socket = cluster.home().display();
        let connection = format!("\\set conn 'host={socket} dbname={database} user=postgres'\n");
        cluster
            .sql_in(database, &(connection + self.sql))
            .with_context(|| format!("script {}", self.name))?;
        Ok(())
    }
}

/// Table `s`, and `subtransactions(count, every)`, which puts `count` rows into it, each in a subtransaction of its own, and undoes every
/// one of `every`.
pub const SUBTRANSACTIONS: &str = r"
CREATE TABLE s (i int);
CREATE PROCEDURE subtransactions(count int, every int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1..count LOOP
    BEGIN
      INSERT INTO s VALUES (i);
      IF i % every = 0 THEN RAISE EXCEPTION 'undone'; END IF;
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
  END LOOP;
END $$;
";

/// Shortly before a new segment of the commit timestamps (1048320, they have 26208 to one) and of clog (1048576).
const FIRST_XID: u32 = 1_048_170;
/// Shortly before a new page of multixact offsets (2048) and of members (1636).
const FIRST_MULTIXACT: u32 = 2046;
const FIRST_MEMBER: u32 = 1634;
/// A segment of clog: 32 pages.
const CLOG_SEGMENT_BYTES: u64 = 32 * 8192;

/// Moves the counters of a cluster that was never started.
pub fn move_counters(cluster: &Cluster) -> Result<()> {
    let mut reset = cluster.installation().command("pg_resetwal");
    reset.arg("-D").arg(cluster.data()).arg(format!("--next-transaction-id={FIRST_XID}"));
    reset.arg(format!("--multixact-ids={FIRST_MULTIXACT},1"));
    reset.arg(format!("--multixact-offset={FIRST_MEMBER}"));
    run(&mut reset)?;
    // The server expects the clog page of its next transaction id; pg_resetwal leaves that to who calls it.
    let clog = std::fs::OpenOptions::new().write(true).open(cluster.data().join("pg_xact/0000"))?;
    clog.set_len(CLOG_SEGMENT_BYTES)?;
    Ok(())
}

/// Freezes every row of every database, so that the SLRUs are cut off at their old ends.
pub fn freeze_everything(cluster: &Cluster) -> Result<()> {
    cluster.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS true")?;
    for database in cluster.sql("SELECT datname FROM pg_database ORDER BY 1")?.lines() {
        cluster.sql_in(database, "VACUUM (FREEZE)").with_context(|| format!("freeze {database}"))?;
    }
    cluster.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS false")?;
    Ok(())
}
