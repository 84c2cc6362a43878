//! Which workloads run in which size, one after the other, and what they must come to.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::core_suite;
use crate::coverage;
use crate::run::{Outcome, Settings, Size, workload};
use crate::summary::Summary;

/// Every way to write images into the log.
const COMPRESSIONS: [&str; 4] = ["off", "pglz", "lz4", "zstd"];
/// The one that the large scripts run with, too.
const LARGE_COMPRESSION: &str = "lz4";
/// Pages that the large size compares at least.
const LARGE_PAGES_MIN: u64 = 5_000_000;

/// Without images more of redo runs; with them hints are logged too, as in an imported log.
pub fn settings(full_page_writes: &'static str, wal_compression: &'static str) -> Settings {
    Settings { full_page_writes, wal_log_hints: full_page_writes, wal_compression }
}

/// Fails on any difference.
pub fn judge(outcome: &Outcome) -> Result<()> {
    for mismatch in &outcome.report.mismatches {
        eprintln!("MISMATCH {mismatch}");
    }
    for difference in &outcome.files.differences {
        eprintln!("DIFFERENCE {difference}");
    }
    let files = &outcome.files;
    ensure!(outcome.report.mismatch_count == 0, "redo does not make the pages that Postgres made");
    ensure!(files.difference_count == 0, "the model is not what the files of the cluster say");
    ensure!(outcome.report.pages_without_image() == 0, "records came without the image to compare with");
    ensure!(files.pages > 0 && outcome.report.compared_pages() > 0, "nothing was compared");
    ensure!(files.pages_unknown == 0, "pages of the files that nothing was compared with");
    Ok(())
}

/// Runs `work` and judges it.
fn add(
    summary: &mut Summary,
    name: &'static str,
    settings: Settings,
    work: impl FnOnce(&Settings) -> Result<Outcome>,
) -> Result<()> {
    eprintln!("{name}, {settings:?} …");
    let begin = Instant::now();
    let outcome = work(&settings)?;
    summary.add(name, settings, begin.elapsed().as_secs(), &outcome);
    if let Some(run) = summary.runs.last() {
        eprintln!("{run}");
    }
    judge(&outcome)
}

/// Everything of a size. The settings of the small one are two; some of its scripts choose the other compressions themselves.
pub fn run(size: Size) -> Result<Summary> {
    let mut summary = Summary::default();
    if size == Size::Small {
        for settings in [settings("off", "lz4"), settings("on", "zstd")] {
            add(&mut summary, "scripts", settings, |settings| workload(settings, size))?;
        }
    } else {
        for full_page_writes in ["off", "on"] {
            for compression in COMPRESSIONS {
                let settings = settings(full_page_writes, compression);
                // They are much work: once without images and once with them will do.
                let (name, size) = if compression == LARGE_COMPRESSION {
                    ("large scripts", Size::Large)
                } else {
                    ("scripts", Size::Small)
                };
                add(&mut summary, name, settings, |settings| workload(settings, size))?;
            }
        }
        for settings in [settings("off", "zstd"), settings("on", "lz4")] {
            add(&mut summary, "core suite", settings, core_suite::workload)?;
        }
    }
    Ok(summary)
}

/// Every record type that can be produced was seen, every branch that is listed, and enough pages.
pub fn check(summary: &Summary, size: Size) -> Result<()> {
    let pages = summary.report.compared_pages();
    ensure!(size == Size::Small || pages >= LARGE_PAGES_MIN, "only {pages} pages were compared");
    let unexpected: Vec<String> =
        summary.unseen().into_iter().filter(|(_, why)| why.is_none()).map(|(name, _)| name).collect();
    ensure!(unexpected.is_empty(), "the workload no longer reaches {unexpected:?}");
    let missing = summary.report.missing(coverage::ALWAYS);
    ensure!(missing.is_empty(), "the workload no longer reaches {missing:?}");
    let restored = |name: &str| {
        summary.report.types.get(name).is_some_and(|counts| counts.restored > 0)
            || summary.report.variants.contains_key(name)
    };
    let never: Vec<&str> = coverage::RESTORED.iter().copied().filter(|name| !restored(name)).collect();
    ensure!(never.is_empty(), "no page came as an image in {never:?}");
    Ok(())
}
