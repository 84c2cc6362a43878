//! What the scripts cannot do from inside a session: counters that begin shortly before new pages of the SLRUs, a crash that cuts a
//! record off, a promotion.

use anyhow::{Context as _, Result, ensure};
use strata_regress::postgres::{Cluster, Stop, run};

use crate::run::{DATABASE, Settings};

/// Shortly before a new segment of the commit timestamps (1048320, they have 26208 to one) and of clog (1048576).
const FIRST_XID: u32 = 1_048_170;
/// Shortly before a new page of multixact offsets (2048) and of members (1636).
const FIRST_MULTIXACT: u32 = 2046;
const FIRST_MEMBER: u32 = 1634;
/// A segment of clog: 32 pages.
const CLOG_SEGMENT_BYTES: u64 = 32 * 8192;
/// More than a segment of the log.
const LONG_MESSAGE_BYTES: u32 = 20 << 20;

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

/// A record over a segment's end, a crash, and the last segments lost: recovery writes OVERWRITE_CONTRECORD in its place.
pub fn crash_inside_a_record(cluster: &mut Cluster, settings: &Settings) -> Result<()> {
    cluster.sql("SELECT pg_switch_wal()")?;
    cluster.sql("CHECKPOINT")?;
    let begin = "SELECT pg_walfile_name(pg_current_wal_insert_lsn())";
    let first = cluster.sql(begin)?;
    cluster.sql(&format!(
        "SELECT pg_logical_emit_message(false, 'long', repeat('x', {LONG_MESSAGE_BYTES}), true)"
    ))?;
    let last = cluster.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")?;
    ensure!(first < last, "the message ends in the segment {first} in which it begins");
    cluster.stop(Stop::Immediate)?;
    for entry in std::fs::read_dir(cluster.data().join("pg_wal"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Names of segments are numbers of one length. Segments kept for later use come after the last one.
        if name.len() == last.len() && name >= last {
            std::fs::remove_file(entry.path())?;
        }
    }
    cluster.start(&settings.server())?;
    cluster
        .sql_in(DATABASE, "CREATE TABLE after_crash AS SELECT generate_series(1, 500) AS a; CHECKPOINT")?;
    Ok(())
}

/// A clean stop and a promotion: END_OF_RECOVERY, and a new timeline of the log.
pub fn promote(cluster: &mut Cluster, settings: &Settings) -> Result<()> {
    cluster.stop(Stop::Fast)?;
    cluster.start_promoted(&settings.server())?;
    cluster.sql_in(DATABASE, "CREATE TABLE after_promotion AS SELECT generate_series(1, 500) AS a")?;
    Ok(())
}
