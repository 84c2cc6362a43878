//! B7: how fast a log is taken in, beside vanilla's crash recovery of the very same log.
//!
//! A vanilla server writes the log once: pgbench's initialisation (COPY and index builds), then TPC-B, without images of whole pages, as
//! computes log. Then rounds alternate. Ours is `sidecar-pageserver/examples/ingest_speed.rs`: from the start of a pageserver, whose
//! safekeeper has the log on disk, to its last record; layers are written on the way. The peer recovers a copy of the killed server,
//! whose files are in the page cache, with everything in shared buffers and `fsync=off`; its time is what it calls redo.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use strata_regress::postgres::{Cluster, Installation, Stop, run as run_program};
use strata_regress::whole::programs;

use crate::redo::redo_seconds;
use crate::report::{Pair, Row, load_average, progress};
use crate::{Size, interrupt};

const CLIENTS: &str = "8";
/// Between two looks at how long the log is.
const PIECE_SECONDS: u32 = 5;
const MEGABYTE: f64 = 1e6;

/// A cluster before and after it wrote a log, both stopped.
struct Written {
    base: Cluster,
    killed: Cluster,
}

fn settings() -> Vec<(&'static str, &'static str)> {
    vec![
        // No checkpoint and no page written before its time: the whole log is recovered, and its pages are in shared buffers.
        ("shared_buffers", "1GB"),
        ("checkpoint_timeout", "1h"),
        ("max_wal_size", "100GB"),
        ("wal_keep_size", "100GB"),
        ("bgwriter_lru_maxpages", "0"),
        ("full_page_writes", "off"),
        ("wal_level", "replica"),
        ("autovacuum", "off"),
        ("synchronous_commit", "off"),
        ("log_min_messages", "log"),
    ]
}

fn write(vanilla: &Path, size: Size) -> Result<Written> {
    let installation = Installation::at(vanilla.join("bin"))?;
    let mut cluster = Cluster::init(&installation, &[])?;
    let base = cluster.copy()?;
    cluster.start(&settings())?;
    let begin = cluster.sql("SELECT pg_current_wal_insert_lsn()")?;
    let scale = size.scale.to_string();
    run_program(cluster.client("pgbench", "postgres").args(["-i", "-q", "-s", &scale]))?;
    let wanted = size.log_megabytes;
    loop {
        interrupt::check()?;
        let mut pgbench = cluster.client("pgbench", "postgres");
        pgbench.args(["-n", "-M", "prepared", "-c", CLIENTS, "-j", "2", "-T"]).arg(PIECE_SECONDS.to_string());
        run_program(&mut pgbench)?;
        let megabytes = cluster.sql(&format!(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{begin}')::bigint / 1000000"
        ))?;
        progress(&format!("B7: {megabytes} of {wanted} MB of log"));
        if megabytes.parse::<u64>()? >= wanted {
            break;
        }
    }
    // What was committed without waiting is on disk, too.
    cluster.sql("SET synchronous_commit = on; CREATE TABLE flushed ()")?;
    cluster.stop(Stop::Immediate)?;
    Ok(Written { base, killed: cluster })
}

/// Seconds that vanilla takes to recover: on the core, and elapsed.
fn recovery(written: &Written) -> Result<(f64, f64)> {
    let mut cluster = written.killed.copy()?;
    cluster.start(&settings())?;
    let (cpu, elapsed) = redo_seconds(&cluster.log()?)?;
    cluster.stop(Stop::Immediate)?;
    ensure!(elapsed > 0.0, "recovery took no time");
    Ok((cpu, elapsed))
}

/// What `ingest_speed` reports.
fn ingest(written: &Written) -> Result<Value> {
    let mut command = Command::new(programs().join("examples/ingest_speed"));
    command.arg("--base").arg(written.base.data()).arg("--written").arg(written.killed.data());
    let text =
        run_program(command.arg("--programs").arg(programs())).context("'make bench' builds the example")?;
    Ok(serde_json::from_str(&text)?)
}

pub fn run(vanilla: &Path, size: Size) -> Result<Vec<Row>> {
    let written = write(vanilla, size)?;
    let (mut pairs, mut rounds, mut logged) = (Vec::new(), Vec::new(), (0.0, 0.0));
    for _ in 0..size.rounds {
        interrupt::check()?;
        let report = ingest(&written)?;
        let field = |name: &str| report[name].as_f64().with_context(|| format!("no {name} in {report}"));
        let (cpu, elapsed) = recovery(&written)?;
        let (megabytes, seconds) = (field("bytes")? / MEGABYTE, field("seconds")?);
        logged = (megabytes, field("records")?);
        progress(&format!("B7: {megabytes:.0} MB taken in in {seconds:.2} s, recovered in {elapsed:.2} s"));
        pairs.push(Pair { ours: megabytes / seconds, peer: megabytes / elapsed });
        let recovered = json!({ "seconds": elapsed, "cpu_seconds": cpu });
        rounds.push(json!({ "ingest": report, "recovery": recovered, "load": load_average() }));
    }
    let note = "ours: from the start of the pageserver's process to its last record readable, log from one safekeeper's disk over gRPC, \
                layers written and synced on the way, what came last still in memory; the peer: elapsed time of redo, pages in shared \
                buffers, fsync=off";
    let name = format!("log taken in, {:.0} MB of COPY, index builds, TPC-B", logged.0);
    let details = json!({ "records": logged.1, "rounds": rounds });
    Ok(vec![Row::compared("B7", name, "MB/s", &pairs).note(note).details(details)])
}
