//! What a refusal of `strata` must look like: an exit code, nothing on stdout, one sentence on stderr.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::whole::{Compute, Whole, programs};

/// Lines of progress begin so; anything else before the sentence is noise.
const PROGRESS: [&str; 4] =
    ["starting safekeepers", "stopping pageserver", "stopping compute", "waiting for"];
/// A sentence that is longer is none.
const SENTENCE_BYTES_MAX: usize = 700;

/// Runs a command that must be refused; the sentence, without the program's name.
pub fn refused(mut command: Command) -> Result<String> {
    let output = command.output().context("cannot run strata: 'make build' builds it")?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = format!("{command:?} said '{stdout}' and '{stderr}'");
    ensure!(!output.status.success(), "it was not refused: {said}");
    ensure!(output.status.code().is_some(), "it was killed: {said}");
    ensure!(stdout.is_empty(), "a refusal has nothing on stdout: {said}");
    let lines: Vec<&str> = stderr.lines().collect();
    let (last, before) = lines.split_last().with_context(|| format!("no word on stderr: {said}"))?;
    let is_progress = |line: &&str| PROGRESS.iter().any(|begin| line.starts_with(begin));
    ensure!(before.iter().all(is_progress), "more than one sentence: {said}");
    let sentence = last.strip_prefix("strata: ").with_context(|| format!("not from strata: {said}"))?;
    ensure!(sentence.len() <= SENTENCE_BYTES_MAX, "too long for a sentence: {said}");
    ensure!(!sentence.contains("panicked") && !sentence.contains("os error 0"), "no sentence: {said}");
    Ok(sentence.to_owned())
}

/// Runs `strata` on an installation; it must refuse, with all of `expected` in its sentence.
pub fn refuses(whole: &Whole, arguments: &[&str], expected: &[&str]) -> Result<String> {
    says(refused(whole.command(arguments))?, expected)
}

/// The sentence, if it has everything that is expected of it.
pub fn says(sentence: String, expected: &[&str]) -> Result<String> {
    for words in expected {
        ensure!(sentence.contains(words), "'{sentence}' does not say '{words}'");
    }
    // For the test's log: what people will read.
    eprintln!("  {sentence}");
    Ok(sentence)
}

/// `strata` on any folder.
pub fn strata_in(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs().join("strata"));
    command.env("STRATA_DIR", dir).args(arguments).stdin(Stdio::null());
    command
}

/// Starts a compute and commits a row that must still be there after everything that is refused.
pub fn keep_a_row(whole: &Whole) -> Result<Compute> {
    let compute = whole.start_compute("a", &[])?;
    whole.sql(&compute.connstr, "CREATE TABLE kept(n int); INSERT INTO kept VALUES (42)")?;
    Ok(compute)
}

pub fn check_row(whole: &Whole, compute: &Compute) -> Result<()> {
    ensure!(whole.sql(&compute.connstr, "SELECT n FROM kept")? == "42", "the row is not what it was");
    Ok(())
}
