//! B4: how long a page takes that only the pageserver has, seen from SQL, beside an echo of 8 KiB over the same transport with nothing
//! behind it. Median of single requests, one at a time, at random places of a table that is in no cache of the compute.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use strata_regress::postgres::run as run_program;
use strata_regress::whole::{Compute, Whole, programs};

use crate::report::{Row, load_average, progress};
use crate::server::{Side, alternate};
use crate::{Size, interrupt};

/// Each asks for another random page: one row of each is read by its place.
const REQUESTS: u32 = 2_000;
/// So few that hardly a page is met twice.
const SETTINGS: [&str; 6] =
    ["--set", "shared_buffers=64MB", "--set", "strata.lfc_max_size=0", "--set", "autovacuum=off"];
/// Microseconds of reading a row at each of `requests` random places, or again and again at one place.
const TIMES: &str = "
    CREATE OR REPLACE FUNCTION page_times(requests int, is_random bool) RETURNS SETOF float8 LANGUAGE plpgsql AS $$
    DECLARE
        pages int := pg_relation_size('pgbench_accounts') / 8192 - 1;
        place tid;
        begun timestamptz;
    BEGIN
        FOR n IN 1..requests LOOP
            place := format('(%s,1)', CASE WHEN is_random THEN (random() * pages)::int ELSE 1 END)::tid;
            begun := clock_timestamp();
            PERFORM 1 FROM pgbench_accounts WHERE ctid = place;
            RETURN NEXT extract(epoch FROM clock_timestamp() - begun) * 1e6;
        END LOOP;
    END $$";

fn median(whole: &Whole, compute: &Compute, is_random: bool) -> Result<f64> {
    let sql = format!(
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY us) FROM page_times({REQUESTS}, {is_random}) AS us"
    );
    Ok(whole.sql(&compute.connstr, &sql)?.parse()?)
}

fn echo() -> Result<Value> {
    let mut command = Command::new(programs().join("examples/page_echo"));
    let text = run_program(&mut command).context("'make bench' builds the example")?;
    Ok(serde_json::from_str(&text)?)
}

pub fn run(size: Size) -> Result<Vec<Row>> {
    progress("B4: filling a table that is on the pageserver only");
    let whole = Whole::started()?;
    let compute = whole.start_compute("bench", &SETTINGS)?;
    strata_regress::tpcb::fill(&whole, &compute, size.large_scale)?;
    whole.sql(&compute.connstr, TIMES)?;
    whole.sql(&compute.connstr, "VACUUM pgbench_accounts")?;
    whole.stop_compute("bench")?;
    let compute = whole.start_compute("bench", &SETTINGS)?;
    // The connection and the catalogs.
    median(&whole, &compute, true)?;
    let load = load_average();
    let mut echoes = Vec::new();
    let pairs = alternate(size.rounds, |side| {
        interrupt::check()?;
        if side == Side::Ours {
            return median(&whole, &compute, true);
        }
        let echoed = echo()?;
        let p50 = echoed["p50_us"].as_f64().context("the echo has no p50_us")?;
        echoes.push(echoed);
        Ok(p50)
    })?;
    for pair in &pairs {
        progress(&format!("B4: from SQL {:.0}, echo {:.0} us", pair.ours, pair.peer));
    }
    let in_buffers = median(&whole, &compute, false)?;
    let megabytes = whole.sql(&compute.connstr, "SELECT pg_relation_size('pgbench_accounts') / 1000000")?;
    let details = json!({ "echo": echoes, "in_buffers_us": in_buffers, "load_average_before": load });
    let name = format!("page from the pageserver, median from SQL, {megabytes} MB table");
    let note = format!(
        "ours with all that SQL does around it (a page in shared buffers takes {in_buffers:.0} us so); peer: 8 KiB over the same \
         transport between two processes, nothing behind it"
    );
    Ok(vec![Row::compared("B4", name, "us", &pairs).note(note).details(details)])
}
