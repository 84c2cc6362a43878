//! The data directory being imported: unpacked into a spool folder, an inventory by entry, checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use strata_common::{BLOCK_BYTES, ForkNumber, SystemId};
use strata_pgwal::control_file::state::SHUT_DOWN;
use strata_pgwal::handoff::shutdown_checkpoint;
use strata_pgwal::segment::segment_file_name;
use strata_pgwal::{CheckPoint, ControlFile, RawRecord, WalStreamDecoder};

use super::{Fork, ImportError};
use crate::import::datadir::{BLOCKS_PER_FILE, Entry, classify};
use crate::ingest::control::ControlState;
use crate::keyspace::values::Mark;

/// `CATALOG_VERSION_NO` of Postgres 17 (`src/include/catalog/catversion.h`).
const CATALOG_VERSION: u32 = 202_406_281;

/// A folder that goes away with this value.
pub struct Spool(PathBuf);

impl Spool {
    /// `path` must not exist, or be left over from a process that died.
    pub fn create(path: PathBuf) -> std::io::Result<Spool> {
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&path)?;
        Ok(Spool(path))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a spool folder stays until the next import of this timeline");
        }
    }
}

/// Unpacked files that matter, by what they are.
pub struct DataDir {
    files: BTreeMap<Entry, PathBuf>,
    _spool: Spool,
}

/// A file read page by page.
pub struct Pages {
    path: PathBuf,
    file: BufReader<File>,
}

impl Pages {
    /// The next whole page; `None` at the end.
    pub fn next_page(&mut self) -> Result<Option<Vec<u8>>, ImportError> {
        let mut page = Vec::with_capacity(BLOCK_BYTES);
        (&mut self.file).take(BLOCK_BYTES as u64).read_to_end(&mut page)?;
        match page.len() {
            0 => Ok(None),
            BLOCK_BYTES => Ok(Some(page)),
            other => {
                Err(content(&self.path, format!("its last page has {other} bytes instead of {BLOCK_BYTES}")))
            }
        }
    }
}

fn content(path: &Path, reason: impl ToString) -> ImportError {
    ImportError::Content { path: path.display().to_string(), reason: reason.to_string() }
}

