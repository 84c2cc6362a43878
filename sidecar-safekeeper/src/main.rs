//! The binary `strata-safekeeper`: see the library.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    strata_daemon::run(strata_safekeeper::PROGRAM, strata_safekeeper::run)
}
