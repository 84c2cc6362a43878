//! The size functions, which in the server look at files (`src/backend/utils/adt/dbsize.c`): taken over in `fmgr_builtins` (D1, R12).
//!
//! Relations are measured through the storage manager, so temporary, unlogged and permanent ones alike. Databases and
//! tablespaces are the files that the server finds, as before, plus what the pageserver has, plus free space maps, which the
//! log and so the pageserver do not have.

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use pgrx::{FromDatum, pg_guard};
use strata_common::{BLOCK_BYTES, ForkNumber, Guard};
use strata_smgr::slots::Ask;
use strata_smgr::{Class, ForkSize};

use super::ffi::{self, FmgrBuiltin};
use super::settings::{Mode, mode};
use super::state::{self, LockMode};
use super::{log_position, remote};

type SizeFunction = unsafe extern "C-unwind" fn(FunctionCallInfo) -> Datum;

const GLOBAL_TABLESPACE: u32 = 1664;

/// OIDs of `pg_proc.dat` and what takes their place. The functions call each other's C code, so each needs its own entry.
const TAKEN_OVER: [(u32, SizeFunction, Guard); 8] = [
    (2332, relation_size, Guard::RelationSize),
    (2997, table_size, Guard::TableSize),
    (2998, indexes_size, Guard::IndexesSize),
    (2286, total_relation_size, Guard::TotalRelationSize),
    (2324, database_size_oid, Guard::DatabaseSizeByOid),
    (2168, database_size_name, Guard::DatabaseSizeByName),
    (2322, tablespace_size_oid, Guard::TablespaceSizeByOid),
    (2323, tablespace_size_name, Guard::TablespaceSizeByName),
];

/// Takes the functions over; in the postmaster, so that every process has them.
pub fn install() {
    for (oid, function, guard) in TAKEN_OVER {
        if !guard.holds() {
            continue;
        }
        if let Err(problem) = take_over(oid, function) {
            pgrx::error!("cannot take over the size functions: {problem}");
        }
    }
}

fn take_over(oid: u32, function: SizeFunction) -> Result<(), String> {
    // SAFETY: the table and its length are the server's; one entry is changed while its pages are writable, by the only thread.
    unsafe {
        let first = (&raw const ffi::fmgr_builtins).cast::<FmgrBuiltin>();
        let count = usize::try_from(ffi::fmgr_nbuiltins).unwrap_or(0);
        let index = (0..count).find(|index| (*first.add(*index)).foid == Oid::from(oid));
        let entry = first.add(index.ok_or_else(|| format!("there is no function {oid}"))?);
        super::memory::overwrite(&raw const (*entry).func as usize, &(function as usize).to_ne_bytes())
    }
}

/// Argument `index`; all of these functions are strict.
///
/// # Safety
/// The call has that argument.
unsafe fn argument(call: FunctionCallInfo, index: usize) -> Datum {
    // SAFETY: the caller's promise.
    unsafe { (*call).args.as_slice((*call).nargs as usize)[index].value }
}

/// Runs `measure` on an open relation; SQL null if it is gone.
///
/// # Safety
/// The first argument is a relation's OID.
unsafe fn with_relation(call: FunctionCallInfo, measure: impl FnOnce(pg_sys::Relation) -> u64) -> Datum {
    // SAFETY: the caller's promise; the relation is locked while it is measured.
    unsafe {
        let oid = Oid::from(argument(call, 0).value() as u32);
        let relation = pg_sys::try_relation_open(oid, pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            (*call).isnull = true;
            return Datum::from(0);
        }
        let bytes = measure(relation);
        pg_sys::relation_close(relation, pg_sys::AccessShareLock as i32);
        Datum::from(bytes as i64)
    }
}

