//! Masks on hand-built pages: what is blanked, what is kept, and that broken pages are refused and never panic.

use proptest::prelude::*;
use strata_common::{BLOCK_BYTES, BlockNumber};
use strata_pgwal::rmgr;

use super::vm::{self, Bits};
use super::{MaskError, mask};
use crate::Page;
use crate::page::{set_u16_at as set_u16, u16_at};

fn page_with_special(special_bytes: u16) -> Page {
    let mut page = [0; BLOCK_BYTES];
    set_u16(&mut page, 12, 24);
    set_u16(&mut page, 14, 8192 - special_bytes);
    set_u16(&mut page, 16, 8192 - special_bytes);
    set_u16(&mut page, 18, 8192 | 4);
    page
}

/// Adds a tuple the way Postgres does: data downwards, line pointers upwards.
fn add_tuple(page: &mut Page, kind: u32, tuple: &[u8]) -> usize {
    let lower = u16_at(page, 12) as usize;
    let upper = u16_at(page, 14) as usize - tuple.len().next_multiple_of(8);
    page[upper..upper + tuple.len()].copy_from_slice(tuple);
    let line = upper as u32 | kind << 15 | (tuple.len() as u32) << 17;
    page[lower..lower + 4].copy_from_slice(&line.to_le_bytes());
    set_u16(page, 12, lower as u16 + 4);
    set_u16(page, 14, upper as u16);
    upper
}

fn heap_tuple(infomask: u16) -> Vec<u8> {
    let mut tuple = vec![7; 29];
    tuple[20..22].copy_from_slice(&infomask.to_le_bytes());
    tuple
}

fn masked(rmid: u8, mut page: Page) -> Page {
    mask(rmid, BlockNumber(0x0002_0003), &mut page).expect("a sound page can be masked");
    page
}

#[test]
fn heap_hides_hints_and_keeps_row_locks() {
    let infomask_after = |before: u16| {
        let mut page = page_with_special(0);
        let at = add_tuple(&mut page, 1, &heap_tuple(before));
        u16_at(&masked(rmgr::HEAP, page), at + 20)
    };
    assert_eq!(infomask_after(0x0100), 0, "XMIN_COMMITTED is a hint");
    assert_eq!(infomask_after(0x0e20), 0, "XMIN_INVALID, the XMAX hints and COMBOCID too");
    assert_eq!(infomask_after(0x0f00), 0x0300, "a frozen xmin comes from the log");
    for logged in [0x0010, 0x0040, 0x0080, 0x1000, 0x2000, 0x4000, 0x8000] {
        assert_eq!(infomask_after(logged | 0x0900), logged, "{logged:#06x} comes from the log");
    }
}

#[test]
fn heap_hides_command_id_speculative_token_padding_hole_and_page_hints() {
    let mut page = page_with_special(0);
    let mut tuple = heap_tuple(0);
    tuple[16..18].copy_from_slice(&0xfffe_u16.to_le_bytes());
    let at = add_tuple(&mut page, 1, &tuple);
    page[at + 29..at + 32].fill(9);
    page[28..100].fill(9);
    page[0..10].fill(9);
    page[20..24].fill(9);
    set_u16(&mut page, 10, 0x0007);
    let page = masked(rmgr::HEAP2, page);
    assert_eq!(page[at + 8..at + 12], [0; 4], "command id");
    assert_eq!(page[at + 12..at + 18], [2, 0, 3, 0, 1, 0], "token becomes the tuple's own place");
    assert_eq!(page[at + 29..at + 32], [0; 3], "padding");
    assert_eq!(page[at + 22..at + 29], [7; 7], "data stays");
    assert!(page[28..at].iter().all(|&byte| byte == 0), "hole");
    assert_eq!(page[0..10], [0; 10], "LSN, checksum");
    assert_eq!(u16_at(&page, 10), 0x0004, "of the flags only ALL_VISIBLE comes from the log");
    assert_eq!(page[20..24], [0; 4], "prune xid");
}

#[test]
fn heap_keeps_a_ctid_that_moved_and_dead_line_pointers() {
    let mut page = page_with_special(0);
    let mut tuple = heap_tuple(0);
    tuple[16..18].copy_from_slice(&0xfffd_u16.to_le_bytes());
    let at = add_tuple(&mut page, 1, &tuple);
    page[28..32].copy_from_slice(&(3_u32 << 15).to_le_bytes());
    set_u16(&mut page, 12, 32);
    let after = masked(rmgr::HEAP, page);
    assert_eq!(after[at + 12..at + 18], page[at + 12..at + 18]);
    assert_eq!(after[28..32], page[28..32]);
}

#[test]
fn btree_hides_line_flags_of_leaves_only() {
    for (leaf, kept) in [(1, false), (0, true)] {
        let mut page = page_with_special(16);
        add_tuple(&mut page, 3, &[5; 16]);
        set_u16(&mut page, 8176 + 12, leaf | 1 << 5 | 1 << 6 | 1 << 7);
        set_u16(&mut page, 8176 + 14, 77);
        let after = masked(rmgr::BTREE, page);
        assert_eq!(after[24..28] == page[24..28], kept);
        assert_eq!(u16_at(&after, 8176 + 12), leaf | 1 << 7, "SPLIT_END and HAS_GARBAGE go");
        assert_eq!(u16_at(&after, 8176 + 14), 0, "cycle id");
        assert_eq!(after[8160..8176], [5; 16]);
    }
}

