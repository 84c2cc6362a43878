//! Relations at ingest: pages with the growth that they imply, creation, truncation with the tails of the maps, drop.
//!
//! A fork's size is one value per change of it (R7). When a fork grows past blocks that this record does not write, those
//! get an explicit zero page, so that what lay there before a truncation, or under a relfilenumber used before, can never
//! show again (W14, R5).

use std::collections::HashMap;

use bytes::Bytes;
use strata_common::{BlockNumber, ForkNumber, Guard, Lsn, RelFork, RelTag};
use strata_redo::change::{encode_fsm_truncate_tail, encode_vm_clear, encode_vm_truncate_tail};
use strata_redo::effect::{PageId, PageValue, TruncateForks};
use strata_redo::vm::MapCut;
use strata_redo::{fsm, vm};

use crate::core::key::Value;
use crate::ingest::{Ingest, IngestError, cannot};
use crate::keyspace::values::{encode_blocks, present, tombstone};
use crate::keyspace::{self, KeyName, Kind};
use crate::sizes::Size;
use crate::store::Store;
use crate::view::View;

/// Zero pages that one record may make before its own; a record can name any block, and each costs memory.
const GAP_BLOCKS_MAX: u32 = 1 << 20;

impl<S: Store> Ingest<S> {
    /// The size before the record at hand; `None`: no such fork.
    pub(super) async fn size(&mut self, rel: RelFork) -> Result<Option<u32>, IngestError> {
        if let Some(size) = self.sizes.newest(rel) {
            return Ok(size.blocks);
        }
        // Not in memory means not changed since the last flush, so storage has it.
        let view = View::new(self.store.clone(), self.flushed);
        let size = view.stored_size(rel).await?;
        self.sizes.set(rel, size);
        Ok(size.blocks)
    }

    fn set_size(&mut self, lsn: Lsn, rel: RelFork, blocks: Option<u32>) {
        self.sizes.set(rel, Size { since: lsn, blocks });
        let value = blocks.map_or_else(tombstone, encode_blocks);
        self.batch.image(lsn, keyspace::rel_size(rel), value);
    }

    /// A fork begins to exist; an INIT fork makes its relation an unlogged one (R11).
    pub(super) fn born(&mut self, lsn: Lsn, rel: RelFork, blocks: u32) {
        if rel.fork == ForkNumber::Init {
            self.init_forks.set(rel.rel, true);
            self.batch.image(lsn, keyspace::init_fork(rel.rel), present());
        }
        self.set_size(lsn, rel, Some(blocks));
    }

    pub(super) async fn page(&mut self, lsn: Lsn, page: PageId, value: PageValue) -> Result<(), IngestError> {
        if is_map_image(page, &value) && self.size(page.rel.rel.fork(ForkNumber::Main)).await?.is_none() {
            // A compute saves maps without locking their relation: this one was dropped just before (V5).
            self.counts.images_of_dropped_maps += 1;
            return Ok(());
        }
        let size = self.size(page.rel).await?;
        self.put_page(lsn, page, value, size)
    }

    /// A page of a fork that has had `size` blocks so far; `None`: that does not exist.
    pub(super) fn put_page(
        &mut self,
        lsn: Lsn,
        page: PageId,
        value: PageValue,
        size: Option<u32>,
    ) -> Result<(), IngestError> {
        let is_new = self.grow(lsn, page, size)?;
        let value = match value {
            PageValue::Image(bytes) => Value::Image(bytes),
            PageValue::Change { bytes, will_init } => {
                if is_new && !will_init && page.rel.fork == ForkNumber::Main {
                    // A contiguous log does not do this. Kept and counted: reading this one block will tell.
                    self.counts.references_beyond_end += 1;
                    tracing::warn!(%page, %lsn, "a record changes a block beyond the end of its relation");
                }
                Value::Change { bytes, will_init: will_init || is_new }
            }
        };
        self.batch.put(lsn, keyspace::rel_block(page.rel, page.block), value);
        Ok(())
    }

    /// Makes the fork long enough to hold the page; true if it was not.
    fn grow(&mut self, lsn: Lsn, page: PageId, size: Option<u32>) -> Result<bool, IngestError> {
        let old = size.unwrap_or(0);
        if size.is_some() && page.block.0 < old {
            return Ok(false);
        }
        let gap = page.block.0.saturating_sub(old);
        if gap > GAP_BLOCKS_MAX {
            return Err(cannot(format!(
                "{page} lies {gap} blocks beyond the end of its relation; {GAP_BLOCKS_MAX} are possible at once"
            )));
        }
        for gap in (old..page.block.0).filter(|_| Guard::GapZeros.holds()) {
            self.batch.image(lsn, keyspace::rel_block(page.rel, BlockNumber(gap)), Bytes::new());
        }
        let blocks = page.block.0.checked_add(1);
        let blocks = blocks
            .ok_or_else(|| cannot(format!("{page} has the number that Postgres reserves for none (R10)")))?;
        match size {
            None => self.born(lsn, page.rel, blocks),
            Some(_) => self.set_size(lsn, page.rel, Some(blocks)),
        }
        Ok(true)
    }

    /// Does not shrink a fork that is there (R2).
    pub(super) async fn create(&mut self, lsn: Lsn, rel: RelFork) -> Result<(), IngestError> {
        if self.size(rel).await?.is_none() || !Guard::CreateKeepsSize.holds() {
            self.born(lsn, rel, 0);
        }
        Ok(())
    }

