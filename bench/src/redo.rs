//! B6: records of the log applied a second on one core (`redo/examples/redo_speed`), beside vanilla's crash recovery.
//!
//! The peer is not like for like, and its row says so: recovery also reads and decodes its log and looks up buffers; it is here for
//! the order of magnitude on this machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use strata_regress::postgres::{Cluster, Installation, Stop, run as run_program};
use strata_regress::whole::programs;

use crate::report::{Pair, Row, progress};
use crate::{Size, interrupt};

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
pub fn redo_seconds(log: &str) -> Result<(f64, f64)> {
    let line =
        log.lines().find(|line| line.contains("redo done at")).context("the server did not recover")?;
    let after = |what: &str| -> Result<f64> {
        let rest = line.split_once(what).with_context(|| format!("no {what} in: {line}"))?.1;
        Ok(rest.split_whitespace().next().context("a number")?.parse()?)
    };
    Ok((after("user: ")? + after("system: ")?, after("elapsed: ")?))
}

/// What the example measured of one kind of record, over the rounds.
struct Speed {
    id: String,
    what: String,
    pairs: Vec<Pair>,
    two_threads: Vec<f64>,
}

impl Speed {
    /// Two threads' records a second ÷ one's, by round.
    fn growths(&self) -> impl Iterator<Item = f64> + '_ {
        self.pairs.iter().zip(&self.two_threads).map(|(pair, two)| two / pair.ours)
    }

    fn row(&self) -> Row {
        let note = "ours applies hand-made records to a page in memory; the peer is crash recovery of a TPC-B log in memory, which also \
                    reads and decodes the log and looks up buffers: not like for like";
        let details =
            json!({ "two_threads": self.two_threads, "growth": self.growths().collect::<Vec<_>>() });
        let name = format!("redo of {}, one core", self.what);
        Row::compared(&format!("B6.{}", self.id), name, "records/s", &self.pairs).note(note).details(details)
    }
}

/// Adds a round's report of the example.
fn add_round(speeds: &mut Vec<Speed>, report: &Value, peer: f64) -> Result<()> {
    for workload in report["workloads"].as_array().context("the example reports no workloads")? {
        let text = |field: &str| workload[field].as_str().with_context(|| format!("no {field}: {workload}"));
        let rate = |field: &str| workload[field].as_f64().with_context(|| format!("no {field}: {workload}"));
        let id = text("id")?;
        let at = match speeds.iter().position(|speed| speed.id == id) {
            Some(at) => at,
            None => {
                let (id, what) = (id.to_owned(), text("what")?.to_owned());
                speeds.push(Speed { id, what, pairs: Vec::new(), two_threads: Vec::new() });
                speeds.len() - 1
            }
        };
        speeds[at].pairs.push(Pair { ours: rate("one_core")?, peer });
        speeds[at].two_threads.push(rate("two_threads")?);
    }
    Ok(())
}

/// A row for each kind of record, and one for what a second thread brings.
fn rows(speeds: &[Speed]) -> Vec<Row> {
    let growths: Vec<f64> = speeds.iter().flat_map(Speed::growths).collect();
    let growth =
        Row::alone("B6.two_threads", "redo on two threads ÷ on one, median of all kinds", "×", &growths)
            .note("both threads redo pages of their own; two cores, and whatever else runs on them");
    speeds.iter().map(Speed::row).chain([growth]).collect()
}

pub fn run(vanilla: &Path, size: Size) -> Result<Vec<Row>> {
    let program = programs().join("examples/redo_speed");
    let mut speeds = Vec::new();
    for _ in 0..size.rounds {
        interrupt::check()?;
        let mut speed = Command::new(&program);
        let text =
            run_program(speed.args(["--seconds", "0.3"])).context("'make bench' builds the example")?;
        let report: Value = serde_json::from_str(&text)?;
        let recovery = recovery(vanilla, size.round_seconds)?;
        add_round(&mut speeds, &report, recovery.records as f64 / recovery.cpu_seconds)?;
    }
    Ok(rows(&speeds))
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
    #[test]
    fn every_kind_of_record_becomes_a_row() {
        let workload = |id: &str, one: f64, two: f64| json!({ "id": id, "what": "x", "one_core": one, "two_threads": two });
        let mut speeds = Vec::new();
        for one in [2e6, 4e6] {
            let report =
                json!({ "workloads": [workload("clog", one, 2.0 * one), workload("gin_entry", 1e6, 1e6)] });
            add_round(&mut speeds, &report, 1e6).expect("a good report");
        }
        let rows = rows(&speeds);
        let told: Vec<(&str, f64, Option<f64>)> =
            rows.iter().map(|row| (row.id.as_str(), row.ours, row.ratio)).collect();
        let expected =
            [("B6.clog", 3e6, Some(3.0)), ("B6.gin_entry", 1e6, Some(1.0)), ("B6.two_threads", 1.5, None)];
        assert_eq!(told, expected);
        assert!(add_round(&mut speeds, &json!({}), 1.0).is_err());
    }
}
