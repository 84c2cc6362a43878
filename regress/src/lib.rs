//! What the suites share: temporary Postgres servers that run as an unprivileged user.
//!
//! The suites themselves are under `tests/` and `sql/`; this library holds only what more than one of them needs.
#![forbid(unsafe_code)]

pub mod cached;
pub mod counters;
pub mod dump;
pub mod evict;
pub mod held_log;
pub mod mounts;
pub mod oracle;
pub mod points;
pub mod port_lease;
pub mod postgres;
pub mod psql_session;
pub mod random;
pub mod refusal;
pub mod replay;
pub mod scripts;
pub mod session;
pub mod size;
pub mod slow_pages;
pub mod standby;
pub mod stock;
pub mod suites;
pub mod tpcb;
pub mod traps;
pub mod wal_files;
pub mod whole;
