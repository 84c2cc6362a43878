//! Page primitives on hand-built pages: bytes as Postgres leaves them, and refusal of broken pages.

use super::*;

fn empty(special: usize) -> Page {
    let mut page = [0xee; BLOCK_BYTES];
    init(&mut page, special);
    page
}

fn contents(page: &Page, offset: u16) -> Vec<u8> {
    page[stored_item(page, offset).unwrap().range()].to_vec()
}

fn all(page: &Page) -> Vec<Vec<u8>> {
    (1..=item_count(page)).map(|offset| contents(page, offset)).collect()
}

/// An index page with these items in this order.
fn with_items(items: &[&[u8]]) -> Page {
    let mut page = empty(16);
    for (offset, item) in (1..).zip(items) {
        assert_eq!(add_item(&mut page, item, AddItem::IndexBefore(offset)), Ok(offset));
    }
    page
}

#[test]
fn an_initialized_page_has_postgres_header() {
    let page = empty(13);
    assert_eq!(
        &page[..24],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0xf0, 0x1f, 0xf0, 0x1f, 4, 0x20, 0, 0, 0, 0]
    );
    assert!(page[24..].iter().all(|&byte| byte == 0));
    assert!(is_empty(&page) && !is_new(&page) && is_new(&[0; BLOCK_BYTES]));
    assert_eq!((HEAP_TUPLES_MAX, INDEX_TUPLES_MAX), (291, 408));
}

#[test]
fn the_lsn_is_stored_high_half_first() {
    let mut page = empty(0);
    set_lsn(&mut page, Lsn(0x0102_0304_0506_0708));
    assert_eq!(&page[..8], &[4, 3, 2, 1, 8, 7, 6, 5]);
    assert_eq!(lsn(&page), Lsn(0x0102_0304_0506_0708));
}

#[test]
fn line_pointers_are_packed_as_in_postgres() {
    let line = LinePointer::normal(8152, 37);
    assert_eq!(line.0, 37 << 17 | 1 << 15 | 8152);
    assert_eq!((line.at(), line.length(), line.state()), (8152, 37, LineState::Normal));
    assert_eq!(LinePointer::redirect(7).0, 2 << 15 | 7);
    assert_eq!(LinePointer::DEAD.state(), LineState::Dead);
    assert!(!LinePointer::UNUSED.is_used() && !LinePointer::DEAD.has_storage());
    let dead = line.with_state(LineState::Dead).with_at(16).with_length(9);
    assert_eq!((dead.at(), dead.length(), dead.state()), (16, 9, LineState::Dead));
}

#[test]
fn items_are_added_from_the_end_aligned() {
    let mut page = empty(0);
    page[24..].fill(0xcc);
    assert_eq!(add_item(&mut page, b"first", AddItem::HeapAt(1)), Ok(1));
    assert_eq!(add_item(&mut page, b"second item", AddItem::HeapAt(2)), Ok(2));
    assert_eq!((lower(&page), upper(&page)), (32, 8192 - 8 - 16));
    assert_eq!(&page[8184..], b"first\xcc\xcc\xcc", "padding is left as it was");
    assert_eq!(&page[8168..8184], b"second item\xcc\xcc\xcc\xcc\xcc");
    assert_eq!(line(&page, 2), Ok(LinePointer::normal(8168, 11)));
}

#[test]
fn insertion_before_moves_line_pointers_up() {
    let mut page = with_items(&[b"a", b"c"]);
    assert_eq!(add_item(&mut page, b"b", AddItem::IndexBefore(2)), Ok(2));
    assert_eq!(all(&page), [b"a", b"b", b"c"]);
    assert_eq!(line(&page, 3).map(LinePointer::at), Ok(8160));
    assert_eq!(lower(&page), 36);
}

#[test]
fn only_free_line_pointers_are_used_again() {
    let mut page = with_items(&[b"a", b"b", b"c"]);
    let used = add_item(&mut page, b"x", AddItem::HeapAt(2));
    assert_eq!(used, Err(Fault::ItemInUse { offset: 2 }));
    set_line(&mut page, 2, LinePointer::UNUSED).unwrap();
    assert_eq!(add_item(&mut page, b"x", AddItem::HeapAt(2)), Ok(2));
    assert_eq!((all(&page).concat(), lower(&page)), (b"axc".to_vec(), 36));
}

/// Without the hint Postgres does not look for free line pointers; with a wrong one it looks and clears it.
#[test]
fn items_that_do_not_fit_are_refused() {
    let mut page = empty(0);
    let gap = add_item(&mut page, b"x", AddItem::HeapAt(2));
    assert_eq!(gap, Err(Fault::OffsetTooLarge { offset: 2, count: 0, limit: u16::MAX }));
    assert!(add_item(&mut page, b"x", AddItem::HeapAt(0)).is_err());
    let large = vec![1; 8161];
    assert_eq!(
        add_item(&mut page, &large, AddItem::HeapAt(1)),
        Err(Fault::NoSpace { bytes: 8161, lower: 24, upper: 8192 })
    );
    assert_eq!(add_item(&mut page, &large[..8160], AddItem::HeapAt(1)), Ok(1));
    assert_eq!((lower(&page), upper(&page)), (28, 32));
    // 292 line pointers fit on a page, but not on a heap page.
    let mut page = empty(0);
    for offset in 1..=291 {
        assert_eq!(add_item(&mut page, b"x", AddItem::HeapAt(offset)), Ok(offset));
    }
    let fault = add_item(&mut page, b"x", AddItem::HeapAt(292)).unwrap_err();
    assert_eq!(fault, Fault::OffsetTooLarge { offset: 292, count: 291, limit: 291 });
    assert_eq!(add_item(&mut page, b"x", AddItem::IndexAt(292)), Ok(292));
}

