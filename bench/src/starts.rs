//! B8, B9 and B10: how long a compute's start, the way back from a lost compute, and a new branch take, at two sizes of database.
//! Nothing in them should grow with the size, so the sizes alternate. Times are of whole commands, as a user waits for them.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use strata_regress::tpcb::Load;
use strata_regress::whole::{Compute, Whole};

use crate::report::{Row, load_average, progress};
use crate::{Size, interrupt};

/// Clients of the load under which a compute is lost.
const CLIENTS: u32 = 8;
const LOAD_SECONDS_MAX: u32 = 60;

/// A branch and its database.
struct Database {
    branch: &'static str,
    scale: u32,
    megabytes: u64,
}

fn ms(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1000.0
}

/// Makes the small database on `main` and the big one on a branch of its own, both stopped cleanly.
fn databases(whole: &Whole, size: Size) -> Result<[Database; 2]> {
    let [small, big] = size.database_scales;
    let mut databases =
        [("main", small), ("big", big)].map(|(branch, scale)| Database { branch, scale, megabytes: 0 });
    whole.strata(&["branch", "create", "big"])?;
    for database in &mut databases {
        interrupt::check()?;
        progress(&format!("B8: filling branch {} with pgbench's scale {}", database.branch, database.scale));
        let compute = whole.start_compute(database.branch, &["--branch", database.branch])?;
        strata_regress::tpcb::fill(whole, &compute, database.scale)?;
        let bytes = whole.sql(&compute.connstr, "SELECT pg_database_size('postgres')")?;
        database.megabytes = bytes.parse::<u64>()? / 1_000_000;
        whole.stop_compute(database.branch)?;
    }
    Ok(databases)
}

/// From the command to the first row; the compute's own steps beside it.
fn start(whole: &Whole, database: &Database) -> Result<(f64, Value)> {
    interrupt::check()?;
    let begin = Instant::now();
    let shown = whole.json(&["compute", "start", database.branch, "--branch", database.branch])?;
    let compute = Compute::from_json(&shown)?;
    whole.sql(&compute.connstr, "SELECT 1")?;
    let elapsed = ms(begin);
    Ok((elapsed, shown["timings_ms"].clone()))
}

fn starts(whole: &Whole, databases: &[Database; 2], size: Size) -> Result<Vec<Row>> {
    let mut times = [Vec::new(), Vec::new()];
    let mut steps = [Vec::new(), Vec::new()];
    for round in 0..size.repeats as usize {
        for at in [round % 2, (round + 1) % 2] {
            let (elapsed, timings) = start(whole, &databases[at])?;
            whole.stop_compute(databases[at].branch)?;
            times[at].push(elapsed);
            steps[at].push(timings);
        }
        progress(&format!("B8: {:.0} and {:.0} ms", times[0][round], times[1][round]));
    }
    let row = |at: usize, id: &str| {
        let name = format!("compute start to first SELECT 1, {} MB", databases[at].megabytes);
        Row::alone(id, name, "ms", &times[at])
            .note("after a clean stop; 'strata compute start' and psql, both processes' starts included")
            .details(json!({ "timings_ms": steps[at], "load_average_after": load_average() }))
    };
    Ok(vec![row(0, "B8.small"), row(1, "B8.big")])
}

/// kill -9 under load, folder removed, another compute started, a row committed.
fn lose_and_return(whole: &Whole, database: &Database, round: u32) -> Result<f64> {
    interrupt::check()?;
    let start = ["--branch", database.branch];
    let lost = whole.start_compute("lost", &start)?;
    let mut load = Load::start(whole, &lost, database.scale, CLIENTS, LOAD_SECONDS_MAX, round)?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    anyhow::ensure!(load.is_running()?, "the load ended before the compute was lost");
    let begin = Instant::now();
    whole.lose_compute(&lost)?;
    let next = whole.start_compute("next", &start)?;
    whole.sql(&next.connstr, "INSERT INTO pgbench_history (tid, bid, aid, delta) VALUES (1, 1, 1, 0)")?;
    let elapsed = ms(begin);
    let (acknowledged, _) = load.finish()?;
    progress(&format!("B9: {elapsed:.0} ms after {} commits", acknowledged.total()));
    whole.stop_compute("next")?;
    Ok(elapsed)
}

fn branches(whole: &Whole, databases: &[Database; 2], size: Size) -> Result<Vec<Row>> {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..size.repeats as usize {
        interrupt::check()?;
        for at in [round % 2, (round + 1) % 2] {
            let name = format!("{}-{round}", databases[at].branch);
            let begin = Instant::now();
            whole.strata(&["branch", "create", &name, "--from", databases[at].branch])?;
            times[at].push(ms(begin));
        }
    }
    let row = |at: usize, id: &str| {
        let name = format!("branch creation, {} MB", databases[at].megabytes);
        Row::alone(id, name, "ms", &times[at]).note("the whole command 'strata branch create'")
    };
    Ok(vec![row(0, "B10.small"), row(1, "B10.big")])
}

pub fn run(size: Size) -> Result<Vec<Row>> {
    let whole = Whole::started()?;
    let databases = databases(&whole, size)?;
    let mut rows = starts(&whole, &databases, size)?;
    let small = databases.first().context("two databases")?;
    let back = (1..=size.repeats).map(|round| lose_and_return(&whole, small, round));
    let back = back.collect::<Result<Vec<f64>>>()?;
    let name = format!("kill -9 under load to the next compute's first commit, {} MB", small.megabytes);
    rows.push(
        Row::alone("B9", name, "ms", &back)
            .note(format!("{CLIENTS} clients; the lost compute's folder is removed within the time")),
    );
    rows.extend(branches(&whole, &databases, size)?);
    Ok(rows)
}
