//! GIN redo on hand-built pages: what no running Postgres produces (pages of versions before 9.4), refusals, and that no bytes
//! make it panic. What one does produce is compared with it page by page elsewhere (regress/redo-oracle).

use proptest::prelude::*;
use strata_common::{BLOCK_BYTES, Lsn};
use strata_pgwal::{DecodedBlock, DecodedRecord, rmgr};

use super::opaque::{self, NO_BLOCK, flag};
use super::posting_list::{self, Row};
use super::posting_list_test::tid;
use super::{data_page, index_tuple, info};
use crate::change::{Keep, encode_record};
use crate::error::{EffectError, Fault};
use crate::testing::{Pages, effect_error, image_reference, init_reference, main_page, reference};
use crate::{Page, apply, page};

const END: u64 = 0x0100_0200;

fn record(info: u8, main: &[u8], blocks: Vec<DecodedBlock>) -> DecodedRecord {
    crate::testing::record(rmgr::GIN, info, END, main, blocks)
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

/// A posting list of rows of block 1.
fn list(offsets: &[u16]) -> Vec<u8> {
    let rows: Vec<Row> = offsets.iter().map(|&offset| Row::parse(&tid(1, offset)).unwrap()).collect();
    posting_list::encode(&rows).unwrap()
}

fn leaf(lists: &[Vec<u8>]) -> Page {
    let lists = lists.concat();
    let mut page = [0; BLOCK_BYTES];
    let main = [&(lists.len() as u32).to_le_bytes()[..], &lists].concat();
    data_page::create(&mut page, &main).unwrap();
    page
}

/// The lists of a leaf.
fn lists(page: &Page) -> Vec<Vec<u8>> {
    let mut rest = &page[32..usize::from(page::lower(page))];
    let mut lists = Vec::new();
    while !rest.is_empty() {
        lists.push(posting_list::take_first(&mut rest).unwrap().to_vec());
    }
    lists
}

/// Vacuum of a leaf, with these actions: number of the list, kind, and what belongs to it.
fn vacuum(actions: &[(u8, u8, &[u8])]) -> DecodedRecord {
    let mut data = (actions.len() as u16).to_le_bytes().to_vec();
    for (number, kind, content) in actions {
        data.extend([*number, *kind]);
        data.extend(*content);
    }
    record(info::VACUUM_DATA_LEAF_PAGE, &[], vec![reference(0, main_page(7), &data)])
}

#[test]
fn lists_of_a_leaf_go_come_change_and_grow() {
    let before = leaf(&[list(&[1, 2]), list(&[10, 20]), list(&[30]), list(&[40, 50])]);
    let added = [&2_u16.to_le_bytes()[..], &tid(1, 15), &tid(1, 25)].concat();
    let actions = [
        (0, 1, &[][..]),
        (1, 4, &added),
        (2, 2, &list(&[27])),
        (2, 3, &list(&[33, 34])),
        (4, 2, &list(&[60])),
    ];
    let after = redone(&before, &vacuum(&actions), 0).unwrap();
    let expected = [list(&[10, 15, 20, 25]), list(&[27]), list(&[33, 34]), list(&[40, 50]), list(&[60])];
    assert_eq!(lists(&after), expected);
    let insert =
        record(info::INSERT, &[3, 0], vec![reference(0, main_page(7), &vacuum(&actions).blocks[0].data)]);
    assert_eq!(redone(&before, &insert, 0), Ok(after), "an insertion into a leaf is recorded alike");
    let emptied = redone(&before, &vacuum(&[(0, 1, &[]), (1, 1, &[]), (2, 1, &[]), (3, 1, &[])]), 0).unwrap();
    assert_eq!(page::lower(&emptied), 32);
}

#[test]
fn actions_that_do_not_fit_the_leaf_are_refused() {
    let before = leaf(&[list(&[1, 2]), list(&[10, 20])]);
    let one_row = [&1_u16.to_le_bytes()[..], &tid(1, 5)].concat();
    let full = [&tid(1, 1)[..], &8000_u16.to_le_bytes(), &[1; 8000]].concat();
    for (actions, why) in [
        (vec![(2, 1, &[][..])], "a list that is not there goes"),
        (vec![(2, 4, &one_row)], "a list that is not there grows"),
        (vec![(3, 2, &one_row)], "beyond the end"),
        (vec![(1, 1, &[]), (0, 1, &[])], "out of order"),
        (vec![(0, 9, &[])], "unknown action"),
        (vec![(0, 2, &[1, 0])], "a list that is cut off"),
        (vec![(0, 4, &one_row[..7])], "rows that are cut off"),
        (vec![(0, 2, &full), (0, 2, &full)], "more than a page"),
        (vec![(0, 2, &full), (0, 2, &list(&[1; 140]))], "the rest no longer fits"),
    ] {
        assert!(redone(&before, &vacuum(&actions), 0).is_err(), "{why}");
    }
    let mut internal = before;
    opaque::clear_flags(&mut internal, flag::LEAF);
    assert!(redone(&internal, &vacuum(&[]), 0).is_err(), "not a leaf");
    let mut heap = [0; BLOCK_BYTES];
    page::init(&mut heap, 0);
    assert!(redone(&heap, &vacuum(&[]), 0).is_err(), "not a GIN page");
}

/// Leaves of versions before 9.4 keep row identifiers as they are, and `pd_lower` says nothing.
#[test]
fn a_leaf_of_the_old_form_is_packed_first() {
    let mut old = [0; BLOCK_BYTES];
    opaque::init(&mut old, flag::DATA | flag::LEAF);
    for (place, offset) in [3, 4, 9].into_iter().enumerate() {
        old[32 + 6 * place..38 + 6 * place].copy_from_slice(&tid(1, offset));
    }
    opaque::set_max_off(&mut old, 3);
    let added = [&1_u16.to_le_bytes()[..], &tid(1, 5)].concat();
    let after = redone(&old, &vacuum(&[(0, 4, &added)]), 0).unwrap();
    assert_eq!(lists(&after), [list(&[3, 4, 5, 9])]);
    assert_eq!(opaque::flags(&after), flag::DATA | flag::LEAF | flag::COMPRESSED);
    assert_eq!(opaque::max_off(&after), 0);

    // The first and the last leaf of a tree are never deleted, empty or not.
    opaque::set_max_off(&mut old, 0);
    let after = redone(&old, &vacuum(&[(0, 2, &list(&[8]))]), 0).unwrap();
    assert_eq!(lists(&after), [list(&[8])]);
    opaque::set_max_off(&mut old, 1360);
    assert!(redone(&old, &vacuum(&[]), 0).is_err(), "more rows than a page holds");
}

#[test]
fn a_posting_tree_begins_with_the_records_lists() {
    let both = [list(&[1, 2]), list(&[7])].concat();
    let main = [&(both.len() as u32).to_le_bytes()[..], &both].concat();
    let create = record(info::CREATE_PTREE, &main, vec![init_reference(0, main_page(3), &[])]);
    let mut pages = Pages::default();
    pages.run(&create);
    assert_eq!(lists(pages.get(main_page(3))), [list(&[1, 2]), list(&[7])]);
    let mut cut = create;
    cut.main_data.truncate(main.len() - 1);
    assert_eq!(
        redone(&[0; BLOCK_BYTES], &cut, 0),
        Err(Fault::Short { what: "ginxlogCreatePostingTree" }),
        "lists that are cut off"
    );
}

fn posting_item(child: u32, offset: u16) -> Vec<u8> {
    [&tid(child, 0)[..4], &tid(1, offset)].concat()
}

fn items(page: &Page) -> Vec<Vec<u8>> {
    page[32..usize::from(page::lower(page))].chunks(10).map(<[u8]>::to_vec).collect()
}

/// An internal page of a posting tree with children 100, 101, ….
fn internal(count: u16) -> Page {
    let mut page = [0; BLOCK_BYTES];
    opaque::init(&mut page, flag::DATA);
    for number in 0..count {
        let at = 32 + 10 * usize::from(number);
        page[at..at + 10].copy_from_slice(&posting_item(100 + u32::from(number), number));
    }
    opaque::set_max_off(&mut page, count);
    page::set_lower(&mut page, 32 + 10 * count);
    page
}

/// An insertion into an internal page that completes the split of a child into itself and `right`.
fn insert_above(flags: u8, right: u32, data: &[u8]) -> DecodedRecord {
    let main = [&[flags, 0][..], &tid(1, 0)[..4], &tid(right, 0)[..4]].concat();
    record(info::INSERT, &main, vec![reference(0, main_page(7), data), reference(1, main_page(8), &[])])
}

#[test]
fn a_split_below_makes_two_posting_items_of_one() {
    let insert = |number: u16| {
        insert_above(1, 0x0003_0004, &[&number.to_le_bytes()[..], &posting_item(101, 50)].concat())
    };
    let after = redone(&internal(3), &insert(2), 0).unwrap();
    let expected =
        [posting_item(100, 0), posting_item(101, 50), posting_item(0x0003_0004, 1), posting_item(102, 2)];
    assert_eq!(items(&after), expected);
    assert_eq!(opaque::max_off(&after), 4);
    for number in [0, 4, 9] {
        assert!(redone(&internal(3), &insert(number), 0).is_err(), "item {number} of 3");
    }
    assert!(redone(&internal(815), &insert(2), 0).is_err(), "a full page");

    let mut child = internal(1);
    opaque::add_flags(&mut child, flag::INCOMPLETE_SPLIT);
    let after = redone(&child, &insert(2), 1).unwrap();
    assert_eq!(opaque::flags(&after), flag::DATA);
}

fn delete(number: u16) -> DecodedRecord {
    let main = [&number.to_le_bytes()[..], &[0; 2], &55_u32.to_le_bytes(), &900_u32.to_le_bytes()].concat();
    let blocks = (0..3).map(|id| reference(id, main_page(20 + u32::from(id)), &[])).collect();
    record(info::DELETE_PAGE, &main, blocks)
}

#[test]
fn a_page_of_a_posting_tree_goes_with_its_links() {
    let gone = redone(&leaf(&[]), &delete(2), 0).unwrap();
    assert_eq!(opaque::flags(&gone) & flag::DELETED, flag::DELETED);
    assert_eq!(page::prune_xid(&gone), 900);
    let parent = redone(&internal(3), &delete(2), 1).unwrap();
    assert_eq!(items(&parent), [posting_item(100, 0), posting_item(102, 2)]);
    let last = redone(&internal(3), &delete(3), 1).unwrap();
    assert_eq!(items(&last), [posting_item(100, 0), posting_item(101, 1)]);
    assert!(redone(&internal(3), &delete(4), 1).is_err());
    let left = redone(&leaf(&[]), &delete(2), 2).unwrap();
    assert_eq!(left[BLOCK_BYTES - 8..BLOCK_BYTES - 4], 55_u32.to_le_bytes());
    let mut entry_page = [0; BLOCK_BYTES];
    opaque::init(&mut entry_page, flag::LEAF);
    for id in 0..3 {
        assert!(redone(&entry_page, &delete(1), id).is_err(), "reference {id}: not of a posting tree");
    }
}

/// A tuple of 16 bytes with this child or first bytes of a row identifier.
fn tuple(child: u32, content: u8) -> Vec<u8> {
    [&tid(child, 9)[..], &16_u16.to_le_bytes(), &[content; 8]].concat()
}

fn tuples(page: &Page) -> Vec<Vec<u8>> {
    (1..=page::item_count(page)).map(|n| page[page::stored_item(page, n).unwrap().range()].to_vec()).collect()
}

fn entry_page(flags: u16, contents: &[u8]) -> Page {
    let mut page = [0; BLOCK_BYTES];
    opaque::init(&mut page, flags);
    for &content in contents {
        index_tuple::append(&mut page, &tuple(200 + u32::from(content), content)).unwrap();
    }
    page
}

#[test]
fn an_entry_comes_between_others_replaces_one_or_follows_a_split() {
    let entry =
        |number: u16, replaces: u8| [&number.to_le_bytes()[..], &[replaces, 0], &tuple(7, 7)].concat();
    let leaf = entry_page(flag::LEAF, &[1, 2]);
    let into = |data: &[u8]| record(info::INSERT, &[2, 0], vec![reference(0, main_page(7), data)]);
    let after = redone(&leaf, &into(&entry(2, 0)), 0).unwrap();
    assert_eq!(tuples(&after), [tuple(201, 1), tuple(7, 7), tuple(202, 2)]);
    let after = redone(&leaf, &into(&entry(2, 1)), 0).unwrap();
    assert_eq!(tuples(&after), [tuple(201, 1), tuple(7, 7)]);
    assert!(redone(&leaf, &into(&entry(4, 0)), 0).is_err(), "a gap");
    assert!(redone(&leaf, &into(&entry(3, 1)), 0).is_err(), "no entry to replace");
    assert!(redone(&leaf, &into(&entry(1, 0)[..18]), 0).is_err(), "a tuple that is cut off");
    assert!(redone(&leaf, &into(&[&entry(1, 0)[..], &[0]].concat()), 0).is_err(), "bytes behind the tuple");

    let above = entry_page(0, &[1, 2]);
    let after = redone(&above, &insert_above(0, 0x0005_0006, &entry(2, 0)), 0).unwrap();
    let mut moved = tuple(0x0005_0006, 2);
    moved[4..6].fill(0);
    assert_eq!(tuples(&after), [tuple(201, 1), tuple(7, 7), moved]);
    assert!(redone(&leaf, &insert_above(0, 5, &entry(2, 0)), 0).is_err(), "a leaf has no children");
    assert!(redone(&above, &insert_above(0, 5, &entry(3, 0)), 0).is_err(), "no entry whose child was split");
}

fn meta_bytes() -> Vec<u8> {
    (1..=56).collect()
}

#[test]
fn the_metapage_and_the_last_pending_page_follow_the_record() {
    let update = |new_right: u32, count: u32, data: &[u8]| {
        let main = [
            &[9; 16][..],
            &meta_bytes(),
            &3_u32.to_le_bytes(),
            &new_right.to_le_bytes(),
            &count.to_le_bytes(),
        ];
        let blocks = vec![init_reference(0, main_page(0), &[]), reference(1, main_page(3), data)];
        record(info::UPDATE_META_PAGE, &main.concat(), blocks)
    };
    let mut tail = entry_page(flag::LIST | flag::LIST_FULLROW, &[1]);
    opaque::set_max_off(&mut tail, 1);
    let mut pages = Pages::with([(main_page(3), tail)]);
    pages.run(&update(NO_BLOCK, 2, &[tuple(2, 2), tuple(3, 3)].concat()));
    let meta = pages.get(main_page(0));
    assert_eq!(meta[24..80], meta_bytes());
    assert_eq!((page::lower(meta), opaque::flags(meta)), (80, flag::META));
    let grown = pages.get(main_page(3));
    assert_eq!(tuples(grown), [tuple(201, 1), tuple(2, 2), tuple(3, 3)]);
    assert_eq!(opaque::max_off(grown), 2);

    let linked = redone(&tail, &update(88, 0, &[]), 1).unwrap();
    assert_eq!(linked[BLOCK_BYTES - 8..BLOCK_BYTES - 4], 88_u32.to_le_bytes());
    assert_eq!(opaque::max_off(&linked), 1);
    assert!(redone(&tail, &update(NO_BLOCK, 3, &tuple(2, 2)), 1).is_err(), "fewer tuples than it says");
    opaque::set_max_off(&mut tail, u16::MAX);
    assert!(redone(&tail, &update(NO_BLOCK, 1, &tuple(2, 2)), 1).is_err(), "a counter at its end");
}

#[test]
fn pending_pages_are_made_and_go_at_once() {
    let make = |right: u32, count: u32| {
        let main = [right.to_le_bytes(), count.to_le_bytes()].concat();
        let data = [tuple(1, 1), tuple(2, 2)].concat();
        record(info::INSERT_LISTPAGE, &main, vec![init_reference(0, main_page(5), &data)])
    };
    let zero = [0; BLOCK_BYTES];
    let last = redone(&zero, &make(NO_BLOCK, 2), 0).unwrap();
    assert_eq!((opaque::flags(&last), opaque::max_off(&last)), (flag::LIST | flag::LIST_FULLROW, 1));
    assert_eq!(tuples(&last), [tuple(1, 1), tuple(2, 2)]);
    let first = redone(&zero, &make(6, 2), 0).unwrap();
    assert_eq!((opaque::flags(&first), opaque::max_off(&first)), (flag::LIST, 0));
    assert!(redone(&zero, &make(6, 1), 0).is_err(), "more tuples than it says");

    let main = [&meta_bytes()[..], &2_u32.to_le_bytes()].concat();
    let blocks = (0..3).map(|id| init_reference(id, main_page(u32::from(id)), &[])).collect();
    let mut pages = Pages::with([(main_page(1), last), (main_page(2), first)]);
    pages.run(&record(info::DELETE_LISTPAGE, &main, blocks));
    assert_eq!(pages.get(main_page(0))[24..80], meta_bytes());
    for block in [1, 2] {
        let gone = pages.get(main_page(block));
        assert_eq!((opaque::flags(gone), page::is_empty(gone)), (flag::DELETED, true));
    }
}

/// W16: splits and the vacuum of an entry page come as images, and only so.
#[test]
fn splits_are_images() {
    let image = |id: u8| image_reference(id, main_page(id.into()), &entry_page(flag::LEAF, &[id]), true);
    let mut child = entry_page(0, &[3]);
    opaque::add_flags(&mut child, flag::INCOMPLETE_SPLIT);
    let mut pages = Pages::with([(main_page(3), child)]);
    let mut split =
        record(info::SPLIT, &[0; 26], vec![image(0), image(1), image(2), reference(3, main_page(3), &[])]);
    pages.run(&split);
    for id in 0..3 {
        assert_eq!(tuples(pages.get(main_page(id))), [tuple(200 + id, id as u8)]);
    }
    assert_eq!(opaque::flags(pages.get(main_page(3))), 0);
    split.blocks[1] = reference(1, main_page(1), &[]);
    assert!(matches!(effect_error(&split), EffectError::Malformed { .. }));
    let vacuum = record(info::VACUUM_PAGE, &[], vec![reference(0, main_page(1), &[])]);
    assert!(matches!(effect_error(&vacuum), EffectError::Malformed { .. }));
    for unknown in [0x00, 0xA0, 0xF0] {
        assert!(matches!(effect_error(&record(unknown, &[], Vec::new())), EffectError::Unknown { .. }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Damaged pages of every kind, records of every type with rubbish inside.
    #[test]
    fn no_bytes_make_redo_panic(
        kind in 0..4_u8,
        damage in prop::collection::vec((0..BLOCK_BYTES, any::<u8>()), 0..6),
        opaque_damage in prop::option::of((0..8_usize, any::<u8>())),
        info in (0..16_u8).prop_map(|info| info << 4),
        id in 0..4_u8,
        main in prop::collection::vec(prop_oneof![4 => 0..5_u8, 1 => any::<u8>()], 0..90),
        data in prop::collection::vec(prop_oneof![4 => 0..5_u8, 1 => any::<u8>()], 0..60),
        will_init: bool,
    ) {
        let mut target = match kind {
            0 => leaf(&[list(&[1, 2, 9]), list(&[20]), list(&[30, 31])]),
            1 => internal(3),
            2 => entry_page(0, &[1, 2]),
            _ => entry_page(flag::LEAF, &[1, 2, 3]),
        };
        page::set_lsn(&mut target, Lsn(1));
        for (at, byte) in damage.into_iter().chain(opaque_damage.map(|(at, byte)| (BLOCK_BYTES - 8 + at, byte))) {
            target[at] = byte;
        }
        let blocks = (0..4)
            .map(|other| reference(other, main_page(other.into()), if other == id { &data } else { &[] }))
            .collect();
        let mut record = record(info, &main, blocks);
        record.blocks[usize::from(id)].will_init = will_init;
        let _ = crate::effects(&record);
        let change = encode_record(&record, &record.blocks[usize::from(id)], Keep::ALL);
        let _ = apply(&mut target, main_page(id.into()), Lsn(END), &change);
    }
}
