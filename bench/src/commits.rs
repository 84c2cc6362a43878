//! B2: transactions a second of pgbench's TPC-B with 1, 8 and 16 clients, beside a vanilla Postgres with two synchronous standbys.
//!
//! The same pgbench drives both over loopback TCP, one after the other in alternating order; all data is in shared buffers, and no
//! checkpoint falls into a round.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use strata_regress::postgres::{Installation, run as run_program};
use strata_regress::whole::Whole;

use crate::peer::Replicated;
use crate::report::{Pair, Row, load_average, progress};
use crate::{Size, interrupt};

const CLIENTS: [u32; 3] = [1, 8, 16];
const WARM_UP_SECONDS: u32 = 5;
/// For both alike. More than the data needs, and no checkpoint in between.
const SETTINGS: [(&str, &str); 3] =
    [("shared_buffers", "512MB"), ("checkpoint_timeout", "1h"), ("max_wal_size", "8GB")];

/// A server, by what drives it and how it is reached.
struct Server<'a> {
    clients: &'a Installation,
    connstr: String,
}

impl Server<'_> {
    fn sql(&self, sql: &str) -> Result<String> {
        let mut psql = self.clients.command("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.connstr, "-c", sql]);
        run_program(&mut psql)
    }

    /// Makes pgbench's tables and brings them into shared buffers.
    fn fill(&self, scale: u32) -> Result<()> {
        run_program(self.clients.command("pgbench").args([
            "-i",
            "-q",
            "-s",
            &scale.to_string(),
            &self.connstr,
        ]))?;
        self.sql("CREATE EXTENSION pg_prewarm")?;
        self.sql(
            "SELECT pg_prewarm(oid) FROM pg_class WHERE relname LIKE 'pgbench%' AND relkind IN ('r', 'i')",
        )?;
        self.sql("CHECKPOINT")?;
        // With full_page_writes the first change of a page after a checkpoint logs all of it. In a long run that is rare, so it is
        // done with before the rounds: every row is locked, which changes every page and no row.
        self.sql("SELECT count(*) FROM (SELECT 1 FROM pgbench_accounts FOR UPDATE) AS locked")?;
        Ok(())
    }

    /// One run; transactions a second without the time of connecting.
    fn tps(&self, clients: u32, seconds: u32) -> Result<f64> {
        interrupt::check()?;
        let threads = clients.min(2).to_string();
        let (clients, seconds) = (clients.to_string(), seconds.to_string());
        let mut pgbench = self.clients.command("pgbench");
        pgbench.args(["-n", "-M", "prepared", "-c", &clients, "-j", &threads, "-T", &seconds, &self.connstr]);
        let text = run_program(&mut pgbench)?;
        let line = text.lines().find_map(|line| line.strip_prefix("tps = "));
        let number = line.and_then(|line| line.split(' ').next()).context("pgbench printed no tps")?;
        Ok(number.parse()?)
    }
}

pub fn run(vanilla: &Path, size: Size) -> Result<Vec<Row>> {
    progress("B2: starting vanilla with two standbys, and Strata");
    let replicated = Replicated::start(vanilla, &SETTINGS)?;
    let whole = Whole::started()?;
    let sets = SETTINGS.map(|(name, value)| format!("{name}={value}"));
    let arguments: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let compute = whole.start_compute("bench", &arguments)?;
    let peer = Server { clients: replicated.installation(), connstr: replicated.connstr() };
    let ours = Server { clients: replicated.installation(), connstr: compute.connstr.clone() };
    for server in [&peer, &ours] {
        server.fill(size.scale)?;
    }
    for server in [&peer, &ours] {
        server.tps(8, WARM_UP_SECONDS)?;
    }
    let mut rows = Vec::new();
    for clients in CLIENTS {
        let load = load_average();
        let mut pairs = Vec::new();
        for round in 0..size.rounds {
            let pair = if round % 2 == 0 {
                let ours = ours.tps(clients, size.round_seconds)?;
                Pair { ours, peer: peer.tps(clients, size.round_seconds)? }
            } else {
                let peer = peer.tps(clients, size.round_seconds)?;
                Pair { ours: ours.tps(clients, size.round_seconds)?, peer }
            };
            progress(&format!("{clients} clients: ours {:.0}, peer {:.0} tps", pair.ours, pair.peer));
            pairs.push(pair);
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
