//! The large size (`make soak`): Postgres's own regression suite as the workload, some 2.4 million records.
//!
//! Records of resource managers that redo does not know are counted, and their relations leave the comparison.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use strata_regress::oracle::UnknownRecords;
use strata_regress::postgres::{Cluster, Stop, run};

use crate::judge;
use crate::run::{Pair, Settings, judge_log};

/// `full` makes the suites run in their full size.
const SIZE_VARIABLE: &str = "STRATA_TEST_SIZE";

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
    run(&mut pg_regress).map(|_| ())
}

#[test]
fn redo_makes_the_pages_of_the_core_suite() -> Result<()> {
    if std::env::var(SIZE_VARIABLE).as_deref() != Ok("full") {
        println!("left out: {SIZE_VARIABLE}=full runs it");
        return Ok(());
    }
    for full_page_writes in ["off", "on"] {
        let settings = Settings { full_page_writes, wal_log_hints: full_page_writes, wal_compression: "lz4" };
        let mut pair = Pair::new()?;
        pair.cluster.start(&settings.server())?;
        run_core_suite(&pair.cluster)?;
        pair.cluster.stop(Stop::Fast)?;
        let outcome = judge_log(&pair, UnknownRecords::Drop)?;
        judge(&outcome)?;
        ensure!(
            outcome.report.records() > 1_000_000,
            "the suite made only {} records",
            outcome.report.records()
        );
    }
    Ok(())
}
