//! `strata-compute --spec FILE`: runs one compute until it is told to stop (SIGTERM, SIGINT) or must end.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use strata_compute::spec::Spec;
use strata_compute::supervisor;

/// Supervisor of one Postgres; started by `strata compute start`.
#[derive(Parser)]
#[command(name = "strata-compute", version)]
struct Arguments {
    /// What to run, as JSON (see `strata_compute::spec`).
    #[arg(long)]
    spec: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false).init();
    match run(&arguments.spec) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &std::path::Path) -> anyhow::Result<()> {
    let spec = Spec::read(path)?;
    // One thread: the postmaster's parent-death signal hangs on the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(supervisor::run(spec, path));
    // What is still being removed goes at the next start: nobody waits for it.
    runtime.shutdown_background();
    ended
}
