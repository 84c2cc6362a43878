//! C5: what is done to whole tables (CREATE TABLE AS, CREATE INDEX, ANALYZE, DELETE of a tenth, VACUUM, pg_dump), beside a vanilla Postgres
//! with two synchronous standbys. The table is larger than shared buffers; the local file cache holds it. COPY is B12 (`copy`). One more round,
//! which is not measured, looks at what each statement waits for (`waits`).

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::peer::Replicated;
use crate::report::{Pair, Row, load_average, progress};
use crate::server::{Server, Side, start_ours};
use crate::{Size, interrupt, waits};

/// For both alike.
const SETTINGS: [(&str, &str); 5] = [
    ("shared_buffers", "64MB"),
    ("maintenance_work_mem", "64MB"),
    ("checkpoint_timeout", "1h"),
    ("max_wal_size", "8GB"),
    ("autovacuum", "off"),
];

/// Ours only: large enough for all, as it mostly is by default.
const CACHE: [&str; 2] = ["--set", "strata.lfc_max_size=1GB"];

/// What is timed, in this order: each leaves what the next one needs.
const STEPS: [(&str, &str, &str); 7] = [
    ("ctas", "CREATE TABLE AS", "CREATE TABLE t AS SELECT * FROM base"),
    ("index", "CREATE INDEX on text", "CREATE INDEX t_hash ON t (hash)"),
    ("primary_key", "ADD PRIMARY KEY", "ALTER TABLE t ADD PRIMARY KEY (n)"),
    ("analyze", "ANALYZE", "ANALYZE t"),
    ("delete", "DELETE of every tenth row", "DELETE FROM t WHERE n % 10 = 0"),
    ("vacuum", "VACUUM after it", "VACUUM t"),
    ("dump", "pg_dump", ""),
];

fn dump(server: &Server<'_>) -> Result<()> {
    let mut program = server.clients.command("pg_dump");
    program.args(["--table", "t", "--dbname", &server.connstr]);
    ensure!(program.stdout(Stdio::null()).status()?.success(), "pg_dump failed");
    Ok(())
}

fn step(server: &Server<'_>, sql: &str) -> Result<()> {
    interrupt::check()?;
    if sql.is_empty() {
        return dump(server);
    }
    server.sql(sql).map(|_| ())
}

/// Does all steps; what `watch` says of each.
fn round<T>(server: &Server<'_>, watch: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    server.sql("DROP TABLE IF EXISTS t")?;
    STEPS.iter().map(|(_, _, sql)| watch(sql)).collect()
}

/// Seconds of each step.
fn timed(server: &Server<'_>) -> Result<Vec<f64>> {
    round(server, |sql| {
        let begin = Instant::now();
        step(server, sql)?;
        Ok(begin.elapsed().as_secs_f64())
    })
}

/// What each step waits for.
fn watched(server: &Server<'_>) -> Result<Vec<Value>> {
    round(server, |sql| waits::during(&server.connstr, || step(server, sql)))
}

pub fn run(vanilla: &Path, size: Size) -> Result<Vec<Row>> {
    progress("C5: starting vanilla with two standbys, and Strata");
    let replicated = Replicated::start(vanilla, &SETTINGS)?;
    let (_whole, compute) = start_ours(&SETTINGS, &CACHE)?;
    let peer = Server { clients: replicated.installation(), connstr: replicated.connstr() };
    let ours = Server { clients: replicated.installation(), connstr: compute.connstr.clone() };
    let rows = size.copy_megabytes * 8000;
    for server in [&peer, &ours] {
        server.sql(&format!(
            "CREATE TABLE base AS SELECT n, md5(n::text) AS hash, repeat('x', n % 60) AS filler FROM generate_series(1, {rows}) n"
        ))?;
        server.sql("VACUUM (FREEZE, ANALYZE) base")?;
    }
    let megabytes: f64 = ours.sql("SELECT pg_table_size('base') / 1e6")?.parse()?;
    let load = load_average();
    let mut pairs: Vec<Vec<Pair>> = vec![Vec::new(); STEPS.len()];
    for number in 0..size.rounds {
        let order = if number % 2 == 0 { [Side::Ours, Side::Peer] } else { [Side::Peer, Side::Ours] };
        let mut seconds = [Vec::new(), Vec::new()];
        for side in order {
            let (server, at) = if side == Side::Ours { (&ours, 0) } else { (&peer, 1) };
            seconds[at] = timed(server)?;
        }
        for (step, (id, ..)) in STEPS.iter().enumerate() {
            let (mine, theirs) = (seconds[0][step], seconds[1][step]);
            progress(&format!("C5.{id}: ours {mine:.2} s, peer {theirs:.2} s"));
            pairs[step].push(Pair { ours: megabytes / mine, peer: megabytes / theirs });
        }
    }
    let (waits, waits_of_peer) = (watched(&ours)?, watched(&peer)?);
    let rows = STEPS.iter().zip(&pairs).enumerate().map(|(step, ((id, name, _), pairs))| {
        let details = json!({
            "waits": { "ours": waits[step], "peer": waits_of_peer[step] },
            "rounds": pairs.iter().map(|pair| [pair.ours, pair.peer]).collect::<Vec<_>>(),
            "load_average_before": load,
        });
        let name = format!("{name}, table of {megabytes:.0} MB, shared buffers 64 MB");
        let note = "peer: vanilla with 2 synchronous standbys ANY 1, fsync on everywhere";
        Row::compared(&format!("C5.{id}"), name, "MB/s", pairs).note(note).details(details)
    });
    Ok(rows.collect())
}
