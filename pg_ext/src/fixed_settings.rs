//! Settings that would undo correctness and that a superuser could change at any time are refused (trap S14); those that need a
//! restart, or a reload, stand on the server's command line, which nothing beats.
//!
//! The refusal is the setting's own check, so that every way to a value meets it: SET, `set_config`, a function's SET clause,
//! ALTER ROLE and ALTER DATABASE, options of a connection. Neither hook can be taken away by a user.
//!
//! ALTER SYSTEM is refused altogether: its file lies in a data directory that is laid down anew at every start, so that what it
//! says would be lost in silence.

use std::ffi::CStr;
use std::ffi::c_void;

use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::{self, NodeTag};
use pgrx::{PgLogLevel, ereport};

use crate::guc;

/// Switches that must stay off, and what is said to who wants them on. With the first a page that cannot be read in full becomes an empty one, which is then written
/// over the true one; the second takes damaged pages for good ones.
const ALWAYS_OFF: [(&CStr, &CStr); 2] = [
    (
        c"zero_damaged_pages",
        c"zero_damaged_pages stays off: a page that cannot be read would be replaced by an empty one",
    ),
    (
        c"ignore_checksum_failure",
        c"ignore_checksum_failure stays off: a damaged page would be taken for a good one",
    ),
];

const CHECKS: [Check; 2] = [stays_off::<0>, stays_off::<1>];

/// A check hook of a switch.
type Check = unsafe extern "C-unwind" fn(*mut bool, *mut *mut c_void, pg_sys::GucSource::Type) -> bool;

/// Puts the checks in; call once, from `_PG_init` in the postmaster.
pub fn install() {
    for ((name, _), check) in ALWAYS_OFF.iter().zip(CHECKS) {
        // SAFETY: the postmaster has one thread while it loads libraries; the tag says which struct the name stands for, and the
        // tables of settings are writable memory of the process, which children inherit (guc_tables.h).
        unsafe {
            let found =
                pg_sys::find_option(name.as_ptr(), false, true, pg_sys::elog::PgLogLevel::ERROR as i32);
            if found.is_null() || (*found).vartype != pg_sys::config_type::PGC_BOOL {
                pgrx::error!("this server has no switch {name:?}, so it cannot be kept off");
            }
            let switch = found.cast::<pg_sys::config_bool>();
            if (*switch).check_hook.is_some() || *(*switch).variable {
                pgrx::error!("{name:?} is on, or another library checks it already: it must be off");
            }
            (*switch).check_hook = Some(check);
        }
    }
}

/// Check hook of a switch that must stay off, by its place in the list.
unsafe extern "C-unwind" fn stays_off<const WHICH: usize>(
    wanted: *mut bool,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the server passes the wanted value and takes the texts as they are, without freeing them (guc.c).
    unsafe {
        if !*wanted {
            return true;
        }
        pg_sys::GUC_check_errcode(PgSqlErrorCode::ERRCODE_CANT_CHANGE_RUNTIME_PARAM as std::ffi::c_int);
        pg_sys::GUC_check_errmsg_string = ALWAYS_OFF[WHICH].1.as_ptr().cast_mut();
        false
    }
}

/// # Safety
/// `node` is the utility statement that is about to run.
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn before_command(node: *mut pg_sys::Node) {
    // SAFETY: the caller's promise; the tag says which struct it is.
    let refused = unsafe { (*node).type_ == NodeTag::T_AlterSystemStmt };
    if refused && !guc::value(&guc::PAGESERVER).is_empty() {
        ereport!(
            PgLogLevel::ERROR,
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "ALTER SYSTEM is not supported on a compute: its file would be gone at the next start; \
             give settings with \"strata compute set\", or use ALTER DATABASE or ALTER ROLE"
        );
    }
}
