//! Resource managers of Postgres 17 and the names of their records, as `pg_waldump` prints them.
//!
//! Ids are those of `src/include/access/rmgrlist.h`; names those of the `*_identify` functions in
//! `src/backend/access/rmgrdesc/`. Every built-in manager has its table here.

use crate::record_header::RMGR_INFO_MASK;

pub const XLOG: u8 = 0;
pub const XACT: u8 = 1;
pub const SMGR: u8 = 2;
pub const CLOG: u8 = 3;
pub const DBASE: u8 = 4;
pub const TBLSPC: u8 = 5;
pub const MULTIXACT: u8 = 6;
pub const RELMAP: u8 = 7;
pub const STANDBY: u8 = 8;
pub const HEAP2: u8 = 9;
pub const HEAP: u8 = 10;
pub const BTREE: u8 = 11;
pub const HASH: u8 = 12;
pub const GIN: u8 = 13;
pub const GIST: u8 = 14;
pub const SEQ: u8 = 15;
pub const SPGIST: u8 = 16;
pub const BRIN: u8 = 17;
pub const COMMIT_TS: u8 = 18;
pub const REPLORIGIN: u8 = 19;
pub const GENERIC: u8 = 20;
pub const LOGICALMSG: u8 = 21;

/// Highest id of a built-in resource manager (`RM_MAX_BUILTIN_ID`).
pub const BUILTIN_MAX: u8 = LOGICALMSG;
/// Lowest id of an extension's resource manager (`RM_MIN_CUSTOM_ID`).
pub const CUSTOM_MIN: u8 = 128;

/// `info` of XLOG's records that the log itself must know (`src/include/catalog/pg_control.h`).
pub mod xlog_info {
    pub const CHECKPOINT_SHUTDOWN: u8 = 0x00;
    pub const CHECKPOINT_ONLINE: u8 = 0x10;
    pub const NOOP: u8 = 0x20;
    pub const NEXTOID: u8 = 0x30;
    pub const SWITCH: u8 = 0x40;
    pub const BACKUP_END: u8 = 0x50;
    pub const PARAMETER_CHANGE: u8 = 0x60;
    pub const RESTORE_POINT: u8 = 0x70;
    pub const FPW_CHANGE: u8 = 0x80;
    pub const END_OF_RECOVERY: u8 = 0x90;
    pub const FPI_FOR_HINT: u8 = 0xA0;
    pub const FPI: u8 = 0xB0;
    pub const OVERWRITE_CONTRECORD: u8 = 0xD0;
    pub const CHECKPOINT_REDO: u8 = 0xE0;
}

/// Whether Postgres accepts this id in a record header (`RmgrIdIsValid`).
pub fn is_valid(rmid: u8) -> bool {
    rmid <= BUILTIN_MAX || rmid >= CUSTOM_MIN
}

struct Manager {
    name: &'static str,
    /// Bits of `info` that choose the name.
    mask: u8,
    records: &'static [(u8, &'static str)],
}

