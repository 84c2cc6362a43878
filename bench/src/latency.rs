//! What single transactions of a pgbench run took, from its log: percentiles, a histogram, and throughput over time. The same program
//! drives both sides; its log costs both alike.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use strata_regress::whole::Whole;

use crate::interrupt;

/// One transaction: when it ended, since the Unix epoch, and how long it took.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Done {
    pub at: Duration,
    pub micros: u64,
}

/// Everything a run did.
pub struct Run {
    done: Vec<Done>,
    seconds: f64,
}

/// A pgbench that runs.
pub struct Running {
    child: Child,
    folder: tempfile::TempDir,
    seconds: u32,
}

/// Starts pgbench's SELECTs, prepared.
pub fn start(whole: &Whole, connstr: &str, clients: u32, seconds: u32) -> Result<Running> {
    interrupt::check()?;
    let folder = tempfile::tempdir_in(whole.scratch())?;
    let mut pgbench: Command = whole.program("pgbench");
    pgbench.args(["-n", "-S", "-M", "prepared", "-l", "--log-prefix"]).arg(folder.path().join("log"));
    pgbench.arg("-c").arg(clients.to_string()).arg("-j").arg(clients.min(2).to_string());
    pgbench.arg("-T").arg(seconds.to_string()).arg(connstr).stdout(Stdio::null());
    pgbench.stderr(std::fs::File::create(folder.path().join("errors"))?);
    Ok(Running { child: pgbench.spawn().context("cannot start pgbench")?, folder, seconds })
}

/// A whole run.
pub fn run(whole: &Whole, connstr: &str, clients: u32, seconds: u32) -> Result<Run> {
    start(whole, connstr, clients, seconds)?.finish()
}

impl Running {
    /// Waits for its end.
    pub fn finish(mut self) -> Result<Run> {
        let status = self.child.wait()?;
        let errors = std::fs::read_to_string(self.folder.path().join("errors"))?;
        ensure!(status.success(), "pgbench: {errors}");
        Ok(Run { done: read(self.folder.path())?, seconds: f64::from(self.seconds) })
    }
}

fn read(folder: &Path) -> Result<Vec<Done>> {
    let mut done = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log")) {
            for line in std::fs::read_to_string(&path)?.lines() {
                done.push(parse(line).with_context(|| format!("{}: '{line}'", path.display()))?);
            }
        }
    }
    done.sort_by_key(|done| done.at);
    ensure!(!done.is_empty(), "pgbench did nothing");
    Ok(done)
}

/// `client transaction time script epoch micros` (doc/src/sgml/ref/pgbench.sgml).
fn parse(line: &str) -> Option<Done> {
    let mut words = line.split(' ');
    let micros = words.nth(2)?.parse().ok()?;
    let seconds = words.nth(1)?.parse().ok()?;
    let more = words.next()?.parse().ok()?;
    Some(Done { at: Duration::from_secs(seconds) + Duration::from_micros(more), micros })
}

impl Run {
    pub fn tps(&self) -> f64 {
        self.done.len() as f64 / self.seconds
    }

    fn sorted(&self) -> Vec<u64> {
        let mut micros: Vec<u64> = self.done.iter().map(|done| done.micros).collect();
        micros.sort_unstable();
        micros
    }

    /// Milliseconds that so many of a hundred transactions kept to.
    pub fn percentile(&self, percent: f64) -> f64 {
        percentile(&self.sorted(), percent)
    }

    /// Percentiles in milliseconds, and how many transactions took up to 2^n microseconds.
    pub fn details(&self) -> Value {
        let sorted = self.sorted();
        let mut histogram = serde_json::Map::new();
        for micros in &sorted {
            let bucket = micros.max(&1).next_power_of_two().to_string();
            let count = histogram.entry(bucket).or_insert(json!(0));
            *count = json!(count.as_u64().unwrap_or(0) + 1);
        }
        json!({
            "tps": self.tps().round(), "p50_ms": percentile(&sorted, 50.0), "p95_ms": percentile(&sorted, 95.0),
            "p99_ms": percentile(&sorted, 99.0), "max_ms": percentile(&sorted, 100.0),
            "up_to_us": histogram,
        })
    }

    /// Transactions a second in each step of time from `begin` on, up to the last whole one: when the step began, in seconds, and the rate.
    pub fn curve(&self, begin: SystemTime, step: Duration) -> Result<Vec<(f64, f64)>> {
        let begin = begin.duration_since(SystemTime::UNIX_EPOCH)?;
        let steps = |at: Duration| (at.saturating_sub(begin).as_secs_f64() / step.as_secs_f64()) as usize;
        let last = self.done.last().map_or(0, |done| steps(done.at));
        let mut counts = vec![0u32; last];
        for done in &self.done {
            if let Some(count) = counts.get_mut(steps(done.at)) {
                *count += 1;
            }
        }
        let step = step.as_secs_f64();
        Ok(counts.iter().enumerate().map(|(n, count)| (n as f64 * step, f64::from(*count) / step)).collect())
    }
}

fn percentile(sorted: &[u64], percent: f64) -> f64 {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1] as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_read() {
        let done = parse("1 7 2500 0 1700000000 250").expect("a line");
        assert_eq!(done, Done { at: Duration::new(1_700_000_000, 250_000), micros: 2500 });
        assert_eq!(parse("1 7 failed 0 1700000000 250"), None);
    }

    #[test]
    fn percentiles_and_the_curve_count_every_transaction() {
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let done =
            (0..100).map(|n| Done { at: Duration::from_millis(100_000 + 10 * n), micros: 1000 * (n + 1) });
        let run = Run { done: done.collect(), seconds: 1.0 };
        assert_eq!((run.percentile(50.0), run.percentile(99.0), run.percentile(100.0)), (50.0, 99.0, 100.0));
        let curve = run.curve(begin, Duration::from_millis(250)).expect("after the epoch");
        assert_eq!(curve, [(0.0, 100.0), (0.25, 100.0), (0.5, 100.0)], "the last step is not whole");
        assert_eq!(run.details()["up_to_us"]["1024"], 1);
    }
}
