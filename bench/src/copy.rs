//! B12: COPY of a file into a new table, beside a vanilla Postgres with two synchronous standbys. The time is of the whole command,
//! the commit included: then two of three have the log on disk, on both sides. One more COPY, not measured, is looked at (`waits`).

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;

use crate::peer::Replicated;
use crate::report::{Row, load_average, progress};
use crate::server::{Server, Side, alternate, start_ours};
use crate::{Size, interrupt, waits};

/// For both alike.
const SETTINGS: [(&str, &str); 4] = [
    ("shared_buffers", "256MB"),
    ("checkpoint_timeout", "1h"),
    ("max_wal_size", "8GB"),
    ("autovacuum", "off"),
];
/// One of the rows, about 100 bytes of text.
const ROWS: &str = "SELECT n, n * 7 % 1000003, md5(n::text), 'a row of the table ' || repeat('x', n % 40) FROM generate_series";
const ROW_BYTES: u64 = 86;

fn empty_table(server: &Server<'_>) -> Result<()> {
    interrupt::check()?;
    let sql = "DROP TABLE IF EXISTS copied; CREATE TABLE copied (n bigint, m bigint, hash text, filler text)";
    server.sql(sql).map(drop)
}

/// Seconds a COPY of the file into the empty table takes.
fn copy(server: &Server<'_>, file: &str) -> Result<f64> {
    let begin = Instant::now();
    server.sql(&format!("COPY copied FROM '{file}'"))?;
    Ok(begin.elapsed().as_secs_f64())
}

pub fn run(vanilla: &Path, size: Size) -> Result<Vec<Row>> {
    progress("B12: starting vanilla with two standbys, and Strata");
    let replicated = Replicated::start(vanilla, &SETTINGS)?;
    let (_whole, compute) = start_ours(&SETTINGS, &[])?;
    let peer = Server { clients: replicated.installation(), connstr: replicated.connstr() };
    let ours = Server { clients: replicated.installation(), connstr: compute.connstr.clone() };
    // Where a server's own user may write.
    let file = peer.sql("SELECT current_setting('data_directory')")? + "/rows.copy";
    let rows = size.copy_megabytes * 1_000_000 / ROW_BYTES;
    peer.sql(&format!("COPY ({ROWS}(1, {rows}) AS n) TO '{file}'"))?;
    let bytes = peer.sql(&format!("SELECT size FROM pg_stat_file('{file}')"))?;
    let megabytes = bytes.parse::<f64>().context("a file has a size")? / 1e6;
    for server in [&peer, &ours] {
        empty_table(server)?;
        copy(server, &file)?;
    }
    let load = load_average();
    let pairs = alternate(size.rounds, |side| {
        let server = if side == Side::Ours { &ours } else { &peer };
        empty_table(server)?;
        Ok(megabytes / copy(server, &file)?)
    })?;
    for pair in &pairs {
        progress(&format!("B12: ours {:.1}, peer {:.1} MB/s", pair.ours, pair.peer));
    }
    let waits = |server: &Server<'_>| {
        empty_table(server)?;
        waits::during(&server.connstr, || copy(server, &file).map(|_| ()))
    };
    let details = json!({
        "waits": { "ours": waits(&ours)?, "peer": waits(&peer)? },
        "rounds": pairs.iter().map(|pair| [pair.ours, pair.peer]).collect::<Vec<_>>(), "load_average_before": load,
    });
    let name = format!("COPY of {megabytes:.0} MB into a new table");
    let note = "peer: vanilla with 2 synchronous standbys ANY 1, fsync on everywhere; file in the page cache";
    Ok(vec![Row::compared("B12", name, "MB/s", &pairs).note(note).details(details)])
}
