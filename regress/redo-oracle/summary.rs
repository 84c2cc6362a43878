//! What several runs found, together: as a table for people, as JSON, and as the page `docs/redo-coverage.md`.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};
use strata_regress::oracle::{Report, TypeCounts};

use crate::coverage;
use crate::run::{Outcome, Settings};

/// One workload with one way of writing the log.
pub struct Run {
    pub workload: &'static str,
    pub settings: Settings,
    pub records: u64,
    pub compared: u64,
    pub mismatches: u64,
    pub files_pages: u64,
    pub files_differences: u64,
    /// Visibility map bits that a record without a reference clears, on a map page that does not exist.
    pub skipped_clears: u64,
    pub seconds: u64,
}

/// The runs and the sum of their counts.
#[derive(Default)]
pub struct Summary {
    pub runs: Vec<Run>,
    pub report: Report,
}

impl Run {
    fn images(&self) -> String {
        let Settings { full_page_writes, wal_log_hints, wal_compression } = self.settings;
        format!(
            "full_page_writes={full_page_writes} wal_log_hints={wal_log_hints} wal_compression={wal_compression}"
        )
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {} records, ", self.workload, self.images(), self.records)?;
        write!(f, "{} pages compared, {} mismatches; ", self.compared, self.mismatches)?;
        write!(f, "files: {} pages, {} differences; ", self.files_pages, self.files_differences)?;
        write!(f, "{} map clears without a map page; {} s", self.skipped_clears, self.seconds)
    }
}

impl Summary {
    pub fn add(&mut self, workload: &'static str, settings: Settings, seconds: u64, outcome: &Outcome) {
        self.report.absorb(&outcome.report);
        self.runs.push(Run {
            workload,
            settings,
            records: outcome.report.records(),
            compared: outcome.report.compared_pages(),
            mismatches: outcome.report.mismatch_count,
            files_pages: outcome.files.pages,
            files_differences: outcome.files.difference_count,
            skipped_clears: outcome.skipped_clears,
            seconds,
        });
    }

    /// Record types that no run saw, with the reason; an unexpected one has none.
    pub fn unseen(&self) -> Vec<(String, Option<&'static str>)> {
        let reason =
            |name: &str| coverage::NEVER.iter().find(|(never, _)| *never == name).map(|(_, why)| *why);
        self.report.unseen_types().into_iter().map(|name| (name.clone(), reason(&name))).collect()
    }

    pub fn json(&self) -> Value {
        let runs = self.runs.iter().map(|run| {
            json!({
                "workload": run.workload,
                "full_page_writes": run.settings.full_page_writes,
                "wal_log_hints": run.settings.wal_log_hints,
                "wal_compression": run.settings.wal_compression,
                "records": run.records,
                "pages_compared": run.compared,
                "mismatches": run.mismatches,
                "file_pages": run.files_pages,
                "file_differences": run.files_differences,
                "skipped_clears": run.skipped_clears,
                "seconds": run.seconds,
            })
        });
        let types = self.report.types.iter().map(|(name, counts)| {
            let TypeCounts { records, compared, restored, mismatches, .. } = counts;
            json!({
                "record": name,
                "records": records,
                "pages_compared": compared,
                "pages_restored": restored,
                "mismatches": mismatches,
            })
        });
        json!({
            "runs": runs.collect::<Vec<_>>(),
            "types": types.collect::<Vec<_>>(),
            "variants": self.report.variants,
            "unseen": self.unseen().into_iter().map(|(name, why)| json!({"record": name, "reason": why})).collect::<Vec<_>>(),
            "records": self.report.records(),
            "pages_compared": self.report.compared_pages(),
            "mismatches": self.report.mismatch_count,
        })
    }

    /// The page of the documentation; `command` is what makes it.
    pub fn markdown(&self, command: &str) -> String {
        let report = &self.report;
        let mut page = format!(
            "# What redo was compared with\n\nMade by `{command}`; do not edit. How it works: `regress/redo-oracle/README.md`.\n\n\
             {} records replayed, {} pages compared with the image that Postgres put into the record, {} mismatches.\n\n\
             | workload | full_page_writes, wal_log_hints | wal_compression | records | pages compared | mismatches | file pages | differences |\n\
             |---|---|---|--:|--:|--:|--:|--:|\n",
            report.records(),
            report.compared_pages(),
            report.mismatch_count
        );
        for run in &self.runs {
            let Settings { full_page_writes, wal_log_hints, wal_compression } = run.settings;
            let _ = writeln!(
                page,
                "| {} | {full_page_writes}, {wal_log_hints} | {wal_compression} | {} | {} | {} | {} | {} |",
                run.workload,
                run.records,
                run.compared,
                run.mismatches,
                run.files_pages,
                run.files_differences
            );
        }
        page.push_str(
            "\n## Record types\n\nRestored: the record carries an image to be applied, equal by definition. Types without pages have \
             effects on counters, SLRUs and files.\n\n\
             | record | records | pages compared | restored | mismatches |\n|---|--:|--:|--:|--:|\n",
        );
        for (name, TypeCounts { records, compared, restored, mismatches, .. }) in &report.types {
            let _ = writeln!(page, "| {name} | {records} | {compared} | {restored} | {mismatches} |");
        }
        page.push_str("\n## Never seen\n\nTheir redo has unit tests.\n\n");
        for (name, why) in self.unseen() {
            let _ = writeln!(page, "- {name}: {}", why.unwrap_or("no reason known"));
        }
        page.push_str("\n## Branches within record types\n\n| branch | records |\n|---|--:|\n");
        for (name, count) in &report.variants {
            let _ = writeln!(page, "| {name} | {count} |");
        }
        page
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.report)?;
        for run in &self.runs {
            writeln!(f, "{run}")?;
        }
        let unseen = self.unseen();
        for (name, why) in &unseen {
            writeln!(f, "never seen: {name}: {}", why.unwrap_or("no reason known"))?;
        }
        let total = self.report.types.len() + unseen.len();
        write!(f, "{} of {total} record types seen", self.report.types.len())
    }
}
