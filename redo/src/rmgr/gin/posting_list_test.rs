//! The encoding of posting lists byte by byte, and that what is packed is unpacked.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::posting_list::{Row, decode, encode, merge, take_first, with_rows};
use crate::error::Fault;

/// A row identifier: block number, high half first, and offset number.
pub fn tid(block: u32, offset: u16) -> [u8; 6] {
    let mut tid = [0; 6];
    tid[..2].copy_from_slice(&((block >> 16) as u16).to_le_bytes());
    tid[2..4].copy_from_slice(&(block as u16).to_le_bytes());
    tid[4..].copy_from_slice(&offset.to_le_bytes());
    tid
}

fn row(block: u32, offset: u16) -> Row {
    Row::parse(&tid(block, offset)).unwrap()
}

#[test]
fn a_list_is_as_postgres_writes_it() {
    let one = encode(&[row(0x0001_0002, 3)]).unwrap();
    assert_eq!(one, [1, 0, 2, 0, 3, 0, 0, 0]);
    // Distances 1, 2047 (the next block's row 1 after row 2), 2^11 and 127.
    let rows = [row(0, 1), row(0, 2), row(1, 1), row(2, 1), row(2, 128)];
    let expected = [0, 0, 0, 0, 1, 0, 6, 0, 0x01, 0xff, 0x0f, 0x80, 0x10, 0x7f];
    assert_eq!(encode(&rows).unwrap(), expected);
    assert_eq!(decode(&expected).unwrap(), rows);
    // An odd number of bytes is padded with a zero that does not count; the widest distance takes seven bytes.
    let widest = [row(0, 0), row(u32::MAX, 2047)];
    let expected = [0, 0, 0, 0, 0, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0];
    assert_eq!(encode(&widest).unwrap(), expected);
    assert_eq!(decode(&expected).unwrap(), widest);
}

#[test]
fn lists_follow_each_other_with_their_padding() {
    let lists = [encode(&[row(0, 1), row(0, 2)]).unwrap(), encode(&[row(5, 5)]).unwrap()];
    let bytes = lists.concat();
    let mut rest = &bytes[..];
    assert_eq!(take_first(&mut rest).unwrap(), lists[0]);
    assert_eq!(take_first(&mut rest).unwrap(), lists[1]);
    assert!(rest.is_empty());
    let mut short = &bytes[..lists[0].len() - 1];
    assert_eq!(take_first(&mut short), Err(Fault::Short { what: "a posting list" }));
}

#[test]
fn what_is_no_list_is_refused() {
    assert!(Row::parse(&tid(0, 2048)).is_err(), "offset number of twelve bits");
    assert!(decode(&[0, 0, 0, 0, 1, 0, 2, 0, 0x80, 0x80]).is_err(), "a distance without end");
    assert!(
        decode(&[0, 0, 0, 0, 1, 0, 8, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]).is_err(),
        "eight bytes"
    );
    assert!(decode(&[255, 255, 255, 255, 255, 7, 1, 0, 1, 0]).is_err(), "beyond the last row");
    assert!(decode(&[0, 0, 0, 0, 1, 0, 4, 0, 1]).is_err(), "cut off");
    assert!(encode(&[]).is_err(), "no rows");
    assert!(encode(&[row(0, 2), row(0, 1)]).is_err(), "rows that do not ascend");
    let sparse: Vec<Row> = (0..4000).map(|block| row(block, 1)).collect();
    assert!(encode(&sparse[..4000]).is_ok(), "two bytes each");
    let wide: Vec<Row> = (0..4000).map(|block| row(block << 12, 1)).collect();
    assert!(matches!(encode(&wide), Err(Fault::ItemLengths { .. })), "more than a page");
}

fn rows(count_max: usize) -> impl Strategy<Value = BTreeSet<(u32, u16)>> {
    let block = prop_oneof![0u32..20, any::<u32>()];
    prop::collection::btree_set((block, 1u16..2048), 1..count_max)
}

fn of(set: &BTreeSet<(u32, u16)>) -> Vec<Row> {
    set.iter().map(|&(block, offset)| row(block, offset)).collect()
}

proptest! {
    #[test]
    fn packing_and_unpacking_round_trip(set in rows(300)) {
        let list = encode(&of(&set)).unwrap();
        prop_assert_eq!(list.len() % 2, 0);
        prop_assert_eq!(take_first(&mut &list[..]).unwrap().len(), list.len());
        prop_assert_eq!(decode(&list).unwrap(), of(&set));
    }

    #[test]
    fn merging_is_the_union(a in rows(60), b in rows(60)) {
        let union: BTreeSet<_> = a.union(&b).copied().collect();
        prop_assert_eq!(merge(&of(&a), &of(&b)), of(&union));
        prop_assert_eq!(merge(&of(&a), &[]), of(&a));
    }

    /// Adding rows to a list is the same as unpacking, merging and packing, whatever the list's bytes are: distances of zero, longer
    /// than packing makes them, without end.
    #[test]
    fn added_rows_are_merged(
        first in (0u32..3, 1u16..2048),
        distances in prop::collection::vec(
            prop_oneof![20 => 1u8..0x80, 1 => Just(0u8), 1 => Just(0x80u8), 2 => 0x81u8..=0xff],
            0..80,
        ),
        added in prop::collection::btree_set((0u32..6, 1u16..2048), 0..8),
        ends_well: bool,
    ) {
        let mut list = tid(first.0, first.1).to_vec();
        list.extend((distances.len() as u16).to_le_bytes());
        list.extend(&distances);
        if ends_well && let Some(last) = list[8..].last_mut() {
            *last &= 0x7f;
        }
        let expected = decode(&list).and_then(|rows| encode(&merge(&of(&added), &rows)));
        prop_assert_eq!(with_rows(&list, &of(&added)).ok(), expected.ok());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = take_first(&mut &bytes[..]);
        if let Ok(rows) = decode(&bytes) {
            let _ = encode(&rows);
        }
    }
}
