//! Btree redo on hand-built pages: branches that no workload reaches, refusals, and that no bytes make it panic.
//!
//! What a running Postgres can produce is compared with it page by page elsewhere (regress/redo-oracle).

use bytes::Bytes;
use proptest::prelude::*;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelTag};
use strata_pgwal::{DecodedBlock, DecodedRecord, rmgr};

use super::opaque::{self, Opaque, flag};
use super::tuple::{self, TID_BYTES};
use super::{append, info, item};
use crate::change::{Keep, encode_record};
use crate::effect::PageId;
use crate::error::{Fault, RedoError};
use crate::{Page, apply, page};

const END: Lsn = Lsn(0x0100_0200);
const REL: RelTag = RelTag { tablespace: 1663, database: 5, relation: 16384 };

/// A record whose reference `id` names block `10 + id`.
fn record(info: u8, main: &[u8], references: &[(u8, &[u8])]) -> DecodedRecord {
    let block = |&(id, data): &(u8, &[u8])| DecodedBlock {
        id,
        rel: REL.fork(ForkNumber::Main),
        block: BlockNumber(10 + u32::from(id)),
        will_init: false,
        image: None,
        data: Bytes::copy_from_slice(data),
        has_data: !data.is_empty(),
    };
    DecodedRecord {
        lsn: Lsn(0x0100_0000),
        end_lsn: END,
        prev: Lsn(0x00ff_ff00),
        xid: 700,
        rmid: rmgr::BTREE,
        info,
        origin: None,
        toplevel_xid: None,
        main_data: Bytes::copy_from_slice(main),
        blocks: references.iter().map(block).collect(),
    }
}

/// Applies a record's share in the page of reference `id`.
fn redo(record: &DecodedRecord, id: u8, target: &mut Page) -> Result<(), RedoError> {
    let block = record.block(id).expect("the record has the reference");
    let change = encode_record(record, block, Keep::ALL);
    apply(target, PageId { rel: block.rel, block: block.block }, END, &change)
}

fn page_of(opaque: Opaque, tuples: &[Vec<u8>]) -> Page {
    let mut target = [0; BLOCK_BYTES];
    opaque::init(&mut target, opaque);
    for tuple in tuples {
        append(&mut target, tuple).expect("the tuples fit");
    }
    target
}

fn leaf(next: u32, tuples: &[Vec<u8>]) -> Page {
    page_of(Opaque { prev: 0, next, level: 0, flags: flag::LEAF }, tuples)
}

fn tid(block: u16, offset: u16) -> [u8; TID_BYTES] {
    let mut tid = [0; TID_BYTES];
    tid[2..4].copy_from_slice(&block.to_le_bytes());
    tid[4..6].copy_from_slice(&offset.to_le_bytes());
    tid
}

/// A leaf tuple of 16 bytes, or with a posting list if there is more than one identifier.
fn tuple_of(key: u8, tids: &[[u8; TID_BYTES]]) -> Vec<u8> {
    let mut base = vec![0; 16];
    base[6..8].copy_from_slice(&16_u16.to_le_bytes());
    base[8..16].fill(key);
    tuple::form(&base, &tids.concat()).expect("the tuple fits")
}

fn items(target: &Page) -> Vec<Vec<u8>> {
    (1..=page::item_count(target)).map(|number| item(target, number).expect("an item").to_vec()).collect()
}

#[test]
fn dedup_of_a_page_with_garbage_merges_and_clears_the_flag() {
    let tuples = [
        tuple_of(1, &[tid(1, 1)]),
        tuple_of(1, &[tid(1, 2), tid(1, 3)]),
        tuple_of(2, &[tid(2, 1)]),
        tuple_of(3, &[tid(3, 1)]),
        tuple_of(3, &[tid(3, 2)]),
    ];
    let mut target = leaf(opaque::NO_BLOCK, &tuples);
    opaque::set_flags(&mut target, flag::LEAF | flag::HAS_GARBAGE);
    let dedup = record(info::DEDUP, &[2, 0], &[(0, &[1, 0, 2, 0, 4, 0, 2, 0])]);
    redo(&dedup, 0, &mut target).expect("redo");
    assert_eq!(opaque::flags(&target), flag::LEAF);
    assert_eq!(page::lsn(&target), END);
    let merged = [
        tuple_of(1, &[tid(1, 1), tid(1, 2), tid(1, 3)]),
        tuple_of(2, &[tid(2, 1)]),
        tuple_of(3, &[tid(3, 1), tid(3, 2)]),
    ];
    assert_eq!(items(&target), merged);
}

