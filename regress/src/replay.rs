//! A cluster's state apart from its pages, replayed from its log: SLRUs, relation maps, sizes, prepared transactions, counters.
//!
//! Postgres's own consistency check says nothing of these (G20), so they are compared with the cluster that wrote the log.
//! This is the smallest receiver of effects that there can be: everything in memory, nothing kept of older states.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, RelFork, RelTag};
use strata_pgwal::record::decode;
use strata_pgwal::{CheckPoint, DecodedRecord, RawRecord};
use strata_redo::effect::{CheckpointKind, DatabaseTag, Effect, PageValue, SlruEffect, TruncateForks};
use strata_redo::slru::PAGES_PER_SEGMENT;
use strata_redo::{Page, SlruKind, SlruPage, apply_slru, effects, vm};

use crate::oracle::TABLESPACE_FOLDER;
use crate::wal_files::control_file;

/// `pg_default` and `pg_global` (`src/include/catalog/pg_tablespace.dat`).
const DEFAULT_TABLESPACE: u32 = 1663;
const GLOBAL_TABLESPACE: u32 = 1664;

/// What is left when all records were replayed.
pub struct Replay {
    pub slrus: BTreeMap<SlruPage, Box<Page>>,
    pub maps: BTreeMap<DatabaseTag, Bytes>,
    /// Blocks of every fork that exists.
    pub sizes: BTreeMap<RelFork, u32>,
    pub two_phase: BTreeMap<u32, Bytes>,
    /// The counters before the checkpoint that was replayed last.
    pub before_checkpoint: CheckPoint,
    pub counters: CheckPoint,
    pub commit_timestamps: bool,
    /// How often each kind of effect on an SLRU was seen.
    pub truncations: usize,
    pub dropped_segments: usize,
}

/// All pages of the SLRUs of a data folder.
pub fn slru_pages(data: &Path) -> Result<BTreeMap<SlruPage, Box<Page>>> {
    let mut pages = BTreeMap::new();
    for kind in SlruKind::ALL {
        for entry in fs::read_dir(data.join(kind.folder()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let segment = u64::from_str_radix(&name, 16).with_context(|| format!("segment {name}"))?;
            for (at, page) in fs::read(entry.path())?.chunks(BLOCK_BYTES).enumerate() {
                let page: Page = page.try_into().with_context(|| format!("part of a page in {name}"))?;
                let number = segment * PAGES_PER_SEGMENT + at as u64;
                pages.insert(SlruPage { kind, page: number }, Box::new(page));
            }
        }
    }
    Ok(pages)
}

/// Every relation fork with its blocks. The free space map is left out: it is not logged.
pub fn fork_sizes(data: &Path) -> Result<BTreeMap<RelFork, u32>> {
    let mut sizes = BTreeMap::new();
    for (folder, database) in database_folders(data)? {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some((relation, fork)) = relation_file(&name) {
                let rel = RelTag { tablespace: database.tablespace, database: database.database, relation };
                let blocks = entry.metadata()?.len() / BLOCK_BYTES as u64;
                *sizes.entry(rel.fork(fork)).or_insert(0) += u32::try_from(blocks)?;
            }
        }
    }
    Ok(sizes)
}

/// Relation maps of all databases and the shared one.
pub fn relation_maps(data: &Path) -> Result<BTreeMap<DatabaseTag, Bytes>> {
    let mut maps = BTreeMap::new();
    for (folder, database) in database_folders(data)? {
        // A database has relations in other tablespaces than its own, too, and one map.
        match fs::read(folder.join("pg_filenode.map")) {
            Ok(map) => maps.insert(database, map.into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| folder.display().to_string()),
        };
    }
    Ok(maps)
}

