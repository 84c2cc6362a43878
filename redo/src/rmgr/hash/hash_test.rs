//! Hash redo on hand-built pages: bytes as Postgres leaves them, branches that no workload reaches (a second bitmap page),
//! refusals, and that no bytes make it panic.

use proptest::prelude::*;
use strata_common::{Guard, Lsn};
use strata_pgwal::rmgr::HASH;
use strata_pgwal::{BlockImage, ImageCompression};

use super::*;
use crate::error::Fault;
use crate::testing::{Pages, effect_error, image_reference, init_reference, main_page, record, reference};
use crate::{Page, PageId};

const META: u32 = 0;
const BITMAP: u32 = 3;

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn word(page: &Page, at: usize) -> u32 {
    page::u32_at(page, at)
}

/// A tuple of 16 bytes: row identifier, size, hash.
fn tuple(mark: u8) -> Vec<u8> {
    bytes(&[&[mark; 6], &16u16.to_le_bytes(), &[mark; 8]])
}

fn items(page: &Page) -> Vec<u8> {
    (1..=page::item_count(page)).map(|offset| page[page::stored_item(page, offset).unwrap().at]).collect()
}

/// Metapage of an index with two buckets (blocks 1 and 2) and its bitmap page.
fn index() -> Pages {
    let mut pages = Pages::default();
    let main = bytes(&[&100f64.to_le_bytes(), &450u32.to_le_bytes(), &307u16.to_le_bytes()]);
    let blocks = vec![init_reference(0, main_page(META), &[])];
    pages.run(&record(HASH, info::INIT_META_PAGE, 500, &main, blocks));
    let blocks = vec![init_reference(0, main_page(BITMAP), &[]), reference(1, main_page(META), &[])];
    pages.run(&record(HASH, info::INIT_BITMAP_PAGE, 510, &4096u16.to_le_bytes(), blocks));
    pages
}

/// A bucket page with these tuples.
fn bucket(marks: &[u8]) -> Page {
    let mut page = [0; BLOCK_BYTES];
    let (prev, next) = (1, opaque::NO_BLOCK);
    opaque::init(&mut page, Opaque { prev, next, bucket: 0, flags: 1 << 1 | flag::HAS_DEAD_TUPLES });
    for &mark in marks {
        let offset = page::item_count(&page) + 1;
        page::add_item(&mut page, &tuple(mark), AddItem::IndexBefore(offset)).unwrap();
    }
    page::set_lsn(&mut page, Lsn(100));
    page
}

fn with(pages: impl IntoIterator<Item = (u32, Page)>) -> Pages {
    Pages::with(pages.into_iter().map(|(block, page)| (main_page(block), page)))
}

#[test]
fn an_index_begins_with_two_buckets() {
    let pages = index();
    let meta = pages.get(main_page(META));
    assert_eq!(&meta[24..32], [0x40, 0x06, 0x44, 0x06, 4, 0, 0, 0]);
    assert_eq!(&meta[40..48], [0x33, 1, 0xd8, 0x1f, 0, 0x10, 15, 0], "fill factor, sizes, shift");
    assert_eq!([48, 52, 56, 60, 64, 68, 72].map(|at| word(meta, at)), [1, 3, 1, 1, 0, 1, 450]);
    assert_eq!([76, 80, 84].map(|at| word(meta, at)), [0, 1, 0], "one spare page in phase 1");
    assert_eq!(word(meta, 24 + 444), 3, "the first bitmap page");
    assert_eq!((page::lower(meta), page::lsn(meta)), (4568, Lsn(510)));
    assert_eq!(&meta[8176..], [[0xff; 12].as_slice(), &[8, 0, 0x80, 0xff]].concat());
    let bitmap = pages.get(main_page(BITMAP));
    assert!(bitmap[24..4120].iter().all(|&byte| byte == 0xff) && bitmap[4120..8176].iter().all(|&b| b == 0));
    assert_eq!((page::lower(bitmap), bitmap[8188]), (4120, 4));
}

#[test]
fn what_no_metapage_can_hold_is_refused() {
    let start = index();
    let fault = |target: &mut Page, info: u8, main: &[u8], block: DecodedBlock| {
        let record = record(HASH, info, 900, main, vec![block, reference(3, main_page(9), &[])]);
        let change = crate::change::encode_record(&record, &record.blocks[0], Keep::ALL);
        crate::apply(target, main_page(META), record.end_lsn, &change).unwrap_err().fault
    };
    let main = bytes(&[&f64::NAN.to_le_bytes(), &450u32.to_le_bytes(), &307u16.to_le_bytes()]);
    let told =
        fault(&mut [0; BLOCK_BYTES], info::INIT_META_PAGE, &main, init_reference(0, main_page(META), &[]));
    assert_eq!(told, Fault::Mismatch("a hash index with no tuples in a bucket"));
    // One bitmap page more than the metapage has entries.
    let mut full = *start.get(main_page(META));
    full[68..72].copy_from_slice(&1024u32.to_le_bytes());
    let block = reference(4, main_page(META), &7u32.to_le_bytes());
    let told = fault(&mut full, info::ADD_OVFL_PAGE, &[0, 16, 0], block);
    assert_eq!(told, Fault::Mismatch("more bitmap pages than a hash index can have"));
}

