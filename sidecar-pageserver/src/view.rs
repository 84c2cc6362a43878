//! A timeline as of one LSN: sizes, pages, SLRU segments, entries, control state. Everything that reads goes through here.
//!
//! A page is an image and the changes after it, redone in memory (D3). Beyond the end of a fork there are zeros, never an
//! error (G2). An image of no bytes is an all-zero page: gaps cost nothing. Redo that fails on a free space or visibility
//! map falls back to zeros and is counted; anywhere else it is an error that names page, LSN and record (G17).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelFork};
use strata_pgwal::{CheckPoint, ControlFile};
use strata_redo::Page;
use strata_redo::effect::{PageId, PageRef};
use strata_redo::error::RedoError;
use strata_redo::slru::{SlruKind, SlruPage};

use crate::core::key::{Key, KeyRange, Reconstruct};
use crate::ingest::control::ControlState;
use crate::keyspace::values::{BadValue, Mark, decode_blocks};
use crate::keyspace::{self, ControlPart, KeyName, SLRU_PAGES_PER_SEGMENT};
use crate::sizes::Size;
use crate::store::{Store, StoreError};

/// Pages of maps that could not be redone and were answered as zeros (G17), since the process started.
pub static MAP_PAGES_ZEROED: AtomicU64 = AtomicU64::new(0);

static ZERO_PAGE: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// An all-zero page without an allocation.
pub fn zero_page() -> Bytes {
    Bytes::from_static(&ZERO_PAGE)
}

/// Why a view has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Redo(#[from] RedoError),
    #[error("{what} as of {lsn}: {reason}")]
    Damaged { what: KeyName, lsn: Lsn, reason: String },
    #[error("no record is known to end at or below {0}")]
    NoMark(Lsn),
}

/// One LSN of one timeline.
pub struct View<S> {
    store: Arc<S>,
    lsn: Lsn,
}

/// A page and the end of the last record that changed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionedPage {
    pub lsn: Lsn,
    pub page: Bytes,
}

impl<S: Store> View<S> {
    pub fn new(store: Arc<S>, lsn: Lsn) -> View<S> {
        View { store, lsn }
    }

    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Newest value with the LSN at which it was put; for kinds whose values are images. Tombstones are returned.
    async fn newest(&self, key: Key) -> Result<Option<(Lsn, Bytes)>, ViewError> {
        Ok(self.store.get(key, self.lsn, None).await?.image)
    }