#[test]
fn gin_keeps_when_a_deleted_page_may_be_used_again() {
    let flagged = |flags: u16| {
        let mut page = page_with_special(8);
        set_u16(&mut page, 8190, flags);
        set_u16(&mut page, 12, 40);
        page[24..100].fill(9);
        page[20..24].fill(7);
        masked(rmgr::GIN, page)
    };
    let (data, deleted) = (1, 4);
    for kept in [flagged(data), flagged(data | deleted)] {
        assert_eq!((kept[24], kept[39], kept[40]), (9, 9, 0), "the hole alone is blanked");
        assert_eq!(kept[20..24], [7; 4], "the transaction id of the deletion");
    }
    let pending = flagged(deleted);
    assert!(pending[24..].iter().all(|&byte| byte == 0), "a pending page is made anew by redo");
    assert_eq!(u16_at(&pending, 12), 0);
    let mut old = page_with_special(8);
    old[24..100].fill(9);
    assert_eq!(masked(rmgr::GIN, old)[24..100], [9; 76], "pd_lower of old posting trees says nothing");
}

#[test]
fn gist_hides_what_comes_after_the_record() {
    for (leaf, kept) in [(1, false), (0, true)] {
        let mut page = page_with_special(16);
        add_tuple(&mut page, 3, &[5; 16]);
        page[8176..8184].fill(4);
        set_u16(&mut page, 8188, leaf | 1 << 1 | 1 << 2 | 1 << 4);
        let after = masked(rmgr::GIST, page);
        assert_eq!(after[24..28] == page[24..28], kept, "line flags of leaves");
        assert_eq!(after[8176..8184], [0; 8], "NSN");
        assert_eq!(u16_at(&after, 8188), leaf | 1 << 1 | 1 << 3, "DELETED stays, FOLLOW_RIGHT is set");
        assert_eq!(after[8160..8176], [5; 16]);
    }
}

#[test]
fn sequence_keeps_page_hints() {
    let mut page = page_with_special(8);
    set_u16(&mut page, 10, 0x0002);
    page[100] = 1;
    let after = masked(rmgr::SEQ, page);
    assert_eq!(u16_at(&after, 10), 0x0002);
    assert_eq!(after[100], 0);
}

#[test]
fn broken_bounds_and_strangers_are_refused() {
    let mut zero = [0; BLOCK_BYTES];
    let bounds = MaskError::Bounds { lower: 0, upper: 0, special: 0 };
    assert_eq!(mask(rmgr::HEAP, BlockNumber(0), &mut zero), Err(bounds));
    let mut heap = page_with_special(0);
    for rmid in [rmgr::BTREE, rmgr::GIN, rmgr::GIST] {
        assert!(mask(rmid, BlockNumber(0), &mut heap).is_err(), "no index page without its special space");
    }
    assert_eq!(mask(128, BlockNumber(0), &mut heap), Err(MaskError::UnknownResourceManager(128)));
}

#[test]
fn map_pages_are_compared_by_their_bits() {
    let primary = {
        let mut page = page_with_special(0);
        page[24..40].fill(0b0101);
        page
    };
    let mut replayed = primary;
    replayed[0..10].fill(3);
    assert_eq!(vm::first_difference(&replayed, &primary, Bits::Equal), None);
    replayed[30] = 0b0001;
    assert_eq!(vm::first_difference(&replayed, &primary, Bits::Equal), Some(30));
    assert_eq!(vm::first_difference(&replayed, &primary, Bits::Subset), None);
    replayed[31] = 0b0111;
    assert_eq!(vm::first_difference(&replayed, &primary, Bits::Subset), Some(31), "a bit too many");
    replayed[12] ^= 1;
    assert_eq!(vm::first_difference(&replayed, &primary, Bits::Subset), Some(12), "the header is no bitmap");
}

proptest! {
    #[test]
    fn no_page_makes_a_mask_panic(seed in prop::collection::vec(any::<u8>(), 1..400), rmid in 0..24_u8) {
        let mut page = [0; BLOCK_BYTES];
        for (at, byte) in page.iter_mut().enumerate() {
            *byte = seed[at % seed.len()];
        }
        let _ = mask(rmid, BlockNumber(1), &mut page);
        // The same rubbish behind a sound header reaches the loops over line pointers and tuples.
        let header = page_with_special(match rmid {
            rmgr::BTREE | rmgr::GIST => 16,
            rmgr::GIN => 8,
            _ => 0,
        });
        page[..24].copy_from_slice(&header[..24]);
        set_u16(&mut page, 12, 24 + 4 * u16::from(seed[0]));
        let _ = mask(rmid, BlockNumber(1), &mut page);
    }
}
