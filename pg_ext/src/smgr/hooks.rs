//! What happens around the storage manager: catalog entries, ends of transactions, commands on whole databases
//! (traps R9, R12, W2; rules 6 and 9 of the persistence rule).

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::{self, NodeTag, Oid};
use pgrx::{PgLogLevel, ereport, pg_guard};
use strata_common::{ForkNumber, Guard, Lsn, RelTag};
use strata_smgr::Class;

use super::classify::End;
use super::settings::{Mode, mode};
use super::{buffers, classify, dbsize, ffi, log_position, shadow, spill, state, tablespaces};
use crate::wal::backpressure;

static PREVIOUS_ACCESS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// What DROP DATABASE really drops: the name may be of no database (IF EXISTS), or of another one before it is locked. Asked
    /// for by name, "none" is 0, and 0 is where shared catalogs are (CP-3, R9).
    static DATABASE_DROPPED: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Installs the hooks; from `_PG_init` in the postmaster. Backends inherit them, the transaction callback too.
pub fn install() {
    // SAFETY: hooks of the right types; the ones before ours are called, too.
    unsafe {
        PREVIOUS_ACCESS.store(pg_sys::object_access_hook.map_or(0, |hook| hook as usize), Ordering::Relaxed);
        pg_sys::object_access_hook = Some(on_object_access);
        pg_sys::RegisterXactCallback(Some(on_transaction), std::ptr::null_mut());
    }
}

/// Rule 6: a relation has just got its catalog entry.
#[pg_guard]
unsafe extern "C-unwind" fn on_object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    sub: c_int,
    argument: *mut c_void,
) {
    // SAFETY: the address is a hook of this type, or 0; the arguments are passed on as they came.
    unsafe {
        let previous: pg_sys::object_access_hook_type =
            std::mem::transmute(PREVIOUS_ACCESS.load(Ordering::Relaxed));
        if let Some(previous) = previous {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous(access, class, object, sub, argument));
        }
        if access == pg_sys::ObjectAccessType::OAT_DROP && class == pg_sys::TableSpaceRelationId {
            tablespaces::before_drop(object);
        }
        if access == pg_sys::ObjectAccessType::OAT_DROP && class == pg_sys::DatabaseRelationId {
            DATABASE_DROPPED.set(Some(object.to_u32()));
        }
        let created = access == pg_sys::ObjectAccessType::OAT_POST_CREATE;
        if created && class == pg_sys::RelationRelationId && sub == 0 && !classify::undecided().is_empty() {
            relation_created(object);
        }
    }
}