#[test]
fn repair_packs_items_in_line_pointer_order_and_drops_the_tail() {
    let mut page = with_items(&[b"one", b"two", b"three", b"four", b"five"]);
    set_line(&mut page, 2, LinePointer::redirect(3)).unwrap();
    set_line(&mut page, 4, LinePointer::UNUSED).unwrap();
    set_line(&mut page, 5, LinePointer::UNUSED).unwrap();
    repair_fragmentation(&mut page).unwrap();
    assert_eq!((item_count(&page), upper(&page)), (3, 8176 - 16));
    assert_eq!((contents(&page, 1), contents(&page, 3)), (b"one".to_vec(), b"three".to_vec()));
    assert_eq!(line(&page, 3).map(LinePointer::at), Ok(8160));
    assert_eq!(flags(&page), 0, "all unused line pointers went");
}

#[test]
fn repair_of_items_out_of_order_puts_them_in_order() {
    let mut page = with_items(&[b"one", b"two", b"three"]);
    let lines = [1, 2, 3].map(|offset| line(&page, offset).unwrap());
    set_line(&mut page, 1, lines[2]).unwrap();
    set_line(&mut page, 2, LinePointer::UNUSED).unwrap();
    set_line(&mut page, 3, lines[0]).unwrap();
    repair_fragmentation(&mut page).unwrap();
    assert_eq!((contents(&page, 1), contents(&page, 3)), (b"three".to_vec(), b"one".to_vec()));
    assert_eq!(line(&page, 1).map(LinePointer::at), Ok(8168));
    assert_eq!(line(&page, 3).map(LinePointer::at), Ok(8160));
    assert_eq!((upper(&page), flags(&page)), (8160, flag::HAS_FREE_LINES));
}

#[test]
fn repair_of_a_page_without_items_resets_it() {
    let mut page = with_items(&[b"one", b"two"]);
    set_line(&mut page, 1, LinePointer::DEAD).unwrap();
    set_line(&mut page, 2, LinePointer::UNUSED).unwrap();
    repair_fragmentation(&mut page).unwrap();
    assert_eq!((item_count(&page), upper(&page), flags(&page)), (1, 8176, 0));
}

#[test]
fn truncation_of_line_pointers_keeps_the_first_and_moves_nothing() {
    let mut page = with_items(&[b"one", b"two", b"three", b"four"]);
    for offset in [2, 4] {
        set_line(&mut page, offset, LinePointer::UNUSED).unwrap();
    }
    let upper_before = upper(&page);
    truncate_line_pointers(&mut page);
    assert_eq!((item_count(&page), upper(&page), flags(&page)), (3, upper_before, flag::HAS_FREE_LINES));
    for offset in [1, 3] {
        set_line(&mut page, offset, LinePointer::UNUSED).unwrap();
    }
    truncate_line_pointers(&mut page);
    assert_eq!((item_count(&page), flags(&page)), (1, flag::HAS_FREE_LINES));
    let mut page = with_items(&[b"one", b"two"]);
    add_flags(&mut page, flag::HAS_FREE_LINES);
    set_line(&mut page, 2, LinePointer::UNUSED).unwrap();
    truncate_line_pointers(&mut page);
    assert_eq!((item_count(&page), flags(&page)), (1, 0));
}

#[test]
fn deleting_an_index_item_closes_both_gaps() {
    let mut page = with_items(&[b"one", b"a longer item", b"three"]);
    index_tuple_delete(&mut page, 2).unwrap();
    assert_eq!(all(&page), [b"one".to_vec(), b"three".to_vec()]);
    assert_eq!((lower(&page), upper(&page)), (32, 8160));
    index_tuple_delete(&mut page, 2).unwrap();
    index_tuple_delete(&mut page, 1).unwrap();
    assert_eq!((lower(&page), upper(&page)), (24, 8176));
    let none = index_tuple_delete(&mut page, 1);
    assert_eq!(none, Err(Fault::NoLinePointer { offset: 1, count: 0 }));
}

#[test]
fn deleting_without_compaction_keeps_numbers() {
    let mut page = with_items(&[b"one", b"two", b"three"]);
    index_tuple_delete_no_compact(&mut page, 1).unwrap();
    assert_eq!(line(&page, 1), Ok(LinePointer::UNUSED));
    assert_eq!((contents(&page, 2), contents(&page, 3)), (b"two".to_vec(), b"three".to_vec()));
    index_tuple_delete_no_compact(&mut page, 3).unwrap();
    assert_eq!((item_count(&page), upper(&page)), (2, 8168));
}

