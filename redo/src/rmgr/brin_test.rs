//! BRIN redo on hand-built pages: bytes as Postgres leaves them, refusals, and that no bytes make it panic.

use proptest::prelude::*;
use strata_common::Lsn;
use strata_pgwal::{DecodedBlock, rmgr::BRIN};

use super::*;
use crate::page::LinePointer;
use crate::testing::{Pages, effect_error, image_reference, init_reference, main_page, record, reference};

const META: u32 = 0;
const REVMAP: u32 = 1;
const REGULAR: u32 = 2;

fn main(words: &[u32], offset: u16) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(offset.to_le_bytes());
    bytes
}

fn run(pages: &mut Pages, info: u8, main: &[u8], blocks: Vec<DecodedBlock>) {
    pages.run(&record(BRIN, info, 500, main, blocks));
}

/// An index with ranges of 4 blocks: metapage, one revmap page, one regular page with a tuple for the range of heap block 8.
fn index() -> Pages {
    let mut pages = Pages::default();
    run(&mut pages, info::CREATE_INDEX, &main(&[4], 1), vec![init_reference(0, main_page(META), &[])]);
    let blocks = vec![reference(0, main_page(META), &[]), init_reference(1, main_page(REVMAP), &[])];
    pages.run(&record(BRIN, info::REVMAP_EXTEND, 600, &REVMAP.to_le_bytes(), blocks));
    let blocks = vec![init_reference(0, main_page(REGULAR), b"tuple"), reference(1, main_page(REVMAP), &[])];
    pages.run(&record(BRIN, info::INSERT | info::INIT_PAGE, 700, &main(&[8, 4], 1), blocks));
    pages
}

fn revmap_item(pages: &Pages, index: usize) -> &[u8] {
    &pages.get(main_page(REVMAP))[24 + 6 * index..][..6]
}

