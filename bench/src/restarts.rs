//! C2: how long a compute needs after its start until it is as fast as before: with the local file cache that a clean stop kept, after
//! `kill -9` with prewarming, and without a cache. The data is several times shared buffers and fits the cache; answers of the
//! pageserver come a millisecond late, as from another machine (a relay). Ours alone: what is asked is what a kept cache is worth.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;
use strata_regress::slow_pages::SlowPages;
use strata_regress::whole::{Compute, Whole, processes_in, sets, wait_until};

use crate::plot::{Chart, Series};
use crate::report::{Row, load_average, progress};
use crate::{Size, interrupt, latency};

const CLIENTS: u32 = 8;
const DELAY: Duration = Duration::from_millis(1);
const STEP: Duration = Duration::from_millis(100);
/// As fast as before: the mean of so many steps is so many hundredths of the former throughput.
const STEPS: usize = 5;
const PERCENT: f64 = 90.0;
const SETTINGS: [&str; 5] = [
    "shared_buffers=32MB",
    "autovacuum=off",
    "strata.lfc_max_size=4GB",
    // Else the list of pages for prewarming is up to a minute old.
    "strata.keeper_interval=500ms",
    "checkpoint_timeout=1h",
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Kept,
    Prewarmed,
    Cold,
}

/// In the order of the plot: id, name, colour.
const WAYS: [(Way, &str, &str, &str); 3] = [
    (Way::Kept, "C2.kept", "clean stop, file cache kept", "#1f5fa8"),
    (Way::Prewarmed, "C2.prewarmed", "kill -9, prewarmed", "#3a8f4d"),
    (Way::Cold, "C2.cold", "clean stop, file cache removed", "#c0504d"),
];

/// One restart: seconds from the command to the former throughput, if it came back, and throughput since the command.
struct Restart {
    back: Option<f64>,
    curve: Vec<(f64, f64)>,
}

impl Restart {
    /// Transactions a second of the run's last two seconds.
    fn in_the_end(&self) -> f64 {
        let last = &self.curve[self.curve.len().saturating_sub(20)..];
        last.iter().map(|step| step.1).sum::<f64>() / last.len().max(1) as f64
    }

    /// One that did not come back counts as long as was waited.
    fn seconds(&self) -> f64 {
        self.back.or_else(|| Some(self.curve.last()?.0)).unwrap_or_default()
    }
}

fn compute(whole: &Whole) -> Result<Compute> {
    whole.start_compute("restarts", &sets(SETTINGS))
}

/// Brings every page into the cache, and says how fast the load is then.
fn former(whole: &Whole, compute: &Compute, seconds: u32) -> Result<f64> {
    for _ in 0..2 {
        whole.sql(
            &compute.connstr,
            "SELECT pg_prewarm(oid) FROM pg_class WHERE relname LIKE 'pgbench%' AND relkind IN ('r', 'i')",
        )?;
    }
    Ok(latency::run(whole, &compute.connstr, CLIENTS, seconds)?.tps())
}

fn kill(whole: &Whole, compute: &Compute) -> Result<()> {
    // The keeper writes down which pages the cache has every so many of its rounds.
    let rounds =
        || -> Result<u64> { Ok(whole.sql(&compute.connstr, "SELECT rounds FROM strata_keeper()")?.parse()?) };
    let begun = rounds()?;
    wait_until("the list of the cache's pages is written", || {
        interrupt::check()?;
        Ok(rounds()? > begun + 12)
    })?;
    killpg(Pid::from_raw(compute.pgid), Signal::SIGKILL)?;
    wait_until("its processes are gone", || Ok(processes_in(&compute.pgdata)?.is_empty()))
}

fn restart(
    whole: &Whole,
    running: &Compute,
    way: Way,
    former: f64,
    seconds: u32,
) -> Result<(Compute, Restart)> {
    if way == Way::Prewarmed {
        kill(whole, running)?;
    } else {
        whole.stop_compute("restarts")?.context("a clean stop")?;
    }
    if way == Way::Cold {
        std::fs::remove_dir_all(running.pgdata.with_file_name("cache"))?;
    }
    let begin = SystemTime::now();
    let compute = compute(whole)?;
    let load = latency::start(whole, &compute.connstr, CLIENTS, seconds)?;
    if way == Way::Prewarmed {
        whole.sql(&compute.connstr, "SELECT strata_lfc_prewarm()")?;
    }
    let curve = load.finish()?.curve(begin, STEP)?;
    Ok((compute, Restart { back: back(&curve, former), curve }))
}

/// When the first steps begin that are as fast as before.
fn back(curve: &[(f64, f64)], former: f64) -> Option<f64> {
    let fast = |steps: &&[(f64, f64)]| {
        steps.iter().map(|step| step.1).sum::<f64>() >= former * PERCENT / 100.0 * STEPS as f64
    };
    curve.windows(STEPS).find(fast).map(|steps| steps[0].0)
}

