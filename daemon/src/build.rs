//! Which version and build a binary is; printed by `--version`, `/status` and `/metrics`.

/// Version of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the builder named this build (environment `STRATA_BUILD`, a commit as a rule), or `dev`.
pub const BUILD: &str = match option_env!("STRATA_BUILD") {
    Some(build) => build,
    None => "dev",
};

/// Both, for people.
pub fn describe() -> String {
    format!("{VERSION} ({BUILD})")
}
