//! Where the map's pages lie, and what a truncation leaves.

use super::*;
use crate::page::HEADER_BYTES;

#[test]
fn leaf_pages_follow_the_pages_above_them() {
    assert_eq!(SLOTS_PER_PAGE, 4069);
    // Root, middle, then leaves; each 4069 leaves are preceded by another middle page.
    assert_eq!(block_of_leaf(0), BlockNumber(2));
    assert_eq!(block_of_leaf(4068), BlockNumber(4070));
    assert_eq!(block_of_leaf(4069), BlockNumber(4072));
    // The last block that a relation can have.
    assert_eq!(block_of_leaf(u32::MAX / SLOTS_PER_PAGE), BlockNumber(1_055_794));
}

#[test]
fn the_cut_keeps_the_page_of_the_last_block() {
    assert_eq!(cut(BlockNumber(1)), MapCut { pages_kept: 3, tail_page: Some(BlockNumber(2)) });
    assert_eq!(cut(BlockNumber(0)), MapCut { pages_kept: 2, tail_page: None });
    assert_eq!(cut(BlockNumber(4069)), MapCut { pages_kept: 3, tail_page: None });
    assert_eq!(cut(BlockNumber(4070)), MapCut { pages_kept: 4, tail_page: Some(BlockNumber(3)) });
}

#[test]
fn truncation_clears_slots_and_recomputes_the_maxima() {
    let mut page = [0; BLOCK_BYTES];
    page::init(&mut page, 0);
    let slot = |slot: usize| HEADER_BYTES + 4 + 4095 + slot;
    (page[slot(2)], page[slot(3)], page[slot(4068)]) = (10, 200, 255);
    rebuild(&mut page);
    assert_eq!(page[HEADER_BYTES + 4], 255);
    truncate_tail(&mut page, BlockNumber(2), BlockNumber(3)).unwrap();
    assert_eq!((page[slot(2)], page[slot(3)], page[slot(4068)]), (10, 0, 0));
    assert_eq!(page[HEADER_BYTES + 4], 10);
    assert!(truncate_tail(&mut page, BlockNumber(3), BlockNumber(3)).is_err());
}

/// As in Postgres, upper nodes are left alone if no slot was cleared.
#[test]
fn truncation_of_nothing_changes_nothing() {
    let mut page = [0; BLOCK_BYTES];
    page[HEADER_BYTES + 4] = 77;
    let before = page;
    truncate_tail(&mut page, BlockNumber(2), BlockNumber(100)).unwrap();
    assert_eq!(page, before);
}