    /// Bits without a reference to their page: cleared only where the map, which has `size` blocks, has the page (V1, V3).
    pub(super) fn clear_vm_bits(
        &mut self,
        lsn: Lsn,
        heap: RelTag,
        heap_block: BlockNumber,
        bits: u8,
        size: Option<u32>,
    ) {
        let map = heap.fork(ForkNumber::VisibilityMap);
        let page = vm::page_of(heap_block);
        let is_missing = size.is_none_or(|blocks| page.0 >= blocks);
        if is_missing && Guard::MissingMapPage.holds() {
            self.counts.vm_clears_skipped += 1;
            return;
        }
        let change = Value::Change { bytes: encode_vm_clear(heap_block, bits), will_init: false };
        self.batch.put(lsn, keyspace::rel_block(map, page), change);
    }

    /// `smgr_redo` of TRUNCATE (`src/backend/catalog/storage.c`): the maps lose whole pages and the tail of their last one (V4).
    pub(super) async fn truncate(
        &mut self,
        lsn: Lsn,
        rel: RelTag,
        blocks: BlockNumber,
        forks: TruncateForks,
    ) -> Result<(), IngestError> {
        let main = rel.fork(ForkNumber::Main);
        if self.size(main).await?.is_none() {
            self.born(lsn, main, 0);
        }
        if forks.has(TruncateForks::MAIN) {
            self.cut(lsn, main, blocks.0).await?;
        }
        if forks.has(TruncateForks::FREE_SPACE_MAP) {
            let map = rel.fork(ForkNumber::FreeSpaceMap);
            self.cut_map(lsn, map, fsm::cut(blocks), encode_fsm_truncate_tail(blocks)).await?;
        }
        if forks.has(TruncateForks::VISIBILITY_MAP) {
            let map = rel.fork(ForkNumber::VisibilityMap);
            self.cut_map(lsn, map, vm::cut(blocks), encode_vm_truncate_tail(blocks)).await?;
        }
        Ok(())
    }

    async fn cut_map(&mut self, lsn: Lsn, map: RelFork, cut: MapCut, tail: Bytes) -> Result<(), IngestError> {
        let Some(pages) = self.size(map).await? else { return Ok(()) };
        let tail_page = cut.tail_page.filter(|page| page.0 < pages);
        if let Some(page) =
            tail_page.filter(|_| map.fork == ForkNumber::FreeSpaceMap || Guard::CutTail.holds())
        {
            let change = Value::Change { bytes: tail, will_init: false };
            self.batch.put(lsn, keyspace::rel_block(map, page), change);
        }
        self.cut(lsn, map, cut.pages_kept).await
    }

    async fn cut(&mut self, lsn: Lsn, rel: RelFork, blocks: u32) -> Result<(), IngestError> {
        if self.size(rel).await?.is_some_and(|old| blocks < old) {
            self.set_size(lsn, rel, Some(blocks));
        }
        Ok(())
    }

    /// Looks nothing up (R7): one record may drop very many relations, and each look would go through every layer. A fork of which
    /// nothing is known here gets its end written whether or not it was there.
    pub(super) async fn drop_relation(&mut self, lsn: Lsn, rel: RelTag) -> Result<(), IngestError> {
        for fork in [ForkNumber::Main, ForkNumber::FreeSpaceMap, ForkNumber::VisibilityMap] {
            if !Guard::DropsLookNothingUp.holds() {
                self.size(rel.fork(fork)).await?;
            }
            if self.sizes.newest(rel.fork(fork)).is_none_or(|size| size.blocks.is_some()) {
                self.gone(lsn, rel.fork(fork));
            }
        }
        if self.init_forks.has(&*self.store, self.flushed, rel).await? {
            self.gone(lsn, rel.fork(ForkNumber::Init));
        }
        Ok(())
    }

    /// A fork ends to exist.
    pub(super) fn gone(&mut self, lsn: Lsn, rel: RelFork) {
        if rel.fork == ForkNumber::Init {
            self.init_forks.set(rel.rel, false);
            self.batch.image(lsn, keyspace::init_fork(rel.rel), tombstone());
        }
        self.set_size(lsn, rel, None);
    }
}

/// An image of a map's page: it counts only if the map's relation exists.
pub(super) fn is_map_image(page: PageId, value: &PageValue) -> bool {
    let map = matches!(page.rel.fork, ForkNumber::FreeSpaceMap | ForkNumber::VisibilityMap);
    map && matches!(value, PageValue::Image(_))
}

/// Which relations are unlogged, that is, have an INIT fork (R11). They are few and every base backup lists them, so none gets an
/// end that it does not need, and those that there are are read from storage once.
#[derive(Default)]
pub(super) struct InitForks {
    /// Storage was read; until then `changed` says only what came since the start.
    is_loaded: bool,
    changed: HashMap<RelTag, bool>,
}

impl InitForks {
    fn set(&mut self, rel: RelTag, exists: bool) {
        if exists || !self.is_loaded {
            self.changed.insert(rel, exists);
        } else {
            self.changed.remove(&rel);
        }
    }

    /// Everything up to `flushed` is in `store`, and what came after went through `set`.
    async fn has<S: Store>(&mut self, store: &S, flushed: Lsn, rel: RelTag) -> Result<bool, IngestError> {
        if !self.is_loaded {
            for (key, value) in store.scan(keyspace::kind_range(Kind::InitFork), flushed).await? {
                if let (Some(KeyName::InitFork(rel)), false) = (KeyName::of(key), value.is_empty()) {
                    self.changed.entry(rel).or_insert(true);
                }
            }
            self.changed.retain(|_, exists| *exists);
            self.is_loaded = true;
        }
        Ok(self.changed.contains_key(&rel))
    }
}
