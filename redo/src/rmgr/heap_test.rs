//! Heap records on hand-built pages, from the record to the page: every branch of `heap_redo`.

use strata_common::{BLOCK_BYTES, BlockNumber, Lsn};
use strata_pgwal::rmgr::HEAP;

use super::super::heap_tuple::{infobit, infomask, infomask2};
use super::operation::*;
use super::*;
use crate::testing::*;
use crate::vm::{ALL_FROZEN, ALL_VISIBLE, VALID_BITS};
use crate::{PageId, effects, page};

/// Fields of a tuple as they lie in the page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub xmin: u32,
    pub xmax: u32,
    pub field3: u32,
    pub tid: (u32, u16),
    pub infomask2: u16,
    pub infomask: u16,
    pub hoff: u8,
    pub body: Vec<u8>,
}

pub(crate) fn fields(page: &Page, offset: u16) -> Fields {
    let tuple = &page[page::normal_item(page, offset).unwrap().range()];
    let u16_at = |at: usize| u16::from_le_bytes([tuple[at], tuple[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at + 2)) << 16 | u32::from(u16_at(at));
    Fields {
        xmin: u32_at(0),
        xmax: u32_at(4),
        field3: u32_at(8),
        tid: (u32::from(u16_at(12)) << 16 | u32::from(u16_at(14)), u16_at(16)),
        infomask2: u16_at(18),
        infomask: u16_at(20),
        hoff: tuple[22],
        body: tuple[23..].to_vec(),
    }
}

/// `xl_heap_header` and tuple data.
pub(crate) fn stored(infomask2: u16, infomask: u16, hoff: u8, body: &[u8]) -> Vec<u8> {
    let mut data = [infomask2.to_le_bytes(), infomask.to_le_bytes()].concat();
    data.push(hoff);
    data.extend(body);
    data
}

fn insert_main(offset: u16, flags: u8) -> Vec<u8> {
    [&offset.to_le_bytes()[..], &[flags]].concat()
}

pub(crate) fn xmax_main(xmax: u32, offset: u16, infobits: u8, flags: u8) -> Vec<u8> {
    [&xmax.to_le_bytes()[..], &offset.to_le_bytes(), &[infobits, flags]].concat()
}

struct UpdateMain {
    old_offset: u16,
    new_offset: u16,
    infobits: u8,
    flags: u8,
}

impl UpdateMain {
    /// Old xmax 801, new xmax 802.
    fn bytes(&self) -> Vec<u8> {
        let mut main = xmax_main(801, self.old_offset, self.infobits, self.flags);
        main.extend(802u32.to_le_bytes());
        main.extend(self.new_offset.to_le_bytes());
        main
    }
}

/// A heap page with two tuples of transaction 700, all visible, at LSN 10, block `block`.
pub(crate) fn heap_page(block: u32) -> Page {
    let mut page = [0; BLOCK_BYTES];
    page::init(&mut page, 0);
    for offset in [1, 2] {
        let header = StoredHeader {
            infomask2: 2 | infomask2::HOT_UPDATED | infomask2::KEYS_UPDATED,
            infomask: 0x0902 | infomask::COMBOCID | infomask::XMAX_IS_MULTI | infomask::MOVED,
            hoff: 24,
        };
        let tid = Tid { block: BlockNumber(block), offset };
        let new = NewTuple { header, xmin: 700, xmax: 701, tid, body_bytes: 17 };
        let body = place_tuple(&mut page, &new).unwrap();
        page[body].copy_from_slice(b"\0prefix-mid-tail ");
        tuple(&mut page, offset).unwrap().set_field3(9);
    }
    page::add_flags(&mut page, page::flag::ALL_VISIBLE);
    page::set_lsn(&mut page, Lsn(10));
    page
}

/// A map page with all bits set, at LSN 10.
pub(crate) fn full_map() -> Page {
    let mut page = [0xff; BLOCK_BYTES];
    page[..page::HEADER_BYTES].fill(0);
    page::set_lsn(&mut page, Lsn(10));
    page::set_upper(&mut page, 8192);
    page
}

fn two_pages(blocks: [u32; 2]) -> Pages {
    let heap = blocks.map(|block| (main_page(block), heap_page(block)));
    let maps = blocks.map(|block| (map_page(vm::page_of(BlockNumber(block)).0), full_map()));
    Pages::with(heap.into_iter().chain(maps))
}

fn map_bits(pages: &Pages, block: u32) -> u8 {
    let block = BlockNumber(block);
    vm::bits(pages.get(map_page(vm::page_of(block).0)), block)
}

fn all_visible(page: &Page) -> bool {
    page::flags(page) & page::flag::ALL_VISIBLE != 0
}

const FAR: u32 = 2 * vm::HEAP_BLOCKS_PER_PAGE;
const PAGE: PageId = PageId {
    rel: strata_common::RelFork { rel: REL, fork: strata_common::ForkNumber::Main },
    block: BlockNumber(7),
};

#[test]
fn insert_into_a_new_page() {
    let data = stored(3, 0x0802 | infomask::COMBOCID, 24, b"\0row");
    let mut pages = Pages::default();
    pages.run(&record(
        HEAP,
        INSERT | INIT_PAGE,
        100,
        &insert_main(1, 0),
        vec![init_reference(0, main_page(7), &data)],
    ));
    let page = pages.get(main_page(7));
    let expected = Fields {
        xmin: XID,
        xmax: 0,
        field3: 0,
        tid: (7, 1),
        infomask2: 3,
        infomask: 0x0802,
        hoff: 24,
        body: b"\0row".to_vec(),
    };
    assert_eq!(fields(page, 1), expected);
    assert_eq!((page::lsn(page), page::lower(page), page::upper(page)), (Lsn(100), 28, 8192 - 32));
    assert!(page[28..8160].iter().all(|&byte| byte == 0), "the page was made anew");
}

#[test]
fn insert_clears_the_visibility_bits_with_and_without_a_reference() {
    for referenced in [true, false] {
        let mut pages = two_pages([7, 8]);
        let mut blocks = vec![reference(0, PAGE, &stored(2, 2, 24, b"\0row"))];
        if referenced {
            blocks.push(reference(1, map_page(0), &[]));
        }
        let main = insert_main(3, insert_flag::ALL_VISIBLE_CLEARED);
        let others = pages.replay(&record(HEAP, INSERT, 100, &main, blocks)).unwrap();
        assert_eq!(
            (map_bits(&pages, 7), map_bits(&pages, 8)),
            (0, VALID_BITS),
            "V1, referenced: {referenced}"
        );
        assert!(!all_visible(pages.get(PAGE)));
        assert_eq!(fields(pages.get(PAGE), 3).tid, (7, 3));
        let map_lsn = page::lsn(pages.get(map_page(0)));
        let unreferenced = Effect::ClearVmBits { heap: REL, heap_block: BlockNumber(7), bits: VALID_BITS };
        if referenced {
            assert_eq!((others, map_lsn), (vec![], Lsn(100)));
        } else {
            assert_eq!((others, map_lsn), (vec![unreferenced], Lsn(10)));
        }
    }
}

/// As in Postgres, a reference without the flag is not looked at.
#[test]
fn without_the_flag_the_map_is_left_alone() {
    let mut pages = two_pages([7, 8]);
    let blocks = vec![reference(0, PAGE, &stored(2, 2, 24, b"\0row")), reference(1, map_page(0), &[])];
    assert_eq!(pages.replay(&record(HEAP, INSERT, 100, &insert_main(3, 0), blocks)), Ok(vec![]));
    assert_eq!(map_bits(&pages, 7), VALID_BITS);
    assert!(all_visible(pages.get(PAGE)));
}

#[test]
fn the_maps_lsn_moves_only_with_its_bits() {
    let mut pages = two_pages([7, 8]);
    for end in [100, 200] {
        let main = xmax_main(900, 1, 0, delete_flag::ALL_VISIBLE_CLEARED);
        let blocks = vec![reference(0, PAGE, &[]), reference(1, map_page(0), &[])];
        pages.run(&record(HEAP, DELETE, end, &main, blocks));
    }
    assert_eq!(page::lsn(pages.get(map_page(0))), Lsn(100));
}

#[test]
fn a_map_page_of_zeros_has_nothing_to_clear() {
    let mut pages = Pages::with([(PAGE, heap_page(7))]);
    let main = xmax_main(900, 1, 0, delete_flag::ALL_VISIBLE_CLEARED);
    let blocks = vec![reference(0, PAGE, &[]), reference(1, map_page(0), &[])];
    pages.run(&record(HEAP, DELETE, 100, &main, blocks));
    assert_eq!(pages.get(map_page(0)), &[0; BLOCK_BYTES]);
}

#[test]
fn delete_marks_the_row() {
    let mut pages = two_pages([7, 8]);
    let infobits = infobit::XMAX_EXCL_LOCK | infobit::KEYS_UPDATED;
    pages.run(&record(HEAP, DELETE, 100, &xmax_main(900, 2, infobits, 0), vec![reference(0, PAGE, &[])]));
    let page = pages.get(PAGE);
    let row = fields(page, 2);
    assert_eq!((row.xmin, row.xmax, row.field3, row.tid), (700, 900, 0, (7, 2)));
    assert_eq!(row.infomask2, 2 | infomask2::KEYS_UPDATED);
    assert_eq!(row.infomask, 0x0102 | infomask::XMAX_EXCL_LOCK);
    assert_eq!((page::lsn(page), page::prune_xid(page)), (Lsn(100), XID));
    assert!(all_visible(page));
}

#[test]
fn delete_of_a_speculative_row_and_of_a_row_that_moves_away() {
    let mut pages = two_pages([7, 8]);
    let delete = |end, offset, flags| {
        record(HEAP, DELETE, end, &xmax_main(900, offset, 0, flags), vec![reference(0, PAGE, &[])])
    };
    pages.run(&delete(100, 1, delete_flag::IS_SUPER));
    let row = fields(pages.get(PAGE), 1);
    assert_eq!((row.xmin, row.xmax), (0, 701));
    pages.run(&delete(200, 2, delete_flag::IS_PARTITION_MOVE));
    assert_eq!(fields(pages.get(PAGE), 2).tid, (u32::MAX, 0xfffd));
}

/// The oldest transaction stays, by the order that wraps.
#[test]
fn the_prune_hint_keeps_the_oldest_transaction() {
    for (before, after) in [(0, XID), (XID - 1, XID - 1), (XID + 1, XID), (u32::MAX - 5, u32::MAX - 5)] {
        let mut page = heap_page(7);
        page::set_prune_xid(&mut page, before);
        let mut pages = Pages::with([(PAGE, page)]);
        pages.run(&record(HEAP, DELETE, 100, &xmax_main(900, 2, 0, 0), vec![reference(0, PAGE, &[])]));
        assert_eq!(page::prune_xid(pages.get(PAGE)), after);
    }
}

#[test]
fn hot_update_on_one_page_copies_prefix_and_suffix() {
    let mut pages = two_pages([7, 8]);
    let flags = update_flag::PREFIX_FROM_OLD | update_flag::SUFFIX_FROM_OLD;
    let main = UpdateMain { old_offset: 1, new_offset: 3, infobits: infobit::KEYS_UPDATED, flags };
    // A null bitmap of one byte in eight bytes before the data, which begin at 32 instead of 24.
    let mut data = [7u16.to_le_bytes(), 5u16.to_le_bytes()].concat();
    data.extend(stored(0x8002, 0x2803, 32, b"\x03\0\0\0\0\0\0\0\0NEW"));
    pages.run(&record(HEAP, HOT_UPDATE, 100, &main.bytes(), vec![reference(0, PAGE, &data)]));
    let page = pages.get(PAGE);
    let (old, new) = (fields(page, 1), fields(page, 3));
    assert_eq!((old.xmin, old.xmax, old.field3, old.tid), (700, 801, 0, (7, 3)));
    assert_eq!(old.infomask2, 2 | infomask2::HOT_UPDATED | infomask2::KEYS_UPDATED);
    assert_eq!(old.infomask, 0x0102);
    assert_eq!((new.xmin, new.xmax, new.field3, new.tid), (XID, 802, 0, (7, 3)));
    assert_eq!((new.infomask2, new.infomask, new.hoff), (0x8002, 0x2803, 32));
    assert_eq!(new.body, b"\x03\0\0\0\0\0\0\0\0prefix-NEWtail ");
    assert_eq!(page::prune_xid(page), XID);
}

#[test]
fn update_copies_a_prefix_or_a_suffix_alone() {
    let cases: [(u8, &[u8], &[u8]); 3] = [
        (update_flag::PREFIX_FROM_OLD, b"\x07\0", b"\0prefix-NEW"),
        (update_flag::SUFFIX_FROM_OLD, b"\x05\0", b"\0NEWtail "),
        (0, b"", b"\0NEW"),
    ];
    for (flags, lengths, body) in cases {
        let mut pages = two_pages([7, 8]);
        let main = UpdateMain { old_offset: 2, new_offset: 3, infobits: 0, flags };
        let data = [lengths, &stored(2, 2, 24, b"\0NEW")].concat();
        pages.run(&record(HEAP, UPDATE, 100, &main.bytes(), vec![reference(0, PAGE, &data)]));
        assert_eq!(fields(pages.get(PAGE), 3).body, body);
        assert_eq!(fields(pages.get(PAGE), 2).infomask2, 2, "not HOT");
    }
}

#[test]
fn update_to_another_page_changes_both() {
    let mut pages = two_pages([7, 8]);
    let flags = update_flag::NEW_ALL_VISIBLE_CLEARED;
    let main = UpdateMain { old_offset: 1, new_offset: 3, infobits: 0, flags };
    let blocks = vec![
        reference(0, main_page(8), &stored(2, 2, 24, b"\0NEW")),
        reference(1, PAGE, &[]),
        reference(2, map_page(0), &[]),
    ];
    pages.run(&record(HEAP, UPDATE, 100, &main.bytes(), blocks));
    assert_eq!(fields(pages.get(PAGE), 1).tid, (8, 3));
    assert_eq!(fields(pages.get(main_page(8)), 3).tid, (8, 3));
    assert!(all_visible(pages.get(PAGE)) && !all_visible(pages.get(main_page(8))));
    assert_eq!((map_bits(&pages, 7), map_bits(&pages, 8)), (VALID_BITS, 0));
    assert_eq!((page::lsn(pages.get(PAGE)), page::lsn(pages.get(main_page(8)))), (Lsn(100), Lsn(100)));
}

#[test]
fn update_to_a_new_page_makes_it_anew() {
    let mut pages = two_pages([7, 8]);
    let main = UpdateMain { old_offset: 1, new_offset: 1, infobits: 0, flags: 0 };
    let blocks = vec![init_reference(0, main_page(9), &stored(2, 2, 24, b"\0NEW")), reference(1, PAGE, &[])];
    pages.run(&record(HEAP, UPDATE | INIT_PAGE, 100, &main.bytes(), blocks));
    assert_eq!(page::item_count(pages.get(main_page(9))), 1);
    assert_eq!(fields(pages.get(PAGE), 1).tid, (9, 1));
}

/// V1: which map references there are decides whose bits are cleared, and on which map page.
#[test]
fn update_clears_the_bits_of_one_or_two_map_pages() {
    let both = update_flag::OLD_ALL_VISIBLE_CLEARED | update_flag::NEW_ALL_VISIBLE_CLEARED;
    let old_only = update_flag::OLD_ALL_VISIBLE_CLEARED;
    let (near_map, far_map) = (map_page(0), map_page(2));
    // Old block 7; new block; flags; map references; bits left of the old and the new block.
    let cases = [
        (8, both, vec![(2, near_map)], [0, 0]),
        (FAR, both, vec![(2, far_map)], [3, 0]),
        (FAR, both, vec![(2, far_map), (3, near_map)], [0, 0]),
        (8, old_only, vec![(3, near_map)], [0, 3]),
        (FAR, both, vec![(3, near_map)], [0, 3]),
        (8, both, vec![], [0, 0]),
        (FAR, old_only, vec![], [0, 3]),
        (FAR, update_flag::NEW_ALL_VISIBLE_CLEARED, vec![], [3, 0]),
        (8, 0, vec![], [3, 3]),
    ];
    for (number, (new_block, flags, maps, expected)) in cases.into_iter().enumerate() {
        let mut pages = two_pages([7, new_block]);
        let main = UpdateMain { old_offset: 1, new_offset: 3, infobits: 0, flags };
        let mut blocks =
            vec![reference(0, main_page(new_block), &stored(2, 2, 24, b"\0NEW")), reference(1, PAGE, &[])];
        blocks.extend(maps.iter().map(|(id, map)| reference(*id, *map, &[])));
        pages.run(&record(HEAP, UPDATE, 100, &main.bytes(), blocks));
        let bits = [7, new_block].map(|block| map_bits(&pages, block));
        assert_eq!(bits, expected, "case {number}");
        let old_visible = flags & update_flag::OLD_ALL_VISIBLE_CLEARED == 0;
        assert_eq!(all_visible(pages.get(PAGE)), old_visible, "case {number}");
    }
}

#[test]
fn update_on_one_page_without_a_reference_clears_both_flags() {
    let mut pages = two_pages([7, 8]);
    let flags = update_flag::OLD_ALL_VISIBLE_CLEARED;
    let main = UpdateMain { old_offset: 1, new_offset: 3, infobits: 0, flags };
    let blocks = vec![reference(0, PAGE, &stored(2, 2, 24, b"\0NEW"))];
    let others = pages.replay(&record(HEAP, UPDATE, 100, &main.bytes(), blocks)).unwrap();
    let clear = Effect::ClearVmBits { heap: REL, heap_block: BlockNumber(7), bits: VALID_BITS };
    assert_eq!((others, map_bits(&pages, 7)), (vec![clear], 0));
}

#[test]
fn lock_marks_the_row_and_clears_the_frozen_bit_only() {
    for referenced in [true, false] {
        let mut pages = two_pages([7, 8]);
        let infobits = infobit::XMAX_LOCK_ONLY | infobit::XMAX_KEYSHR_LOCK;
        let main = xmax_main(900, 1, infobits, LOCK_ALL_FROZEN_CLEARED);
        let mut blocks = vec![reference(0, PAGE, &[])];
        if referenced {
            blocks.push(reference(1, map_page(0), &[]));
        }
        let mut page = heap_page(7);
        tuple(&mut page, 1).unwrap().set_ctid(Tid { block: BlockNumber(3), offset: 4 });
        pages = Pages::with([(PAGE, page), (map_page(0), *pages.get(map_page(0)))]);
        pages.run(&record(HEAP, LOCK, 100, &main, blocks));
        let row = fields(pages.get(PAGE), 1);
        assert_eq!((row.xmax, row.field3, row.tid, row.infomask2), (900, 0, (7, 1), 2));
        assert_eq!(row.infomask, 0x0102 | infomask::XMAX_LOCK_ONLY | infomask::XMAX_KEYSHR_LOCK);
        assert_eq!((map_bits(&pages, 7), map_bits(&pages, 8)), (ALL_VISIBLE, ALL_VISIBLE | ALL_FROZEN));
        assert!(all_visible(pages.get(PAGE)), "a lock leaves the page all-visible");
    }
}

/// A multixact with an update in it keeps the chain; an exclusive lock without LOCK_ONLY is a lock of old.
#[test]
fn lock_keeps_the_chain_of_an_updated_row() {
    let cases = [
        (infobit::XMAX_IS_MULTI | infobit::XMAX_EXCL_LOCK, true),
        (infobit::XMAX_EXCL_LOCK, false),
        (infobit::XMAX_EXCL_LOCK | infobit::XMAX_KEYSHR_LOCK, true),
    ];
    for (infobits, keeps) in cases {
        let mut page = heap_page(7);
        tuple(&mut page, 1).unwrap().set_ctid(Tid { block: BlockNumber(3), offset: 4 });
        let mut pages = Pages::with([(PAGE, page)]);
        pages.run(&record(HEAP, LOCK, 100, &xmax_main(900, 1, infobits, 0), vec![reference(0, PAGE, &[])]));
        let row = fields(pages.get(PAGE), 1);
        let expected = if keeps { ((3, 4), 2 | infomask2::HOT_UPDATED) } else { ((7, 1), 2) };
        assert_eq!((row.tid, row.infomask2), expected, "{infobits:#x}");
    }
}

#[test]
fn confirm_points_the_row_at_itself() {
    let mut page = heap_page(7);
    tuple(&mut page, 2).unwrap().set_ctid(Tid { block: BlockNumber(77), offset: 0xfffe });
    let mut pages = Pages::with([(PAGE, page)]);
    pages.run(&record(HEAP, CONFIRM, 100, &2u16.to_le_bytes(), vec![reference(0, PAGE, &[])]));
    assert_eq!((fields(pages.get(PAGE), 2).tid, page::lsn(pages.get(PAGE))), ((7, 2), Lsn(100)));
}

#[test]
fn inplace_replaces_the_data_and_nothing_else() {
    let before = fields(&heap_page(7), 2);
    let mut pages = two_pages([7, 8]);
    let inplace =
        |end, data: &[u8]| record(HEAP, INPLACE, end, &2u16.to_le_bytes(), vec![reference(0, PAGE, data)]);
    pages.run(&inplace(100, b"0123456789abcdef"));
    let after = Fields { body: b"\x000123456789abcdef".to_vec(), ..before };
    assert_eq!(fields(pages.get(PAGE), 2), after);
    let error = pages.replay(&inplace(200, b"too short")).unwrap_err();
    assert_eq!(error.fault, Fault::Mismatch("in-place update of another length than the tuple"));
}

#[test]
fn truncate_does_nothing_to_pages() {
    assert_eq!(effects(&record(HEAP, TRUNCATE, 100, &[0; 16], vec![])), Ok(vec![]));
}

#[test]
fn rows_that_are_not_there_are_refused() {
    for (main, info, fault) in [
        (xmax_main(900, 3, 0, 0), DELETE, Fault::NoLinePointer { offset: 3, count: 2 }),
        (xmax_main(900, 0, 0, 0), LOCK, Fault::NoLinePointer { offset: 0, count: 2 }),
        (insert_main(4, 0), INSERT, Fault::OffsetTooLarge { offset: 4, count: 2, limit: u16::MAX }),
        (insert_main(1, 0), INSERT, Fault::ItemInUse { offset: 1 }),
    ] {
        let mut pages = two_pages([7, 8]);
        let block = reference(0, PAGE, &stored(2, 2, 24, b"\0row"));
        let error = pages.replay(&record(HEAP, info, 100, &main, vec![block])).unwrap_err();
        assert_eq!(error.fault, fault);
        assert_eq!(error.lsn, Lsn(100));
    }
    let mut page = heap_page(7);
    page::set_line(&mut page, 1, page::LinePointer::DEAD).unwrap();
    let mut pages = Pages::with([(PAGE, page)]);
    let record = record(HEAP, DELETE, 100, &xmax_main(900, 1, 0, 0), vec![reference(0, PAGE, &[])]);
    let error = pages.replay(&record).unwrap_err();
    assert_eq!(
        error.to_string(),
        "redo of Heap/DELETE ending at 0/64 on block 7 of 1663/5/16384: line pointer 1 is not that of a stored item"
    );
}

#[test]
fn prefixes_beyond_the_old_row_are_refused() {
    for (flags, length) in [(update_flag::PREFIX_FROM_OLD, 17u16), (update_flag::SUFFIX_FROM_OLD, 41)] {
        let mut pages = two_pages([7, 8]);
        let main = UpdateMain { old_offset: 1, new_offset: 3, infobits: 0, flags };
        let data = [&length.to_le_bytes()[..], &stored(2, 2, 24, b"\0NEW")].concat();
        let blocks = vec![reference(0, PAGE, &data)];
        let error = pages.replay(&record(HEAP, UPDATE, 100, &main.bytes(), blocks)).unwrap_err();
        assert_eq!(error.fault, Fault::TupleTooShort { offset: 1, length: 40 });
        // Nor can they come from another page.
        let mut pages = two_pages([7, 8]);
        let blocks = vec![reference(0, main_page(8), &data), reference(1, PAGE, &[])];
        let error = pages.replay(&record(HEAP, UPDATE, 100, &main.bytes(), blocks)).unwrap_err();
        assert_eq!(error.fault, Fault::Mismatch("part of the new tuple is on another page"));
    }
}

#[test]
fn a_map_page_that_does_not_cover_the_heap_page_is_refused() {
    for wrong in [map_page(1), main_page(0)] {
        let mut pages = two_pages([7, 8]);
        let main = xmax_main(900, 1, 0, delete_flag::ALL_VISIBLE_CLEARED);
        let mut map = reference(1, wrong, &[]);
        map.will_init = true;
        let blocks = vec![reference(0, PAGE, &[]), map];
        let error = pages.replay(&record(HEAP, DELETE, 100, &main, blocks)).unwrap_err();
        assert!(matches!(error.fault, Fault::Mismatch(_)), "{error}");
    }
}

#[test]
fn records_without_their_parts_are_refused_at_ingest() {
    for (info, main) in [(INSERT, vec![1, 0]), (UPDATE, vec![0; 7]), (DELETE, vec![0; 7]), (LOCK, vec![])] {
        let error = effect_error(&record(HEAP, info, 100, &main, vec![reference(0, PAGE, &[])]));
        assert!(matches!(error, EffectError::Malformed { what: "main data is cut short", .. }), "{error}");
    }
    for (info, main) in [(INSERT, vec![0; 3]), (UPDATE, vec![0; 14]), (CONFIRM, vec![0; 2])] {
        let error = effect_error(&record(HEAP, info, 100, &main, vec![]));
        assert!(
            matches!(error, EffectError::Malformed { what: "a block reference is missing", .. }),
            "{error}"
        );
    }
}
