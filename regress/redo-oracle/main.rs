//! Redo against Postgres: the workload of `sql/` runs on a real server with `wal_consistency_checking`, its log goes through
//! the oracle of `strata_regress::oracle`, and every record type and branch of `coverage` must have appeared. See README.md.

mod core_suite;
mod coverage;
mod phases;
mod plan;
mod proof;
mod run;
mod summary;

use anyhow::{Result, ensure};
use run::Size;

/// Without full-page images, so that more of redo runs, and with them. The large size is the program's (`tool.rs`), which shows progress.
#[test]
fn redo_makes_the_pages_of_postgres() -> Result<()> {
    let summary = plan::run(Size::Small)?;
    println!("{summary}");
    println!("{:#}", summary.json());
    ensure!(
        summary.markdown("this test").contains("| Heap/INSERT |"),
        "the page of the documentation lists types"
    );
    plan::check(&summary, Size::Small)
}