impl DataDir {
    /// Unpacks what import needs. Blocks on the disk and on `tar`.
    pub fn unpack(tar: impl Read, spool: Spool) -> Result<DataDir, ImportError> {
        let broken = |error: std::io::Error| ImportError::Tar(error.to_string());
        let mut archive = tar::Archive::new(tar);
        let mut files = BTreeMap::new();
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let path = entry.path().map_err(broken)?.display().to_string();
            let Some(what) = classify(&path) else { continue };
            let kind = entry.header().entry_type();
            match what {
                Entry::Tablespace { tablespace } if kind != tar::EntryType::Directory => {
                    return Err(ImportError::Tablespace(tablespace));
                }
                Entry::Tablespace { .. } => {}
                _ if !kind.is_file() && kind != tar::EntryType::GNUSparse => continue,
                _ => {}
            }
            let target = spool.0.join(files.len().to_string());
            if !matches!(what, Entry::Tablespace { .. }) {
                let mut file = File::create(&target)?;
                std::io::copy(&mut entry, &mut file).map_err(broken)?;
            }
            files.insert(what, target);
        }
        Ok(DataDir { files, _spool: spool })
    }

    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.files.keys().copied()
    }

    pub fn has(&self, entry: Entry) -> bool {
        self.files.contains_key(&entry)
    }

    /// A small file, whole.
    pub fn read(&self, entry: Entry) -> Result<Bytes, ImportError> {
        let path = self.files.get(&entry).ok_or_else(|| ImportError::Missing(format!("{entry:?}")))?;
        Ok(Bytes::from(std::fs::read(path)?))
    }

    pub fn pages(&self, entry: Entry) -> Result<Pages, ImportError> {
        let path = self.files.get(&entry).ok_or_else(|| ImportError::Missing(format!("{entry:?}")))?;
        let file = BufReader::with_capacity(32 * BLOCK_BYTES, File::open(path)?);
        Ok(Pages { path: path.clone(), file })
    }

    fn blocks(&self, entry: Entry) -> Result<u32, ImportError> {
        let path = self.files.get(&entry).ok_or_else(|| ImportError::Missing(format!("{entry:?}")))?;
        let bytes = std::fs::metadata(path)?.len();
        let blocks =
            u32::try_from(bytes / BLOCK_BYTES as u64).ok().filter(|blocks| *blocks <= BLOCKS_PER_FILE);
        match blocks {
            Some(blocks) if bytes % BLOCK_BYTES as u64 == 0 => Ok(blocks),
            _ => Err(ImportError::Content {
                path: format!("{entry:?}"),
                reason: format!("{bytes} bytes are no whole pages of one file"),
            }),
        }
    }

    /// All forks that are kept, in key order, with their lengths. Of an unlogged relation that is its INIT fork (R11).
    pub fn forks(&self) -> Result<Vec<Fork>, ImportError> {
        let mut forks: Vec<Fork> = Vec::new();
        for entry in self.entries() {
            let Entry::Relation { rel, segment } = entry else { continue };
            let init = Entry::Relation { rel: rel.rel.fork(ForkNumber::Init), segment: 0 };
            if rel.fork != ForkNumber::Init && self.has(init) {
                continue;
            }
            let blocks = self.blocks(entry)?;
            match forks.last_mut().filter(|last| last.rel == rel) {
                None if segment == 0 => forks.push(Fork { rel, blocks }),
                Some(last) if last.blocks == segment * BLOCKS_PER_FILE => last.blocks += blocks,
                // Postgres leaves empty files behind a truncation; what lies behind a short file is not of the relation.
                _ if blocks == 0 => {}
                _ => {
                    let reason = "a file before it is missing or short".to_owned();
                    return Err(ImportError::Content { path: format!("{rel} file {segment}"), reason });
                }
            }
        }
        Ok(forks)
    }

    /// The state that the timeline begins with; `system_id` replaces the cluster's own.
    pub fn control(&self, system_id: Option<SystemId>) -> Result<ControlState, ImportError> {
        if !self.has(Entry::ClusterVersion) || self.read(Entry::ClusterVersion)?.trim_ascii() != b"17" {
            return Err(ImportError::Missing("PG_VERSION that says 17".to_owned()));
        }
        let bad = |reason: String| ImportError::Content { path: "global/pg_control".to_owned(), reason };
        if !self.has(Entry::ControlFile) {
            return Err(ImportError::Missing("global/pg_control".to_owned()));
        }
        let mut file = ControlFile::parse(&self.read(Entry::ControlFile)?).map_err(|e| bad(e.to_string()))?;
        if file.catalog_version != CATALOG_VERSION {
            return Err(bad(format!("catalog version {} is not {CATALOG_VERSION}", file.catalog_version)));
        }
        let layout = file.layout;
        if (layout.block_bytes, layout.wal_page_bytes, layout.blocks_per_segment)
            != (8192, 8192, BLOCKS_PER_FILE)
        {
            return Err(bad("its block sizes are not the usual ones".to_owned()));
        }
        if file.state != SHUT_DOWN {
            return Err(ImportError::NotShutDown(file.state));
        }
        let record = self.checkpoint_record(&file)?;
        let path = Path::new("pg_wal");
        let prev = strata_pgwal::record::decode(&record).map_err(|e| content(path, e))?.prev;
        let found = shutdown_checkpoint(&record).map_err(|e| content(path, e))?;
        let found = found
            .ok_or_else(|| content(path, "the record that pg_control names is no shutdown checkpoint"))?;
        // Here the timeline number of Postgres is always 1.
        let checkpoint = CheckPoint { this_timeline: 1, prev_timeline: 1, ..found };
        file.system_id = system_id.unwrap_or(file.system_id);
        file.layout.data_checksum_version = 0;
        file.set_shut_down(record.lsn, checkpoint);
        let mark = Mark {
            record_lsn: record.lsn,
            prev_record_lsn: prev,
            shutdown_checkpoint: true,
            latest_commit_unix_micros: checkpoint.time.saturating_mul(1_000_000),
            next_xid: checkpoint.next_xid.0,
            next_oid: checkpoint.next_oid,
            next_multi: checkpoint.next_multi,
            next_multi_offset: checkpoint.next_multi_offset,
            newest_commit_ts_xid: checkpoint.newest_commit_ts_xid,
        };
        Ok(ControlState {
            lsn: record.end_lsn,
            checkpoint,
            control_file: file,
            mark,
            log_term: strata_common::Term::ZERO,
        })
    }

    /// The record that `pg_control` points at, from the log files that came along.
    fn checkpoint_record(&self, file: &ControlFile) -> Result<RawRecord, ImportError> {
        let size = file.segment_bytes();
        let mut decoder = WalStreamDecoder::new(file.checkpoint, size);
        let mut at = file.checkpoint;
        // The record may go on in the next file.
        for _ in 0..2 {
            let name = segment_file_name(file.checkpoint_copy.this_timeline, at, size);
            let entry = classify(&format!("pg_wal/{name}")).expect("a segment's own name");
            if !self.has(entry) {
                return Err(ImportError::Missing(format!("pg_wal/{name}, which holds its last checkpoint")));
            }
            let bytes = self.read(entry)?;
            if bytes.len() as u64 != size.get() {
                return Err(ImportError::Content {
                    path: format!("pg_wal/{name}"),
                    reason: format!("{} bytes instead of {}", bytes.len(), size.get()),
                });
            }
            decoder.feed(bytes.slice(at.segment_offset(size.get()) as usize..));
            let found = decoder.next().map_err(|error| ImportError::Content {
                path: format!("pg_wal/{name}"),
                reason: error.to_string(),
            })?;
            if let Some(record) = found {
                return Ok(record);
            }
            at = size.next_segment(at);
        }
        Err(ImportError::Missing("whole last checkpoint record".to_owned()))
    }
}