#[test]
fn an_overflow_page_is_added_to_the_chain() {
    let start = index();
    let mut bitmap = *start.get(main_page(BITMAP));
    bitmap[24] = 0xfd;
    let mut pages = with([(META, *start.get(main_page(META))), (BITMAP, bitmap), (1, bucket(&[1]))]);
    let blocks = vec![
        init_reference(0, main_page(4), &7u32.to_le_bytes()),
        reference(1, main_page(1), &[]),
        reference(2, main_page(BITMAP), &1u32.to_le_bytes()),
        reference(4, main_page(META), &2u32.to_le_bytes()),
    ];
    pages.run(&record(HASH, info::ADD_OVFL_PAGE, 600, &[0, 16, 0], blocks));
    let new = pages.get(main_page(4));
    assert_eq!(&new[8176..], [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 7, 0, 0, 0, 1, 0, 0x80, 0xff]);
    assert_eq!(word(pages.get(main_page(1)), 8180), 4);
    assert_eq!(pages.get(main_page(BITMAP))[24], 0xff);
    let meta = pages.get(main_page(META));
    assert_eq!([word(meta, 64), word(meta, 80), word(meta, 68)], [2, 2, 1]);
}

/// After 32,768 overflow pages the bitmap needs another page, which no workload makes.
#[test]
fn a_second_bitmap_page_counts_twice() {
    let mut pages = index();
    let blocks = vec![
        init_reference(0, main_page(40_005), &7u32.to_le_bytes()),
        reference(1, main_page(1), &[]),
        init_reference(3, main_page(40_004), &[]),
        reference(4, main_page(META), &32_769u32.to_le_bytes()),
    ];
    let mut record = record(HASH, info::ADD_OVFL_PAGE, 600, &[0, 16, 0], blocks);
    let left = image_reference(1, main_page(1), &bucket(&[]), true);
    record.blocks[1] = left;
    pages.run(&record);
    let meta = pages.get(main_page(META));
    assert_eq!([word(meta, 64), word(meta, 80), word(meta, 68)], [32_769, 3, 2]);
    assert_eq!([word(meta, 24 + 444), word(meta, 24 + 448)], [3, 40_004]);
    let bitmap = pages.get(main_page(40_004));
    assert_eq!((bitmap[24], bitmap[4119], bitmap[4120], bitmap[8188]), (0xff, 0xff, 0, 4));
}

#[test]
fn trap_w16_a_split_goes_on_after_an_image() {
    Guard::BeyondImage.is_needed_for(|| {
        let mut pages = index();
        let main = bytes(&[&2u32.to_le_bytes(), &0x22u16.to_le_bytes(), &0x12u16.to_le_bytes(), &[0]]);
        let blocks = vec![
            image_reference(0, main_page(1), &bucket(&[1, 2]), true),
            init_reference(1, main_page(5), &[]),
            reference(2, main_page(META), &[]),
        ];
        pages.run(&record(HASH, info::SPLIT_ALLOCATE_PAGE, 700, &main, blocks));
        pages.get(main_page(1))[8188] == 0x22
    });
}

