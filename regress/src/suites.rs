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

/// Every contrib module of the built source tree with a suite that a server of `postgres_tree` can take, as the script wants it named.
pub fn contrib_suites(postgres_tree: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let folder = postgres_tree.join("src/contrib");
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let makefile = folder.join(&name).join("Makefile");
        let Ok(text) = std::fs::read_to_string(&makefile) else { continue };
        if name == NEEDS_PRELOAD || why_not_run(postgres_tree, &name).is_some() {
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

/// The suites of procedural languages that a server of `postgres_tree` can take.
pub fn language_suites(postgres_tree: &Path) -> Vec<String> {
    let languages = ["plpgsql", "plperl"].into_iter();
    languages.filter(|name| why_not_run(postgres_tree, name).is_none()).map(str::to_owned).collect()
}

/// Its suite runs on a compute of its own: preloaded, it changes what the suites of others print.
pub const NEEDS_PRELOAD: &str = "pg_stat_statements";

/// A module or language whose suite is not run, at least on some servers.
pub struct NotRun {
    pub name: &'static str,
    /// It is run on a server that has this extension.
    pub unless: Option<&'static str>,
    pub reason: &'static str,
}

const fn never(name: &'static str, reason: &'static str) -> NotRun {
    NotRun { name, unless: None, reason }
}

const fn unless(extension: &'static str, name: &'static str, reason: &'static str) -> NotRun {
    NotRun { name, unless: Some(extension), reason }
}

const NO_PYTHON: &str = "Postgres is built without Python; Debian has PL/Python in a package of its own";
const NO_TCL: &str = "Postgres is built without Tcl; Debian has PL/Tcl in a package of its own";
const NO_PERL: &str = "Debian has PL/Perl in a package of its own; run on the servers that are built here";

/// Modules and languages whose suites are not run everywhere, and why.
pub const NOT_RUN: &[NotRun] = &[
    never("basic_archive", "archiving is off on a compute: it would keep log above the quorum (S14)"),
    never(
        "test_decoding",
        "a compute has wal_level = replica: its slots are files of a folder that is laid down anew (S12)",
    ),
    never("sepgsql", "needs SELinux, and its suite is not one of pg_regress"),
    never("hstore_plpython", NO_PYTHON),
    never("jsonb_plpython", NO_PYTHON),
    never("ltree_plpython", NO_PYTHON),
    never("plpython", NO_PYTHON),
    never("tcl", NO_TCL),
    unless("bool_plperl", "bool_plperl", NO_PERL),
    unless("hstore_plperl", "hstore_plperl", NO_PERL),
    unless("jsonb_plperl", "jsonb_plperl", NO_PERL),
    unless("plperl", "plperl", NO_PERL),
    unless("uuid-ossp", "uuid-ossp", "Postgres is built without a UUID library; run on Debian's binary"),
    unless("xml2", "xml2", "Postgres is built without libxml2; run on Debian's binary"),
];

/// Why the suite of this module or language is not run on a server of `postgres_tree`, if it is not.
pub fn why_not_run(postgres_tree: &Path, name: &str) -> Option<&'static str> {
    let found = NOT_RUN.iter().find(|not| not.name == name)?;
    // As the build lays it out, and as Debian does.
    let folders = ["share/extension", "../../../share/postgresql/17/extension"];
    let has = |extension: &str| {
        folders.iter().any(|folder| postgres_tree.join(folder).join(format!("{extension}.control")).is_file())
    };
    (!found.unless.is_some_and(has)).then_some(found.reason)
}

/// The Postgres tree with the extension that the suites are for: the one that computes are started from.
pub fn postgres_tree() -> Result<PathBuf> {
    if let Some(tree) = std::env::var_os("STRATA_PG_TREE") {
        return Ok(PathBuf::from(tree));
    }
    patched_tree()
}

fn patched_tree() -> Result<PathBuf> {
    let file = crate::whole::programs().join("postgres-tree");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Ok(PathBuf::from(text.trim()))
}

/// What the server of the suites is called: "patched", "vanilla" or "debian".
pub fn server() -> Result<&'static str> {
    let tree = postgres_tree()?;
    Ok(match tree {
        _ if tree == patched_tree()? => "patched",
        _ if tree.join("programs/postgres").is_file() => "debian",
        _ => "vanilla",
    })
}

/// Adds what a suite came to to the file that `STRATA_SUITES_ROWS` names, one line a run: `suites-table.sh` makes a table of it.
pub fn write_row(suite: &str, column: &str, outcome: &Outcome) -> Result<()> {
    use std::io::Write;
    let Some(path) = std::env::var_os("STRATA_SUITES_ROWS") else { return Ok(()) };
    let (passed, explained, failed) = (outcome.passed.len(), outcome.explained.len(), outcome.failed.len());
    let row = format!("{suite}\t{}\t{column}\t{passed}\t{explained}\t{failed}\n", server()?);
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(row.as_bytes()).context("cannot write a row")
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
