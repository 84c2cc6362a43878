//! The page `docs/redo-branches.md`: its reasons are read, all else is written anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::measured::{Measured, Missing};

const HEAD: &str = "\
# Code of redo that the oracle's workload does not reach

Measured with instrumented code by `regress/redo-oracle/coverage.sh`; `coverage.sh --write` writes the figures and rows, people write the
reasons, and `coverage.sh` alone fails if the page is not what it measures or a row has no reason. The workload is the oracle's small
size: full-page images off and on, every page that comes out compared with Postgres's. *Code* are regions as the compiler divides
it, *outcomes* are the two sides of each condition, *refusals* are those of both that return an error for broken bytes.
Unit tests try every record and change that they apply with success damaged, too (`redo/src/damage.rs`).

";
const TESTS_ALONE: &str = "\n## Reached by unit tests alone\n\n\
    Refusals left out. What a healthy Postgres does not write, or the oracle does not look at.\n\n\
    | file | function | lines | why no workload reaches it |\n|---|---|--:|---|\n";
const UNREACHED: &str = "\n## Reached by nothing\n\n| file | function | code | why |\n|---|---|---|---|\n";

/// The reasons that a page gives.
#[derive(Default)]
pub struct Reasons {
    functions: BTreeMap<(String, String), String>,
    lines: BTreeMap<Missing, String>,
}

/// A cell must not end early.
fn escaped(code: &str) -> String {
    code.replace('|', "\\|").replace('`', "'")
}

impl Reasons {
    pub fn of_page(page: &str) -> Reasons {
        let mut reasons = Reasons::default();
        for line in page.lines() {
            let inside = line.trim().replace("\\|", "\u{1}");
            let cells: Vec<String> =
                inside.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect();
            let plain = |cell: &String| cell.trim_matches('`').to_owned();
            if let [file, function, third, reason] = &cells[..]
                && file.ends_with(".rs")
                && !reason.is_empty()
            {
                if third.parse::<usize>().is_ok() {
                    reasons.functions.insert((file.clone(), plain(function)), reason.clone());
                } else {
                    let key = Missing { file: file.clone(), function: plain(function), code: plain(third) };
                    reasons.lines.insert(key, reason.clone());
                }
            }
        }
        reasons
    }

    fn of_function(&self, key: &(String, String)) -> &str {
        self.functions.get(key).map_or("", String::as_str)
    }

    fn of_line(&self, missing: &Missing) -> &str {
        let written = Missing { code: missing.code.replace('`', "'"), ..missing.clone() };
        self.lines.get(&written).map_or("", String::as_str)
    }

    /// What was measured and has no reason.
    pub fn missing(&self, measured: &Measured) -> Vec<String> {
        let functions = measured.reached_by_tests_alone();
        let functions = functions.keys().filter(|key| self.of_function(key).is_empty());
        let mut missing: Vec<String> = functions
            .map(|(file, function)| format!("{file} {function}, which only unit tests reach"))
            .collect();
        for line in measured.unreached() {
            if self.of_line(&line).is_empty() {
                missing.push(format!("{} {}: {}", line.file, line.function, line.code));
            }
        }
        missing
    }

    /// What has a reason and is reached.
    pub fn stale(&self, measured: &Measured) -> Vec<String> {
        let functions = measured.reached_by_tests_alone();
        let unreached: Vec<String> = measured
            .unreached()
            .iter()
            .map(|line| format!("{} {} {}", line.file, line.function, escaped(&line.code)))
            .collect();
        let gone = self.functions.keys().filter(|key| !functions.contains_key(*key));
        let mut stale: Vec<String> = gone.map(|(file, function)| format!("{file} {function}")).collect();
        for line in self.lines.keys() {
            let row = format!("{} {} {}", line.file, line.function, escaped(&line.code));
            if !unreached.contains(&row) {
                stale.push(row);
            }
        }
        stale
    }
}

/// The whole page.
pub fn page(measured: &Measured, reasons: &Reasons) -> String {
    let mut page = String::from(HEAD);
    page.push_str(&measured.table());
    page.push_str(TESTS_ALONE);
    for (key, lines) in measured.reached_by_tests_alone() {
        let _ = writeln!(page, "| {} | `{}` | {lines} | {} |", key.0, key.1, reasons.of_function(&key));
    }
    page.push_str(UNREACHED);
    for line in measured.unreached() {
        let reason = reasons.of_line(&line);
        let _ =
            writeln!(page, "| {} | `{}` | `{}` | {reason} |", line.file, line.function, escaped(&line.code));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_back() {
        let page = "| a.rs | `one` | 3 | old logs |\n| a.rs | `two` | `x \\| y is true` | never |\n| a.rs | `three` | 1 |  |\n";
        let reasons = Reasons::of_page(page);
        assert_eq!(reasons.of_function(&("a.rs".to_owned(), "one".to_owned())), "old logs");
        assert_eq!(reasons.of_function(&("a.rs".to_owned(), "three".to_owned())), "");
        let line =
            Missing { file: "a.rs".to_owned(), function: "two".to_owned(), code: "x | y is true".to_owned() };
        assert_eq!(reasons.of_line(&line), "never");
    }
}
