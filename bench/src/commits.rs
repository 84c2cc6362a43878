//! B2: transactions a second of pgbench's TPC-B with 1, 8 and 16 clients, beside a vanilla Postgres with two synchronous standbys.
//!
//! The same pgbench drives both over loopback TCP, one after the other in alternating order; all data is in shared buffers, and no
//! checkpoint falls into a round.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::Size;
use crate::peer::Replicated;
use crate::report::{Row, load_average, progress};
use crate::server::{Server, Side, alternate, start_ours};

const CLIENTS: [u32; 3] = [1, 8, 16];
const WARM_UP_SECONDS: u32 = 5;
/// For both alike. More than the data needs, and no checkpoint in between.
const SETTINGS: [(&str, &str); 3] =
    [("shared_buffers", "512MB"), ("checkpoint_timeout", "1h"), ("max_wal_size", "8GB")];

/// Makes pgbench's tables and brings them into shared buffers.
fn fill(server: &Server<'_>, scale: u32) -> Result<()> {
    server.fill(scale)?;
    server.read_all()?;
    server.sql("CHECKPOINT")?;
    // With full_page_writes the first change of a page after a checkpoint logs all of it. In a long run that is rare, so it is
    // done with before the rounds: every row is locked, which changes every page and no row.
    server.sql("SELECT count(*) FROM (SELECT 1 FROM pgbench_accounts FOR UPDATE) AS locked")?;
    Ok(())
}

pub fn run(vanilla: &Path, size: Size) -> Result<Vec<Row>> {
    progress("B2: starting vanilla with two standbys, and Strata");
    let replicated = Replicated::start(vanilla, &SETTINGS)?;
    let (_whole, compute) = start_ours(&SETTINGS, &[])?;
    let peer = Server { clients: replicated.installation(), connstr: replicated.connstr() };
    let ours = Server { clients: replicated.installation(), connstr: compute.connstr.clone() };
    for server in [&peer, &ours] {
        fill(server, size.scale)?;
    }
    for server in [&peer, &ours] {
        server.tps(&[], 8, WARM_UP_SECONDS)?;
    }
    let mut rows = Vec::new();
    for clients in CLIENTS {
        let load = load_average();
        let pairs = alternate(size.rounds, |side| {
            let server = if side == Side::Ours { &ours } else { &peer };
            server.tps(&[], clients, size.round_seconds)
        })?;
        for pair in &pairs {
            progress(&format!("{clients} clients: ours {:.0}, peer {:.0} tps", pair.ours, pair.peer));
        }
        let name = format!(
            "pgbench TPC-B, {clients} client{}, scale {}",
            if clients == 1 { "" } else { "s" },
            size.scale
        );
        let rounds: Vec<[f64; 2]> = pairs.iter().map(|pair| [pair.ours, pair.peer]).collect();
        let details =
            json!({ "rounds": rounds, "round_seconds": size.round_seconds, "load_average_before": load });
        rows.push(
            Row::compared(&format!("B2.{clients}"), name, "tps", &pairs)
                .note("peer: vanilla with 2 synchronous standbys ANY 1, fsync on everywhere")
                .details(details),
        );
    }
    Ok(rows)
}
