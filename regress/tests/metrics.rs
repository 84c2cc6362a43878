//! What the pageserver's `/metrics` tells of a branch that is written and read, and what the registry knows of its Postgres.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use strata_common::Lsn;
use strata_regress::whole::{Whole, wait_until};

fn metrics(port: u64) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", u16::try_from(port)?))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The value of the first metric of that name whose labels hold `label`.
fn value(text: &str, name: &str, label: &str) -> Result<f64> {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let line = text.lines().filter(of_name).find(|line| line.contains(label));
    let line = line.with_context(|| format!("no {name} of '{label}' in:\n{text}"))?;
    Ok(line.rsplit(' ').next().context("a value")?.parse()?)
}

#[test]
fn the_pageserver_tells_of_its_timelines() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &["--set", "shared_buffers=1MB", "--set", "autovacuum=off"])?;
    whole.sql(
        &compute.connstr,
        "CREATE TABLE t AS SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n",
    )?;
    ensure!(whole.sql(&compute.connstr, "SELECT count(*) FROM t")? == "20000", "rows");
    let lsn: Lsn = whole.sql(&compute.connstr, "SELECT pg_current_wal_flush_lsn()")?.parse()?;
    let branch = whole.json(&["branch", "list"])?[0]["timeline_id"].as_str().context("an id")?.to_owned();
    let port = whole.node("pageservers", 1)?["http_port"].as_u64().context("a port")?;
    let of_branch = |text: &str, name: &str| value(text, &format!("strata_pageserver_{name}"), &branch);
    wait_until("the log is in and nothing lags", || {
        let text = metrics(port)?;
        let at = of_branch(&text, "last_record_lsn_bytes")?;
        Ok(at >= lsn.0 as f64 && of_branch(&text, "ingest_lag_bytes")? == 0.0)
    })?;
    let text = metrics(port)?;
    let stored = of_branch(&text, "remote_consistent_lsn_bytes")?;
    ensure!(stored > 0.0 && stored <= of_branch(&text, "last_record_lsn_bytes")?, "stored up to {stored}");
    ensure!(stored <= of_branch(&text, "disk_consistent_lsn_bytes")?, "the disk is behind the object store");
    ensure!(of_branch(&text, "image_layers")? >= 1.0, "the import made image layers");
    ensure!(of_branch(&text, "delta_layers")? >= 0.0 && of_branch(&text, "physical_bytes")? > 0.0, "layers");
    ensure!(
        of_branch(&text, "memory_bytes")? > 0.0 && of_branch(&text, "ingested_records")? > 20_000.0,
        "log"
    );
    ensure!(value(&text, "strata_pageserver_timelines", "state=\"active\"")? == 1.0, "{text}");
    ensure!(value(&text, "strata_pageserver_timelines", "state=\"parked\"")? == 0.0, "{text}");
    ensure!(value(&text, "strata_pageserver_getpage_seconds_count", "")? > 100.0, "reads are counted");

    // A data directory says only that it is of version 17: the tenant's version is its server's.
    let registry = std::fs::read_to_string(whole.dir().join("registry.json"))?;
    let version = whole.sql(&compute.connstr, "SHOW server_version_num")?;
    ensure!(registry.contains(&format!("\"pg_version_num\": {version}")), "no {version} in {registry}");
    Ok(())
}
