//! The visibility map: two bits a heap block, all-visible and all-frozen (`src/backend/access/heap/visibilitymap.c`).
//!
//! A map page that was never written reads as zeros: nothing to clear. Clearing a bit too many only costs time, leaving
//! one set makes index-only scans wrong (V1, V4).

use strata_common::{BLOCK_BYTES, BlockNumber, Lsn};

use crate::error::Fault;
use crate::{Page, page};

pub const ALL_VISIBLE: u8 = 0x01;
pub const ALL_FROZEN: u8 = 0x02;
/// Both bits (`VISIBILITYMAP_VALID_BITS`).
pub const VALID_BITS: u8 = ALL_VISIBLE | ALL_FROZEN;

/// Bytes of bitmap in a page (`MAPSIZE`).
const MAP_BYTES: u32 = (BLOCK_BYTES - page::HEADER_BYTES) as u32;
const BLOCKS_PER_BYTE: u32 = 4;
/// Heap blocks that one page of the map covers.
pub const HEAP_BLOCKS_PER_PAGE: u32 = MAP_BYTES * BLOCKS_PER_BYTE;

/// The map page that covers `heap_block`.
#[inline]
pub fn page_of(heap_block: BlockNumber) -> BlockNumber {
    BlockNumber(heap_block.0 / HEAP_BLOCKS_PER_PAGE)
}

/// Byte of the page and shift in it.
#[inline]
fn position(heap_block: BlockNumber) -> (usize, u32) {
    let in_page = heap_block.0 % HEAP_BLOCKS_PER_PAGE;
    let byte = page::HEADER_BYTES + (in_page / BLOCKS_PER_BYTE) as usize;
    (byte, in_page % BLOCKS_PER_BYTE * 2)
}

/// The bits of `heap_block` in its map page.
pub fn bits(page: &Page, heap_block: BlockNumber) -> u8 {
    let (byte, shift) = position(heap_block);
    page[byte] >> shift & VALID_BITS
}

/// Clears `bits` of `heap_block`; whether any was set. Leaves the page's LSN.
#[inline]
pub fn clear(page: &mut Page, heap_block: BlockNumber, bits: u8) -> bool {
    let (byte, shift) = position(heap_block);
    let mask = (bits & VALID_BITS) << shift;
    let was_set = page[byte] & mask != 0;
    page[byte] &= !mask;
    was_set
}

/// Sets `bits` of `heap_block` as redo does: a page of zeros is initialized first, the LSN moves if the bits were others.
pub fn set(page: &mut Page, heap_block: BlockNumber, bits: u8, lsn: Lsn) {
    if page::is_new(page) {
        page::init(page, 0);
    }
    let (byte, shift) = position(heap_block);
    let bits = bits & VALID_BITS;
    if page[byte] >> shift & VALID_BITS != bits {
        page[byte] |= bits << shift;
        page::set_lsn(page, lsn);
    }
}

/// What a truncation of MAIN does to a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapCut {
    /// Pages of the map that stay. A map that is shorter is not made longer.
    pub pages_kept: u32,
    /// The page whose tail is to be cleared, if it exists: the last one that stays.
    pub tail_page: Option<BlockNumber>,
}

/// The cut of the visibility map when MAIN is truncated to `heap_blocks` (`visibilitymap_prepare_truncate`).
pub fn cut(heap_blocks: BlockNumber) -> MapCut {
    let page = page_of(heap_blocks);
    if heap_blocks.0.is_multiple_of(HEAP_BLOCKS_PER_PAGE) {
        MapCut { pages_kept: page.0, tail_page: None }
    } else {
        MapCut { pages_kept: page.0 + 1, tail_page: Some(page) }
    }
}

/// Clears the bits of blocks from `heap_blocks` on in their map page `block`. Leaves the LSN.
pub fn truncate_tail(page: &mut Page, block: BlockNumber, heap_blocks: BlockNumber) -> Result<(), Fault> {
    if cut(heap_blocks).tail_page != Some(block) {
        return Err(Fault::Mismatch("truncation of the visibility map on another page than its last"));
    }
    let (byte, shift) = position(heap_blocks);
    page[byte] &= (1 << shift) - 1;
    page[byte + 1..].fill(0);
    Ok(())
}

#[cfg(test)]
#[path = "vm_test.rs"]
mod tests;
