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

/// `full` makes the suites run in their full size.
const SIZE_VARIABLE: &str = "STRATA_TEST_SIZE";

/// Without full-page images, so that more of redo runs, and with them; each image compression in the large size.
#[test]
fn redo_makes_the_pages_of_postgres() -> Result<()> {
    let full = std::env::var(SIZE_VARIABLE).as_deref() == Ok("full");
    let size = if full { Size::Large } else { Size::Small };
    let summary = plan::run(size)?;
    println!("{summary}");
    println!("{:#}", summary.json());
    ensure!(
        summary.markdown("this test").contains("| Heap/INSERT |"),
        "the page of the documentation lists types"
    );
    plan::check(&summary, size)
}
