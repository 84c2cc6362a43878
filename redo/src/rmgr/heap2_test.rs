//! Heap2 records on hand-built pages, from the record to the page: every branch of `heap2_redo`.

use bytes::Bytes;
use strata_common::{BlockNumber, Guard, Lsn};
use strata_pgwal::rmgr::HEAP2;

use super::super::heap::tests::{fields, full_map, heap_page, stored, xmax_main};
use super::super::heap_tuple::infobit;
use super::operation::*;
use super::*;
use crate::page::LineState;
use crate::testing::*;
use crate::vm::{ALL_FROZEN, ALL_VISIBLE, VALID_BITS};
use crate::{PageId, PageValue, effects};

const PRUNES: [u8; 3] = [PRUNE_ON_ACCESS, PRUNE_VACUUM_SCAN, PRUNE_VACUUM_CLEANUP];

fn map_with(bits: u8) -> Page {
    let mut page = full_map();
    page[page::HEADER_BYTES..].fill(0);
    vm::set(&mut page, BlockNumber(7), bits, Lsn(11));
    page
}

fn le(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn prune(info: u8, flags: u8, data: &[u8]) -> DecodedRecord {
    let main = [0, flags, 1, 2, 3, 4];
    record(HEAP2, info, 100, &main, vec![reference(0, main_page(7), data)])
}

/// A heap page with five rows.
fn five_rows() -> Page {
    let mut page = heap_page(7);
    for offset in 3..=5 {
        let header = StoredHeader { infomask2: 1, infomask: 2, hoff: 24 };
        let tid = Tid { block: BlockNumber(7), offset };
        let new = NewTuple { header, xmin: 700, xmax: 0, tid, body_bytes: usize::from(offset) };
        let body = place_tuple(&mut page, &new).unwrap();
        page[body].fill(offset as u8);
    }
    page
}

fn states(page: &Page) -> Vec<LineState> {
    (1..=page::item_count(page)).map(|offset| page::line(page, offset).unwrap().state()).collect()
}

#[test]
fn prune_sets_line_pointers_and_packs_the_page() {
    use LineState::*;
    for info in PRUNES {
        let flags = prune_flag::CLEANUP_LOCK
            | prune_flag::HAS_REDIRECTIONS
            | prune_flag::HAS_DEAD_ITEMS
            | prune_flag::HAS_NOW_UNUSED_ITEMS;
        let data = le(&[1, 1, 4, 1, 2, 2, 3, 5]);
        let mut pages = Pages::with([(main_page(7), five_rows())]);
        pages.run(&prune(info, flags, &data));
        let page = pages.get(main_page(7));
        assert_eq!(states(page), [Redirect, Dead, Unused, Normal]);
        assert_eq!(page::line(page, 1), Ok(LinePointer::redirect(4)));
        assert_eq!(fields(page, 4).body, [4; 4]);
        assert_eq!((page::upper(page), page::lsn(page)), (8192 - 32, Lsn(100)));
        assert_eq!(page::flags(page), flag::HAS_FREE_LINES | flag::ALL_VISIBLE);
    }
}

#[test]
fn prune_without_a_cleanup_lock_moves_nothing() {
    use LineState::*;
    let mut page = five_rows();
    for offset in [2, 4, 5] {
        page::set_line(&mut page, offset, LinePointer::DEAD).unwrap();
    }
    let upper = page::upper(&page);
    let mut pages = Pages::with([(main_page(7), page)]);
    pages.run(&prune(PRUNE_VACUUM_CLEANUP, prune_flag::HAS_NOW_UNUSED_ITEMS, &le(&[3, 2, 4, 5])));
    let page = pages.get(main_page(7));
    assert_eq!(states(page), [Normal, Unused, Normal]);
    assert_eq!((page::upper(page), page::flags(page)), (upper, flag::HAS_FREE_LINES | flag::ALL_VISIBLE));
}

#[test]
fn freeze_plans_take_their_tuples_in_order() {
    let plan = |xmax: u32, infomask2: u16, infomask: u16, flags: u8, tuples: u16| {
        let mut plan = xmax.to_le_bytes().to_vec();
        plan.extend(le(&[infomask2, infomask]));
        plan.extend([flags, 0]);
        plan.extend(tuples.to_le_bytes());
        plan
    };
    let mut data = le(&[3, 0]);
    data.extend(plan(0, 5, 0x0b02, 0, 2));
    data.extend(plan(77, 6, 0x0302, freeze_flag::FREEZE_XVAC, 1));
    data.extend(plan(78, 7, 0x0303, freeze_flag::INVALID_XVAC, 1));
    data.extend(le(&[1, 5]));
    data.extend(le(&[3, 4, 2, 1]));
    let mut page = five_rows();
    tuple(&mut page, 1).unwrap().set_field3(55);
    let mut pages = Pages::with([(main_page(7), page)]);
    let flags = prune_flag::CLEANUP_LOCK | prune_flag::HAS_FREEZE_PLANS | prune_flag::HAS_NOW_UNUSED_ITEMS;
    pages.run(&prune(PRUNE_VACUUM_SCAN, flags, &data));
    let row = |offset| {
        let row = fields(pages.get(main_page(7)), offset);
        (row.xmin, row.xmax, row.field3, row.infomask2, row.infomask)
    };
    assert_eq!(row(3), (700, 0, 0, 5, 0x0b02));
    assert_eq!(row(4), (700, 0, 0, 5, 0x0b02));
    assert_eq!(row(2), (700, 77, FROZEN_XID, 6, 0x0302));
    assert_eq!(row(1), (700, 78, 0, 7, 0x0303));
    assert_eq!(page::item_count(pages.get(main_page(7))), 4);
}

#[test]
fn freezing_alone_leaves_line_pointers_and_flags() {
    let mut data = le(&[1, 0]);
    data.extend([0; 10]);
    data.extend(le(&[1, 2]));
    let before = heap_page(7);
    let mut pages = Pages::with([(main_page(7), before)]);
    pages.run(&prune(PRUNE_VACUUM_SCAN, prune_flag::HAS_FREEZE_PLANS, &data));
    let page = pages.get(main_page(7));
    assert_eq!((page::flags(page), page::upper(page)), (page::flags(&before), page::upper(&before)));
    assert_eq!((fields(page, 2).infomask, fields(page, 1)), (0, fields(&before, 1)));
}

#[test]
fn broken_prune_records_are_refused() {
    let all = prune_flag::CLEANUP_LOCK | prune_flag::HAS_NOW_UNUSED_ITEMS;
    let mut plans = le(&[1, 0]);
    plans.extend([0; 10]);
    plans.extend(le(&[1]));
    let cases: [(u8, Vec<u8>, Fault); 6] = [
        (all, le(&[2, 1]), Fault::Short { what: "prune data" }),
        (all, le(&[1, 9]), Fault::NoLinePointer { offset: 9, count: 5 }),
        (all, le(&[1, 1, 1]), Fault::Mismatch("more frozen tuples than plans")),
        (
            prune_flag::CLEANUP_LOCK | prune_flag::HAS_REDIRECTIONS,
            le(&[1, 1, 6]),
            Fault::NoLinePointer { offset: 6, count: 5 },
        ),
        (prune_flag::HAS_FREEZE_PLANS, le(&[1, 0, 0]), Fault::Short { what: "prune data" }),
        (prune_flag::HAS_FREEZE_PLANS, plans, Fault::Short { what: "offsets of frozen tuples" }),
    ];
    for (flags, data, fault) in cases {
        let mut pages = Pages::with([(main_page(7), five_rows())]);
        assert_eq!(pages.replay(&prune(PRUNE_VACUUM_SCAN, flags, &data)).unwrap_err().fault, fault);
    }
}

fn visible(bits: u8, heap: strata_pgwal::DecodedBlock) -> DecodedRecord {
    let main = [1, 2, 3, 4, bits | 0x04];
    record(HEAP2, VISIBLE, 100, &main, vec![reference(0, map_page(0), &[]), heap])
}

/// V7: the heap page gets its flag, and keeps its LSN.
#[test]
fn visible_sets_the_flag_without_moving_the_lsn() {
    let mut page = heap_page(7);
    clear_all_visible(&mut page);
    let mut pages = Pages::with([(main_page(7), page)]);
    pages.run(&visible(VALID_BITS, reference(1, main_page(7), &[])));
    let page = pages.get(main_page(7));
    assert_eq!((page::flags(page), page::lsn(page)), (flag::ALL_VISIBLE, Lsn(10)));
    let map = pages.get(map_page(0));
    assert_eq!((vm::bits(map, BlockNumber(7)), page::lsn(map), page::lower(map)), (VALID_BITS, Lsn(100), 24));
    assert_eq!(map.iter().skip(24).filter(|&&byte| byte != 0).count(), 1);
}

#[test]
fn visible_adds_the_frozen_bit() {
    let mut pages = Pages::with([(main_page(7), heap_page(7)), (map_page(0), map_with(ALL_VISIBLE))]);
    pages.run(&visible(VALID_BITS, reference(1, main_page(7), &[])));
    assert_eq!(vm::bits(pages.get(map_page(0)), BlockNumber(7)), VALID_BITS);
}

/// With checksums or wal_log_hints the heap page may come as an image.
#[test]
fn visible_with_an_image_of_the_heap_page_takes_it() {
    let mut pages = Pages::default();
    pages.run(&visible(ALL_VISIBLE, image_reference(1, main_page(7), &heap_page(7), true)));
    assert_eq!(page::lsn(pages.get(main_page(7))), Lsn(100));
    assert_eq!(vm::bits(pages.get(map_page(0)), BlockNumber(7)), ALL_VISIBLE);
}

fn tuples(rows: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    for row in rows {
        data.resize(data.len().next_multiple_of(2), 0xdd);
        data.extend((row.len() as u16).to_le_bytes());
        data.extend(stored(3, 0x0802, 24, row));
    }
    data
}

#[test]
fn multi_insert_into_a_new_page_counts_from_one() {
    let data = tuples(&[b"\0a", b"\0bb", b"\0ccc"]);
    let main = [insert_flag::ALL_FROZEN_SET, 0, 3, 0];
    let block = init_reference(0, main_page(7), &data);
    let mut pages = Pages::default();
    pages.run(&record(HEAP2, MULTI_INSERT | INIT_PAGE, 100, &main, vec![block]));
    let page = pages.get(main_page(7));
    for (offset, body) in [(1, &b"\0a"[..]), (2, b"\0bb"), (3, b"\0ccc")] {
        let row = fields(page, offset);
        assert_eq!((row.xmin, row.xmax, row.tid, &row.body[..]), (XID, 0, (7, offset), body));
        assert_eq!((row.infomask2, row.infomask, row.hoff), (3, 0x0802, 24));
    }
    assert_eq!((page::flags(page), page::lsn(page)), (flag::ALL_VISIBLE, Lsn(100)));
}

#[test]
fn multi_insert_goes_to_the_given_places_and_clears_the_map() {
    for referenced in [true, false] {
        let mut page = five_rows();
        page::set_line(&mut page, 3, LinePointer::UNUSED).unwrap();
        let mut pages = Pages::with([(main_page(7), page), (map_page(0), map_with(VALID_BITS))]);
        let main = [&[insert_flag::ALL_VISIBLE_CLEARED, 0][..], &le(&[2, 3, 6])].concat();
        let mut blocks = vec![reference(0, main_page(7), &tuples(&[b"\0x", b"\0y"]))];
        if referenced {
            blocks.push(reference(1, map_page(0), &[]));
        }
        let others = pages.replay(&record(HEAP2, MULTI_INSERT, 100, &main, blocks)).unwrap();
        assert_eq!(others.len(), usize::from(!referenced));
        let page = pages.get(main_page(7));
        assert_eq!((fields(page, 3).body, fields(page, 6).body), (b"\0x".to_vec(), b"\0y".to_vec()));
        assert_eq!(page::flags(page), 0);
        assert_eq!(vm::bits(pages.get(map_page(0)), BlockNumber(7)), 0, "V1, referenced: {referenced}");
    }
}

#[test]
fn multi_insert_with_other_data_than_tuples_is_refused() {
    let data = tuples(&[b"\0a", b"\0b"]);
    for (count, cut, fault) in [
        (1, 0, Fault::Mismatch("more tuple data than tuples")),
        (3, 0, Fault::Short { what: "inserted tuples" }),
        (2, 1, Fault::Short { what: "inserted tuples" }),
    ] {
        let block = init_reference(0, main_page(7), &data[..data.len() - cut]);
        let record = record(HEAP2, MULTI_INSERT | INIT_PAGE, 100, &[0, 0, count, 0], vec![block]);
        assert_eq!(Pages::default().replay(&record).unwrap_err().fault, fault);
    }
}

/// V1: locking a later version of a row clears the frozen bit too; t_cid and t_ctid stay.
#[test]
fn lock_updated_changes_xmax_and_the_frozen_bit_alone() {
    for referenced in [true, false] {
        let before = fields(&heap_page(7), 1);
        let mut pages = Pages::with([(main_page(7), heap_page(7)), (map_page(0), map_with(VALID_BITS))]);
        let main =
            xmax_main(900, 1, infobit::XMAX_LOCK_ONLY | infobit::XMAX_IS_MULTI, LOCK_ALL_FROZEN_CLEARED);
        let mut blocks = vec![reference(0, main_page(7), &[])];
        if referenced {
            blocks.push(reference(1, map_page(0), &[]));
        }
        let others = pages.replay(&record(HEAP2, LOCK_UPDATED, 100, &main, blocks)).unwrap();
        if !referenced {
            let heap_block = BlockNumber(7);
            assert_eq!(others, [Effect::ClearVmBits { heap: REL, heap_block, bits: ALL_FROZEN }]);
        }
        let row = fields(pages.get(main_page(7)), 1);
        assert_eq!((row.xmax, row.field3, row.tid), (900, before.field3, before.tid));
        assert_eq!(row.infomask, 0x1182);
        assert_eq!(row.infomask2, 2 | 0x4000, "HOT_UPDATED stays, KEYS_UPDATED goes");
        assert_eq!(vm::bits(pages.get(map_page(0)), BlockNumber(7)), ALL_VISIBLE);
    }
}

/// No SQL gets here: a page with a row's newer version is not called frozen while an older version can be locked.
#[test]
fn trap_v1_lock_updated_clears_the_frozen_bit() {
    Guard::LockUpdatedClears.is_needed_for(|| {
        let mut pages = Pages::with([(main_page(7), heap_page(7)), (map_page(0), map_with(VALID_BITS))]);
        let main = xmax_main(900, 1, infobit::XMAX_LOCK_ONLY, LOCK_ALL_FROZEN_CLEARED);
        let blocks = vec![reference(0, main_page(7), &[]), reference(1, map_page(0), &[])];
        pages.replay(&record(HEAP2, LOCK_UPDATED, 100, &main, blocks)).unwrap();
        vm::bits(pages.get(map_page(0)), BlockNumber(7)) == ALL_VISIBLE
    });
}

#[test]
fn records_for_logical_decoding_change_no_page() {
    assert_eq!(effects(&record(HEAP2, NEW_CID, 100, &[0; 34], vec![])), Ok(vec![]));
    let mapping = Effect::LogicalMapping { xid: XID, data: Bytes::from_static(b"mapping") };
    assert_eq!(effects(&record(HEAP2, REWRITE, 100, b"mapping", vec![])), Ok(vec![mapping]));
}

#[test]
fn an_image_is_the_last_word() {
    let image = five_rows();
    let block = image_reference(0, main_page(7), &image, true);
    let effects = effects(&record(HEAP2, PRUNE_ON_ACCESS, 100, &[0, 0], vec![block])).unwrap();
    let [Effect::Page { page, value: PageValue::Image(bytes) }] = &effects[..] else { panic!("{effects:?}") };
    let mut expected = image;
    page::set_lsn(&mut expected, Lsn(100));
    assert_eq!((*page, &bytes[..]), (main_page(7), &expected[..]));
}

/// An image for wal_consistency_checking is not one to restore.
#[test]
fn an_image_without_apply_is_not_looked_at() {
    let block = image_reference(0, main_page(7), &five_rows(), false);
    let effects = effects(&record(HEAP2, PRUNE_ON_ACCESS, 100, &[0, 0], vec![block])).unwrap();
    assert!(matches!(effects[..], [Effect::Page { value: PageValue::Change { .. }, .. }]));
}

#[test]
fn references_that_a_record_does_not_have_are_refused() {
    let page_id: PageId = main_page(7);
    for info in [PRUNE_ON_ACCESS, VISIBLE, MULTI_INSERT, LOCK_UPDATED] {
        let record = record(HEAP2, info, 100, &[0; 8], vec![reference(4, page_id, &[])]);
        let bytes = crate::change::encode_record(&record, &record.blocks[0], Keep::ALL);
        let error = crate::apply(&mut heap_page(7), page_id, Lsn(100), &bytes).unwrap_err();
        assert_eq!(error.fault, Fault::Mismatch("the record has no such block reference"));
    }
}