const fn manager(name: &'static str, records: &'static [(u8, &'static str)]) -> Manager {
    Manager { name, mask: RMGR_INFO_MASK, records }
}

/// Indexed by resource manager id.
static MANAGERS: [Manager; 22] = [
    manager(
        "XLOG",
        &[
            (0x00, "CHECKPOINT_SHUTDOWN"),
            (0x10, "CHECKPOINT_ONLINE"),
            (0x20, "NOOP"),
            (0x30, "NEXTOID"),
            (0x40, "SWITCH"),
            (0x50, "BACKUP_END"),
            (0x60, "PARAMETER_CHANGE"),
            (0x70, "RESTORE_POINT"),
            (0x80, "FPW_CHANGE"),
            (0x90, "END_OF_RECOVERY"),
            (0xA0, "FPI_FOR_HINT"),
            (0xB0, "FPI"),
            (0xD0, "OVERWRITE_CONTRECORD"),
            (0xE0, "CHECKPOINT_REDO"),
        ],
    ),
    Manager {
        name: "Transaction",
        // XLOG_XACT_OPMASK: the highest bit says whether an xinfo word follows.
        mask: 0x70,
        records: &[
            (0x00, "COMMIT"),
            (0x10, "PREPARE"),
            (0x20, "ABORT"),
            (0x30, "COMMIT_PREPARED"),
            (0x40, "ABORT_PREPARED"),
            (0x50, "ASSIGNMENT"),
            (0x60, "INVALIDATION"),
        ],
    },
    manager("Storage", &[(0x10, "CREATE"), (0x20, "TRUNCATE")]),
    manager("CLOG", &[(0x00, "ZEROPAGE"), (0x10, "TRUNCATE")]),
    manager("Database", &[(0x00, "CREATE_FILE_COPY"), (0x10, "CREATE_WAL_LOG"), (0x20, "DROP")]),
    manager("Tablespace", &[(0x00, "CREATE"), (0x10, "DROP")]),
    manager(
        "MultiXact",
        &[(0x00, "ZERO_OFF_PAGE"), (0x10, "ZERO_MEM_PAGE"), (0x20, "CREATE_ID"), (0x30, "TRUNCATE_ID")],
    ),
    manager("RelMap", &[(0x00, "UPDATE")]),
    manager("Standby", &[(0x00, "LOCK"), (0x10, "RUNNING_XACTS"), (0x20, "INVALIDATIONS")]),
    manager(
        "Heap2",
        &[
            (0x00, "REWRITE"),
            (0x10, "PRUNE_ON_ACCESS"),
            (0x20, "PRUNE_VACUUM_SCAN"),
            (0x30, "PRUNE_VACUUM_CLEANUP"),
            (0x40, "VISIBLE"),
            (0x50, "MULTI_INSERT"),
            (0xD0, "MULTI_INSERT+INIT"),
            (0x60, "LOCK_UPDATED"),
            (0x70, "NEW_CID"),
        ],
    ),
    manager(
        "Heap",
        &[
            (0x00, "INSERT"),
            (0x80, "INSERT+INIT"),
            (0x10, "DELETE"),
            (0x20, "UPDATE"),
            (0xA0, "UPDATE+INIT"),
            (0x30, "TRUNCATE"),
            (0x40, "HOT_UPDATE"),
            (0xC0, "HOT_UPDATE+INIT"),
            (0x50, "HEAP_CONFIRM"),
            (0x60, "LOCK"),
            (0x70, "INPLACE"),
        ],
    ),
    manager(
        "Btree",
        &[
            (0x00, "INSERT_LEAF"),
            (0x10, "INSERT_UPPER"),
            (0x20, "INSERT_META"),
            (0x30, "SPLIT_L"),
            (0x40, "SPLIT_R"),
            (0x50, "INSERT_POST"),
            (0x60, "DEDUP"),
            (0x70, "DELETE"),
            (0x80, "UNLINK_PAGE"),
            (0x90, "UNLINK_PAGE_META"),
            (0xA0, "NEWROOT"),
            (0xB0, "MARK_PAGE_HALFDEAD"),
            (0xC0, "VACUUM"),
            (0xD0, "REUSE_PAGE"),
            (0xE0, "META_CLEANUP"),
        ],
    ),
    manager(
        "Hash",
        &[
            (0x00, "INIT_META_PAGE"),
            (0x10, "INIT_BITMAP_PAGE"),
            (0x20, "INSERT"),
            (0x30, "ADD_OVFL_PAGE"),
            (0x40, "SPLIT_ALLOCATE_PAGE"),
            (0x50, "SPLIT_PAGE"),
            (0x60, "SPLIT_COMPLETE"),
            (0x70, "MOVE_PAGE_CONTENTS"),
            (0x80, "SQUEEZE_PAGE"),
            (0x90, "DELETE"),
            (0xA0, "SPLIT_CLEANUP"),
            (0xB0, "UPDATE_META_PAGE"),
            (0xC0, "VACUUM_ONE_PAGE"),
        ],
    ),
    manager(
        "Gin",
        &[
            (0x10, "CREATE_PTREE"),
            (0x20, "INSERT"),
            (0x30, "SPLIT"),
            (0x40, "VACUUM_PAGE"),
            (0x50, "DELETE_PAGE"),
            (0x60, "UPDATE_META_PAGE"),
            (0x70, "INSERT_LISTPAGE"),
            (0x80, "DELETE_LISTPAGE"),
            (0x90, "VACUUM_DATA_LEAF_PAGE"),
        ],
    ),
    manager(
        "Gist",
        &[
            (0x00, "PAGE_UPDATE"),
            (0x10, "DELETE"),
            (0x20, "PAGE_REUSE"),
            (0x30, "PAGE_SPLIT"),
            (0x60, "PAGE_DELETE"),
            (0x70, "ASSIGN_LSN"),
        ],
    ),
    manager("Sequence", &[(0x00, "LOG")]),
    manager(
        "SPGist",
        &[
            (0x10, "ADD_LEAF"),
            (0x20, "MOVE_LEAFS"),
            (0x30, "ADD_NODE"),
            (0x40, "SPLIT_TUPLE"),
            (0x50, "PICKSPLIT"),
            (0x60, "VACUUM_LEAF"),
            (0x70, "VACUUM_ROOT"),
            (0x80, "VACUUM_REDIRECT"),
        ],
    ),
    manager(
        "BRIN",
        &[
            (0x00, "CREATE_INDEX"),
            (0x10, "INSERT"),
            (0x90, "INSERT+INIT"),
            (0x20, "UPDATE"),
            (0xA0, "UPDATE+INIT"),
            (0x30, "SAMEPAGE_UPDATE"),
            (0x40, "REVMAP_EXTEND"),
            (0x50, "DESUMMARIZE"),
        ],
    ),
    // These two compare `info` as it is, with the log's own bits.
    Manager { name: "CommitTs", mask: 0xFF, records: &[(0x00, "ZEROPAGE"), (0x10, "TRUNCATE")] },
    Manager { name: "ReplicationOrigin", mask: 0xFF, records: &[(0x00, "SET"), (0x10, "DROP")] },
    Manager { name: "Generic", mask: 0x00, records: &[(0x00, "Generic")] },
    manager("LogicalMessage", &[(0x00, "MESSAGE")]),
];

/// Name of a resource manager; an extension's is `custom` with its number, as in `pg_waldump`.
pub fn manager_name(rmid: u8) -> String {
    match MANAGERS.get(usize::from(rmid)) {
        Some(manager) => manager.name.to_owned(),
        None if rmid >= CUSTOM_MIN => format!("custom{rmid:03}"),
        None => format!("invalid{rmid:03}"),
    }
}

/// Name of a record type such as `INSERT+INIT`, or `None` for a type that Postgres 17 does not have.
pub fn record_type_name(rmid: u8, info: u8) -> Option<&'static str> {
    let manager = MANAGERS.get(usize::from(rmid))?;
    let wanted = info & manager.mask;
    manager.records.iter().find(|(info, _)| *info == wanted).map(|(_, name)| *name)
}

/// Both names, such as `Heap/INSERT+INIT`; an unknown type as `UNKNOWN (f0)`.
pub fn record_name(rmid: u8, info: u8) -> String {
    let manager = manager_name(rmid);
    match record_type_name(rmid, info) {
        Some(name) => format!("{manager}/{name}"),
        None => format!("{manager}/UNKNOWN ({:x})", info & RMGR_INFO_MASK),
    }
}

/// Names of all record types of Postgres 17.
pub fn record_names() -> impl Iterator<Item = String> {
    let of = |manager: &'static Manager| {
        manager.records.iter().map(move |(_, name)| format!("{}/{name}", manager.name))
    };
    MANAGERS.iter().flat_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_types_are_named_once() {
        let mut names: Vec<String> = record_names().collect();
        assert_eq!(names.len(), 124);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 124);
    }

    #[test]
    fn names_are_those_of_pg_waldump() {
        assert_eq!(record_name(HEAP, 0x80), "Heap/INSERT+INIT");
        assert_eq!(record_name(XACT, 0x80), "Transaction/COMMIT");
        assert_eq!(record_name(HEAP2, 0x42), "Heap2/VISIBLE");
        assert_eq!(record_name(GENERIC, 0x10), "Generic/Generic");
        assert_eq!(record_name(BRIN, 0xF0), "BRIN/UNKNOWN (f0)");
        assert_eq!(record_name(200, 0x10), "custom200/UNKNOWN (10)");
        assert_eq!(record_type_name(COMMIT_TS, 0x12), None);
    }

    #[test]
    fn ids_are_valid_as_in_postgres() {
        assert!(is_valid(0) && is_valid(BUILTIN_MAX) && is_valid(CUSTOM_MIN) && is_valid(255));
        assert!(!is_valid(22) && !is_valid(127));
    }
}
