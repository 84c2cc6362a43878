//! Everything that a record can do, as values: pages changed, relations created and dropped, counters moved.
//!
//! `effects` makes these from a record, at ingest; the receiver stores page values by (page, LSN) and performs the rest.
//! Order within a record matters. One thing is not an effect: every record's own transaction id pushes the next
//! transaction id past itself (`ApplyWalRecord` in `src/backend/access/transam/xlogrecovery.c`); the receiver reads it
//! from the record.

use std::fmt;

use bytes::Bytes;
use strata_common::{BlockNumber, Lsn, RelFork, RelTag};
use strata_pgwal::CheckPoint;

use crate::slru::{SlruKind, SlruPage};

/// One page of a relation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageId {
    pub rel: RelFork,
    pub block: BlockNumber,
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} of {}", self.block, self.rel)
    }
}

/// Any page that redo changes, for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageRef {
    Rel(PageId),
    Slru(SlruPage),
}

impl fmt::Display for PageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageRef::Rel(page) => page.fmt(f),
            PageRef::Slru(page) => page.fmt(f),
        }
    }
}

/// What a page becomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PageValue {
    /// The whole page, 8192 bytes; its LSN is already the record's end (W15).
    Image(Bytes),
    /// An encoded `PageChange`. With `will_init` the page's older content does not matter.
    Change { bytes: Bytes, will_init: bool },
}

/// A database in a tablespace: one folder of relations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DatabaseTag {
    pub tablespace: u32,
    pub database: u32,
}

/// Which forks an smgr TRUNCATE cuts (`src/include/catalog/storage_xlog.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TruncateForks(pub u32);

impl TruncateForks {
    pub const MAIN: u32 = 0x0001;
    pub const VISIBILITY_MAP: u32 = 0x0002;
    pub const FREE_SPACE_MAP: u32 = 0x0004;

    /// Whether all of `forks` are cut.
    pub fn has(self, forks: u32) -> bool {
        self.0 & forks == forks
    }
}

/// How a prepared transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TwoPhaseEnd {
    Committed,
    Aborted,
}

/// Which kind of checkpoint a record is. A shutdown checkpoint's counters are exact, an online one's only move forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointKind {
    Shutdown,
    Online,
}

/// Settings that a standby must know (`xl_parameter_change` in `src/include/access/xlog_internal.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParameterChange {
    pub max_connections: i32,
    pub max_worker_processes: i32,
    pub max_wal_senders: i32,
    pub max_prepared_xacts: i32,
    pub max_locks_per_xact: i32,
    pub wal_level: i32,
    pub wal_log_hints: bool,
    pub track_commit_timestamp: bool,
}

/// What happens to the SLRUs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SlruEffect {
    /// One page changes; a zeroed page is a change with `will_init`. A page that has no beginning reads as zeros.
    /// While commit timestamps are off, those of `SlruKind::CommitTs` are to be ignored (`ParameterChange`).
    Page { page: SlruPage, value: PageValue },
    /// Segments that lie wholly before `first_kept_page` go, by the SLRU's own wrapping order: `SlruKind::truncation_drops`.
    Truncate { kind: SlruKind, first_kept_page: u64 },
    /// Segments from one up to another go, past the wrap if the latter is lower: `SlruKind::range_drops`.
    DropSegments { kind: SlruKind, from_segment: u64, to_segment: u64 },
}

/// One thing that a record does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// A page gets a new value at the record's end. The fork grows to hold it; pages skipped are zero (W14).
    Page {
        page: PageId,
        value: PageValue,
    },
    /// Bits of the visibility map are cleared by a record that does not refer to the map's page (V1). The receiver applies
    /// `PageChange::VmClear` to page `vm::page_of(heap_block)` if it exists, else counts it as skipped (V3).
    ClearVmBits {
        heap: RelTag,
        heap_block: BlockNumber,
        bits: u8,
    },
    /// An empty fork exists from here on; does not shrink one that is there (R2).
    RelCreate(RelFork),
    /// Forks are cut to what `blocks` blocks of MAIN need. The tails of the last pages of the maps are cleared:
    /// `vm::cut` and `fsm::cut` (V4).
    RelTruncate {
        rel: RelTag,
        blocks: BlockNumber,
        forks: TruncateForks,
    },
    /// All forks go.
    RelDrop(RelTag),
    /// An empty database folder; its pages follow as images (strategy wal_log).
    DatabaseCreate(DatabaseTag),
    /// Every relation and the relation map of `from` is copied as it is at this record (strategy file_copy).
    DatabaseCopy {
        from: DatabaseTag,
        to: DatabaseTag,
    },
    DatabaseDrop(DatabaseTag),
    TablespaceCreate {
        tablespace: u32,
        path: Bytes,
    },
    TablespaceDrop {
        tablespace: u32,
    },
    /// The whole relation map of a database, or of the shared catalogs (both ids as the record has them).
    RelMap {
        database: DatabaseTag,
        map: Bytes,
    },
    Slru(SlruEffect),
    /// A prepared transaction lives; `data` is what Postgres keeps in `pg_twophase`, without the file's own checksum.
    TwoPhasePrepare {
        xid: u32,
        data: Bytes,
    },
    TwoPhaseFinish {
        xid: u32,
        end: TwoPhaseEnd,
    },
    /// A transaction ended at this time, microseconds since 2000-01-01 UTC (not monotonic: G10).
    CommitTime {
        xid: u32,
        micros: i64,
        /// The last of its transaction ids if it committed: commit timestamps reach that far.
        committed: Option<u32>,
    },
    Checkpoint {
        kind: CheckpointKind,
        checkpoint: CheckPoint,
    },
    /// A promotion's or a crash recovery's end.
    EndOfRecovery {
        this_timeline: u32,
        previous_timeline: u32,
        micros: i64,
    },
    /// The next OID, exactly.
    NextOid(u32),
    /// The next transaction id is past this one.
    NextXidPast(u32),
    /// The next multixact id and member offset are at least these.
    NextMultiAtLeast {
        multi: u32,
        offset: u32,
    },
    /// The oldest transaction id with a status, and the database that holds it back.
    OldestXid {
        xid: u32,
        database: u32,
    },
    OldestMulti {
        multi: u32,
        database: u32,
    },
    /// Commit timestamps before this transaction id are gone.
    OldestCommitTs {
        xid: u32,
    },
    ParameterChange(ParameterChange),
    FullPageWrites(bool),
    /// Transactions running at this moment, for a standby: `xl_running_xacts` as the record has it.
    RunningXacts {
        next_xid: u32,
        oldest_running_xid: u32,
        latest_completed_xid: u32,
    },
    /// Progress of a replication origin; with `backward` also to an earlier position.
    OriginAdvance {
        origin: u16,
        remote_lsn: Lsn,
        local_lsn: Lsn,
        backward: bool,
    },
    OriginDrop {
        origin: u16,
    },
    /// A piece of a logical rewrite's mapping file: HEAP2/REWRITE's main data, `xl_heap_rewrite_mapping` first.
    LogicalMapping {
        xid: u32,
        data: Bytes,
    },
}
