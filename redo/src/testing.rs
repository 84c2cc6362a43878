//! For tests: records made by hand, and a store of pages that takes a record's effects as the pageserver would.

use std::collections::BTreeMap;

use bytes::Bytes;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelTag};
use strata_pgwal::{BlockImage, DecodedBlock, DecodedRecord, ImageCompression};

use crate::change::encode_vm_clear;
use crate::{Effect, EffectError, Page, PageId, PageValue, RedoError, apply, effects, vm};

pub const REL: RelTag = RelTag { tablespace: 1663, database: 5, relation: 16384 };
/// Transaction of hand-made records.
pub const XID: u32 = 800;

pub fn main_page(block: u32) -> PageId {
    PageId { rel: REL.fork(ForkNumber::Main), block: BlockNumber(block) }
}

pub fn map_page(block: u32) -> PageId {
    PageId { rel: REL.fork(ForkNumber::VisibilityMap), block: BlockNumber(block) }
}

/// A block reference without an image.
pub fn reference(id: u8, page: PageId, data: &[u8]) -> DecodedBlock {
    DecodedBlock {
        id,
        rel: page.rel,
        block: page.block,
        will_init: false,
        image: None,
        data: Bytes::copy_from_slice(data),
        has_data: !data.is_empty(),
    }
}

/// A reference whose page is made anew.
pub fn init_reference(id: u8, page: PageId, data: &[u8]) -> DecodedBlock {
    DecodedBlock { will_init: true, ..reference(id, page, data) }
}

/// A reference with an uncompressed image.
pub fn image_reference(id: u8, page: PageId, image: &Page, apply: bool) -> DecodedBlock {
    let image = BlockImage {
        apply,
        hole_offset: 0,
        hole_length: 0,
        compression: ImageCompression::None,
        bytes: Bytes::copy_from_slice(image),
    };
    DecodedBlock { image: Some(image), ..reference(id, page, &[]) }
}

/// A record of transaction `XID` that ends at `end`.
pub fn record(rmid: u8, info: u8, end: u64, main: &[u8], blocks: Vec<DecodedBlock>) -> DecodedRecord {
    DecodedRecord {
        lsn: Lsn(end - 64),
        end_lsn: Lsn(end),
        prev: Lsn(0),
        xid: XID,
        rmid,
        info,
        origin: None,
        toplevel_xid: None,
        main_data: Bytes::copy_from_slice(main),
        blocks,
    }
}

/// Pages by name; those that are missing read as zeros.
#[derive(Default)]
pub struct Pages(BTreeMap<PageId, Page>);

impl Pages {
    pub fn with(pages: impl IntoIterator<Item = (PageId, Page)>) -> Pages {
        Pages(pages.into_iter().collect())
    }

    pub fn get(&self, page: PageId) -> &Page {
        self.0.get(&page).unwrap_or(&[0; BLOCK_BYTES])
    }

    /// Performs what `record` does to pages, and returns its other effects.
    pub fn replay(&mut self, record: &DecodedRecord) -> Result<Vec<Effect>, RedoError> {
        let mut others = Vec::new();
        for effect in effects(record).expect("the record is known") {
            match effect {
                Effect::Page { page, value: PageValue::Image(image) } => {
                    self.0.insert(page, *image.first_chunk().expect("a whole page"));
                }
                Effect::Page { page, value: PageValue::Change { bytes, will_init } } => {
                    let garbage = [0x5a; BLOCK_BYTES];
                    let mut content = if will_init { garbage } else { *self.get(page) };
                    apply(&mut content, page, record.end_lsn, &bytes)?;
                    self.0.insert(page, content);
                }
                Effect::ClearVmBits { heap_block, bits, .. } => {
                    let page = map_page(vm::page_of(heap_block).0);
                    if let Some(content) = self.0.get_mut(&page) {
                        apply(content, page, record.end_lsn, &encode_vm_clear(heap_block, bits))?;
                    }
                    others.push(effect);
                }
                other => others.push(other),
            }
        }
        Ok(others)
    }

    /// As `replay`, for a record that fits.
    pub fn run(&mut self, record: &DecodedRecord) {
        if let Err(error) = self.replay(record) {
            panic!("{error}");
        }
    }
}

/// The effects, or why there are none.
pub fn effect_error(record: &DecodedRecord) -> EffectError {
    match effects(record) {
        Ok(effects) => panic!("{effects:?}"),
        Err(error) => error,
    }
}