/// W16: the flags of a bucket that splits are set after its image too.
#[test]
fn a_split_sets_flags_after_an_image() {
    let image = bucket(&[1, 2]);
    let mut pages = index();
    let main = bytes(&[&2u32.to_le_bytes(), &0x22u16.to_le_bytes(), &0x12u16.to_le_bytes(), &[3]]);
    let masks = bytes(&[&3u32.to_le_bytes(), &7u32.to_le_bytes(), &2u32.to_le_bytes(), &9u32.to_le_bytes()]);
    let blocks = vec![
        image_reference(0, main_page(1), &image, true),
        init_reference(1, main_page(5), &[]),
        reference(2, main_page(META), &masks),
    ];
    pages.run(&record(HASH, info::SPLIT_ALLOCATE_PAGE, 700, &main, blocks));
    let old = pages.get(main_page(1));
    assert_eq!((word(old, 8176), old[8188], page::lsn(old)), (2, 0x22, Lsn(700)));
    assert_eq!(items(old), [1, 2]);
    let new = pages.get(main_page(5));
    assert_eq!(&new[8176..], [2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0x12, 0, 0x80, 0xff]);
    let meta = pages.get(main_page(META));
    assert_eq!([48, 52, 56, 60, 84].map(|at| word(meta, at)), [2, 7, 3, 2, 9]);

    let blocks = vec![
        image_reference(0, main_page(1), &image, true),
        image_reference(1, main_page(5), &bucket(&[3]), true),
    ];
    pages.run(&record(HASH, info::SPLIT_COMPLETE, 800, &[0x42, 0, 0x02, 0], blocks));
    assert_eq!((pages.get(main_page(1))[8188], pages.get(main_page(5))[8188]), (0x42, 0x02));
    let blocks = vec![reference(0, main_page(1), &[])];
    pages.run(&record(HASH, info::SPLIT_CLEANUP, 900, &[], blocks));
    assert_eq!(pages.get(main_page(1))[8188], 0x02);
}

/// An image travels in the change as the log has it: without its hole, compressed by any method.
#[test]
fn flags_are_set_after_a_compressed_image_with_a_hole() {
    let image = bucket(&[1, 2]);
    let (lower, upper) = (usize::from(page::lower(&image)), usize::from(page::upper(&image)));
    let plain = [&image[..lower], &image[upper..]].concat();
    let literals: Vec<u8> = plain.chunks(8).flat_map(|chunk| [&[0], chunk].concat()).collect();
    for (compression, stored) in [
        (ImageCompression::None, plain.clone()),
        (ImageCompression::Pglz, literals),
        (ImageCompression::Lz4, lz4_flex::block::compress(&plain)),
        (ImageCompression::Zstd, zstd::bulk::compress(&plain, 3).unwrap()),
    ] {
        let references = [1, 5].map(|block| {
            let mut reference = image_reference(u8::from(block == 5), main_page(block), &image, true);
            let hole = (lower as u16, (upper - lower) as u16);
            reference.image = Some(BlockImage {
                apply: true,
                hole_offset: hole.0,
                hole_length: hole.1,
                compression,
                bytes: stored.clone().into(),
            });
            reference
        });
        let mut pages = Pages::default();
        pages.run(&record(HASH, info::SPLIT_COMPLETE, 800, &[0x42, 0, 0x02, 0], references.to_vec()));
        let mut expected = image;
        expected[8188] = 0x42;
        page::set_lsn(&mut expected, Lsn(800));
        assert!(*pages.get(main_page(1)) == expected, "{compression:?}");
        expected[8188] = 0x02;
        assert!(*pages.get(main_page(5)) == expected, "{compression:?}");
    }
}

#[test]
fn a_split_page_is_its_image_and_needs_one() {
    let split = |image| record(HASH, info::SPLIT_PAGE, 600, &[], vec![image]);
    let mut pages = Pages::default();
    pages.run(&split(image_reference(0, main_page(1), &bucket(&[7]), true)));
    assert_eq!(items(pages.get(main_page(1))), [7]);
    let error = effect_error(&split(reference(0, main_page(1), &[])));
    assert!(error.to_string().contains("image of a page is missing"), "{error}");
}

fn moved(tuples: &[(u16, u8)]) -> Vec<u8> {
    let offsets: Vec<u8> = tuples.iter().flat_map(|(offset, _)| offset.to_le_bytes()).collect();
    tuples.iter().fold(offsets, |mut all, (_, mark)| {
        all.extend(tuple(*mark));
        all
    })
}

#[test]
fn contents_move_between_pages_and_the_primary_page_stays() {
    let mut pages = with([(1, bucket(&[9])), (4, bucket(&[1, 3])), (5, bucket(&[2, 4, 5, 6]))]);
    let blocks = vec![
        reference(0, main_page(1), &[]),
        reference(1, main_page(4), &moved(&[(2, 2), (4, 4)])),
        reference(2, main_page(5), &[1, 0, 2, 0]),
    ];
    pages.run(&record(HASH, info::MOVE_PAGE_CONTENTS, 600, &[2, 0, 0], blocks));
    assert_eq!(items(pages.get(main_page(4))), [1, 2, 3, 4]);
    assert_eq!(items(pages.get(main_page(5))), [5, 6]);
    assert_eq!(*pages.get(main_page(1)), bucket(&[9]), "locked, not changed");
}

