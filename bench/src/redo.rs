//! B6: records of the log applied a second on one core (`redo/examples/redo_speed.rs`), beside vanilla's crash recovery.
//!
//! The peer is not like for like, and its row says so: recovery also reads and decodes its log and looks up buffers; it is here for
//! the order of magnitude on this machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use strata_regress::postgres::{Cluster, Installation, Stop, run as run_program};
use strata_regress::whole::programs;

use crate::report::{Pair, Row, progress};
use crate::{Size, interrupt};

/// The fields of the example's report that are rates of `apply`, and what they are.
const RATES: [(&str, &str, &str); 3] = [
    ("heap_insert_apply", "B6.heap_insert", "redo of heap inserts"),
    ("heap_hot_update_apply", "B6.heap_update", "redo of heap HOT updates"),
    ("btree_insert_leaf_apply", "B6.btree_insert", "redo of btree leaf inserts"),
];
/// The log that recovery replays: pgbench's TPC-B.
const SCALE: &str = "10";
const CLIENTS: &str = "8";

/// Crash recovery of a log of TPC-B transactions, everything in memory.
fn recovery(vanilla: &Path, seconds: u32) -> Result<Recovery> {
    let installation = Installation::at(vanilla.join("bin"))?;
    let mut cluster = Cluster::init(&installation, &[])?;
    let settings = [
        ("shared_buffers", "512MB"),
        ("checkpoint_timeout", "1h"),
        ("max_wal_size", "8GB"),
        ("full_page_writes", "off"),
        ("autovacuum", "off"),
        ("log_min_messages", "log"),
    ];
    cluster.start(&settings)?;
    run_program(cluster.client("pgbench", "postgres").args(["-i", "-q", "-s", SCALE]))?;
    cluster.sql("CHECKPOINT")?;
    let begin = cluster.sql("SELECT pg_current_wal_flush_lsn()")?;
    interrupt::check()?;
    run_program(
        cluster
            .client("pgbench", "postgres")
            .args(["-n", "-M", "prepared", "-c", CLIENTS, "-j", "2", "-T"])
            .arg(seconds.to_string()),
    )?;
    let end = cluster.sql("SELECT pg_current_wal_flush_lsn()")?;
    cluster.stop(Stop::Immediate)?;
    let mut dump = installation.command("pg_waldump");
    dump.arg("-p").arg(cluster.data().join("pg_wal")).args(["--stats", "-s", &begin, "-e", &end]);
    let records = total_records(&run_program(&mut dump)?)?;
    cluster.start(&settings)?;
    let (cpu, elapsed) = redo_seconds(&cluster.log()?)?;
    cluster.stop(Stop::Immediate)?;
    progress(&format!(
        "B6: vanilla recovered {records} records in {elapsed} s, {cpu:.2} s of them on the core"
    ));
    ensure!(cpu > 0.0, "recovery took no time");
    Ok(Recovery { records, cpu_seconds: cpu })
}

struct Recovery {
    records: u64,
    cpu_seconds: f64,
}

/// The count in the last line of `pg_waldump --stats`: "Total  123  …".
fn total_records(stats: &str) -> Result<u64> {
    let line = stats.lines().find(|line| line.starts_with("Total")).context("pg_waldump printed no total")?;
    Ok(line.split_whitespace().nth(1).context("a total")?.parse()?)
}

/// CPU and elapsed seconds in "redo done at … system usage: CPU: user: 0.41 s, system: 0.05 s, elapsed: 0.52 s"
/// (`src/backend/access/transam/xlogrecovery.c`, `src/backend/utils/misc/pg_rusage.c`).
fn redo_seconds(log: &str) -> Result<(f64, f64)> {
    let line =
        log.lines().find(|line| line.contains("redo done at")).context("the server did not recover")?;
    let after = |what: &str| -> Result<f64> {
        let rest = line.split_once(what).with_context(|| format!("no {what} in: {line}"))?.1;
        Ok(rest.split_whitespace().next().context("a number")?.parse()?)
    };
    Ok((after("user: ")? + after("system: ")?, after("elapsed: ")?))
}

pub fn run(vanilla: &Path, size: Size) -> Result<Vec<Row>> {
    let program = programs().join("examples/redo_speed");
    let mut pairs: [Vec<Pair>; 3] = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..size.rounds {
        interrupt::check()?;
        let mut speed = Command::new(&program);
        let text = run_program(speed.args(["--seconds", "1"])).context("'make bench' builds the example")?;
        let report: Value = serde_json::from_str(&text)?;
        let recovery = recovery(vanilla, size.round_seconds)?;
        let peer = recovery.records as f64 / recovery.cpu_seconds;
        for ((field, ..), pairs) in RATES.iter().zip(&mut pairs) {
            let ours = report[field].as_f64().with_context(|| format!("the example reports no {field}"))?;
            pairs.push(Pair { ours, peer });
        }
    }
    let note = "ours applies hand-made records to pages in memory; the peer is crash recovery of a TPC-B log in memory, which also \
                reads and decodes the log and looks up buffers: not like for like";
    let rows = RATES.iter().zip(&pairs).map(|((_, id, name), pairs)| {
        Row::compared(id, format!("{name}, one core"), "records/s", pairs).note(note)
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_lines_are_read() {
        let log =
            "x LOG:  redo done at 0/1A2B system usage: CPU: user: 0.40 s, system: 0.05 s, elapsed: 0.52 s\n";
        let (cpu, elapsed) = redo_seconds(log).expect("the line is there");
        assert!((cpu - 0.45).abs() < 1e-9 && (elapsed - 0.52).abs() < 1e-9);
        let stats = "Heap   1 ( 1)\n      --------\nTotal        4711          123 [98%]\n";
        assert_eq!(total_records(stats).expect("a total"), 4711);
        assert!(redo_seconds("LOG:  ready\n").is_err() && total_records("").is_err());
    }
}
