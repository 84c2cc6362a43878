//! A base backup: a tar of everything that a stock Postgres needs to start without recovery, and that is not a relation of ours.
//!
//! What is in it is what lives at the LSN, never history (S13). Transaction status, relation maps and two-phase files are
//! exactly those of the LSN (S1, S10); unlogged relations get their MAIN fork from the INIT fork, because a start without
//! recovery never resets them (R11); the log segment is fabricated around the one true record that `pg_control` points
//! at (S3, S4); `pg_control` comes last, so that half a backup cannot boot (S5).

mod tarball;

use std::collections::BTreeSet;

use bytes::Bytes;
use strata_common::{BlockNumber, ForkNumber, Guard, Lsn, RelFork};
use strata_pgwal::handoff::{fabricate_segments, handoff_record};
use strata_pgwal::rmgr::{self, xlog_info};
use strata_pgwal::{LogIdentity, RawRecord, RecordSpec};
use strata_redo::slru::SlruKind;

pub use tarball::ChunkSink;
use tarball::Tarball;

use crate::import::datadir::{
    BLOCKS_PER_FILE, DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, TABLESPACE_VERSION_FOLDER,
};
use crate::import::datadir::{database_folder, relation_path};
use crate::import::origins;
use crate::ingest::control::ControlState;
use crate::keyspace::{self, AuxFile, KeyName, Kind};
use crate::store::Store;
use crate::view::{View, ViewError};

/// Content of every `PG_VERSION`.
const VERSION_FILE: &[u8] = b"17\n";

/// Folders that Postgres expects to find, parents first.
const FOLDERS: [&str; 21] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
];

const WAL_FOLDERS: [&str; 2] = ["pg_wal/archive_status", "pg_wal/summaries"];

/// Why there is no base backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("no record is known to end at {lsn}; the last one known below ends at {known}")]
    NotARecordEnd { lsn: Lsn, known: Lsn },
    #[error("the record that ends at {0} is not a shutdown checkpoint, and no handoff record was asked for")]
    NotAShutdown(Lsn),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error("the receiver of the base backup is gone")]
    Gone,
}

/// What to do where the log does not end in a shutdown checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handoff {
    Refuse,
    /// Write one behind the LSN, in the backup only: for computes whose log goes nowhere.
    Fabricate,
}

/// Where the new server's log goes on, and what its `pg_control` names.
struct Start {
    record: RawRecord,
    control: ControlState,
    log: LogIdentity,
}

impl Start {
    async fn find<S: Store>(view: &View<S>, handoff: Handoff) -> Result<Start, BackupError> {
        let mut control = view.control().await?;
        let lsn = view.lsn();
        if control.lsn != lsn {
            return Err(BackupError::NotARecordEnd { lsn, known: control.lsn });
        }
        let log = LogIdentity {
            timeline: 1,
            system_id: control.control_file.system_id,
            segment_bytes: control.control_file.segment_bytes(),
        };
        let record = match (control.mark.shutdown_checkpoint, handoff) {
            (true, _) => {
                let body = Bytes::copy_from_slice(&control.checkpoint.encode());
                let spec = RecordSpec::plain(rmgr::XLOG, xlog_info::CHECKPOINT_SHUTDOWN, body);
                let bytes = spec.encode(control.mark.prev_record_lsn);
                RawRecord { lsn: control.mark.record_lsn, end_lsn: lsn, bytes }
            }
            (false, Handoff::Refuse) => return Err(BackupError::NotAShutdown(lsn)),
            (false, Handoff::Fabricate) => {
                let (encoded, checkpoint) =
                    handoff_record(lsn, control.mark.record_lsn, control.checkpoint, log);
                control.checkpoint = checkpoint;
                encoded.record
            }
        };
        control.control_file.set_shut_down(record.lsn, control.checkpoint);
        control.control_file.layout.data_checksum_version = 0;
        Ok(Start { record, control, log })
    }
}

/// Writes the tar to `sink`; `view` is at the LSN.
pub async fn write<S: Store>(view: &View<S>, handoff: Handoff, sink: ChunkSink) -> Result<(), BackupError> {
    let start = Start::find(view, handoff).await?;
    let mut tar = Tarball::new(sink);
    tar.file("PG_VERSION", VERSION_FILE).await?;
    for folder in FOLDERS.iter().chain(&WAL_FOLDERS) {
        tar.folder(folder).await?;
    }
    tablespaces(view, &mut tar).await?;
    databases(view, &mut tar).await?;
    for kind in SlruKind::ALL {
        for (segment, _) in view.slru_segments(kind).await? {
            let pages = view.slru_segment(kind, segment).await?;
            tar.file(&format!("{}/{segment:04X}", kind.folder()), &pages).await?;
        }
    }
    for (key, file) in view.scan_live(keyspace::kind_range(Kind::TwoPhase)).await? {
        let Some(KeyName::TwoPhase(xid)) = KeyName::of(key) else { continue };
        tar.file(&format!("pg_twophase/{xid:016X}"), &file).await?;
    }
    unlogged(view, &mut tar).await?;
    if let Some(file) = origins::file(view).await? {
        tar.file("pg_logical/replorigin_checkpoint", &file).await?;
    }
    if let Some(file) = view.value_of_this_moment(keyspace::aux(AuxFile::PgStat)).await? {
        tar.file("pg_stat/pgstat.stat", &file).await?;
    }
    for segment in fabricate_segments(&start.record, start.log) {
        tar.sparse_file(&format!("pg_wal/{}", segment.file_name), segment.file_bytes, &segment.pieces)
            .await?;
    }
    tar.file("global/pg_control", &start.control.control_file.encode()).await?;
    tar.finish().await
}