/// `xl_hash_squeeze_page` of a chain 1 - 4 - 5 - 6, in which page 5 becomes free.
fn squeeze_main(tuples: u16, written_is_primary: bool, written_is_previous: bool) -> Vec<u8> {
    let flags = [written_is_primary.into(), written_is_previous.into()];
    bytes(&[&4u32.to_le_bytes(), &6u32.to_le_bytes(), &tuples.to_le_bytes(), &flags])
}

#[test]
fn a_squeezed_page_leaves_its_chain() {
    let mut bitmap = [0; BLOCK_BYTES];
    init_bitmap(&mut bitmap, 4096).unwrap();
    let start = [1, 4, 5, 6].map(|block| (block, bucket(&[block as u8])));
    let mut pages = with(start.into_iter().chain([(BITMAP, bitmap), (META, *index().get(main_page(META)))]));
    let blocks = vec![
        reference(1, main_page(1), &moved(&[(2, 5)])),
        reference(2, main_page(5), &[]),
        reference(3, main_page(4), &[]),
        reference(4, main_page(6), &[]),
        reference(5, main_page(BITMAP), &33u32.to_le_bytes()),
        reference(6, main_page(META), &33u32.to_le_bytes()),
    ];
    pages.run(&record(HASH, info::SQUEEZE_PAGE, 600, &squeeze_main(1, true, false), blocks));
    assert_eq!(items(pages.get(main_page(1))), [1, 5]);
    assert_eq!(word(pages.get(main_page(1)), 8180), u32::MAX, "not the previous page");
    let free = pages.get(main_page(5));
    assert_eq!(&free[8176..], [[0xff; 12].as_slice(), &[0, 0, 0x80, 0xff]].concat());
    assert_eq!((page::item_count(free), page::lsn(free)), (0, Lsn(600)));
    assert_eq!(word(pages.get(main_page(4)), 8180), 6);
    assert_eq!(word(pages.get(main_page(6)), 8176), 4);
    assert_eq!(&pages.get(main_page(BITMAP))[27..30], [0xff, 0xfd, 0xff]);
    assert_eq!(word(pages.get(main_page(META)), 64), 33);
}

#[test]
fn a_squeeze_without_tuples_changes_the_written_page_only_if_it_is_the_previous_one() {
    for (is_previous, expected) in [(true, (6, Lsn(600))), (false, (u32::MAX, Lsn(100)))] {
        let mut bitmap = [0; BLOCK_BYTES];
        init_bitmap(&mut bitmap, 4096).unwrap();
        let mut pages = with([(1, bucket(&[1])), (5, bucket(&[])), (BITMAP, bitmap)]);
        let blocks = vec![
            reference(1, main_page(1), &[]),
            reference(2, main_page(5), &[]),
            reference(5, main_page(BITMAP), &0u32.to_le_bytes()),
        ];
        pages.run(&record(HASH, info::SQUEEZE_PAGE, 600, &squeeze_main(0, true, is_previous), blocks));
        let written = pages.get(main_page(1));
        assert_eq!((word(written, 8180), page::lsn(written)), expected);
    }
}

#[test]
fn tuples_are_deleted_and_counted() {
    let mut pages = with([(1, bucket(&[1, 2, 3, 4, 5])), (META, *index().get(main_page(META)))]);
    let insert = vec![reference(0, main_page(1), &tuple(9)), reference(1, main_page(META), &[])];
    pages.run(&record(HASH, info::INSERT, 600, &2u16.to_le_bytes(), insert));
    assert_eq!(items(pages.get(main_page(1))), [1, 9, 2, 3, 4, 5]);
    let tuples = |pages: &Pages| f64::from_le_bytes(*pages.get(main_page(META))[32..].first_chunk().unwrap());
    assert_eq!(tuples(&pages), 1.0);

    let delete = vec![reference(0, main_page(2), &[]), reference(1, main_page(1), &[1, 0, 2, 0, 6, 0])];
    pages.run(&record(HASH, info::DELETE, 700, &[0, 0], delete));
    assert_eq!(items(pages.get(main_page(1))), [2, 3, 4]);
    assert_eq!(pages.get(main_page(1))[8188], 0x82, "the hint stays");
    let delete = vec![reference(1, main_page(1), &[])];
    pages.run(&record(HASH, info::DELETE, 710, &[1, 1], delete));
    assert_eq!(pages.get(main_page(1))[8188], 0x02, "the hint goes");

    let blocks = vec![reference(0, main_page(META), &[])];
    pages.run(&record(HASH, info::UPDATE_META_PAGE, 720, &77f64.to_le_bytes(), blocks));
    let vacuum = bytes(&[&[1, 2, 3, 4], &2u16.to_le_bytes(), &[0, 0], &[1, 0, 3, 0]]);
    let blocks = vec![reference(0, main_page(1), &[]), reference(1, main_page(META), &[])];
    pages.run(&record(HASH, info::VACUUM_ONE_PAGE, 800, &vacuum, blocks));
    assert_eq!((items(pages.get(main_page(1))), tuples(&pages)), (vec![3], 75.0));
}