#[test]
fn dedup_keeps_the_high_key_and_refuses_intervals_that_do_not_fit() {
    let high_key = tuple_of(9, &[tid(9, 9)]);
    let tuples = [high_key.clone(), tuple_of(1, &[tid(1, 1)]), tuple_of(1, &[tid(1, 2)])];
    let dedup = |interval: [u8; 4]| record(info::DEDUP, &[1, 0], &[(0, &interval)]);
    let mut target = leaf(77, &tuples);
    redo(&dedup([2, 0, 2, 0]), 0, &mut target).expect("redo");
    assert_eq!(items(&target), [high_key, tuple_of(1, &[tid(1, 1), tid(1, 2)])]);
    let elsewhere = redo(&dedup([7, 0, 2, 0]), 0, &mut leaf(77, &tuples));
    assert!(matches!(elsewhere, Err(RedoError { fault: Fault::Mismatch(_), .. })), "{elsewhere:?}");
}

#[test]
fn a_row_inside_a_posting_list_swaps_places_with_its_last() {
    let list = tuple_of(1, &[tid(1, 1), tid(1, 5), tid(1, 9)]);
    let mut target = leaf(opaque::NO_BLOCK, &[list, tuple_of(2, &[tid(2, 1)])]);
    let mut data = vec![1, 0];
    data.extend(tuple_of(1, &[tid(1, 3)]));
    redo(&record(info::INSERT_POST, &[2, 0], &[(0, &data)]), 0, &mut target).expect("redo");
    let expected = [
        tuple_of(1, &[tid(1, 1), tid(1, 3), tid(1, 5)]),
        tuple_of(1, &[tid(1, 9)]),
        tuple_of(2, &[tid(2, 1)]),
    ];
    assert_eq!(items(&target), expected);
    data[0] = 3;
    let beyond = redo(&record(info::INSERT_POST, &[2, 0], &[(0, &data)]), 0, &mut leaf(0, &expected));
    assert!(beyond.is_err(), "a place behind the list's end");
}

/// The new item is the right half's first; its list, before it, is the left half's last.
#[test]
fn a_split_between_a_posting_list_and_the_new_item_changes_the_list() {
    let list = tuple_of(1, &[tid(1, 1), tid(1, 5), tid(1, 9)]);
    let mut target = leaf(33, &[tuple_of(9, &[tid(9, 9)]), list, tuple_of(2, &[tid(2, 1)])]);
    let high_key = tuple_of(2, &[tid(0, 1)]);
    let data = [tuple_of(1, &[tid(1, 3)]), high_key.clone()].concat();
    // Level 0, first right item 3, new item 3, place 1 in the list.
    let main = [0, 0, 0, 0, 3, 0, 3, 0, 1, 0];
    let right = [tuple_of(2, &[tid(2, 1)]), tuple_of(1, &[tid(1, 9)]), tuple_of(9, &[tid(9, 9)])].concat();
    let split = record(info::SPLIT_R, &main, &[(0, &data), (1, &right), (2, &[])]);
    redo(&split, 0, &mut target).expect("redo");
    assert_eq!(items(&target), [high_key, tuple_of(1, &[tid(1, 1), tid(1, 3), tid(1, 5)])]);
    assert_eq!(opaque::flags(&target), flag::LEAF | flag::INCOMPLETE_SPLIT);
    assert_eq!(target[BLOCK_BYTES - 12..BLOCK_BYTES - 8], 11_u32.to_le_bytes(), "right link");

    let mut new_page = [0; BLOCK_BYTES];
    let mut split = split;
    split.blocks[1].will_init = true;
    redo(&split, 1, &mut new_page).expect("redo");
    let expected = [tuple_of(9, &[tid(9, 9)]), tuple_of(1, &[tid(1, 9)]), tuple_of(2, &[tid(2, 1)])];
    assert_eq!(items(&new_page), expected, "the last item comes first in the record");
    assert_eq!(new_page[BLOCK_BYTES - 16..BLOCK_BYTES - 12], 10_u32.to_le_bytes(), "left link");
    assert_eq!(new_page[BLOCK_BYTES - 12..BLOCK_BYTES - 8], 12_u32.to_le_bytes(), "right link");
}