fn database_folders(data: &Path) -> Result<Vec<(PathBuf, DatabaseTag)>> {
    let mut folders = vec![(data.join("global"), DatabaseTag { tablespace: GLOBAL_TABLESPACE, database: 0 })];
    for (path, database) in numbered_folders(&data.join("base"))? {
        folders.push((path, DatabaseTag { tablespace: DEFAULT_TABLESPACE, database }));
    }
    for (path, tablespace) in numbered_folders(&data.join("pg_tblspc"))? {
        for (path, database) in numbered_folders(&path.join(TABLESPACE_FOLDER))? {
            folders.push((path, DatabaseTag { tablespace, database }));
        }
    }
    Ok(folders)
}

/// Folders whose names are numbers; none if `parent` does not exist.
fn numbered_folders(parent: &Path) -> Result<Vec<(PathBuf, u32)>> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| parent.display().to_string()),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(number) = entry.file_name().to_string_lossy().parse() {
            folders.push((entry.path(), number));
        }
    }
    Ok(folders)
}

/// Relation and fork of a file name such as `16384_vm.1`. Segments above the first count too.
fn relation_file(name: &str) -> Option<(u32, ForkNumber)> {
    let base = name.split('.').next()?;
    let (relation, fork) = match base.split_once('_') {
        None => (base, ForkNumber::Main),
        Some((relation, "vm")) => (relation, ForkNumber::VisibilityMap),
        Some((relation, "init")) => (relation, ForkNumber::Init),
        Some(_) => return None,
    };
    Some((relation.parse().ok()?, fork))
}

impl Replay {
    /// The state of a cluster that was shut down.
    pub fn from_cluster(data: &Path) -> Result<Replay> {
        let control = control_file(data)?;
        Ok(Replay {
            slrus: slru_pages(data)?,
            maps: relation_maps(data)?,
            sizes: fork_sizes(data)?,
            two_phase: BTreeMap::new(),
            before_checkpoint: control.checkpoint_copy,
            counters: control.checkpoint_copy,
            commit_timestamps: control.settings.track_commit_timestamp,
            truncations: 0,
            dropped_segments: 0,
        })
    }

    pub fn record(&mut self, raw: &RawRecord) -> Result<()> {
        let record = decode(raw)?;
        self.counters.next_xid = self.counters.next_xid.advanced_past(record.xid);
        for effect in effects(&record)? {
            self.effect(&record, effect).with_context(|| format!("{} at {}", record.name(), record.lsn))?;
        }
        Ok(())
    }

    fn effect(&mut self, record: &DecodedRecord, effect: Effect) -> Result<()> {
        let counters = &mut self.counters;
        match effect {
            Effect::Page { page, .. } => {
                let size = self.sizes.entry(page.rel).or_insert(0);
                *size = (*size).max(page.block.0 + 1);
            }
            Effect::RelCreate(rel) => {
                self.sizes.entry(rel).or_insert(0);
            }
            Effect::RelTruncate { rel, blocks, forks } => self.truncate(rel, blocks, forks),
            Effect::RelDrop(rel) => self.sizes.retain(|fork, _| fork.rel != rel),
            Effect::DatabaseCreate(_) => {}
            Effect::DatabaseCopy { from, to } => self.copy_database(from, to)?,
            Effect::DatabaseDrop(tag) => {
                self.sizes.retain(|fork, _| database_of(fork.rel) != tag);
                self.maps.remove(&tag);
            }
            Effect::RelMap { database, map } => {
                self.maps.insert(database, map);
            }
            Effect::Slru(slru) => self.slru(record, slru)?,
            Effect::TwoPhasePrepare { xid, data } => {
                self.two_phase.insert(xid, data);
            }
            Effect::TwoPhaseFinish { xid, .. } => {
                self.two_phase.remove(&xid).with_context(|| format!("{xid} was not prepared"))?;
            }
            Effect::Checkpoint { kind, checkpoint } => self.checkpoint(kind, checkpoint),
            Effect::NextOid(oid) => counters.next_oid = oid,
            Effect::NextXidPast(xid) => counters.next_xid = counters.next_xid.advanced_past(xid),
            Effect::NextMultiAtLeast { multi, offset } => {
                use strata_pgwal::fullxid::multixact_precedes as precedes;
                if precedes(counters.next_multi, multi) {
                    counters.next_multi = multi;
                }
                if precedes(counters.next_multi_offset, offset) {
                    counters.next_multi_offset = offset;
                }
            }
            Effect::OldestXid { xid, database } => {
                (counters.oldest_xid, counters.oldest_xid_db) = (xid, database);
            }
            Effect::OldestMulti { multi, database } => {
                (counters.oldest_multi, counters.oldest_multi_db) = (multi, database);
            }
            Effect::OldestCommitTs { xid } => counters.oldest_commit_ts_xid = xid,
            Effect::ParameterChange(change) => self.commit_timestamps = change.track_commit_timestamp,
            Effect::ClearVmBits { .. }
            | Effect::TablespaceCreate { .. }
            | Effect::TablespaceDrop { .. }
            | Effect::CommitTime { .. }
            | Effect::EndOfRecovery { .. }
            | Effect::FullPageWrites(_)
            | Effect::RunningXacts { .. }
            | Effect::OriginAdvance { .. }
            | Effect::OriginDrop { .. }
            | Effect::LogicalMapping { .. } => {}
        }
        Ok(())
    }

