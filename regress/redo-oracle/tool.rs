//! The redo oracle as a program: runs the workloads of a size, prints what was compared as a table, as JSON or as the page of the
//! documentation, and fails on any mismatch. Progress goes to standard error.
//!
//! Usage: `redo-oracle [--full] [--json | --markdown]`, with the variables that the tests take (README.md).

mod core_suite;
mod coverage;
mod phases;
mod plan;
mod run;
mod summary;

use anyhow::{Result, bail};
use run::Size;

/// How the documentation's page is made, but for the size.
const DOCUMENT_COMMAND: &str = "cargo run --release -p strata-regress --bin redo-oracle -- --markdown";

fn main() -> Result<()> {
    let (mut size, mut format) = (Size::Small, None);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--full" => size = Size::Large,
            "--json" | "--markdown" if format.is_none() => format = Some(argument),
            _ => bail!("usage: redo-oracle [--full] [--json | --markdown]"),
        }
    }
    let summary = plan::run(size)?;
    match format.as_deref() {
        Some("--json") => println!("{:#}", summary.json()),
        Some(_) if size == Size::Large => {
            print!("{}", summary.markdown(&format!("{DOCUMENT_COMMAND} --full")))
        }
        Some(_) => print!("{}", summary.markdown(DOCUMENT_COMMAND)),
        None => println!("{summary}"),
    }
    plan::check(&summary, size)
}
