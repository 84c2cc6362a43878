//! Postgres's own suites against a server, by `installcheck-core.sh`: which tests ran, which failed, and whether a failure is one
//! of the differences that are expected and explained in `expected/differences.txt`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Where a suite finds its server, and how many tests run at once.
#[derive(Clone, Debug)]
pub struct Place {
    pub host: String,
    pub port: String,
    pub sessions: Sessions,
}

/// How many tests of a group run at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sessions {
    One,
    /// The whole group.
    AsScheduled,
}

/// What a suite came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub passed: Vec<String>,
    /// Failed as `expected/differences.txt` explains.
    pub explained: Vec<String>,
    /// Each failed test with its differences.
    pub failed: BTreeMap<String, String>,
}

impl Outcome {
    pub fn tests(&self) -> usize {
        self.passed.len() + self.explained.len() + self.failed.len()
    }

    /// One line for the report.
    pub fn summary(&self) -> String {
        let failed: Vec<&str> = self.failed.keys().map(String::as_str).collect();
        format!(
            "{} tests, {} passed, {} differ as expected, {} failed {}",
            self.tests(),
            self.passed.len(),
            self.explained.len(),
            failed.len(),
            failed.join(" ")
        )
    }
}

/// A line of `expected/differences.txt`: `suite/test | text that every changed line has one of | reason`.
#[derive(Debug)]
struct Explained {
    test: String,
    text: String,
}

fn explanations() -> Result<Vec<Explained>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("expected/differences.txt");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let parts: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let [test, text, reason] = parts[..] else {
            bail!("{}: '{line}' has not three parts", path.display())
        };
        ensure!(!text.is_empty() && !reason.is_empty(), "{}: '{line}' explains nothing", path.display());
        found.push(Explained { test: test.to_owned(), text: text.to_owned() });
    }
    Ok(found)
}

/// Runs `suite` with its files in `output`.
pub fn run(suite: &str, place: &Place, output: &Path) -> Result<Outcome> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("installcheck-core.sh");
    let mut command = Command::new(&script);
    command.arg(suite).arg(output);
    let sessions = if place.sessions == Sessions::One { "1" } else { "0" };
    command.env("STRATA_SUITE_SESSIONS", sessions);
    command.env("PGHOST", &place.host).env("PGPORT", &place.port).env("PGUSER", "postgres");
    let said = command.output().with_context(|| format!("cannot run {}", script.display()))?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let mut results = results(&text);
    ensure!(
        !results.is_empty() && text.lines().any(|line| line == format!("1..{}", results.len())),
        "suite {suite} did not run to its end:\n{text}{}",
        String::from_utf8_lossy(&said.stderr)
    );
    let all_passed = results.iter().all(|(_, passed)| *passed);
    ensure!(all_passed == said.status.success(), "suite {suite} ended with {}:\n{text}", said.status);
    let differences = std::fs::read_to_string(output.join("regression.diffs")).unwrap_or_default();
    let differences = by_test(&differences);
    let explanations = explanations()?;
    let mut outcome = Outcome::default();
    for (test, passed) in results.drain(..) {
        if passed {
            outcome.passed.push(test);
            continue;
        }
        let difference =
            differences.get(&test).cloned().unwrap_or_else(|| "no difference was written".into());
        if is_explained(&format!("{suite}/{test}"), &difference, &explanations) {
            outcome.explained.push(test);
        } else {
            outcome.failed.insert(test, difference);
        }
    }
    Ok(outcome)
}

/// `ok 3         + boolean    213 ms`, as `pg_regress` prints for every test.
fn results(text: &str) -> Vec<(String, bool)> {
    let result = |line: &str| {
        let passed = line.starts_with("ok ");
        let rest = line.strip_prefix("ok ").or_else(|| line.strip_prefix("not ok "))?;
        let mut words = rest.split_whitespace();
        words.next()?.parse::<u32>().ok()?;
        matches!(words.next()?, "-" | "+").then_some(())?;
        Some((words.next()?.to_owned(), passed))
    };
    text.lines().filter_map(result).collect()
}

