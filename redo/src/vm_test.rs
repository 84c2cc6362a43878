//! Positions of bits, and what a truncation leaves.

use super::*;

const BLOCK: BlockNumber = BlockNumber(HEAP_BLOCKS_PER_PAGE + 6);

fn full() -> Page {
    let mut page = [0xff; BLOCK_BYTES];
    page::init(&mut page, 0);
    page[page::HEADER_BYTES..].fill(0xff);
    page
}

#[test]
fn a_map_page_covers_32672_blocks() {
    assert_eq!(HEAP_BLOCKS_PER_PAGE, 32_672);
    assert_eq!(page_of(BlockNumber(32_671)), BlockNumber(0));
    assert_eq!(page_of(BlockNumber(32_672)), BlockNumber(1));
    assert_eq!(page_of(BlockNumber(u32::MAX)), BlockNumber(131_457));
}

#[test]
fn set_initializes_a_page_of_zeros_and_moves_the_lsn_once() {
    let mut page = [0; BLOCK_BYTES];
    set(&mut page, BLOCK, VALID_BITS, Lsn(100));
    assert_eq!((page[25], page::lower(&page), page::upper(&page)), (0b0011_0000, 24, 8192));
    assert_eq!((bits(&page, BLOCK), page::lsn(&page)), (3, Lsn(100)));
    set(&mut page, BLOCK, VALID_BITS, Lsn(200));
    assert_eq!(page::lsn(&page), Lsn(100));
    // Other bits are added to what is there, as Postgres does.
    set(&mut page, BLOCK, ALL_VISIBLE, Lsn(300));
    assert_eq!((bits(&page, BLOCK), page::lsn(&page)), (3, Lsn(300)));
}

#[test]
fn clear_says_whether_a_bit_was_set() {
    let mut page = full();
    assert!(clear(&mut page, BLOCK, ALL_FROZEN));
    assert!(!clear(&mut page, BLOCK, ALL_FROZEN));
    assert_eq!((bits(&page, BLOCK), page[25]), (ALL_VISIBLE, 0b1101_1111));
    assert!(clear(&mut page, BLOCK, VALID_BITS));
    assert_eq!(page[25], 0b1100_1111);
}

/// V4: truncation clears from the first removed block to the end of the page, and nothing before.
#[test]
fn truncation_clears_the_tail() {
    for kept in [1, 2, 3, 4, 5, 32_671] {
        let mut page = full();
        let heap_blocks = BlockNumber(HEAP_BLOCKS_PER_PAGE + kept);
        assert_eq!(cut(heap_blocks), MapCut { pages_kept: 2, tail_page: Some(BlockNumber(1)) });
        truncate_tail(&mut page, BlockNumber(1), heap_blocks).unwrap();
        for block in 0..HEAP_BLOCKS_PER_PAGE {
            let expected = if block < kept { VALID_BITS } else { 0 };
            assert_eq!(bits(&page, BlockNumber(block)), expected, "block {block} of {kept}");
        }
        assert_eq!(page::upper(&page), 8192);
        assert!(truncate_tail(&mut page, BlockNumber(0), heap_blocks).is_err());
    }
}

#[test]
fn truncation_at_a_page_boundary_has_no_tail() {
    assert_eq!(cut(BlockNumber(0)), MapCut { pages_kept: 0, tail_page: None });
    assert_eq!(cut(BlockNumber(2 * HEAP_BLOCKS_PER_PAGE)), MapCut { pages_kept: 2, tail_page: None });
    assert!(truncate_tail(&mut full(), BlockNumber(0), BlockNumber(0)).is_err());
}
