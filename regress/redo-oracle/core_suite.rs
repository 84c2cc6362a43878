//! Of the large size (`make soak`): Postgres's own regression suite as the workload, some 2.4 million records.
//!
//! `pg_regress` and the suite come from the built source tree next to the bin folder.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use strata_regress::postgres::{Cluster, Stop, run};

use crate::run::{Outcome, Pair, Settings, judge_log};

/// Records of one run of the suite, at least.
const RECORDS_MIN: u64 = 1_000_000;

/// The built source tree next to the bin folder, which holds `pg_regress` and the suite.
fn source(bin: &Path) -> Result<PathBuf> {
    let beside = [bin.join("../src"), bin.join("../../src")];
    let found = beside.into_iter().find(|tree| tree.join("src/test/regress/pg_regress").is_file());
    found.with_context(|| format!("no built source tree with pg_regress next to {}", bin.display()))
}

fn run_core_suite(cluster: &Cluster) -> Result<()> {
    let installation = cluster.installation();
    let suite = source(installation.bin())?.join("src/test/regress").canonicalize()?;
    let output = cluster.home().join("suite");
    std::fs::create_dir(&output)?;
    installation.give(&output)?;
    let mut pg_regress = installation.as_server_user(suite.join("pg_regress"));
    pg_regress.arg(format!("--inputdir={}", suite.display()));
    pg_regress.arg(format!("--outputdir={}", output.display()));
    pg_regress.arg(format!("--expecteddir={}", suite.display()));
    pg_regress.arg(format!("--dlpath={}", suite.display()));
    pg_regress.arg(format!("--bindir={}", installation.bin().display()));
    pg_regress.arg(format!("--host={}", cluster.home().display()));
    pg_regress.args(["--user=postgres", "--max-concurrent-tests=20"]);
    pg_regress.arg(format!("--schedule={}", suite.join("parallel_schedule").display()));
    let differences = || std::fs::read_to_string(output.join("regression.diffs")).unwrap_or_default();
    run(&mut pg_regress).map(|_| ()).with_context(differences)
}

/// Runs the suite and replays its log.
pub fn workload(settings: &Settings) -> Result<Outcome> {
    let mut pair = Pair::new()?;
    pair.start(settings)?;
    run_core_suite(&pair.cluster)?;
    pair.cluster.stop(Stop::Fast)?;
    let outcome = judge_log(&pair)?;
    let records = outcome.report.records();
    ensure!(records > RECORDS_MIN, "the suite made only {records} records");
    Ok(outcome)
}