/// Tablespaces of users become plain folders (as `allow_in_place_tablespaces` makes them): their relations are remote (R9).
async fn tablespaces<S: Store>(view: &View<S>, tar: &mut Tarball) -> Result<(), BackupError> {
    for (key, _) in view.scan_live(keyspace::kind_range(Kind::Tablespace)).await? {
        let Some(KeyName::Tablespace(tablespace)) = KeyName::of(key) else { continue };
        if tablespace == DEFAULT_TABLESPACE || tablespace == GLOBAL_TABLESPACE {
            continue;
        }
        tar.folder(&format!("pg_tblspc/{tablespace}")).await?;
        tar.folder(&format!("pg_tblspc/{tablespace}/{TABLESPACE_VERSION_FOLDER}")).await?;
        for folder in guests(view, tablespace).await? {
            tar.folder(&folder).await?;
        }
    }
    Ok(())
}

/// Folders of databases that are at home in another tablespace and have relations in this one: DROP DATABASE looks for them
/// (`remove_dbtablespaces` in `src/backend/commands/dbcommands.c`). Costs a look at every relation in a tablespace of users.
async fn guests<S: Store>(view: &View<S>, tablespace: u32) -> Result<BTreeSet<String>, BackupError> {
    let mut folders = BTreeSet::new();
    for (key, _) in view.scan_live(keyspace::tablespace_range(Kind::RelSize, tablespace)).await? {
        let Some(KeyName::RelSize(rel)) = KeyName::of(key) else { continue };
        folders.extend(database_folder(tablespace, rel.rel.database));
    }
    for (key, _) in view.scan_live(keyspace::tablespace_range(Kind::Database, tablespace)).await? {
        let Some(KeyName::Database { database, .. }) = KeyName::of(key) else { continue };
        if let Some(folder) = database_folder(tablespace, database) {
            folders.remove(&folder);
        }
    }
    Ok(folders)
}

async fn databases<S: Store>(view: &View<S>, tar: &mut Tarball) -> Result<(), BackupError> {
    for (key, _) in view.scan_live(keyspace::kind_range(Kind::Database)).await? {
        let Some(KeyName::Database { tablespace, database }) = KeyName::of(key) else { continue };
        let Some(folder) = database_folder(tablespace, database) else { continue };
        tar.folder(&folder).await?;
        tar.file(&format!("{folder}/PG_VERSION"), VERSION_FILE).await?;
    }
    for (key, map) in view.scan_live(keyspace::kind_range(Kind::RelMap)).await? {
        let Some(KeyName::RelMap { tablespace, database }) = KeyName::of(key) else { continue };
        let folder = database_folder(tablespace, database).unwrap_or_else(|| "global".to_owned());
        tar.file(&format!("{folder}/pg_filenode.map"), &map).await?;
    }
    Ok(())
}

async fn unlogged<S: Store>(view: &View<S>, tar: &mut Tarball) -> Result<(), BackupError> {
    for (key, _) in view.scan_live(keyspace::kind_range(Kind::InitFork)).await? {
        let Some(KeyName::InitFork(rel)) = KeyName::of(key) else { continue };
        let pages = fork_pages(view, rel.fork(ForkNumber::Init)).await?;
        for fork in [ForkNumber::Init, ForkNumber::Main] {
            if fork == ForkNumber::Main && !Guard::MainFromInit.holds() {
                continue;
            }
            tar.file(&relation_path(rel.fork(fork)), &pages).await?;
        }
    }
    Ok(())
}

/// The whole fork; INIT forks have a page or a few.
async fn fork_pages<S: Store>(view: &View<S>, rel: RelFork) -> Result<Vec<u8>, BackupError> {
    let blocks = view.rel_blocks(rel).await?.unwrap_or(0).min(BLOCKS_PER_FILE);
    let mut out = Vec::new();
    for block in (0..blocks).map(BlockNumber) {
        out.extend_from_slice(&view.page(rel, block).await?);
    }
    Ok(out)
}
