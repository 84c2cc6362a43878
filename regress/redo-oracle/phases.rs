//! What the scripts cannot do from inside a session: a crash that cuts a record off, a promotion. Counters that begin shortly before
//! new pages of the SLRUs, and freezing, are in `strata_regress::scripts`.

use anyhow::{Result, ensure};
use strata_regress::postgres::{Cluster, Stop};

use crate::run::{DATABASE, Settings};

/// More than a segment of the log.
const LONG_MESSAGE_BYTES: u32 = 20 << 20;

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
