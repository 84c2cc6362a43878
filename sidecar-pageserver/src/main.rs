//! `strata-pageserver`: settings from the shell that all daemons share, the rest is the library's `daemon`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    strata_daemon::run(strata_pageserver::daemon::PROGRAM, strata_pageserver::daemon::run)
}
