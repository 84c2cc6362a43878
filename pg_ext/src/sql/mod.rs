//! The extension's SQL functions. Their declarations stand in `sql/strata--*.sql`.

pub mod counters;
mod safekeepers;

use pgrx::prelude::*;

use crate::smgr::settings::{Entry, Mode, entry};

#[pg_extern]
fn strata_version() -> String {
    format!("strata {} for {}", env!("CARGO_PKG_VERSION"), pg_sys::PG_VERSION_STR.to_string_lossy())
}

#[pg_extern]
fn strata_smgr_mode() -> &'static str {
    match crate::smgr::settings::mode() {
        Mode::Local => "local",
        Mode::Remote if entry() == Entry::Stock => "stock",
        Mode::Remote => "registered",
        Mode::Compare => "compare",
    }
}
