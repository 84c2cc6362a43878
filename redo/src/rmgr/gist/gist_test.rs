//! GiST redo on hand-built pages: what goes on after an image, records that change nothing, refusals, and that no bytes make it
//! panic. What a running Postgres produces is compared with it page by page elsewhere (regress/redo-oracle).

use proptest::prelude::*;
use strata_common::{BLOCK_BYTES, Lsn};
use strata_pgwal::{DecodedBlock, DecodedRecord, rmgr};

use super::opaque::{self, NO_BLOCK, flag};
use super::{index_tuple, info};
use crate::change::{Keep, encode_record};
use crate::error::{EffectError, Fault};
use crate::testing::{Pages, effect_error, image_reference, init_reference, main_page, reference};
use crate::{Page, apply, effects, page};

const END: u64 = 0x0700_0100_0200;

fn record(info: u8, main: &[u8], blocks: Vec<DecodedBlock>) -> DecodedRecord {
    crate::testing::record(rmgr::GIST, info, END, main, blocks)
}

/// The page of reference `id` after `record`.
fn redone(before: &Page, record: &DecodedRecord, id: u8) -> Result<Page, Fault> {
    let block = record.block(id).expect("the record has the reference");
    let mut after = *before;
    let change = encode_record(record, block, Keep::ALL);
    apply(&mut after, main_page(block.block.0), Lsn(END), &change).map_err(|error| error.fault)?;
    assert_eq!(page::lsn(&after), Lsn(END));
    Ok(after)
}

/// A tuple of `bytes` bytes.
fn tuple(content: u8, bytes: u16) -> Vec<u8> {
    let mut tuple = vec![content; usize::from(bytes)];
    tuple[6..8].copy_from_slice(&bytes.to_le_bytes());
    tuple
}

fn page_of(flags: u16, contents: &[u8]) -> Page {
    let mut page = [0; BLOCK_BYTES];
    opaque::init(&mut page, flags);
    for &content in contents {
        index_tuple::append(&mut page, &tuple(content, 24)).unwrap();
    }
    page
}

fn tuples(page: &Page) -> Vec<Vec<u8>> {
    (1..=page::item_count(page)).map(|n| page[page::stored_item(page, n).unwrap().range()].to_vec()).collect()
}

fn nsn(page: &Page) -> &[u8] {
    &page[BLOCK_BYTES - 16..BLOCK_BYTES - 8]
}

fn right_link(page: &Page) -> u32 {
    page::u32_at(page, BLOCK_BYTES - 8)
}

/// A log position as it lies in a page: the high half first.
fn position(lsn: u64) -> Vec<u8> {
    [((lsn >> 32) as u32).to_le_bytes(), (lsn as u32).to_le_bytes()].concat()
}

fn update(deleted: &[u16], inserted: &[Vec<u8>]) -> DecodedRecord {
    let main = [(deleted.len() as u16).to_le_bytes(), (inserted.len() as u16).to_le_bytes()].concat();
    let numbers = deleted.iter().flat_map(|number| number.to_le_bytes());
    let data: Vec<u8> = numbers.chain(inserted.concat()).collect();
    record(info::PAGE_UPDATE, &main, vec![reference(0, main_page(7), &data)])
}

#[test]
fn tuples_are_replaced_in_place_removed_and_added() {
    let inner = page_of(0, &[1, 2, 3]);
    let after = redone(&inner, &update(&[2], &[tuple(9, 32)]), 0).unwrap();
    assert_eq!(tuples(&after), [tuple(1, 24), tuple(9, 32), tuple(3, 24)]);
    let after = redone(&inner, &update(&[2], &[tuple(8, 24), tuple(9, 32)]), 0).unwrap();
    assert_eq!(tuples(&after), [tuple(1, 24), tuple(3, 24), tuple(8, 24), tuple(9, 32)]);
    assert_eq!(opaque::flags(&after), 0);
    let after = redone(&page_of(flag::LEAF, &[1, 2, 3, 4]), &update(&[1, 2, 4], &[]), 0).unwrap();
    assert_eq!(tuples(&after), [tuple(3, 24)]);
    assert_eq!(opaque::flags(&after), flag::LEAF | flag::TUPLES_DELETED);
    let after = redone(&page_of(flag::LEAF, &[]), &update(&[], &[tuple(5, 24)]), 0).unwrap();
    assert_eq!((tuples(&after), opaque::flags(&after)), (vec![tuple(5, 24)], flag::LEAF));
}

