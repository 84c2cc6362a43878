//! Compares the model after the last record with the files of the cluster that wrote the log, after its clean shutdown.
//!
//! The images in the records say nothing of pages that changed without a reference, of truncations, drops and sizes (G20).
//! A cluster's files may hold more than the log says: blocks by which a relation was extended ahead of need are zero or
//! freshly initialised. They may not hold less. Free space maps are hints and left out; so are unlogged relations (those
//! with an INIT fork, whose MAIN is not in the log) and temporary ones (other file names).

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, RelFork};
use strata_pgwal::rmgr;
use strata_redo::effect::DatabaseTag;
use strata_redo::mask::vm::Bits;
use strata_redo::{Page, PageId, mask, page};

use super::compare;
use super::model::{Model, TABLESPACE_FOLDER, database_folder, parse_relation_file, read_fork};

/// Differences that are kept with their text.
const DIFFERENCES_KEPT_MAX: usize = 20;

/// Where the columns of a sequence's tuple begin, bytes from its start.
const SEQUENCE_COLUMNS_AT: usize = 24;

#[derive(Default, Debug)]
pub struct FilesReport {
    pub forks: u64,
    pub pages: u64,
    /// Pages in files that the log does not know, all of them empty.
    pub pages_ahead: u64,
    /// Pages whose header makes no sense, so that no mask fits.
    pub pages_unknown: u64,
    pub difference_count: u64,
    pub differences: Vec<String>,
}

impl FilesReport {
    fn differ(&mut self, text: String) {
        self.difference_count += 1;
        if self.differences.len() < DIFFERENCES_KEPT_MAX {
            self.differences.push(text);
        }
    }
}

fn numbered_folders(parent: &Path) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    if parent.is_dir() {
        for entry in std::fs::read_dir(parent)? {
            numbers.extend(entry?.file_name().to_string_lossy().parse::<u32>().ok());
        }
    }
    Ok(numbers)
}

/// Every database folder of a cluster.
fn databases(directory: &Path) -> Result<Vec<DatabaseTag>> {
    let mut found = vec![DatabaseTag { tablespace: 1664, database: 0 }];
    let of = |tablespace| move |database| DatabaseTag { tablespace, database };
    found.extend(numbered_folders(&directory.join("base"))?.into_iter().map(of(1663)));
    let tablespaces = directory.join("pg_tblspc");
    for tablespace in numbered_folders(&tablespaces)? {
        let folder: PathBuf = tablespaces.join(tablespace.to_string()).join(TABLESPACE_FOLDER);
        found.extend(numbered_folders(&folder)?.into_iter().map(of(tablespace)));
    }
    Ok(found)
}

fn compare_pages(
    block: BlockNumber,
    replayed: &Page,
    primary: &Page,
    report: &mut FilesReport,
) -> Option<String> {
    let Some(rmid) = mask::resource_manager_of(primary) else {
        report.pages_unknown += 1;
        return None;
    };
    // Whoever next wants an empty SP-GiST page makes it anew for its own purpose, without a record (`SpGistGetBuffer`).
    if rmid == rmgr::SPGIST && page::is_empty(replayed) && page::is_empty(primary) {
        return None;
    }
    let (mut ours, mut theirs) = (*replayed, *primary);
    if rmid == rmgr::SEQ {
        blank_sequence_values(&mut ours);
        blank_sequence_values(&mut theirs);
    }
    if rmid == rmgr::SPGIST {
        blank_last_used_pages(&mut ours);
        blank_last_used_pages(&mut theirs);
    }
    let interlock = if rmid == rmgr::GIST { compare::gist_interlock(&ours, &theirs) } else { None };
    compare::pages(rmid, block, &ours, &theirs).or(interlock)
}

/// A sequence's page runs behind its log by up to 32 values (W9): its three columns are not compared.
fn blank_sequence_values(page: &mut Page) {
    if let Ok(tuple) = page::stored_item(page, 1) {
        page[tuple.range()].iter_mut().skip(SEQUENCE_COLUMNS_AT).for_each(|byte| *byte = 0);
    }
}

/// An SP-GiST metapage remembers pages with room, without a record (`SpGistUpdateMetaPage` in `src/backend/access/spgist/spgutils.c`).
fn blank_last_used_pages(page: &mut Page) {
    const META: u16 = 1 << 0;
    const LAST_USED: std::ops::Range<usize> = page::HEADER_BYTES + 4..page::HEADER_BYTES + 68;
    if page::u16_at(page, BLOCK_BYTES - 8) & META != 0 {
        page[LAST_USED].fill(0);
    }
}

/// Compares every permanent relation of the cluster in `directory` with the model, and the other way round.
pub fn compare_files(model: &mut Model, directory: &Path) -> Result<FilesReport> {
    let mut report = FilesReport::default();
    let mut on_disk = HashSet::new();
    for database in databases(directory)? {
        let folder = directory.join(database_folder(database));
        let mut forks = HashSet::new();
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let name = entry?.file_name();
            forks.extend(parse_relation_file(database, &name.to_string_lossy()).map(|(fork, _)| fork));
        }
        for &fork in &forks {
            let unlogged = fork.fork != ForkNumber::Init && forks.contains(&fork.rel.fork(ForkNumber::Init));
            let hint = fork.fork == ForkNumber::FreeSpaceMap;
            if !unlogged && !hint {
                compare_fork(model, directory, fork, &mut report)?;
            }
        }
        on_disk.extend(forks);
    }
    let touched: Vec<RelFork> = model.touched_forks().collect();
    for fork in touched {
        let hint = fork.fork == ForkNumber::FreeSpaceMap;
        if !hint && !on_disk.contains(&fork) {
            report.differ(format!("{fork} is in the model and not in the files"));
        }
    }
    Ok(report)
}

fn compare_fork(model: &mut Model, directory: &Path, fork: RelFork, report: &mut FilesReport) -> Result<()> {
    let bytes = read_fork(directory, fork)?.unwrap_or_default();
    let (pages, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    report.forks += 1;
    if !rest.is_empty() {
        report.differ(format!("{fork} ends inside a page"));
    }
    let Some(blocks) = model.blocks(fork)? else {
        // A dropped relation leaves an empty file until the next checkpoint; maps are extended without a record.
        report.pages_ahead += pages.len() as u64;
        let is_map = fork.fork == ForkNumber::VisibilityMap;
        let harmless = pages.is_empty() || (is_map && pages.iter().all(mask::is_blank));
        if !harmless {
            report.differ(format!("{fork} has {} pages in its files and is not in the model", pages.len()));
        }
        return Ok(());
    };
    if blocks as usize > pages.len() {
        report.differ(format!("{fork} has {blocks} blocks in the model and {} in its files", pages.len()));
    }
    for (block, primary) in (0..).map(BlockNumber).zip(pages) {
        let id = PageId { rel: fork, block };
        report.pages += 1;
        let lost_bits = model.lost_bits(id);
        let Some(replayed) = model.page(id)? else {
            if mask::is_blank(primary) {
                report.pages_ahead += 1;
            } else {
                report.differ(format!("{id} is not in the model"));
            }
            continue;
        };
        let difference = if mask::is_blank(replayed) && mask::is_blank(primary) {
            None
        } else if fork.fork == ForkNumber::VisibilityMap {
            compare::map_pages(replayed, primary, if lost_bits { Bits::Subset } else { Bits::Equal })
        } else {
            compare_pages(block, replayed, primary, report)
        };
        if let Some(text) = difference {
            report.differ(format!("{id}: {text}"));
        }
    }
    Ok(())
}