/// Means of some steps each, so that the plot can be read.
fn smooth(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |steps: &[(f64, f64)]| {
        (steps[steps.len() / 2].0, steps.iter().map(|step| step.1).sum::<f64>() / steps.len() as f64)
    };
    curve.chunks(2).map(mean).collect()
}

pub fn run(out: &Path, size: Size) -> Result<Vec<Row>> {
    progress(&format!("C2: filling a table of scale {} for restarts", size.restart_scale));
    let whole = Whole::started()?;
    let slow = SlowPages::before(&whole)?;
    let mut running = compute(&whole)?;
    strata_regress::tpcb::fill(&whole, &running, size.restart_scale)?;
    whole.sql(
        &running.connstr,
        "CREATE EXTENSION pg_prewarm; CREATE EXTENSION IF NOT EXISTS strata; ALTER TABLE pgbench_accounts SET (autovacuum_enabled = off)",
    )?;
    whole.sql(&running.connstr, "VACUUM")?;
    let bytes: f64 = whole.sql(&running.connstr, "SELECT pg_database_size('postgres')")?.parse()?;
    slow.delay(DELAY);
    let load = load_average();
    let mut restarts: [Vec<Restart>; 3] = Default::default();
    let mut before = Vec::new();
    for round in 0..size.restarts as usize {
        for turn in 0..WAYS.len() {
            let at = (turn + round) % WAYS.len();
            let tps = former(&whole, &running, size.round_seconds)?;
            let way = WAYS[at].0;
            // What a cache is worth shows soon.
            let seconds = if way == Way::Cold { size.restart_seconds } else { size.restart_seconds / 3 };
            let seen;
            (running, seen) = restart(&whole, &running, way, tps, seconds)?;
            let told =
                seen.back.map_or_else(|| "not back".to_owned(), |back| format!("back after {back:.1} s"));
            let id = WAYS[at].1;
            progress(&format!("{id}: {tps:.0} tps before, {told}, {:.0} tps in the end", seen.in_the_end()));
            before.push(tps);
            restarts[at].push(seen);
        }
    }
    let rows = rows(&restarts, &before, bytes / 1e6, &load);
    draw(out, &restarts, bytes / 1e6)?;
    Ok(rows)
}

fn median(values: &[f64]) -> f64 {
    Row::alone("", "", "", values).ours
}

fn rows(restarts: &[Vec<Restart>; 3], before: &[f64], megabytes: f64, load: &str) -> Vec<Row> {
    let times = restarts.each_ref().map(|all| all.iter().map(Restart::seconds).collect::<Vec<f64>>());
    let cold = median(&times[2]);
    WAYS.iter()
        .zip(&times)
        .zip(restarts)
        .map(|(((way, id, what, _), times), all)| {
            let name = format!("{what}: to {PERCENT} % of the former tps, {megabytes:.0} MB");
            let part = median(times) / cold;
            let late = all.iter().filter(|one| one.back.is_none()).count();
            let note = match way {
                _ if late > 0 => {
                    format!("{late} of {} were not back within the time that is waited", all.len())
                }
                Way::Cold => "answers of the pageserver 1 ms late; shared buffers 32 MB".to_owned(),
                _ => format!("{part:.3} of the cold one's time; answers of the pageserver 1 ms late"),
            };
            let curves: Vec<_> = all.iter().map(|one| &one.curve).collect();
            let details = json!({
                "clients": CLIENTS, "former_tps": before, "part_of_cold": part, "pageserver_delay_ms": 1,
                "step_ms": STEP.as_millis() as u64, "since_start_s_tps": curves,
                "tps_in_the_end": all.iter().map(Restart::in_the_end).collect::<Vec<_>>(), "load_average_before": load,
            });
            Row::alone(id, name, "s", times).note(note).details(details)
        })
        .collect()
}

/// The last round's curves.
fn draw(out: &Path, restarts: &[Vec<Restart>; 3], megabytes: f64) -> Result<()> {
    let series = WAYS.iter().zip(restarts).filter_map(|((_, _, name, colour), all)| {
        Some(Series { name, points: smooth(&all.last()?.curve), colour })
    });
    let chart = Chart {
        title: format!(
            "pgbench -S after a start: {megabytes:.0} MB, pageserver 1 ms away, {CLIENTS} clients"
        ),
        x_name: "seconds since 'strata compute start'",
        y_name: "tps",
        series: series.collect(),
    };
    chart.save("C2", out, "restart.svg")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_is_when_the_first_fast_steps_begin() {
        let curve: Vec<(f64, f64)> =
            (0..20).map(|n| (f64::from(n), if n < 7 { 10.0 } else { 95.0 })).collect();
        assert_eq!(back(&curve, 100.0), Some(7.0));
        assert_eq!(back(&curve, 50.0), Some(5.0), "the mean of five");
        assert_eq!(back(&curve, 200.0), None);
    }
}
