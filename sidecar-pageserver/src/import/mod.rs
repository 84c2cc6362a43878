//! Import: a tar of a cleanly shut down Postgres 17 data directory becomes the first image layers of a timeline.
//!
//! Files come in any order and layers need sorted keys, so the tar is unpacked into a spool folder first and read back in
//! key order; nothing is held in memory but names. What comes in is checked before anything is written: version, clean
//! shutdown, layout. Page checksums are dropped (D3): a redone page has none. Unlogged relations keep their INIT fork only (R11).

pub mod datadir;
pub mod origins;
mod source;

use bytes::Bytes;
use strata_common::{BlockNumber, ForkNumber, Lsn, RelFork, SystemId};
use strata_redo::slru::SlruKind;

pub use source::{DataDir, Spool};

use crate::import::datadir::{BLOCKS_PER_FILE, Entry};
use crate::ingest::control::ControlState;
use crate::keyspace::values::{encode_blocks, present};
use crate::keyspace::{self, AuxFile, ControlPart, SLRU_PAGES_PER_SEGMENT};
use crate::storage::{Import, Key, StorageError};

/// Why a data directory is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("this is not the tar of a data directory: {0}")]
    Tar(String),
    #[error("the data directory has no {0}")]
    Missing(String),
    #[error("{path}: {reason}")]
    Content { path: String, reason: String },
    #[error(
        "the cluster was not shut down cleanly (state {0} in pg_control): start and stop it, then import again"
    )]
    NotShutDown(u32),
    #[error("tablespace {0} lies outside of the data directory: move its relations into pg_default first")]
    Tablespace(u32),
    #[error("spool folder: {0}")]
    Spool(#[from] std::io::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Writes everything to `import` in key order; returns nothing but the guarantee that it was all there.
pub async fn fill(data: &DataDir, control: &ControlState, import: &mut Import) -> Result<(), ImportError> {
    let forks = data.forks()?;
    for fork in &forks {
        relation_pages(data, fork, import).await?;
    }
    for fork in &forks {
        import.add(keyspace::rel_size(fork.rel), encode_blocks(fork.blocks)).await?;
    }
    for fork in forks.iter().filter(|fork| fork.rel.fork == ForkNumber::Init) {
        import.add(keyspace::init_fork(fork.rel.rel), present()).await?;
    }
    let entries = |wanted: fn(&Entry) -> Option<Key>| data.entries().filter_map(move |entry| wanted(&entry));
    let databases = entries(|entry| match *entry {
        Entry::DatabaseVersion { tablespace, database } => Some(keyspace::database(tablespace, database)),
        _ => None,
    });
    let tablespaces = entries(|entry| match *entry {
        Entry::Tablespace { tablespace } => Some(keyspace::tablespace(tablespace)),
        _ => None,
    });
    for key in databases.chain(tablespaces) {
        import.add(key, present()).await?;
    }
    for entry in data.entries() {
        if let Entry::RelMap { tablespace, database } = entry {
            import.add(keyspace::rel_map(tablespace, database), data.read(entry)?).await?;
        }
    }
    slrus(data, import).await?;
    for entry in data.entries() {
        if let Entry::TwoPhase { xid } = entry {
            import.add(keyspace::two_phase(xid), data.read(entry)?).await?;
        }
    }
    state(data, control, import).await
}

/// A fork with its length.
pub struct Fork {
    pub rel: RelFork,
    pub blocks: u32,
}

async fn relation_pages(data: &DataDir, fork: &Fork, import: &mut Import) -> Result<(), ImportError> {
    for segment in 0..fork.blocks.div_ceil(BLOCKS_PER_FILE) {
        let mut pages = data.pages(Entry::Relation { rel: fork.rel, segment })?;
        let mut block = segment * BLOCKS_PER_FILE;
        while let Some(page) = pages.next_page()? {
            import.add(keyspace::rel_block(fork.rel, BlockNumber(block)), relation_page(page)).await?;
            block += 1;
        }
    }
    Ok(())
}

/// An all-zero page is an image of no bytes; others lose their checksum.
fn relation_page(mut page: Vec<u8>) -> Bytes {
    if page.iter().all(|byte| *byte == 0) {
        return Bytes::new();
    }
    strata_pgwal::page::set_checksum(&mut page, 0);
    Bytes::from(page)
}

async fn slrus(data: &DataDir, import: &mut Import) -> Result<(), ImportError> {
    let mut sizes = Vec::new();
    for kind in SlruKind::ALL {
        for entry in data.entries() {
            let Entry::Slru { slru, segment } = entry else { continue };
            if slru != kind {
                continue;
            }
            let mut pages = data.pages(entry)?;
            let mut count = 0;
            while let Some(page) = pages.next_page()? {
                let key = keyspace::slru_block(kind, segment * SLRU_PAGES_PER_SEGMENT + count);
                import.add(key, Bytes::from(page)).await?;
                count += 1;
            }
            sizes.push((keyspace::slru_segment(kind, segment), count));
        }
    }
    for (key, pages) in sizes {
        import.add(key, encode_blocks(pages)).await?;
    }
    Ok(())
}

async fn state(data: &DataDir, control: &ControlState, import: &mut Import) -> Result<(), ImportError> {
    let checkpoint = Bytes::copy_from_slice(&control.checkpoint.encode());
    import.add(keyspace::control(ControlPart::CheckPoint), checkpoint).await?;
    import.add(keyspace::control(ControlPart::ControlFile), control.control_file_bytes()).await?;
    import.add(keyspace::mark(), control.mark.encode()).await?;
    if data.has(Entry::PgStat) {
        import.add(keyspace::aux(AuxFile::PgStat), data.read(Entry::PgStat)?).await?;
    }
    if data.has(Entry::Origins) {
        let file = data.read(Entry::Origins)?;
        let mut origins = origins::parse(&file).ok_or_else(|| ImportError::Content {
            path: "pg_logical/replorigin_checkpoint".to_owned(),
            reason: "its checksum is wrong".to_owned(),
        })?;
        origins.sort_by_key(|origin| origin.id);
        for origin in origins {
            let bytes = Bytes::copy_from_slice(&origin.remote_lsn.0.to_le_bytes());
            import.add(keyspace::origin(origin.id), bytes).await?;
        }
    }
    Ok(())
}

/// What the caller of an import learns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Imported {
    /// End of the shutdown checkpoint: the log goes on here.
    pub start_lsn: Lsn,
    pub system_id: SystemId,
    pub wal_segment_bytes: u32,
}