/// # Safety
/// In a transaction.
unsafe fn relation_created(object: Oid) {
    // SAFETY: the relation cache has the new relation before its catalog row is visible.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(object);
        if relation.is_null() {
            return;
        }
        let locator = (*relation).rd_locator;
        let temporary = (*relation).rd_backend != pg_sys::INVALID_PROC_NUMBER;
        let permanent = (*(*relation).rd_rel).relpersistence == pg_sys::RELPERSISTENCE_PERMANENT as c_char;
        pg_sys::RelationClose(relation);
        if !temporary && locator.relNumber != Oid::INVALID {
            classify::catalog_says(locator, permanent);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::*;
    let over = [XACT_EVENT_COMMIT, XACT_EVENT_ABORT, XACT_EVENT_PREPARE];
    if over.contains(&event) || [XACT_EVENT_PARALLEL_COMMIT, XACT_EVENT_PARALLEL_ABORT].contains(&event) {
        crate::prefetch::end_of_transaction();
    }
    match event {
        XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE => {
            // SAFETY: reads this backend's own transaction state.
            if unsafe { pg_sys::GetTopTransactionIdIfAny() } != pg_sys::InvalidTransactionId {
                backpressure::before_commit();
            }
            before_commit();
            crate::prefetch::settle();
        }
        XACT_EVENT_PARALLEL_PRE_COMMIT => crate::prefetch::settle(),
        XACT_EVENT_COMMIT | XACT_EVENT_PREPARE => classify::end_of_transaction(End::Commit),
        XACT_EVENT_ABORT => classify::end_of_transaction(End::Abort),
        _ => {}
    }
}

/// Rule 9, and W2: nothing that was made may be left in the spill store only.
fn before_commit() {
    classify::decide_others();
    let made = classify::all_made();
    let check_all = mode() == Mode::Compare;
    for tag in if check_all { made } else { classify::undecided() } {
        // SAFETY: in a transaction that is still in progress.
        if let Some(permanent) = unsafe { catalog_persistence(tag) } {
            classify::catalog_says(ffi::locator_of(tag), permanent);
        }
    }
    for tag in classify::maybe_filled() {
        if Guard::OnlyCopies.holds() {
            refuse_only_copies(tag);
        }
    }
}

/// relpersistence of the relation with this number in the present database; `None` if it is gone again.
///
/// # Safety
/// In a transaction.
unsafe fn catalog_persistence(tag: RelTag) -> Option<bool> {
    // SAFETY: catalog look-ups; the default tablespace of a database stands as 0 in pg_class, which the function knows.
    unsafe {
        if tag.database != pg_sys::MyDatabaseId.to_u32() && tag.database != 0 {
            return None;
        }
        let relation = ffi::RelidByRelfilenumber(tag.tablespace.into(), tag.relation.into());
        if relation == Oid::INVALID {
            return None;
        }
        Some(pg_sys::get_rel_persistence(relation) == pg_sys::RELPERSISTENCE_PERMANENT as c_char)
    }
}

/// W2: an index method may fill pages before it logs them, but a commit must not leave one that only the spill store has. The
/// final log of such a build leaves its pages in shared buffers, dirty and with an LSN, until they are written again.
fn refuse_only_copies(tag: RelTag) {
    let Some(entry) = state::entry(tag) else { return };
    for fork in [ForkNumber::Main, ForkNumber::Init] {
        if entry.class != Class::Permanent || entry.fork(fork).only_copies == 0 {
            continue;
        }
        let rel = tag.fork(fork);
        let logged = |block| buffers::lsn_in_buffer(rel, block).is_some_and(|lsn| lsn > Lsn(1));
        let suspects: Vec<_> = spill::only_copies(rel).into_iter().filter(|block| !logged(*block)).collect();
        // One may have been written, and so have left both, between the two looks.
        let still = if suspects.is_empty() { Vec::new() } else { spill::only_copies(rel) };
        if let Some(block) = suspects.iter().find(|block| still.contains(block) && !logged(**block)) {
            ereport!(
                PgLogLevel::ERROR,
                PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                format!(
                    "block {block} of relation {tag} was never written to the log, so it could not be read after a restart"
                )
            );
        }
    }
}

/// What is left to do when a command has succeeded.
#[derive(Clone, Copy)]
#[repr(C)]
pub enum After {
    Nothing,
    /// CREATE DATABASE by file_copy is one record: every relation of the new database changes with it (R9).
    DatabaseMade,
    /// Which one, if any, is in `DATABASE_DROPPED`.
    DatabaseDropped,
}

/// Refuses what cannot be, and says what is to be done afterwards.
///
/// # Safety
/// `statement` is the utility statement that is about to run.
#[pg_guard]
pub unsafe extern "C-unwind" fn before_command(statement: *mut pg_sys::Node) -> After {
    if mode() != Mode::Remote {
        return After::Nothing;
    }
    // SAFETY: the tag says which struct it is.
    unsafe {
        match (*statement).type_ {
            NodeTag::T_CreatedbStmt => {
                if Guard::LargeCopyRefused.holds() {
                    refuse_large_copy(statement.cast());
                }
                After::DatabaseMade
            }
            NodeTag::T_DropdbStmt => {
                DATABASE_DROPPED.set(None);
                After::DatabaseDropped
            }
            NodeTag::T_CreateTableSpaceStmt
                if Guard::LocationRefused.holds() && tablespaces::is_a_folder(statement.cast()) =>
            {
                refuse(
                    "CREATE TABLESPACE with a location",
                    "it would be a folder on a disk, which this server does not keep",
                )
            }
            NodeTag::T_AlterDatabaseStmt
                if Guard::DatabaseMoveRefused.holds() && moves_database(statement.cast()) =>
            {
                refuse("ALTER DATABASE SET TABLESPACE", "there is only one place where relations are stored")
            }
            _ => After::Nothing,
        }
    }
}

/// # Safety
/// `statement` is an ALTER DATABASE.
unsafe fn moves_database(statement: *mut pg_sys::AlterDatabaseStmt) -> bool {
    // SAFETY: a list of DefElem (gram.y).
    unsafe {
        let mut options = options((*statement).options).iter();
        options
            .any(|item| CStr::from_ptr((*item.ptr_value.cast::<pg_sys::DefElem>()).defname) == c"tablespace")
    }
}

/// # Safety
/// A list of DefElem that outlives what is returned, or null.
unsafe fn options<'a>(list: *mut pg_sys::List) -> &'a [pg_sys::ListCell] {
    // SAFETY: a list has its length of cells (pg_list.h).
    unsafe {
        match list.is_null() {
            true => &[],
            false => std::slice::from_raw_parts((*list).elements, (*list).length as usize),
        }
    }
}

/// Pages of a database that one record may stand for, bytes; the pageserver takes a record in as a whole.
const COPY_BYTES_MAX: u64 = 256 << 20;

/// Strategy file_copy is one record whatever the size of the template; wal_log is a record for each page.
///
/// # Safety
/// `statement` is a CREATE DATABASE.
unsafe fn refuse_large_copy(statement: *mut pg_sys::CreatedbStmt) {
    // SAFETY: a list of DefElem (gram.y), whose argument is null for DEFAULT.
    unsafe {
        let (mut template, mut copies) = (c"template1".as_ptr(), false);
        for item in options((*statement).options) {
            let option = item.ptr_value.cast::<pg_sys::DefElem>();
            let name = CStr::from_ptr((*option).defname);
            if (*option).arg.is_null() || (name != c"strategy" && name != c"template") {
                continue;
            }
            let value = pg_sys::defGetString(option);
            if name == c"template" {
                template = value;
            } else {
                copies = CStr::from_ptr(value).to_bytes().eq_ignore_ascii_case(b"file_copy");
            }
        }
        let database = pg_sys::get_database_oid(template, true);
        // The server says what is wrong with a template that does not exist.
        if !copies || database == Oid::INVALID {
            return;
        }
        let bytes = dbsize::remote_database_bytes(0, database.to_u32());
        if bytes > COPY_BYTES_MAX {
            ereport!(
                PgLogLevel::ERROR,
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "strategy file_copy is for templates of at most {COPY_BYTES_MAX} bytes with remote storage, this one has {bytes}: use strategy wal_log"
                )
            );
        }
    }
}

fn refuse(command: &str, why: &str) -> ! {
    ereport!(
        PgLogLevel::ERROR,
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("{command} is not supported with remote storage: {why}")
    );
    unreachable!("an ERROR does not return")
}

/// The command has succeeded.
#[pg_guard]
pub extern "C-unwind" fn after_command(after: After) {
    match after {
        After::Nothing => {}
        After::DatabaseMade if Guard::CopiedDatabaseRaises.holds() => {
            state::raise_floor(log_position::insert_lsn());
        }
        After::DatabaseMade => {}
        After::DatabaseDropped => {
            let Some(database) = DATABASE_DROPPED.take() else { return };
            if Guard::DropDatabaseForgets.holds() {
                spill::purge(|entry| entry.tag.database == database);
            }
            shadow::purge_database(database);
            if Guard::DropDatabaseRaises.holds() {
                state::raise_floor(log_position::insert_lsn());
            }
        }
    }
}
