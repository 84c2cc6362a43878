//! The extension `strata`: what runs inside Postgres. Glue only.
//!
//! It replaces the storage manager for permanent relations (`smgr`), sends the log to a quorum of safekeepers and holds
//! commits until a majority has them (`wal`). Decisions live in the libraries `strata-smgr` and `strata-walproposer`;
//! this crate is the one place with `unsafe` calls into Postgres.
//!
//! Everything is set up in `_PG_init`, which must run from `shared_preload_libraries`; loaded later (by a function call of
//! a session) the library only answers its SQL functions.

mod communicator;
mod fixed_settings;
mod guc;
mod keeper;
mod lfc;
mod parent_death;
mod prefetch;
mod shmem;
mod smgr;
mod sql;
mod statistics;
mod utility;
mod wait_event;
mod wal;
mod workers;
mod working_set;

use pgrx::pg_sys;

pgrx::pg_module_magic!(name, version);

#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: a plain flag of the server, set before any library's _PG_init runs (miscinit.c).
    if !unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        return;
    }
    // Errors that pass through our hooks would carry Rust's backtraces to clients.
    // SAFETY: the postmaster has one thread while it loads libraries.
    unsafe { std::env::remove_var("RUST_BACKTRACE") };
    parent_death::install();
    guc::register();
    wal::backpressure::register();
    sql::counters::register();
    shmem::install();
    if !guc::value(&guc::SAFEKEEPERS).is_empty() {
        wal::init();
    }
    // After the log's part: transaction callbacks run in the reverse order, and ours may read catalogs, which must stay
    // cancellable before a commit begins to wait.
    smgr::init();
    let quorum = !guc::value(&guc::SAFEKEEPERS).is_empty();
    if quorum || smgr::settings::mode() != smgr::settings::Mode::Local {
        fixed_settings::install();
        utility::install();
    }
    guc::fix_storage();
}
