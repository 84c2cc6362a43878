//! Throughput and hit ratio of pgbench's SELECTs over sizes of the local file cache, from half to one and a half of what is read;
//! a plot beside the other results. Ours alone: what is asked is what a size of the cache is worth.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use strata_regress::whole::{self, Whole};

use crate::plot::{Chart, Series};
use crate::report::{Row, load_average, progress};
use crate::{Size, interrupt};

/// In percent of the bytes of pgbench's tables and indexes.
const PERCENT: [u64; 7] = [50, 65, 80, 95, 110, 130, 150];
const CLIENTS: &str = "4";

/// Transactions a second and the part of the cache's look-ups that found something, in percent.
fn point(whole: &Whole, percent: u64, megabytes: u64, size: Size) -> Result<(f64, f64)> {
    interrupt::check()?;
    let cache = (megabytes * percent / 100).max(1);
    let sets = [
        "shared_buffers=32MB".to_owned(),
        "autovacuum=off".to_owned(),
        format!("strata.lfc_max_size={cache}MB"),
        format!("strata.lfc_size_limit={cache}MB"),
    ];
    let compute = whole.start_compute("sweep", &whole::sets(sets.iter().map(String::as_str)))?;
    let select = |seconds: u32| {
        let seconds = seconds.to_string();
        let arguments =
            ["-n", "-S", "-M", "prepared", "-c", CLIENTS, "-j", "2", "-T", &seconds, &compute.connstr];
        whole.run("pgbench", &arguments)
    };
    // Every page twice, then the load itself.
    for _ in 0..2 {
        whole.sql(
            &compute.connstr,
            "SELECT pg_prewarm(oid) FROM pg_class WHERE relname LIKE 'pgbench%' AND relkind IN ('r', 'i')",
        )?;
    }
    select(size.round_seconds)?;
    let counters = || -> Result<(f64, f64)> {
        let sql = "SELECT file_cache_hits, file_cache_misses FROM strata_stat_file_cache";
        let row = whole.sql(&compute.connstr, sql)?;
        let (hits, misses) = row.split_once('|').context("hits and misses")?;
        Ok((hits.parse()?, misses.parse()?))
    };
    let before = counters()?;
    let text = select(size.round_seconds)?;
    let after = counters()?;
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let tps: f64 = tps.and_then(|line| line.split(' ').next()).context("pgbench printed no tps")?.parse()?;
    let (hits, misses) = (after.0 - before.0, after.1 - before.1);
    whole.stop_compute("sweep")?;
    Ok((tps, 100.0 * hits / (hits + misses).max(1.0)))
}

pub fn run(out: &Path, size: Size) -> Result<Vec<Row>> {
    progress("C1: filling a table for a sweep over the cache's size");
    let whole = Whole::started()?;
    let compute = whole.start_compute("sweep", &["--set", "strata.lfc_max_size=0"])?;
    strata_regress::tpcb::fill(&whole, &compute, size.large_scale)?;
    whole.sql(&compute.connstr, "CREATE EXTENSION pg_prewarm; CREATE EXTENSION IF NOT EXISTS strata")?;
    whole.sql(&compute.connstr, "VACUUM")?;
    let sum = "SELECT sum(pg_relation_size(oid)) / 1048576 FROM pg_class WHERE relname LIKE 'pgbench%' AND relkind IN ('r', 'i')";
    let megabytes: f64 = whole.sql(&compute.connstr, sum)?.parse()?;
    whole.stop_compute("sweep")?;
    let mut rows = Vec::new();
    let (mut tps, mut hits) = (Vec::new(), Vec::new());
    for percent in PERCENT {
        let load = load_average();
        let mut rounds = Vec::new();
        for _ in 0..size.sweeps {
            let seen = point(&whole, percent, megabytes as u64, size)?;
            progress(&format!("C1: cache of {percent} %: {:.0} tps, {:.1} % hits", seen.0, seen.1));
            rounds.push(seen);
        }
        let found = rounds.iter().map(|seen| seen.1).sum::<f64>() / rounds.len() as f64;
        hits.push((percent as f64, found));
        let name = format!("pgbench -S, {CLIENTS} clients, cache of {percent} % of {megabytes:.0} MB");
        let details = json!({ "hit_percent": found, "load_average_before": load });
        let all: Vec<f64> = rounds.iter().map(|seen| seen.0).collect();
        let row = Row::alone(&format!("C1.{percent}"), name, "tps", &all).details(details);
        tps.push((percent as f64, row.ours));
        rows.push(row);
    }
    let most = tps.iter().map(|point| point.1).fold(0.0, f64::max);
    let relative = tps.iter().map(|(x, y)| (*x, 100.0 * y / most)).collect();
    let chart = Chart {
        title: format!(
            "pgbench -S, {megabytes:.0} MB, 32 MB of shared buffers: size of the local file cache"
        ),
        x_name: "size of the cache, % of the data",
        y_name: "%",
        series: vec![
            Series { name: "throughput, % of the best", points: relative, colour: "#1f5fa8" },
            Series { name: "found in the cache, %", points: hits, colour: "#c0504d" },
        ],
    };
    chart.save("C1", out, "lfc-size.svg")?;
    Ok(rows)
}
