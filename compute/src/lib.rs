//! The supervisor of one Postgres: see `README.md` for what it does, `supervisor` for the order in which.
#![deny(unsafe_code)]

mod aside;
pub mod cache;
pub mod closed_log;
pub mod data_dir;
pub mod handoff;
pub mod metrics;
pub mod pageserver;
pub mod postmaster;
pub mod reload;
mod segments;
pub mod settings;
pub mod spec;
pub mod state_file;
pub mod supervisor;
pub mod tail;
