//! Redo against Postgres: the workload of `sql/` runs on a real server with `wal_consistency_checking`, its log goes through
//! the oracle of `strata_regress::oracle`, and every record type of `coverage` must have appeared. See README.md.

mod core_suite;
mod coverage;
mod proof;
mod run;

use anyhow::{Result, ensure};
use strata_regress::oracle::UnknownRecords;

use run::{Outcome, Settings, workload};

/// Prints what a run found and fails on any difference.
fn judge(outcome: &Outcome) -> Result<()> {
    println!("{}", outcome.report);
    println!("{} map clears without a map page", outcome.skipped_clears);
    let files = &outcome.files;
    println!(
        "files: {} forks, {} pages, {} more ahead of the log, {} of unknown kind, {} differences",
        files.forks, files.pages, files.pages_ahead, files.pages_unknown, files.difference_count
    );
    for difference in &files.differences {
        println!("DIFFERENCE {difference}");
    }
    ensure!(outcome.report.mismatch_count == 0, "redo does not make the pages that Postgres made");
    ensure!(files.difference_count == 0, "the model is not what the files of the cluster say");
    ensure!(outcome.report.pages_without_image() == 0, "records came without the image to compare with");
    ensure!(files.pages > 0 && outcome.report.compared_pages() > 0, "nothing was compared");
    Ok(())
}

/// Without full-page images more of redo runs; images are compressed with lz4 (but for the scripts that choose otherwise).
#[test]
fn redo_makes_the_pages_of_postgres_without_full_page_images() -> Result<()> {
    let settings = Settings { full_page_writes: "off", wal_log_hints: "off", wal_compression: "lz4" };
    let outcome = workload(&settings, UnknownRecords::Refuse)?;
    judge(&outcome)?;
    ensure!(outcome.files.pages_unknown == 0, "pages of the files that nothing was compared with");
    let missing = outcome.report.missing(coverage::ALWAYS);
    ensure!(missing.is_empty(), "the workload no longer reaches {missing:?}");
    Ok(())
}

/// With full-page images and hint bits in the log, as an imported log may be.
#[test]
fn redo_makes_the_pages_of_postgres_with_full_page_images() -> Result<()> {
    let settings = Settings { full_page_writes: "on", wal_log_hints: "on", wal_compression: "pglz" };
    let outcome = workload(&settings, UnknownRecords::Refuse)?;
    judge(&outcome)?;
    ensure!(outcome.files.pages_unknown == 0, "pages of the files that nothing was compared with");
    let missing = outcome.report.missing(coverage::WITH_IMAGES);
    ensure!(missing.is_empty(), "the workload no longer reaches {missing:?}");
    Ok(())
}
