//! B1 and B3: pgbench's SELECTs, beside a vanilla Postgres. B1 has all data in shared buffers; B3 has four times as much, which our
//! side reads from its local file cache and the peer from the page cache of the system.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::Size;
use crate::peer::Single;
use crate::report::{Row, load_average, progress};
use crate::server::{Server, Side, alternate, start_ours};

const WARM_UP_SECONDS: u32 = 5;
const CLIENTS: [u32; 2] = [1, 8];
/// In the long size.
const MANY_CLIENTS: [u32; 4] = [1, 8, 16, 64];
/// Larger than all data.
const CACHE: [&str; 4] = ["--set", "strata.lfc_max_size=4GB", "--set", "strata.lfc_size_limit=4GB"];

/// What is measured, and where the data lies.
struct Case {
    id: &'static str,
    name: &'static str,
    note: &'static str,
    shared_buffers: &'static str,
    scale: u32,
}

pub fn run(vanilla: &Path, size: Size) -> Result<Vec<Row>> {
    let in_buffers = Case {
        id: "B1",
        name: "pgbench -S in shared buffers",
        note: "peer: vanilla alone; both have all data in shared buffers",
        shared_buffers: "512MB",
        scale: size.scale,
    };
    let in_cache = Case {
        id: "B3",
        name: "pgbench -S, 4 x shared buffers",
        note: "ours from the local file cache, all data in it; peer: vanilla alone, from the system's page cache",
        // A scale is about 15 MB.
        shared_buffers: if size.large_scale > 50 { "256MB" } else { "128MB" },
        scale: size.large_scale,
    };
    let mut rows = measure(vanilla, size, &in_buffers)?;
    rows.extend(measure(vanilla, size, &in_cache)?);
    Ok(rows)
}

fn measure(vanilla: &Path, size: Size, case: &Case) -> Result<Vec<Row>> {
    progress(&format!("{}: filling both with pgbench's scale {}", case.id, case.scale));
    let settings = [("shared_buffers", case.shared_buffers), ("autovacuum", "off")];
    let single = Single::start(vanilla, &settings)?;
    let (_whole, compute) = start_ours(&settings, &CACHE)?;
    let peer = Server { clients: single.installation(), connstr: single.connstr() };
    let ours = Server { clients: single.installation(), connstr: compute.connstr.clone() };
    for server in [&peer, &ours] {
        server.fill(case.scale)?;
        server.sql("VACUUM")?;
        server.sql("CHECKPOINT")?;
        server.read_all()?;
        server.read_all()?;
        server.tps(&["-S"], 8, WARM_UP_SECONDS)?;
    }
    ours.sql("CREATE EXTENSION IF NOT EXISTS strata")?;
    let mut rows = Vec::new();
    let many = if size.round_seconds > 10 { &MANY_CLIENTS[..] } else { &CLIENTS[..] };
    for &clients in many {
        let load = load_average();
        let before = requests(&ours)?;
        let pairs = alternate(size.rounds, |side| {
            let server = if side == Side::Ours { &ours } else { &peer };
            server.tps(&["-S"], clients, size.round_seconds)
        })?;
        let after = requests(&ours)?;
        for pair in &pairs {
            progress(&format!("{} clients: ours {:.0}, peer {:.0} tps", clients, pair.ours, pair.peer));
        }
        let rounds: Vec<[f64; 2]> = pairs.iter().map(|pair| [pair.ours, pair.peer]).collect();
        let details = json!({
            "rounds": rounds, "round_seconds": size.round_seconds, "load_average_before": load,
            "cache_before": before, "cache_after": after,
        });
        let name = format!("{}, {clients} clients, scale {}", case.name, case.scale);
        let id = format!("{}.{clients}", case.id);
        rows.push(Row::compared(&id, name, "tps", &pairs).note(case.note).details(details));
    }
    Ok(rows)
}

/// Hits and misses of the local file cache until now.
fn requests(ours: &Server<'_>) -> Result<Value> {
    let text = ours.sql("SELECT row_to_json(s) FROM strata_stat_file_cache s")?;
    ensure!(!text.is_empty(), "the compute has no statistics of its file cache");
    Ok(serde_json::from_str(&text)?)
}