#[test]
fn deleting_many_at_once_is_checked() {
    let items: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];
    let mut page = with_items(&items);
    index_multi_delete(&mut page, [1, 3, 6].into_iter()).unwrap();
    assert_eq!(all(&page).concat(), b"bde");
    assert_eq!((lower(&page), upper(&page)), (36, 8152));
    for wrong in [[3, 2, 1], [1, 1, 2], [2, 3, 4], [0, 1, 2]] {
        let fault = index_multi_delete(&mut page.clone(), wrong.into_iter());
        assert_eq!(fault, Err(Fault::DeleteOrder), "{wrong:?}");
    }
    index_multi_delete(&mut page, [1, 2, 3].into_iter()).unwrap();
    assert_eq!((lower(&page), upper(&page)), (24, 8176));
}

#[test]
fn overwriting_keeps_the_place_and_the_state() {
    let mut page = with_items(&[b"one", b"two", b"three"]);
    let dead = line(&page, 2).unwrap().with_state(LineState::Dead);
    set_line(&mut page, 2, dead).unwrap();
    for item in [&b"2"[..], b"a much longer second item", b"12345678", b""] {
        index_tuple_overwrite(&mut page, 2, item).unwrap();
        if !item.is_empty() {
            assert_eq!(all(&page), [b"one".to_vec(), item.to_vec(), b"three".to_vec()]);
            assert_eq!(line(&page, 2).unwrap().state(), LineState::Dead);
        }
        assert_eq!(usize::from(upper(&page)), 8176 - 16 - align(item.len()));
    }
    let fault = index_tuple_overwrite(&mut page, 1, &[0; 8200]).unwrap_err();
    assert_eq!(fault, Fault::NoSpace { bytes: 8200, lower: 36, upper: 8160 });
}

type PageFunction = fn(&mut Page) -> Result<(), Fault>;

#[test]
fn broken_pages_are_refused() {
    let good = with_items(&[b"one", b"two", b"three"]);
    let functions: [PageFunction; 6] = [
        |page| add_item(page, b"x", AddItem::IndexBefore(1)).map(|_| ()),
        repair_fragmentation,
        |page| index_tuple_delete(page, 2),
        |page| index_tuple_delete_no_compact(page, 2),
        |page| index_multi_delete(page, 1..=3),
        |page| index_tuple_overwrite(page, 2, b"x"),
    ];
    for (at, value) in [(12, 20), (12, 9000), (14, 30), (14, 8190), (16, 8193), (16, 8100)] {
        for (number, function) in functions.iter().enumerate() {
            let mut page = good;
            set_u16_at(&mut page, at, value);
            let fault = function(&mut page).unwrap_err();
            assert!(matches!(fault, Fault::PagePointers { .. }), "{at} {value} {number}: {fault}");
        }
    }
    for outside in
        [LinePointer::normal(8170, 16), LinePointer::normal(8000, 8), LinePointer::normal(32_000, 700)]
    {
        for (number, function) in functions.iter().enumerate().skip(1) {
            let mut page = good;
            set_line(&mut page, 2, outside).unwrap();
            let fault = function(&mut page).unwrap_err();
            assert!(matches!(fault, Fault::ItemOutside { .. }), "{outside:?} {number}: {fault}");
        }
    }
    let mut page = good;
    for offset in 1..=3 {
        set_line(&mut page, offset, LinePointer::normal(8152, 24)).unwrap();
    }
    set_u16_at(&mut page, 12, 8140);
    assert!(matches!(repair_fragmentation(&mut page), Err(Fault::OffsetTooLarge { .. })));
    assert!(matches!(index_multi_delete(&mut page, [5, 6, 7].into_iter()), Err(Fault::ItemOutside { .. })));
    let mut crowded = with_items(&[&[0; 4000], b"b", b"c"]);
    let first = line(&crowded, 1).unwrap();
    set_line(&mut crowded, 2, first).unwrap();
    set_line(&mut crowded, 3, first).unwrap();
    let fault = repair_fragmentation(&mut crowded).unwrap_err();
    assert_eq!(fault, Fault::ItemLengths { total: 12_000, available: 8140 });
}

#[test]
fn unknown_items_are_refused() {
    let mut page = with_items(&[b"one"]);
    assert_eq!(line(&page, 0), Err(Fault::NoLinePointer { offset: 0, count: 1 }));
    assert_eq!(set_line(&mut page, 2, LinePointer::DEAD), Err(Fault::NoLinePointer { offset: 2, count: 1 }));
    set_line(&mut page, 1, LinePointer::DEAD).unwrap();
    assert_eq!(normal_item(&page, 1), Err(Fault::ItemNotNormal { offset: 1 }));
    assert_eq!(stored_item(&page, 1), Err(Fault::ItemNotNormal { offset: 1 }));
    set_line(&mut page, 1, LinePointer::normal(8191, 2)).unwrap();
    assert_eq!(normal_item(&page, 1), Err(Fault::ItemOutside { offset: 1, at: 8191, length: 2 }));
}
