//! I6: what it is worth to spin for a page that comes soon, beside sleeping at once, on the same server: pgbench's SELECTs of pages that
//! only the pageserver has, with one client and with four. Spinning takes the processor from those who bring the page, so few cores
//! show it at its worst.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use strata_regress::tpcb;
use strata_regress::whole::{Compute, Whole};

use crate::report::{Row, load_average, progress};
use crate::server::{Side, alternate, start_ours};
use crate::{Size, latency};

const CLIENTS: [u32; 2] = [1, 4];
/// More than an answer over loopback takes, which is more than the setting's default.
const SPINS: &str = "500";
const SLEEPS: &str = "0";
const WARM_UP_SECONDS: u32 = 3;

/// What sessions of a run are told.
fn told(compute: &Compute, limit: &str) -> String {
    format!("{}?options=-c%20strata.spin_limit%3D{limit}", compute.connstr)
}

fn spins(whole: &Whole, compute: &Compute) -> Result<Value> {
    let text = whole.sql(&compute.connstr, "SHOW strata.counters")?;
    let counters: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    Ok(json!({ "answered": counters["spins_answered"], "in_vain": counters["spins_in_vain"] }))
}

/// The median over rounds of what half of the transactions kept to.
fn median(rounds: &[f64]) -> f64 {
    Row::alone("", "", "", rounds).ours
}

pub fn run(size: Size) -> Result<Vec<Row>> {
    progress("I6: filling a table that is on the pageserver only");
    let settings = [("shared_buffers", "16MB"), ("autovacuum", "off"), ("strata.lfc_max_size", "0")];
    let (whole, compute) = start_ours(&settings, &[])?;
    tpcb::fill(&whole, &compute, size.large_scale)?;
    whole.sql(&compute.connstr, "VACUUM pgbench_accounts")?;
    whole.sql(&compute.connstr, "CHECKPOINT")?;
    latency::run(&whole, &told(&compute, SLEEPS), 4, WARM_UP_SECONDS)?;
    let mut rows = Vec::new();
    for clients in CLIENTS {
        let (load, before) = (load_average(), spins(&whole, &compute)?);
        let (mut awake, mut asleep, mut details) = (Vec::new(), Vec::new(), Vec::new());
        let pairs = alternate(size.rounds, |side| {
            let (limit, p50s) = match side {
                Side::Ours => (SPINS, &mut awake),
                Side::Peer => (SLEEPS, &mut asleep),
            };
            let run = latency::run(&whole, &told(&compute, limit), clients, size.round_seconds)?;
            p50s.push(run.percentile(50.0));
            details.push(json!({ "spin_limit": limit, "run": run.details() }));
            Ok(run.tps())
        })?;
        let p50 = format!("p50 {} ms, sleeping {} ms", median(&awake), median(&asleep));
        for pair in &pairs {
            progress(&format!(
                "I6, {clients} clients: spinning {:.0}, sleeping {:.0} tps",
                pair.ours, pair.peer
            ));
        }
        let details = json!({
            "rounds": details, "round_seconds": size.round_seconds, "load_average_before": load,
            "spins_before": before, "spins_after": spins(&whole, &compute)?,
        });
        let name = format!("remote pages, spinning up to {SPINS} us or sleeping, {clients} clients");
        let note = format!("peer: the same server with strata.spin_limit = {SLEEPS}; {p50}");
        rows.push(Row::compared(&format!("I6.{clients}"), name, "tps", &pairs).note(note).details(details));
    }
    Ok(rows)
}