    /// Newest value that is not a tombstone.
    pub async fn value(&self, key: Key) -> Result<Option<Bytes>, ViewError> {
        Ok(self.newest(key).await?.map(|(_, bytes)| bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// As `value`, but only if it was put at exactly this LSN.
    pub async fn value_of_this_moment(&self, key: Key) -> Result<Option<Bytes>, ViewError> {
        let newest = self.newest(key).await?.filter(|(lsn, _)| *lsn == self.lsn);
        Ok(newest.map(|(_, bytes)| bytes).filter(|bytes| !bytes.is_empty()))
    }

    pub async fn scan(&self, range: KeyRange) -> Result<Vec<(Key, Bytes)>, ViewError> {
        Ok(self.store.scan(range, self.lsn).await?)
    }

    /// `scan` without tombstones.
    pub async fn scan_live(&self, range: KeyRange) -> Result<Vec<(Key, Bytes)>, ViewError> {
        let mut found = self.scan(range).await?;
        found.retain(|(_, value)| !value.is_empty());
        Ok(found)
    }

    fn damaged(&self, key: Key, reason: impl ToString) -> ViewError {
        let what = KeyName::of(key).unwrap_or(KeyName::Mark);
        ViewError::Damaged { what, lsn: self.lsn, reason: reason.to_string() }
    }

    fn bad_value(&self, key: Key) -> impl Fn(BadValue) -> ViewError + '_ {
        move |error| self.damaged(key, error)
    }

    pub async fn stored_size(&self, rel: RelFork) -> Result<Size, ViewError> {
        let key = keyspace::rel_size(rel);
        let Some((since, value)) = self.newest(key).await? else {
            return Ok(Size { since: Lsn::INVALID, blocks: None });
        };
        let blocks = decode_blocks(&value).map_err(self.bad_value(key))?;
        Ok(Size { since, blocks })
    }

    /// `None`: the fork does not exist.
    pub async fn rel_blocks(&self, rel: RelFork) -> Result<Option<u32>, ViewError> {
        Ok(self.stored_size(rel).await?.blocks)
    }

    /// A page inside the fork; the caller has looked at the size.
    pub async fn page(&self, rel: RelFork, block: BlockNumber) -> Result<Bytes, ViewError> {
        Ok(self.versioned_page(rel, block, None).await?.page)
    }

    /// As `page`, from a version that is known already, if there is one.
    pub async fn versioned_page(
        &self,
        rel: RelFork,
        block: BlockNumber,
        known: Option<VersionedPage>,
    ) -> Result<VersionedPage, ViewError> {
        let key = keyspace::rel_block(rel, block);
        let base = known.map(|known| (known.lsn, known.page));
        let parts = self.store.get(key, self.lsn, base).await?;
        match self.rebuild(key, PageRef::Rel(PageId { rel, block }), parts) {
            Err(ViewError::Redo(error)) if is_map(rel.fork) => {
                MAP_PAGES_ZEROED.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "a map page cannot be redone; it is answered as zeros");
                Ok(VersionedPage { lsn: self.lsn, page: zero_page() })
            }
            other => other,
        }
    }

    pub async fn slru_page(&self, kind: SlruKind, page: u32) -> Result<Bytes, ViewError> {
        let key = keyspace::slru_block(kind, page);
        let parts = self.store.get(key, self.lsn, None).await?;
        let name = PageRef::Slru(SlruPage { kind, page: u64::from(page) });
        Ok(self.rebuild(key, name, parts)?.page)
    }

    fn rebuild(&self, key: Key, name: PageRef, parts: Reconstruct) -> Result<VersionedPage, ViewError> {
        redo_page(name, parts).map_err(|error| match error {
            RebuildError::Redo(error) => ViewError::Redo(error),
            RebuildError::Image { lsn, bytes } => {
                self.damaged(key, format!("an image of {bytes} bytes at {lsn}"))
            }
        })
    }

    /// Live segments of an SLRU with their pages.
    pub async fn slru_segments(&self, kind: SlruKind) -> Result<Vec<(u32, u32)>, ViewError> {
        let mut segments = Vec::new();
        for (key, value) in self.scan(keyspace::slru_segments(kind)).await? {
            let pages = decode_blocks(&value).map_err(self.bad_value(key))?;
            if let (Some(KeyName::SlruSegment(_, segment)), Some(pages)) = (KeyName::of(key), pages) {
                segments.push((segment, pages));
            }
        }
        Ok(segments)
    }

    /// Whole pages of one segment; empty if it does not exist.
    pub async fn slru_segment(&self, kind: SlruKind, segment: u32) -> Result<Bytes, ViewError> {
        let key = keyspace::slru_segment(kind, segment);
        let Some((_, value)) = self.newest(key).await? else { return Ok(Bytes::new()) };
        let pages = decode_blocks(&value).map_err(self.bad_value(key))?.unwrap_or(0);
        let mut out = Vec::with_capacity(pages as usize * BLOCK_BYTES);
        for page in 0..pages {
            out.extend_from_slice(&self.slru_page(kind, segment * SLRU_PAGES_PER_SEGMENT + page).await?);
        }
        Ok(Bytes::from(out))
    }

    /// The last mark at or below this LSN, with the end of its record.
    pub async fn mark(&self) -> Result<(Lsn, Mark), ViewError> {
        let key = keyspace::mark();
        let Some((lsn, value)) = self.newest(key).await? else { return Err(ViewError::NoMark(self.lsn)) };
        Ok((lsn, Mark::decode(&value).map_err(self.bad_value(key))?))
    }

    /// Counters and settings as of the last mark at or below this LSN.
    pub async fn control(&self) -> Result<ControlState, ViewError> {
        let (lsn, mark) = self.mark().await?;
        let at_mark = View { store: self.store.clone(), lsn };
        let key = keyspace::control(ControlPart::CheckPoint);
        let bytes = at_mark.value(key).await?.ok_or_else(|| self.damaged(key, "it is missing"))?;
        let checkpoint = CheckPoint::parse(&bytes).map_err(|e| self.damaged(key, e))?;
        let key = keyspace::control(ControlPart::ControlFile);
        let bytes = at_mark.value(key).await?.ok_or_else(|| self.damaged(key, "it is missing"))?;
        let control_file = ControlFile::parse(&bytes).map_err(|e| self.damaged(key, e))?;
        Ok(ControlState::from_stored(lsn, checkpoint, control_file, mark))
    }
}

/// Why a page cannot be made from its parts.
#[derive(Debug)]
pub enum RebuildError {
    Redo(RedoError),
    /// An image that is no page.
    Image {
        lsn: Lsn,
        bytes: usize,
    },
}

/// The page that `parts` make; without parts it is all zero.
pub fn redo_page(name: PageRef, parts: Reconstruct) -> Result<VersionedPage, RebuildError> {
    let mut lsn = Lsn::INVALID;
    let mut image = zero_page();
    if let Some((at, bytes)) = parts.image {
        lsn = at;
        match bytes.len() {
            0 => {}
            BLOCK_BYTES => image = bytes,
            bytes => return Err(RebuildError::Image { lsn, bytes }),
        }
    }
    if parts.changes.is_empty() {
        return Ok(VersionedPage { lsn, page: image });
    }
    let mut page: Box<Page> = Box::new(ZERO_PAGE);
    page.copy_from_slice(&image);
    for (at, change) in &parts.changes {
        match name {
            PageRef::Rel(name) => strata_redo::apply(&mut page, name, *at, change),
            PageRef::Slru(name) => strata_redo::apply_slru(&mut page, name, *at, change),
        }
        .map_err(RebuildError::Redo)?;
        lsn = *at;
    }
    Ok(VersionedPage { lsn, page: Bytes::from(page as Box<[u8]>) })
}

fn is_map(fork: ForkNumber) -> bool {
    matches!(fork, ForkNumber::FreeSpaceMap | ForkNumber::VisibilityMap)
}
