//! C3 and C4: what single reads take, not how many there are. C3: pgbench's SELECTs over numbers of clients, data four times shared
//! buffers, ours in the local file cache, beside vanilla with its data in the system's page cache; a plot. C4: the same without our cache, so
//! that pages come from the pageserver, whose answers are late by some milliseconds (a relay).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use strata_regress::slow_pages::SlowPages;
use strata_regress::whole::{self, Whole};

use crate::peer::Single;
use crate::plot::{Chart, Series};
use crate::report::{Pair, Row, load_average, progress};
use crate::server::{Server, Side, alternate};
use crate::{Size, latency};

const CLIENTS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
const FAR_CLIENTS: u32 = 4;
const DELAYS_MS: [u64; 3] = [0, 1, 5];
const WARM_UP_SECONDS: u32 = 3;

/// Both sides, filled.
struct Sides {
    whole: Whole,
    slow: SlowPages,
    ours: String,
    peer: Single,
}

impl Sides {
    fn start(vanilla: &Path, size: Size, cache: &str, shared_buffers: &str) -> Result<Sides> {
        let settings = [("shared_buffers", shared_buffers), ("autovacuum", "off")];
        let peer = Single::start(vanilla, &settings)?;
        let whole = Whole::started()?;
        let slow = SlowPages::before(&whole)?;
        let sets: Vec<String> = settings.map(|(name, value)| format!("{name}={value}")).to_vec();
        let cache = format!("strata.lfc_max_size={cache}");
        let sets = sets.iter().map(String::as_str).chain([cache.as_str(), "max_connections=100"]);
        let ours = whole.start_compute("bench", &whole::sets(sets))?.connstr;
        for connstr in [peer.connstr(), ours.clone()] {
            let server = Server { clients: peer.installation(), connstr };
            server.fill(size.large_scale)?;
            server.sql("VACUUM")?;
            server.sql("CHECKPOINT")?;
            server.read_all()?;
            server.read_all()?;
            server.tps(&["-S"], 8, WARM_UP_SECONDS)?;
        }
        Ok(Sides { whole, slow, ours, peer })
    }

    /// Rounds of a number of clients: p99 of each, and the last round's details of both sides.
    fn measure(&self, clients: u32, size: Size, percent: f64) -> Result<(Vec<Pair>, Value)> {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        let pairs = alternate(size.rounds, |side| {
            let (connstr, details) = match side {
                Side::Ours => (self.ours.clone(), &mut ours),
                Side::Peer => (self.peer.connstr(), &mut peer),
            };
            let run = latency::run(&self.whole, &connstr, clients, size.latency_seconds)?;
            details.push(run.details());
            Ok(run.percentile(percent))
        })?;
        Ok((pairs, json!({ "ours": ours, "peer": peer })))
    }
}

/// The median over rounds of one value of the details.
fn median_of(details: &Value, side: &str, key: &str) -> Result<f64> {
    let rounds = details[side].as_array().context("rounds")?;
    let values = rounds.iter().map(|round| round[key].as_f64().context("a number"));
    Ok(Row::alone("", "", "", &values.collect::<Result<Vec<f64>>>()?).ours)
}

fn in_short(details: &Value) -> Result<String> {
    let side = |side: &str| -> Result<String> {
        let of = |key: &str| median_of(details, side, key);
        Ok(format!(
            "p50 {}, p95 {}, p99 {}, max {} ms, {} tps",
            of("p50_ms")?,
            of("p95_ms")?,
            of("p99_ms")?,
            of("max_ms")?,
            of("tps")?
        ))
    };
    Ok(format!("ours {}; peer {}", side("ours")?, side("peer")?))
}

pub fn near(vanilla: &Path, out: &Path, size: Size) -> Result<Vec<Row>> {
    progress("C3: filling both for latencies over numbers of clients");
    let shared_buffers = if size.large_scale > 50 { "256MB" } else { "128MB" };
    let sides = Sides::start(vanilla, size, "4GB", shared_buffers)?;
    let (mut rows, mut lines) = (Vec::new(), [const { Vec::new() }; 4]);
    for clients in CLIENTS {
        let load = load_average();
        let (pairs, mut details) = sides.measure(clients, size, 99.0)?;
        let short = in_short(&details)?;
        progress(&format!("C3, {clients} clients: {short}"));
        for (line, (side, key)) in lines.iter_mut().zip([
            ("ours", "p50_ms"),
            ("ours", "p99_ms"),
            ("peer", "p50_ms"),
            ("peer", "p99_ms"),
        ]) {
            line.push((f64::from(clients).log2(), median_of(&details, side, key)?));
        }
        details["load_average_before"] = json!(load);
        details["round_seconds"] = json!(size.latency_seconds);
        let name = format!("pgbench -S, 4 x shared buffers, p99, {clients} clients");
        rows.push(Row::compared(&format!("C3.{clients}"), name, "ms", &pairs).note(short).details(details));
    }
    draw(out, lines)?;
    Ok(rows)
}

fn draw(out: &Path, lines: [Vec<(f64, f64)>; 4]) -> Result<()> {
    let names = [
        ("ours, p50", "#7fa8d8"),
        ("ours, p99", "#1f5fa8"),
        ("vanilla, p50", "#e0a09d"),
        ("vanilla, p99", "#c0504d"),
    ];
    let series = names.iter().zip(lines).map(|((name, colour), points)| Series { name, points, colour });
    let chart = Chart {
        title: "pgbench -S, data four times shared buffers: what a SELECT takes".to_owned(),
        x_name: "clients, powers of two",
        y_name: "ms",
        series: series.collect(),
    };
    chart.save("C3", out, "read-latency.svg")
}

pub fn far(vanilla: &Path, size: Size) -> Result<Vec<Row>> {
    progress("C4: filling both for reads of pages that are not cached");
    let sides = Sides::start(vanilla, size, "0", "16MB")?;
    let mut rows = Vec::new();
    for delay in DELAYS_MS {
        sides.slow.delay(Duration::from_millis(delay));
        let load = load_average();
        let (pairs, mut details) = sides.measure(FAR_CLIENTS, size, 50.0)?;
        let short = in_short(&details)?;
        progress(&format!("C4, {delay} ms: {short}"));
        details["load_average_before"] = json!(load);
        details["round_seconds"] = json!(size.latency_seconds);
        let name =
            format!("pgbench -S without file cache, answers {delay} ms late, p50, {FAR_CLIENTS} clients");
        let note = format!("peer: vanilla from the system's page cache; {short}");
        rows.push(Row::compared(&format!("C4.{delay}ms"), name, "ms", &pairs).note(note).details(details));
    }
    Ok(rows)
}