#[test]
fn records_that_do_not_fit_are_refused() {
    let fault = |info: u8, main: &[u8], block: DecodedBlock| {
        let id = block.id;
        let page = PageId { rel: block.rel, block: block.block };
        let mut target = *with([(1, bucket(&[1])), (META, *index().get(main_page(META)))]).get(page);
        let record = record(HASH, info, 900, main, vec![block, reference(id ^ 7, main_page(7), &[])]);
        let change = crate::change::encode_record(&record, &record.blocks[0], Keep::ALL);
        crate::apply(&mut target, page, record.end_lsn, &change).unwrap_err().fault
    };
    let many = moved(&[(1, 2), (2, 3)]);
    let told = fault(info::MOVE_PAGE_CONTENTS, &[1, 0, 0], reference(1, main_page(1), &many));
    assert!(matches!(told, Fault::Mismatch(_)), "{told}");
    let told = fault(info::MOVE_PAGE_CONTENTS, &[3, 0, 0], reference(1, main_page(1), &many));
    assert!(matches!(told, Fault::Mismatch(_)), "{told}");
    let told = fault(info::VACUUM_ONE_PAGE, &[0, 0, 0, 0, 9, 0, 0, 0, 1, 0], reference(0, main_page(1), &[]));
    assert_eq!(told, Fault::Short { what: "items to delete" });
    let told = fault(info::INSERT, &[1, 0], reference(1, main_page(1), &[]));
    assert_eq!(told, Fault::Mismatch("the page is not a hash index's metapage"));
    let told =
        fault(info::SQUEEZE_PAGE, &squeeze_main(0, false, false), reference(5, main_page(1), &[0xff; 4]));
    assert_eq!(told, Fault::Mismatch("a bit lies beyond the bitmap"));
    let far_splitpoint = bytes(&[&98u32.to_le_bytes(), &[0; 4]]);
    let told = fault(
        info::SPLIT_ALLOCATE_PAGE,
        &[0, 0, 0, 0, 0, 0, 0, 0, 2],
        reference(2, main_page(META), &far_splitpoint),
    );
    assert_eq!(told, Fault::Mismatch("a splitpoint that no hash index has"));
    let told = fault(info::INIT_BITMAP_PAGE, &8153u16.to_le_bytes(), init_reference(0, main_page(9), &[]));
    assert_eq!(told, Fault::Mismatch("a bitmap is larger than a page"));
    let told = fault(info::INIT_META_PAGE, &[0; 14], init_reference(0, main_page(9), &[]));
    assert_eq!(told, Fault::Mismatch("a hash index with no tuples in a bucket"));
    let told = fault(info::INIT_META_PAGE, &[0; 14], reference(0, main_page(1), &[]));
    assert!(told.to_string().contains("disagree"), "{told}");
    let unknown = effect_error(&record(HASH, 0xD0, 900, &[], vec![]));
    assert!(matches!(unknown, EffectError::Unknown { .. }));
    let missing =
        effect_error(&record(HASH, info::SQUEEZE_PAGE, 900, &[], vec![reference(2, main_page(1), &[])]));
    assert!(missing.to_string().contains("missing"), "{missing}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_record_makes_it_panic(
        kind in 0u8..15,
        main in proptest::collection::vec(prop_oneof![3 => 0u8..5, 1 => any::<u8>()], 0..24),
        data in proptest::collection::vec(prop_oneof![3 => 0u8..18, 1 => any::<u8>()], 0..80),
        id in 0u8..8,
        is_meta in any::<bool>(),
        will_init in any::<bool>(),
        rubbish in proptest::option::of((0usize..8150, proptest::collection::vec(any::<u8>(), 40))),
    ) {
        let page_id = main_page(u32::from(!is_meta));
        let mut page = if is_meta { *index().get(main_page(META)) } else { bucket(&[1, 2, 3]) };
        if let Some((at, bytes)) = rubbish {
            page[at..at + 40].copy_from_slice(&bytes);
        }
        let mut block = reference(id, page_id, &data);
        block.will_init = will_init;
        let record = record(HASH, kind << 4, 900, &main, vec![block, reference(id ^ 1, main_page(7), &[])]);
        let _ = crate::effects(&record);
        let change = crate::change::encode_record(&record, &record.blocks[0], Keep::ALL);
        let _ = crate::apply(&mut page, page_id, record.end_lsn, &change);
    }
}