    fn truncate(&mut self, rel: RelTag, blocks: BlockNumber, forks: TruncateForks) {
        let mut cut = |fork: ForkNumber, kept: u32| {
            if let Some(size) = self.sizes.get_mut(&rel.fork(fork)) {
                *size = (*size).min(kept);
            }
        };
        if forks.has(TruncateForks::MAIN) {
            cut(ForkNumber::Main, blocks.0);
        }
        if forks.has(TruncateForks::VISIBILITY_MAP) {
            cut(ForkNumber::VisibilityMap, vm::cut(blocks).pages_kept);
        }
    }

    fn copy_database(&mut self, from: DatabaseTag, to: DatabaseTag) -> Result<()> {
        let copied: Vec<(RelFork, u32)> = self
            .sizes
            .iter()
            .filter(|(fork, _)| database_of(fork.rel) == from)
            .map(|(fork, size)| {
                let rel = RelTag { tablespace: to.tablespace, database: to.database, ..fork.rel };
                (rel.fork(fork.fork), *size)
            })
            .collect();
        self.sizes.extend(copied);
        let map = self.maps.get(&from).context("the copied database has a map")?.clone();
        self.maps.insert(to, map);
        Ok(())
    }

    fn slru(&mut self, record: &DecodedRecord, effect: SlruEffect) -> Result<()> {
        match effect {
            SlruEffect::Page { page, .. } if page.kind == SlruKind::CommitTs && !self.commit_timestamps => {}
            SlruEffect::Page { page, value: PageValue::Change { bytes, .. } } => {
                let content = self.slrus.entry(page).or_insert_with(|| Box::new([0; BLOCK_BYTES]));
                apply_slru(content, page, record.end_lsn, &bytes)?;
            }
            SlruEffect::Page { page, value: PageValue::Image(_) } => bail!("an image of {page}"),
            SlruEffect::Truncate { kind, first_kept_page } => {
                self.truncations += 1;
                self.slrus.retain(|page, _| {
                    page.kind != kind
                        || !kind.truncation_drops(page.page / PAGES_PER_SEGMENT, first_kept_page)
                });
            }
            SlruEffect::DropSegments { kind, from_segment, to_segment } => {
                let before = self.slrus.len();
                self.slrus.retain(|page, _| {
                    page.kind != kind
                        || !kind.range_drops(page.page / PAGES_PER_SEGMENT, from_segment, to_segment)
                });
                self.dropped_segments += usize::from(self.slrus.len() < before);
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, kind: CheckpointKind, checkpoint: CheckPoint) {
        self.before_checkpoint = self.counters;
        match kind {
            CheckpointKind::Shutdown => self.counters = checkpoint,
            CheckpointKind::Online => {
                self.counters.next_xid = self.counters.next_xid.max(checkpoint.next_xid);
            }
        }
    }
}

fn database_of(rel: RelTag) -> DatabaseTag {
    DatabaseTag { tablespace: rel.tablespace, database: rel.database }
}