#[test]
fn updates_that_do_not_fit_are_refused() {
    let before = page_of(0, &[1, 2, 3]);
    let mut two_for_one = update(&[2], &[tuple(9, 24), tuple(9, 24)]);
    two_for_one.main_data = bytes::Bytes::from_static(&[1, 0, 1, 0]);
    for (record, why) in [
        (update(&[4], &[tuple(9, 24)]), "no such tuple"),
        (update(&[2, 1, 3], &[]), "out of order"),
        (update(&[], &[tuple(9, 24)[..20].to_vec()]), "a tuple that is cut off"),
        (update(&[2], &[tuple(9, 24)[..20].to_vec()]), "a replacement that is cut off"),
        (two_for_one, "more tuples than it says"),
        (update(&[], &[tuple(9, 8000), tuple(9, 8000)]), "more than a page"),
        (
            record(info::PAGE_UPDATE, &[3, 0, 0, 0], vec![reference(0, main_page(7), &[1, 0])]),
            "too few numbers",
        ),
    ] {
        assert!(redone(&before, &record, 0).is_err(), "{why}");
    }
    let mut heap = [0; BLOCK_BYTES];
    page::init(&mut heap, 0);
    assert!(redone(&heap, &update(&[], &[]), 0).is_err(), "not a GiST page");
}

/// The left half's image was taken before the record's own position was known (W16).
#[test]
fn the_left_half_of_a_split_changes_after_its_image() {
    let half = page_of(flag::LEAF | flag::FOLLOW_RIGHT, &[1]);
    let split_main = split_main(flag::LEAF, 77, true);
    let by_update = |left: DecodedBlock| {
        let mut record = update(&[], &[tuple(5, 24)]);
        record.blocks.push(DecodedBlock { id: 1, ..left });
        record
    };
    let by_split = |left: DecodedBlock| record(info::PAGE_SPLIT, &split_main, vec![left]);
    for with_image in [true, false] {
        let left = || match with_image {
            true => image_reference(0, main_page(8), &half, true),
            false => reference(0, main_page(8), &[]),
        };
        for record in [by_update(left()), by_split(left())] {
            let before = if with_image { [0; BLOCK_BYTES] } else { half };
            let mut pages = Pages::with([(main_page(8), before), (main_page(7), page_of(0, &[1]))]);
            pages.run(&record);
            let after = pages.get(main_page(8));
            assert_eq!(nsn(after), position(END));
            assert_eq!(opaque::flags(after), flag::LEAF);
            assert_eq!(page::lsn(after), Lsn(END));
            assert_eq!(tuples(after), [tuple(1, 24)]);
        }
    }
}

/// For every other reference the image is the last word.
#[test]
fn other_images_are_left_alone() {
    let mut insert = update(&[], &[tuple(5, 24)]);
    insert.blocks[0] = image_reference(0, main_page(7), &page_of(0, &[1]), true);
    assert_eq!(tuples(&redone(&page_of(0, &[]), &insert, 0).unwrap()), [tuple(1, 24)]);
    let mut pages = Pages::default();
    pages.run(&insert);
    assert_eq!(tuples(pages.get(main_page(7))), [tuple(1, 24)]);
}

#[test]
fn dead_tuples_leave_a_leaf() {
    let mut leaf = page_of(flag::LEAF | flag::HAS_GARBAGE, &[1, 2, 3, 4]);
    let main = [&[9, 9, 9, 9, 3, 0, 0, 0][..], &[1, 0, 3, 0, 4, 0]].concat();
    let delete = record(info::DELETE, &main, vec![reference(0, main_page(7), &[])]);
    leaf = redone(&leaf, &delete, 0).unwrap();
    assert_eq!(tuples(&leaf), [tuple(2, 24)]);
    assert_eq!(opaque::flags(&leaf), flag::LEAF | flag::TUPLES_DELETED);
    assert!(redone(&leaf, &delete, 0).is_ok(), "the page is already there");
    page::set_lsn(&mut leaf, Lsn(1));
    assert!(redone(&leaf, &delete, 0).is_err(), "tuples that are gone");
}

/// `gistxlogPageSplit` of three pages, right link 500, NSN 0x1_0000_0002.
fn split_main(leaf: u16, right: u32, mark: bool) -> Vec<u8> {
    let mut main = vec![0; 24];
    main[..4].copy_from_slice(&right.to_le_bytes());
    main[8..16].copy_from_slice(&0x1_0000_0002_u64.to_le_bytes());
    main[16] = leaf as u8;
    main[18] = 3;
    main[20] = u8::from(mark);
    main
}

fn split(blocks: [u32; 3], mark: bool) -> DecodedRecord {
    let part = |(id, block): (u8, u32)| {
        let data = [&1_u32.to_le_bytes()[..], &tuple(id, 24)].concat();
        init_reference(id, main_page(block), &data)
    };
    let parts = (1..).zip(blocks).map(part).collect();
    record(info::PAGE_SPLIT, &split_main(flag::LEAF, 500, mark), parts)
}