#[test]
fn an_index_begins_with_metapage_revmap_and_first_tuple() {
    let pages = index();
    let meta = pages.get(main_page(META));
    assert_eq!(&meta[24..40], [0xfa, 0x9c, 0x10, 0xa8, 1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!((page::lower(meta), page::special(meta), page::lsn(meta)), (40, 8184, Lsn(600)));
    assert_eq!(&meta[8184..], [0, 0, 0, 0, 0, 0, 0x91, 0xf0]);
    let revmap = pages.get(main_page(REVMAP));
    assert_eq!(&revmap[8184..], [0, 0, 0, 0, 0, 0, 0x92, 0xf0]);
    assert_eq!(revmap_item(&pages, 2), [0, 0, 2, 0, 1, 0]);
    assert_eq!(revmap_item(&pages, 1), [0; 6]);
    let regular = pages.get(main_page(REGULAR));
    assert_eq!(&regular[8190..], [0x93, 0xf0]);
    assert_eq!(&regular[page::stored_item(regular, 1).unwrap().range()], b"tuple");
    assert_eq!(page::lsn(regular), Lsn(700));
}

#[test]
fn revmap_items_are_found_by_range_and_name_blocks_beyond_65536() {
    let mut pages = index();
    let far = 0x0003_0005;
    let blocks = vec![init_reference(0, main_page(far), b"far tuple"), reference(1, main_page(REVMAP), &[])];
    // Range 1361 is the second item of the second revmap page; which page it is, the reference says.
    pages.run(&record(BRIN, info::INSERT | info::INIT_PAGE, 800, &main(&[1361 * 4 + 3, 4], 1), blocks));
    assert_eq!(revmap_item(&pages, 1), [3, 0, 5, 0, 1, 0]);
}

#[test]
fn an_update_to_another_page_leaves_an_unused_line_pointer() {
    let mut pages = index();
    for offset in [2, 3] {
        let blocks =
            vec![reference(0, main_page(REGULAR), &[offset; 9]), reference(1, main_page(REVMAP), &[])];
        let end = 700 + 10 * u64::from(offset);
        pages.run(&record(
            BRIN,
            info::INSERT,
            end,
            &main(&[4 * u32::from(offset), 4], offset.into()),
            blocks,
        ));
    }
    let blocks = vec![
        init_reference(0, main_page(9), b"a longer tuple"),
        reference(1, main_page(REVMAP), &[]),
        reference(2, main_page(REGULAR), &[]),
    ];
    let update = [&[2, 0, 0xee, 0xee][..], &main(&[8, 4], 1)].concat();
    pages.run(&record(BRIN, info::UPDATE | info::INIT_PAGE, 900, &update, blocks));
    assert_eq!(revmap_item(&pages, 2), [0, 0, 9, 0, 1, 0]);
    let regular = pages.get(main_page(REGULAR));
    assert_eq!(page::line(regular, 2), Ok(LinePointer::UNUSED));
    assert_eq!((page::item_count(regular), page::lsn(regular)), (3, Lsn(900)));
    assert_eq!(&regular[page::stored_item(regular, 3).unwrap().range()], [3; 9]);
    let new = pages.get(main_page(9));
    assert_eq!(&new[page::stored_item(new, 1).unwrap().range()], b"a longer tuple");
}

#[test]
fn a_tuple_is_replaced_in_place() {
    let mut pages = index();
    let block = reference(0, main_page(REGULAR), b"a tuple that is longer");
    pages.run(&record(BRIN, info::SAMEPAGE_UPDATE, 800, &[1, 0], vec![block]));
    let regular = pages.get(main_page(REGULAR));
    assert_eq!(&regular[page::stored_item(regular, 1).unwrap().range()], b"a tuple that is longer");
    assert_eq!(page::lsn(regular), Lsn(800));
}

#[test]
fn a_range_loses_its_summary() {
    let mut pages = index();
    let blocks = vec![reference(0, main_page(REVMAP), &[]), reference(1, main_page(REGULAR), &[])];
    pages.run(&record(BRIN, info::DESUMMARIZE, 800, &main(&[4, 8], 1), blocks));
    assert_eq!(revmap_item(&pages, 2), [0xff, 0xff, 0xff, 0xff, 0, 0]);
    assert_eq!(page::item_count(pages.get(main_page(REGULAR))), 0);
}

#[test]
fn records_that_do_not_fit_are_refused() {
    let refused = |info: u8, main: &[u8], blocks: Vec<DecodedBlock>| {
        let mut pages = index();
        pages.replay(&record(BRIN, info, 900, main, blocks)).unwrap_err().fault
    };
    let insert =
        |data: &[u8]| vec![reference(0, main_page(REGULAR), data), reference(1, main_page(REVMAP), &[])];
    let fault = refused(info::INSERT, &main(&[8, 4], 1), insert(b"taken"));
    assert_eq!(fault, Fault::ItemInUse { offset: 1 });
    let fault = refused(info::INSERT, &main(&[8, 0], 2), insert(b"no range"));
    assert_eq!(fault, Fault::Mismatch("ranges of no blocks"));
    let disagree = Fault::Mismatch("reference and record disagree on whether the page is made anew");
    let fault = refused(info::INSERT | info::INIT_PAGE, &main(&[8, 4], 1), insert(b"init"));
    assert_eq!(fault, disagree);
    let swapped = vec![reference(0, main_page(REGULAR), b"x"), reference(1, main_page(META), &[])];
    let fault = refused(info::INSERT, &main(&[8, 4], 2), swapped);
    assert_eq!(fault, Fault::Mismatch("the page is not one of a range map"));
    let blocks = vec![reference(0, main_page(META), &[]), init_reference(1, main_page(5), &[])];
    let fault = refused(info::REVMAP_EXTEND, &6u32.to_le_bytes(), blocks);
    assert_eq!(fault, Fault::Mismatch("the record names two different pages for the range map"));
    let missing = effect_error(&record(BRIN, info::INSERT, 900, &main(&[8, 4], 1), vec![]));
    assert!(missing.to_string().contains("missing"), "{missing}");
    let many = (0..4).map(|id| reference(id, main_page(id.into()), &[])).collect();
    let many = effect_error(&record(BRIN, info::INSERT, 900, &main(&[8, 4], 1), many));
    assert!(many.to_string().contains("does not have"), "{many}");
    assert!(matches!(effect_error(&record(BRIN, 0x60, 900, &[], vec![])), EffectError::Unknown { .. }));
}

/// An image with APPLY is the last word: the item is not added once more.
#[test]
fn an_image_is_the_last_word() {
    let mut pages = index();
    let image = *pages.get(main_page(REGULAR));
    let blocks =
        vec![image_reference(0, main_page(REGULAR), &image, true), reference(1, main_page(REVMAP), &[])];
    pages.run(&record(BRIN, info::INSERT, 900, &main(&[8, 4], 1), blocks));
    assert_eq!(page::item_count(pages.get(main_page(REGULAR))), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_record_makes_it_panic(
        info in any::<u8>(),
        main in proptest::collection::vec(prop_oneof![3 => 0u8..5, 1 => any::<u8>()], 0..20),
        data in proptest::collection::vec(any::<u8>(), 0..60),
        id in 0u8..4,
        block in 0u32..3,
        will_init in any::<bool>(),
        header in proptest::option::of(proptest::collection::vec(any::<u8>(), 40)),
    ) {
        let page_id = main_page(block);
        let mut page = *index().get(page_id);
        if let Some(header) = header {
            page[10..50].copy_from_slice(&header);
        }
        let mut block = reference(id, page_id, &data);
        block.will_init = will_init;
        let record = record(BRIN, info, 900, &main, vec![block, reference(id ^ 1, main_page(7), &[])]);
        let _ = crate::effects(&record);
        let change = crate::change::encode_record(&record, &record.blocks[0], Keep::ALL);
        let _ = crate::apply(&mut page, page_id, record.end_lsn, &change);
    }
}