/// # Safety
/// `relation` is open.
unsafe fn fork_bytes(relation: pg_sys::Relation, fork: ForkNumber) -> u64 {
    // SAFETY: the caller's promise. Relations without storage have no number.
    unsafe {
        if (*relation).rd_locator.relNumber == Oid::INVALID {
            return 0;
        }
        let reln = pg_sys::smgropen((*relation).rd_locator, (*relation).rd_backend);
        let raw = ffi::raw_fork(fork);
        if pg_sys::smgrexists(reln, raw) {
            u64::from(pg_sys::smgrnblocks(reln, raw)) * BLOCK_BYTES as u64
        } else {
            0
        }
    }
}

/// # Safety
/// `relation` is open.
unsafe fn all_forks_bytes(relation: pg_sys::Relation) -> u64 {
    // SAFETY: the caller's promise.
    ForkNumber::ALL.iter().map(|fork| unsafe { fork_bytes(relation, *fork) }).sum()
}

/// All forks of a relation's indexes.
///
/// # Safety
/// `relation` is open.
unsafe fn index_bytes(relation: pg_sys::Relation) -> u64 {
    // SAFETY: the caller's promise; the list holds OIDs.
    unsafe {
        if !(*(*relation).rd_rel).relhasindex {
            return 0;
        }
        let list = pg_sys::RelationGetIndexList(relation);
        if list.is_null() {
            return 0;
        }
        let items = std::slice::from_raw_parts((*list).elements, (*list).length as usize);
        let sum =
            items.iter().map(|item| other_relation(item.oid_value, |index| all_forks_bytes(index))).sum();
        pg_sys::list_free(list);
        sum
    }
}

/// A relation's own forks and its TOAST table with its indexes.
///
/// # Safety
/// `relation` is open.
unsafe fn table_bytes(relation: pg_sys::Relation) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let toast = (*(*relation).rd_rel).reltoastrelid;
        let own = all_forks_bytes(relation);
        if toast == Oid::INVALID {
            return own;
        }
        own + other_relation(toast, |toast| all_forks_bytes(toast) + index_bytes(toast))
    }
}