#[test]
fn a_split_links_its_pages_and_marks_all_but_the_last() {
    let mut pages = Pages::default();
    pages.run(&split([30, 12, 44], true));
    let followed = flag::LEAF | flag::FOLLOW_RIGHT;
    for (block, id, link, flags) in [(30, 1, 12, followed), (12, 2, 44, followed), (44, 3, 500, flag::LEAF)] {
        let part = pages.get(main_page(block));
        assert_eq!((right_link(part), opaque::flags(part)), (link, flags), "block {block}");
        assert_eq!(nsn(part), position(0x1_0000_0002));
        assert_eq!(tuples(part), [tuple(id, 24)]);
    }
    pages.run(&split([30, 12, 44], false));
    assert_eq!(opaque::flags(pages.get(main_page(12))), flag::LEAF);
}

/// The new root comes first, points to the others and is no leaf.
#[test]
fn a_split_of_the_root_marks_nothing() {
    let mut pages = Pages::default();
    pages.run(&split([0, 12, 44], true));
    for (block, link, flags) in [(0, NO_BLOCK, 0), (12, 44, flag::LEAF), (44, 500, flag::LEAF)] {
        let part = pages.get(main_page(block));
        assert_eq!((right_link(part), opaque::flags(part)), (link, flags), "block {block}");
    }
}

#[test]
fn splits_that_do_not_add_up_are_refused() {
    let zero = [0; BLOCK_BYTES];
    let mut more = split([30, 12, 44], true);
    more.blocks[1].data = [&2_u32.to_le_bytes()[..], &tuple(1, 24)].concat().into();
    assert!(redone(&zero, &more, 2).is_err(), "fewer tuples than it says");
    let mut beyond = split([30, 12, 44], true);
    beyond.blocks[2].id = 4;
    assert_eq!(redone(&zero, &beyond, 4), Err(Fault::Unknown), "a fourth page of three");
    assert!(redone(&zero, &beyond, 2).is_err(), "the page to the right is missing");
}

#[test]
fn a_page_is_deleted_and_its_parent_forgets_it() {
    let main = [&0x0001_0000_0384_u64.to_le_bytes()[..], &2_u16.to_le_bytes()].concat();
    let blocks = vec![reference(0, main_page(7), &[]), reference(1, main_page(8), &[])];
    let delete = record(info::PAGE_DELETE, &main, blocks);
    let gone = redone(&page_of(flag::LEAF, &[]), &delete, 0).unwrap();
    assert_eq!(opaque::flags(&gone), flag::LEAF | flag::DELETED);
    assert_eq!(gone[24..32], 0x0001_0000_0384_u64.to_le_bytes());
    assert_eq!(page::lower(&gone), 32);
    let parent = redone(&page_of(0, &[1, 2, 3]), &delete, 1).unwrap();
    assert_eq!(tuples(&parent), [tuple(1, 24), tuple(3, 24)]);
    assert!(redone(&page_of(flag::LEAF, &[1]), &delete, 0).is_err(), "a page with tuples");
    assert!(redone(&page_of(0, &[1]), &delete, 1).is_err(), "a downlink that is not there");
}

/// A reuse is for standbys, an assigned LSN for unlogged changes of permanent relations (wal_level = minimal).
#[test]
fn some_records_change_nothing() {
    for quiet in [info::PAGE_REUSE, info::ASSIGN_LSN] {
        assert_eq!(effects(&record(quiet, &[0; 32], Vec::new())), Ok(Vec::new()));
        let strange = record(quiet, &[0; 32], vec![reference(0, main_page(7), &[])]);
        assert_eq!(redone(&page_of(0, &[]), &strange, 0), Err(Fault::Unknown));
    }
    for unknown in [0x40, 0x50, 0x80, 0xF0] {
        assert!(matches!(effect_error(&record(unknown, &[], Vec::new())), EffectError::Unknown { .. }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Damaged pages, records of every type with rubbish inside.
    #[test]
    fn no_bytes_make_redo_panic(
        contents in prop::collection::vec(any::<u8>(), 0..6),
        flags in 0..32_u16,
        damage in prop::collection::vec((0..BLOCK_BYTES, any::<u8>()), 0..6),
        info in (0..16_u8).prop_map(|info| info << 4),
        id in 0..4_u8,
        main in prop::collection::vec(prop_oneof![4 => 0..5_u8, 1 => any::<u8>()], 0..40),
        data in prop::collection::vec(prop_oneof![4 => 0..5_u8, 1 => any::<u8>()], 0..60),
        will_init: bool,
    ) {
        let mut target = page_of(flags, &contents);
        page::set_lsn(&mut target, Lsn(1));
        for (at, byte) in damage {
            target[at] = byte;
        }
        let blocks = (0..4)
            .map(|other| reference(other, main_page(other.into()), if other == id { &data } else { &[] }))
            .collect();
        let mut record = record(info, &main, blocks);
        record.blocks[usize::from(id)].will_init = will_init;
        let _ = effects(&record);
        let change = encode_record(&record, &record.blocks[usize::from(id)], Keep::ALL);
        let _ = apply(&mut target, main_page(id.into()), Lsn(END), &change);
    }
}