#[test]
fn deletion_takes_parts_of_lists_first_and_whole_tuples_then() {
    let tuples = [
        tuple_of(1, &[tid(1, 1), tid(1, 2), tid(1, 3)]),
        tuple_of(2, &[tid(2, 1)]),
        tuple_of(3, &[tid(3, 1), tid(3, 2)]),
    ];
    // One deleted (item 2), two updated (1: places 0 and 2, 3: place 0).
    let data = [2, 0, 1, 0, 3, 0, 2, 0, 0, 0, 2, 0, 1, 0, 0, 0];
    let expected = [tuple_of(1, &[tid(1, 2)]), tuple_of(3, &[tid(3, 2)])];
    for (info, main) in [(info::VACUUM, &[1, 0, 2, 0][..]), (info::DELETE, &[9, 0, 0, 0, 1, 0, 2, 0, 0])] {
        let mut target = leaf(opaque::NO_BLOCK, &tuples);
        opaque::set_flags(&mut target, flag::LEAF | flag::HAS_GARBAGE);
        redo(&record(info, main, &[(0, &data)]), 0, &mut target).expect("redo");
        assert_eq!(items(&target), expected);
        assert_eq!(opaque::flags(&target), flag::LEAF);
    }
    let all = [1, 0, 2, 0, 0, 0, 1, 0];
    let emptied = record(info::VACUUM, &[0, 0, 1, 0], &[(0, &[&[3, 0][..], &all[2..4], &all[4..]].concat())]);
    assert!(redo(&emptied, 0, &mut leaf(0, &tuples)).is_err(), "a list that loses everything is no update");
}

#[test]
fn metapage_is_made_from_the_record() {
    let metadata: Vec<u8> = [4_u32, 3, 1, 3, 1, 8, 1].iter().flat_map(|field| field.to_le_bytes()).collect();
    let mut cleanup = record(info::META_CLEANUP, &[], &[(0, &metadata)]);
    cleanup.blocks[0].will_init = true;
    let mut target = [0xaa; BLOCK_BYTES];
    redo(&cleanup, 0, &mut target).expect("redo");
    assert_eq!(target[24..28], 0x0005_3162_u32.to_le_bytes());
    assert_eq!(target[28..52], metadata[..24]);
    assert_eq!(target[56..64], (-1.0_f64).to_le_bytes());
    assert_eq!(target[64], 1);
    assert_eq!((page::lower(&target), opaque::flags(&target)), (72, flag::META));
    cleanup.blocks[0].data = Bytes::from_static(&[1; 27]);
    assert!(redo(&cleanup, 0, &mut target).is_err(), "short metadata");
}

#[test]
fn references_that_a_record_type_does_not_have_are_refused() {
    for (info, id) in
        [(info::INSERT_LEAF, 1), (info::DEDUP, 1), (info::UNLINK_PAGE, 4), (info::REUSE_PAGE, 0)]
    {
        let strange = record(info, &[0; 32], &[(id, &[])]);
        let refused = redo(&strange, id, &mut leaf(0, &[]));
        assert!(matches!(refused, Err(RedoError { fault: Fault::Unknown, .. })), "{info:#x} {id}");
    }
}

proptest! {
    /// Pages with sound pointers and rubbish items, records of every type with rubbish inside.
    #[test]
    fn no_bytes_make_redo_panic(
        rubbish in prop::collection::vec(any::<u8>(), 1..600),
        info in (0..16_u8).prop_map(|info| info << 4),
        id in 0..5_u8,
        main in prop::collection::vec(0..12_u8, 0..40),
        data in prop::collection::vec(prop_oneof![0..12_u8, any::<u8>()], 0..200),
        item_count in 0..500_u16,
        will_init: bool,
    ) {
        let mut target = [0; BLOCK_BYTES];
        for (at, byte) in target.iter_mut().enumerate() {
            *byte = rubbish[at % rubbish.len()];
        }
        let mut record = record(info, &main, &[(id, &data)]);
        record.blocks[0].will_init = will_init;
        let mut raw = target;
        let _ = redo(&record, id, &mut raw);
        let sound = leaf(u32::from(rubbish[0]), &[]);
        target[..24].copy_from_slice(&sound[..24]);
        page::set_lower(&mut target, (24 + item_count * 4).min(8176));
        page::set_upper(&mut target, (24 + item_count * 4).min(8176));
        let _ = redo(&record, id, &mut target);
    }

    /// The same with tuples that are almost right.
    #[test]
    fn no_record_makes_redo_of_a_sound_page_panic(
        keys in prop::collection::vec((any::<u8>(), 1..5_usize), 0..40),
        info in (0..16_u8).prop_map(|info| info << 4),
        id in 0..5_u8,
        main in prop::collection::vec(0..6_u8, 0..40),
        data in prop::collection::vec(0..20_u8, 0..120),
        damage in prop::collection::vec((0..BLOCK_BYTES, any::<u8>()), 0..4),
    ) {
        let tids = [tid(1, 1), tid(1, 2), tid(1, 3), tid(1, 4)];
        let tuples: Vec<_> = keys.iter().map(|&(key, count)| tuple_of(key, &tids[..count])).collect();
        let mut target = leaf(3, &tuples);
        page::set_lsn(&mut target, Lsn(1));
        for (at, byte) in damage {
            target[at] = byte;
        }
        let _ = redo(&record(info, &main, &[(id, &data)]), id, &mut target);
    }
}