/// # Safety
/// `oid` is an existing relation's, locked by way of its table.
unsafe fn other_relation(oid: Oid, measure: impl FnOnce(pg_sys::Relation) -> u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let relation = pg_sys::relation_open(oid, pg_sys::AccessShareLock as i32);
        let bytes = measure(relation);
        pg_sys::relation_close(relation, pg_sys::AccessShareLock as i32);
        bytes
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_size(call: FunctionCallInfo) -> Datum {
    // SAFETY: arguments regclass and text.
    unsafe {
        let name = String::from_datum(argument(call, 1), false).unwrap_or_default();
        let name = std::ffi::CString::new(name).unwrap_or_default();
        let fork = ffi::fork_of(pg_sys::forkname_to_number(name.as_ptr()));
        with_relation(call, |relation| fork_bytes(relation, fork))
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn table_size(call: FunctionCallInfo) -> Datum {
    // SAFETY: argument regclass.
    unsafe { with_relation(call, |relation| table_bytes(relation)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn indexes_size(call: FunctionCallInfo) -> Datum {
    // SAFETY: argument regclass.
    unsafe { with_relation(call, |relation| index_bytes(relation)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn total_relation_size(call: FunctionCallInfo) -> Datum {
    // SAFETY: argument regclass.
    unsafe { with_relation(call, |relation| table_bytes(relation) + index_bytes(relation)) }
}

/// The server's own answer, from files, after its own checks of privileges.
///
/// # Safety
/// `call` is a call of `function`.
unsafe fn in_files(function: unsafe fn(FunctionCallInfo) -> Datum, call: FunctionCallInfo) -> Option<u64> {
    // SAFETY: the caller's promise.
    unsafe {
        let bytes = function(call);
        (!(*call).isnull).then(|| u64::try_from(bytes.value() as i64).unwrap_or(0))
    }
}

/// Bytes of a database beyond its files. Tablespace 0: all of them.
pub fn remote_database_bytes(tablespace: u32, database: u32) -> u64 {
    if mode() != Mode::Remote {
        return 0;
    }
    let now = log_position::insert_lsn();
    remote::ask(Ask::DatabaseSize { tablespace, database }, now, &[])
        + free_space_map_bytes(tablespace, database)
}

/// Free space maps that this server has made or met.
fn free_space_map_bytes(tablespace: u32, database: u32) -> u64 {
    let mut blocks = 0u64;
    for partition in 0..state::PARTITIONS {
        blocks += state::with_partition_number(partition, LockMode::Shared, |table| {
            let entries = table.entries().filter(|entry| {
                let here = tablespace == 0 || entry.tag.tablespace == tablespace;
                here && entry.tag.database == database && entry.class == Class::Permanent
            });
            let size = |entry: &strata_smgr::RelEntry| match entry.fork(ForkNumber::FreeSpaceMap).size {
                ForkSize::Blocks(blocks) => u64::from(blocks),
                _ => 0,
            };
            entries.map(size).sum::<u64>()
        });
    }
    blocks * BLOCK_BYTES as u64
}

#[pg_guard]
unsafe extern "C-unwind" fn database_size_oid(call: FunctionCallInfo) -> Datum {
    // SAFETY: argument oid.
    unsafe {
        let database = argument(call, 0).value() as u32;
        match in_files(pg_sys::pg_database_size_oid, call) {
            Some(bytes) => Datum::from((bytes + remote_database_bytes(0, database)) as i64),
            None => Datum::from(0),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn database_size_name(call: FunctionCallInfo) -> Datum {
    // SAFETY: argument name; the server's function has looked it up by then, or raised an error.
    unsafe {
        let name = argument(call, 0).cast_mut_ptr::<std::ffi::c_char>();
        match in_files(pg_sys::pg_database_size_name, call) {
            Some(bytes) => {
                let database = pg_sys::get_database_oid(name, false).to_u32();
                Datum::from((bytes + remote_database_bytes(0, database)) as i64)
            }
            None => Datum::from(0),
        }
    }
}

/// Bytes of a tablespace beyond its files, over all databases.
fn remote_tablespace_bytes(tablespace: u32) -> u64 {
    if mode() != Mode::Remote {
        return 0;
    }
    if tablespace == GLOBAL_TABLESPACE {
        return remote_database_bytes(tablespace, 0);
    }
    database_oids().into_iter().map(|database| remote_database_bytes(tablespace, database)).sum()
}

fn database_oids() -> Vec<u32> {
    let mut oids = Vec::new();
    // SAFETY: a plain scan of a shared catalog; the row's memory is read before the scan goes on.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let catalog = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::systable_beginscan(
            catalog,
            Oid::INVALID,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let header = (*tuple).t_data;
            let row = header.byte_add(usize::from((*header).t_hoff)).cast::<pg_sys::FormData_pg_database>();
            oids.push((*row).oid.to_u32());
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, lock);
    }
    oids
}

#[pg_guard]
unsafe extern "C-unwind" fn tablespace_size_oid(call: FunctionCallInfo) -> Datum {
    // SAFETY: argument oid.
    unsafe {
        let tablespace = argument(call, 0).value() as u32;
        match in_files(pg_sys::pg_tablespace_size_oid, call) {
            Some(bytes) => Datum::from((bytes + remote_tablespace_bytes(tablespace)) as i64),
            None => Datum::from(0),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn tablespace_size_name(call: FunctionCallInfo) -> Datum {
    // SAFETY: argument name; the server's function has looked it up by then, or raised an error.
    unsafe {
        let name = argument(call, 0).cast_mut_ptr::<std::ffi::c_char>();
        match in_files(pg_sys::pg_tablespace_size_name, call) {
            Some(bytes) => {
                let tablespace = pg_sys::get_tablespace_oid(name, false).to_u32();
                Datum::from((bytes + remote_tablespace_bytes(tablespace)) as i64)
            }
            None => Datum::from(0),
        }
    }
}
