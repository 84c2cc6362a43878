//! Tablespaces of users, without a disk to put them on (traps R9, R12).
//!
//! A permanent relation is on the pageserver whatever its tablespace is; its locator names the tablespace, that is all. So
//! tablespaces without a location work (`allow_in_place_tablespaces`), as names that keep relations apart; temporary and unlogged
//! relations have their files in the folder that the server makes. A location on a disk is refused.
//!
//! DROP TABLESPACE looks for files and would find none of the permanent relations: it asks the pageserver first. Making a
//! relation and dropping its tablespace exclude each other by a lock on the tablespace, held to the end of the transaction.

use std::ffi::CStr;

use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::{self, Oid};
use pgrx::{PgLogLevel, ereport};
use strata_common::{Guard, RelTag};
use strata_smgr::slots::Ask;

use super::settings::{Mode, mode};
use super::{log_position, remote};

/// `pg_default` and `pg_global` (`src/include/catalog/pg_tablespace.dat`).
const BUILT_IN: [u32; 2] = [1663, 1664];

/// Whether CREATE TABLESPACE names a folder that is there. All other locations are refused by the server itself, or none.
///
/// # Safety
/// `statement` is a CREATE TABLESPACE.
pub unsafe fn is_a_folder(statement: *mut pg_sys::CreateTableSpaceStmt) -> bool {
    // SAFETY: the grammar always gives a string.
    let location = unsafe { CStr::from_ptr((*statement).location) };
    location
        .to_str()
        .map_or(true, |location| location.starts_with('/') && std::path::Path::new(location).is_dir())
}

fn lock(tablespace: Oid, mode: u32) {
    // SAFETY: in a transaction; an ERROR (cancel, deadlock) may be raised here as for any lock.
    unsafe {
        pg_sys::LockSharedObject(pg_sys::TableSpaceRelationId, tablespace, 0, mode as pg_sys::LOCKMODE);
    }
}

/// A relation is about to be made. Its database gets a folder in the tablespace: that is how DROP DATABASE finds out in which
/// tablespaces the database is, and an error if the tablespace was dropped meanwhile.
pub fn relation_made(tag: RelTag) {
    if BUILT_IN.contains(&tag.tablespace) {
        return;
    }
    lock(tag.tablespace.into(), pg_sys::AccessShareLock);
    // SAFETY: makes a folder if it is not there; the numbers are those of a relation that the server makes.
    unsafe { pg_sys::TablespaceCreateDbspace(tag.tablespace.into(), tag.database.into(), false) };
}

/// DROP TABLESPACE has passed all checks but the one for content.
pub fn before_drop(tablespace: Oid) {
    if mode() != Mode::Remote || !Guard::TablespaceLooked.holds() {
        return;
    }
    lock(tablespace, pg_sys::AccessExclusiveLock);
    let ask = Ask::TablespaceUsed { tablespace: tablespace.to_u32() };
    if remote::ask(ask, log_position::insert_lsn(), &[]) != 0 {
        // SAFETY: a catalog look-up; the row is still there.
        let name = unsafe {
            let name = pg_sys::get_tablespace_name(tablespace);
            if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
        };
        ereport!(
            PgLogLevel::ERROR,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("tablespace \"{name}\" is not empty")
        );
    }
}
