//! Which code of `redo/` the oracle's workload reaches, which only unit tests do, and which nothing does, from what `llvm-cov export`
//! says of each. `coverage.sh` makes those files and calls this.
//!
//! The page `docs/redo-branches.md` gives a reason for all that the workload does not reach, but for refusals of broken bytes that unit
//! tests reach. Its figures and rows are written here, the reasons by people: rows are known by file, function and the code itself, so that
//! they outlive other changes. A row without a reason fails, and so does a page that is not what was measured.
//!
//! Usage: `redo-branches CORPUS.json UNIT-TESTS.json [--write]`, in the repository's root.

#[path = "branches/measured.rs"]
mod measured;
#[path = "branches/page.rs"]
mod page;
#[path = "branches/source.rs"]
mod source;

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use measured::Measured;
use page::Reasons;

/// What is measured, and the page about it.
const SOURCE: &str = "redo/src";
const PAGE: &str = "docs/redo-branches.md";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (corpus, tests, write) = match &arguments[..] {
        [corpus, tests] => (corpus, tests, false),
        [corpus, tests, flag] if flag == "--write" => (corpus, tests, true),
        _ => bail!("usage: redo-branches CORPUS.json UNIT-TESTS.json [--write]"),
    };
    let root = Path::new(SOURCE).canonicalize().context("run this in the repository's root")?;
    let measured = Measured::read(&root, Path::new(corpus), Path::new(tests))?;
    let before = std::fs::read_to_string(PAGE).unwrap_or_default();
    let reasons = Reasons::of_page(&before);
    let after = page::page(&measured, &reasons);
    if write {
        std::fs::write(PAGE, &after)?;
    }
    print!("{}", measured.table());
    let unnamed = reasons.missing(&measured);
    for row in &unnamed {
        println!("no reason in {PAGE}: {row}");
    }
    let stale = reasons.stale(&measured);
    for row in &stale {
        println!("{PAGE} names what is reached: {row}");
    }
    ensure!(unnamed.is_empty(), "{} places that are not reached have no reason in {PAGE}", unnamed.len());
    ensure!(write || stale.is_empty(), "{PAGE} names {} places that are reached: use --write", stale.len());
    Ok(())
}
