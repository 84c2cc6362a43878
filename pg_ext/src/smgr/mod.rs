//! The storage manager: permanent relations live on a pageserver (D6, D7), all others in files.
//!
//! `callbacks` is what the server calls, `sizes` and `pages` do it, `classify` finds out which relation is permanent, `spill`
//! keeps what the log cannot rebuild, `remote` asks the pageserver through the communicator, `hooks` and `dbsize` cover what
//! goes around the storage manager, `stock` takes the place of a registration hook. Decisions live in `strata-smgr`.

pub mod buffers;
mod callbacks;
mod classify;
mod dbsize;
mod ffi;
pub mod hooks;
pub mod images;
pub mod log_position;
mod memory;
pub mod remote;
pub mod running;
pub mod settings;
pub mod settle;
mod shadow;
mod sizes;
pub mod spill;
mod spill_files;
pub mod sql;
pub mod state;
mod stock;
mod tablespaces;

mod pages;

use std::sync::atomic::{AtomicI32, Ordering};

use pgrx::pg_sys;
use strata_common::{Guard, Lsn};

use crate::guc;
use settings::{Entry, Mode};

/// Our number in the server's table of storage managers.
static NUMBER: AtomicI32 = AtomicI32::new(0);

fn number() -> i32 {
    NUMBER.load(Ordering::Relaxed)
}

/// From `_PG_init` in the postmaster, after the settings are there. Stops the start if remote storage is wanted and impossible.
pub fn init() {
    settings::register();
    let remote = !guc::value(&guc::PAGESERVER).is_empty();
    let wanted = match (remote, settings::compare_wanted()) {
        (true, compare) => {
            if compare {
                shadow::switch_on();
            }
            Mode::Remote
        }
        (false, true) => Mode::Compare,
        (false, false) => Mode::Local,
    };
    if wanted == Mode::Local {
        return;
    }
    // SAFETY: a plain setting of the server. With minimal, bulk writes carry no LSN and a permanent relation looks unlogged (R13).
    if unsafe { pg_sys::wal_level } < pg_sys::WalLevel::WAL_LEVEL_REPLICA as i32 {
        pgrx::error!("remote storage needs wal_level = replica or logical");
    }
    if wanted == Mode::Remote {
        if let Err(problem) = guc::timeline().and_then(|_| start_lsn()) {
            pgrx::error!("remote storage cannot be used: {problem}");
        }
        crate::communicator::register();
        crate::prefetch::settings::raise_advice();
        crate::prefetch::running::install();
    }
    crate::keeper::register();
    settings::set_mode(wanted);
    enter();
    hooks::install();
    dbsize::install();
    settings::forbid_compiled_queries();
}

/// Makes the server call us: by its registration hook, or by taking its table over if it has none (D2).
fn enter() {
    let Some((register, hook)) = ffi::registration() else {
        if let Err(problem) = stock::take_over() {
            pgrx::error!(
                "this server has no storage manager registration, and its own storage manager cannot be taken over: {problem}; use the Postgres that Strata's set-up builds"
            );
        }
        settings::set_entry(Entry::Stock);
        return;
    };
    // SAFETY: during preload, as the function demands; the table is static. The hook's type is the server's.
    unsafe {
        if (*hook).is_some() {
            pgrx::error!("another library has registered a storage manager");
        }
        NUMBER.store(register(&callbacks::TABLE), Ordering::Relaxed);
        *hook = Some(callbacks::select);
    }
    settings::set_entry(Entry::Registered);
}

/// Whether the registration hook, on a server that has it, is as we left it: libraries that were loaded later may have set it.
fn is_still_selected() -> bool {
    let Some((_, hook)) = ffi::registration() else { return true };
    // SAFETY: the hook is a variable of the server, and nothing writes it once libraries are loaded.
    unsafe { (*hook).is_some_and(|select| select as usize == callbacks::select as *const () as usize) }
}

fn start_lsn() -> Result<Lsn, String> {
    let text = guc::value(&guc::START_LSN);
    text.parse::<Lsn>().map_err(|error| format!("strata.start_lsn: {error}"))
}

/// Files hold nothing newer after a clean stop.
fn last_checkpoint() -> Lsn {
    let mut crc_ok = false;
    // SAFETY: reads pg_control into memory of the server's, which frees it with its context.
    unsafe {
        let control = pg_sys::get_controlfile(pg_sys::DataDir, &mut crc_ok);
        Lsn((*control).checkPoint)
    }
}

/// Bytes of shared memory; from `shmem_request_hook`.
pub fn on_shmem_request() -> usize {
    match settings::mode() {
        Mode::Local => 0,
        Mode::Compare => state::request(),
        // The two areas begin on cache lines.
        Mode::Remote => state::request().next_multiple_of(128) + crate::prefetch::memory::request(),
    }
}

/// From `shmem_startup_hook`, with AddinShmemInitLock held.
pub fn on_shmem_startup() {
    if settings::mode() == Mode::Local {
        return;
    }
    if !(is_still_selected() && stock::still_ours()) {
        pgrx::error!(
            "another library of shared_preload_libraries has taken over the server's storage manager"
        );
    }
    state::attach();
    if settings::mode() == Mode::Remote {
        crate::prefetch::memory::attach();
    }
    running::attach();
    // SAFETY: a plain variable of the server.
    if !unsafe { pg_sys::IsUnderPostmaster } {
        spill::reset();
        shadow::reset();
        if !Guard::FloorAtStart.holds() {
            return;
        }
        // L7: nothing older than the start may be read.
        state::raise_floor(if settings::mode() == Mode::Compare {
            last_checkpoint()
        } else {
            start_lsn().unwrap_or_default()
        });
    }
}
