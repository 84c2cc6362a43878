//! The free space map, as far as the log changes it: the tail of a page after a truncation.
//!
//! Everything else in it is a hint that Postgres never logs (W18, V5). Layout: a binary tree of maxima in each page, and a tree
//! of pages (`src/backend/storage/freespace/freespace.c`, `fsmpage.c`, `src/include/storage/fsm_internals.h`).

use strata_common::{BLOCK_BYTES, BlockNumber};

use crate::error::Fault;
use crate::vm::MapCut;
use crate::{Page, page};

/// Where the tree's nodes begin in a page: after the header and `fp_next_slot`.
const NODES_AT: usize = page::HEADER_BYTES + 4;
const NODES_PER_PAGE: usize = BLOCK_BYTES - NODES_AT;
const UPPER_NODES: usize = BLOCK_BYTES / 2 - 1;
/// Heap blocks that a bottom page covers (`SlotsPerFSMPage`).
pub const SLOTS_PER_PAGE: u32 = (NODES_PER_PAGE - UPPER_NODES) as u32;
/// Levels of pages (`FSM_TREE_DEPTH`).
const TREE_LEVELS: u32 = 3;

/// Block of the map that holds bottom page `leaf` (`fsm_logical_to_physical`): before it lie all pages of its own level and
/// the pages above them.
fn block_of_leaf(leaf: u32) -> BlockNumber {
    let mut pages = 0;
    let mut index = leaf;
    for _ in 0..TREE_LEVELS {
        pages += index + 1;
        index /= SLOTS_PER_PAGE;
    }
    BlockNumber(pages - 1)
}

/// The cut of the free space map when MAIN is truncated to `heap_blocks` (`FreeSpaceMapPrepareTruncateRel`).
pub fn cut(heap_blocks: BlockNumber) -> MapCut {
    let block = block_of_leaf(heap_blocks.0 / SLOTS_PER_PAGE);
    if heap_blocks.0.is_multiple_of(SLOTS_PER_PAGE) {
        MapCut { pages_kept: block.0, tail_page: None }
    } else {
        MapCut { pages_kept: block.0 + 1, tail_page: Some(block) }
    }
}

/// Forgets the free space of blocks from `heap_blocks` on in their map page `block` (`fsm_truncate_avail`). Leaves the LSN.
pub fn truncate_tail(page: &mut Page, block: BlockNumber, heap_blocks: BlockNumber) -> Result<(), Fault> {
    if cut(heap_blocks).tail_page != Some(block) {
        return Err(Fault::Mismatch("truncation of the free space map on another page than its last"));
    }
    let slot = (heap_blocks.0 % SLOTS_PER_PAGE) as usize;
    let tail = &mut page[NODES_AT + UPPER_NODES + slot..];
    if tail.iter().any(|&node| node != 0) {
        tail.fill(0);
        rebuild(page);
    }
    Ok(())
}

/// Every upper node is the larger of its children (`fsm_rebuild_page`).
fn rebuild(page: &mut Page) {
    let nodes = &mut page[NODES_AT..];
    for node in (0..UPPER_NODES).rev() {
        let child = |index: usize| nodes.get(index).copied().unwrap_or(0);
        nodes[node] = child(2 * node + 1).max(child(2 * node + 2));
    }
}

#[cfg(test)]
#[path = "fsm_test.rs"]
mod tests;
