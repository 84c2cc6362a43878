//! The relations of a cluster as redo makes them: pages in memory, loaded from a data directory when first touched.
//!
//! The directory is a copy taken before the first replayed record and is only read. Sizes follow the log: a fork has as
//! many blocks as the log has named.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelFork, RelTag};
use strata_pgwal::BlockImage;
use strata_redo::effect::{DatabaseTag, TruncateForks};
use strata_redo::{Effect, Page, PageId, PageValue, RedoError, apply, change, fsm, vm};

/// Tablespaces that have a folder of their own (`src/include/catalog/pg_tablespace.dat`).
const DEFAULT_TABLESPACE: u32 = 1663;
const GLOBAL_TABLESPACE: u32 = 1664;
/// Name of the folder in a tablespace (`TABLESPACE_VERSION_DIRECTORY`).
pub const TABLESPACE_FOLDER: &str = "PG_17_202406281";

/// A page of zeros: never written, but below the fork's end.
const ZERO: &Page = &[0; BLOCK_BYTES];

/// Why an effect could not be performed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{0} does not exist, and the record does not make it")]
    MissingPage(PageId),
    #[error(transparent)]
    Redo(#[from] RedoError),
    #[error("an image of {0} bytes")]
    ImageLength(usize),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// One fork: as many entries as blocks; `None` is a page of zeros.
#[derive(Clone, Default)]
struct Fork {
    pages: Vec<Option<Box<Page>>>,
}

/// All relations.
pub struct Model {
    directory: PathBuf,
    /// Forks that were touched; `None` for one that does not exist.
    forks: HashMap<RelFork, Option<Fork>>,
    dropped_databases: HashSet<DatabaseTag>,
    /// Map pages whose bits fell into the hole of an image (V8).
    lost_bits: HashSet<PageId>,
    /// Visibility map bits that a record without a reference would have cleared on a page that does not exist.
    pub skipped_clears: u64,
}

/// Folder of a database's relations, below the data directory.
pub fn database_folder(database: DatabaseTag) -> PathBuf {
    match database.tablespace {
        GLOBAL_TABLESPACE => PathBuf::from("global"),
        DEFAULT_TABLESPACE => Path::new("base").join(database.database.to_string()),
        tablespace => Path::new("pg_tblspc")
            .join(tablespace.to_string())
            .join(TABLESPACE_FOLDER)
            .join(database.database.to_string()),
    }
}

fn database_of(rel: RelTag) -> DatabaseTag {
    DatabaseTag { tablespace: rel.tablespace, database: rel.database }
}

/// Relation and fork of a file of permanent or unlogged relations, with the number of its segment; `None` for others.
pub fn parse_relation_file(database: DatabaseTag, name: &str) -> Option<(RelFork, u32)> {
    let (stem, segment) = match name.split_once('.') {
        Some((stem, segment)) => (stem, segment.parse().ok()?),
        None => (name, 0),
    };
    let (number, suffix) = stem.split_once('_').map_or((stem, ""), |(number, _)| stem.split_at(number.len()));
    let fork = ForkNumber::ALL.into_iter().find(|fork| fork.file_suffix() == suffix)?;
    let DatabaseTag { tablespace, database } = database;
    Some((RelTag { tablespace, database, relation: number.parse().ok()? }.fork(fork), segment))
}

/// Reads a fork with all its segments; `None` if there is no file.
pub fn read_fork(directory: &Path, fork: RelFork) -> std::io::Result<Option<Vec<u8>>> {
    let folder = directory.join(database_folder(database_of(fork.rel)));
    let first = folder.join(format!("{}{}", fork.rel.relation, fork.fork.file_suffix()));
    let mut bytes = match std::fs::read(&first) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for segment in 1.. {
        match std::fs::read(format!("{}.{segment}", first.display())) {
            Ok(more) => bytes.extend(more),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Some(bytes))
}

impl Fork {
    fn from_bytes(bytes: &[u8]) -> Fork {
        let (pages, _) = bytes.as_chunks::<BLOCK_BYTES>();
        Fork { pages: pages.iter().map(|page| Some(Box::new(*page))).collect() }
    }

    fn grow_to_hold(&mut self, block: BlockNumber) {
        let needed = block.0 as usize + 1;
        if self.pages.len() < needed {
            self.pages.resize(needed, None);
        }
    }
}

impl Model {
    /// The state of `directory`, which belongs to a cluster that was shut down cleanly.
    pub fn new(directory: PathBuf) -> Model {
        Model {
            directory,
            forks: HashMap::new(),
            dropped_databases: HashSet::new(),
            lost_bits: HashSet::new(),
            skipped_clears: 0,
        }
    }

    /// Whether a map page lost bits in an image.
    pub fn lost_bits(&self, page: PageId) -> bool {
        self.lost_bits.contains(&page)
    }

    /// Remembers that a page was restored from `image`.
    pub fn note_restored(&mut self, page: PageId, image: &BlockImage) {
        if page.rel.fork == ForkNumber::VisibilityMap {
            if image.hole_length > 0 {
                self.lost_bits.insert(page);
            } else {
                self.lost_bits.remove(&page);
            }
        }
    }

    /// The fork, loaded if it is still as it was in the directory; `None` if it does not exist.
    fn fork(&mut self, fork: RelFork) -> std::io::Result<&mut Option<Fork>> {
        if !self.forks.contains_key(&fork) {
            let bytes = if self.dropped_databases.contains(&database_of(fork.rel)) {
                None
            } else {
                read_fork(&self.directory, fork)?
            };
            self.forks.insert(fork, bytes.map(|bytes| Fork::from_bytes(&bytes)));
        }
        Ok(self.forks.get_mut(&fork).expect("it was put there"))
    }

    /// The page, or `None` beyond the fork's end.
    pub fn page(&mut self, page: PageId) -> std::io::Result<Option<&Page>> {
        let Some(fork) = self.fork(page.rel)? else { return Ok(None) };
        Ok(fork.pages.get(page.block.0 as usize).map(|page| page.as_deref().unwrap_or(ZERO)))
    }

    /// Size of a fork, blocks; `None` if it does not exist.
    pub fn blocks(&mut self, fork: RelFork) -> std::io::Result<Option<u32>> {
        Ok(self.fork(fork)?.as_ref().map(|fork| fork.pages.len() as u32))
    }

    /// Forks that exist and were touched by the log.
    pub fn touched_forks(&self) -> impl Iterator<Item = RelFork> + '_ {
        self.forks.iter().filter(|(_, fork)| fork.is_some()).map(|(name, _)| *name)
    }

    /// Performs one effect of a record that ends at `lsn`.
    pub fn perform(&mut self, effect: &Effect, lsn: Lsn) -> Result<(), ReplayError> {
        match effect {
            Effect::Page { page, value } => {
                self.change_page(*page, value, lsn)?;
            }
            Effect::ClearVmBits { heap, heap_block, bits } => {
                let rel = heap.fork(ForkNumber::VisibilityMap);
                let change = change::encode_vm_clear(*heap_block, *bits);
                let page = PageId { rel, block: vm::page_of(*heap_block) };
                if !self.change_if_there(page, &change, lsn)? {
                    self.skipped_clears += 1;
                }
            }
            Effect::RelCreate(fork) => {
                self.fork(*fork)?.get_or_insert_default();
            }
            Effect::RelTruncate { rel, blocks, forks } => {
                self.truncate(*rel, *blocks, *forks, lsn)?;
            }
            Effect::RelDrop(rel) => self.drop_relation(*rel),
            Effect::DatabaseCopy { from, to } => self.copy_database(*from, *to)?,
            Effect::DatabaseDrop(database) => {
                self.dropped_databases.insert(*database);
                self.forks.retain(|fork, _| database_of(fork.rel) != *database);
            }
            _ => {}
        }
        Ok(())
    }

    fn change_page(&mut self, page: PageId, value: &PageValue, lsn: Lsn) -> Result<(), ReplayError> {
        let (bytes, will_init) = match value {
            PageValue::Image(bytes) => {
                let image = bytes.as_array::<BLOCK_BYTES>();
                let image = image.ok_or(ReplayError::ImageLength(bytes.len()))?;
                let fork = self.fork(page.rel)?.get_or_insert_default();
                fork.grow_to_hold(page.block);
                fork.pages[page.block.0 as usize] = Some(Box::new(*image));
                return Ok(());
            }
            PageValue::Change { bytes, will_init } => (bytes, *will_init),
        };
        // Postgres extends the maps without a record; redo makes their pages when it first needs them.
        let made_by_need = page.rel.fork != ForkNumber::Main;
        let fork = self.fork(page.rel)?;
        let exists = fork.as_ref().is_some_and(|fork| page.block.0 < fork.pages.len() as u32);
        if !exists && !will_init && !made_by_need {
            return Err(ReplayError::MissingPage(page));
        }
        let fork = fork.get_or_insert_default();
        fork.grow_to_hold(page.block);
        let target = fork.pages[page.block.0 as usize].get_or_insert_with(|| Box::new(*ZERO));
        Ok(apply(target, page, lsn, bytes)?)
    }

    fn change_if_there(&mut self, page: PageId, change: &[u8], lsn: Lsn) -> Result<bool, ReplayError> {
        let Some(fork) = self.fork(page.rel)? else { return Ok(false) };
        let Some(Some(target)) = fork.pages.get_mut(page.block.0 as usize) else { return Ok(false) };
        apply(target, page, lsn, change)?;
        Ok(true)
    }

    fn truncate(
        &mut self,
        rel: RelTag,
        blocks: BlockNumber,
        forks: TruncateForks,
        lsn: Lsn,
    ) -> Result<(), ReplayError> {
        if forks.has(TruncateForks::MAIN) {
            self.cut(rel.fork(ForkNumber::Main), blocks.0)?;
        }
        let maps = [
            (TruncateForks::VISIBILITY_MAP, ForkNumber::VisibilityMap, vm::cut(blocks)),
            (TruncateForks::FREE_SPACE_MAP, ForkNumber::FreeSpaceMap, fsm::cut(blocks)),
        ];
        for (flag, fork, cut) in maps {
            if !forks.has(flag) {
                continue;
            }
            self.cut(rel.fork(fork), cut.pages_kept)?;
            if let Some(block) = cut.tail_page {
                let change = match fork {
                    ForkNumber::VisibilityMap => change::encode_vm_truncate_tail(blocks),
                    _ => change::encode_fsm_truncate_tail(blocks),
                };
                self.change_if_there(PageId { rel: rel.fork(fork), block }, &change, lsn)?;
            }
        }
        Ok(())
    }

    fn cut(&mut self, fork: RelFork, blocks: u32) -> std::io::Result<()> {
        if let Some(fork) = self.fork(fork)? {
            fork.pages.truncate(blocks as usize);
        }
        Ok(())
    }

    fn drop_relation(&mut self, rel: RelTag) {
        for fork in ForkNumber::ALL {
            self.forks.insert(rel.fork(fork), None);
        }
        self.lost_bits.retain(|page| page.rel.rel != rel);
    }

    fn copy_database(&mut self, from: DatabaseTag, to: DatabaseTag) -> std::io::Result<()> {
        let mut sources: HashSet<RelFork> =
            self.touched_forks().filter(|fork| database_of(fork.rel) == from).collect();
        // A database that the log made has no folder in the first directory.
        let folder = self.directory.join(database_folder(from));
        if !self.dropped_databases.contains(&from) && folder.is_dir() {
            for entry in std::fs::read_dir(folder)? {
                let name = entry?.file_name();
                sources.extend(parse_relation_file(from, &name.to_string_lossy()).map(|(fork, _)| fork));
            }
        }
        for source in sources {
            let copy = self.fork(source)?.clone();
            let rel = RelTag { tablespace: to.tablespace, database: to.database, ..source.rel };
            self.forks.insert(rel.fork(source.fork), copy);
        }
        Ok(())
    }
}