/// The parts of `regression.diffs` by test.
fn by_test(differences: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut test = String::new();
    for line in differences.lines() {
        if line.starts_with("diff ") {
            let file = line.rsplit('/').next().unwrap_or_default();
            test = file.strip_suffix(".out").unwrap_or(file).to_owned();
        }
        let part = found.entry(test.clone()).or_default();
        part.push_str(line);
        part.push('\n');
    }
    found
}

fn is_explained(test: &str, difference: &str, explanations: &[Explained]) -> bool {
    let texts: Vec<&str> = explanations.iter().filter(|e| e.test == test).map(|e| e.text.as_str()).collect();
    let changed = |line: &&str| {
        (line.starts_with('+') || line.starts_with('-'))
            && !line.starts_with("+++")
            && !line.starts_with("---")
    };
    let mut lines = difference.lines().filter(changed).peekable();
    lines.peek().is_some() && lines.all(|line| texts.iter().any(|text| matches(line, text)))
}

/// `=…`: the whole line; else a part of it.
fn matches(line: &str, text: &str) -> bool {
    text.strip_prefix('=').map_or_else(|| line.contains(text), |whole| line == whole)
}

/// Every contrib module of the built source tree with a suite that a running server can take, as the script wants it named.
pub fn contrib_suites(postgres_tree: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let folder = postgres_tree.join("src/contrib");
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let makefile = folder.join(&name).join("Makefile");
        let Ok(text) = std::fs::read_to_string(&makefile) else { continue };
        if NOT_RUN.iter().any(|(module, _)| *module == name) {
            continue;
        }
        let sets = |variable: &str| text.lines().any(|line| line.starts_with(&format!("{variable} =")));
        if sets("REGRESS") {
            found.push(format!("contrib/{name}"));
        }
        if sets("ISOLATION") {
            found.push(format!("contrib/{name}:isolation"));
        }
    }
    found.sort();
    Ok(found)
}

/// Modules whose suites are not run, and why.
pub const NOT_RUN: &[(&str, &str)] = &[
    ("basic_archive", "archiving is off on a compute: it would keep log above the quorum (S14)"),
    ("pg_stat_statements", "has to be preloaded; a compute preloads the storage manager only"),
    ("test_decoding", "needs wal_level = logical, which a compute does not offer yet"),
    ("hstore_plpython", "Postgres is built without Python"),
    ("jsonb_plpython", "Postgres is built without Python"),
    ("ltree_plpython", "Postgres is built without Python"),
    ("uuid-ossp", "Postgres is built without a UUID library"),
    ("xml2", "Postgres is built without libxml2"),
];

/// The built Postgres tree with the extension that the suites are for.
pub fn postgres_tree() -> Result<PathBuf> {
    let file = crate::whole::programs().join("postgres-tree");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Ok(PathBuf::from(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_pg_regress_are_read() {
        let text = "# using postmaster\nok 1         - test_setup   213 ms\n# parallel group\nok 2   + a  1 ms\n\
                    not ok 3     + b     11 ms\n# (test process exited with exit code 2)\n1..3\n";
        let expected = [("test_setup", true), ("a", true), ("b", false)];
        assert_eq!(results(text), expected.map(|(name, passed)| (name.to_owned(), passed)));
    }

    #[test]
    fn only_lines_that_are_explained_are_taken() {
        let differences = "diff -U3 /x/expected/a.out /y/results/a.out\n--- /x/expected/a.out\n+++ /y/results/a.out\n@@ -1 +1 @@\n same\n-one here\n+two here\n";
        let parts = by_test(differences);
        let explained = |text: &str| {
            is_explained("s/a", &parts["a"], &[Explained { test: "s/a".into(), text: text.into() }])
        };
        assert!(explained("here"));
        assert!(!explained("=here"), "a whole line is another thing");
        assert!(!explained("one"), "the other line is not explained");
        assert!(!is_explained("s/b", &parts["a"], &[Explained { test: "s/a".into(), text: "here".into() }]));
    }

    #[test]
    fn every_explanation_has_its_three_parts() {
        explanations().expect("the file is sound");
    }
}
