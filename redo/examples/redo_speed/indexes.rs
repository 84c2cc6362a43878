//! The workloads of the index types: tuples that come to one page, the commonest record of each.

use bytes::Bytes;
use strata_common::{BLOCK_BYTES, BlockNumber};
use strata_pgwal::{DecodedBlock, DecodedRecord, rmgr};
use strata_redo::{Page, page};

use crate::workloads::{Work, Workload, record, relation};

/// Fills a leaf with tuples of an integer key, each into the middle: half of the line pointers move every time.
fn leaf_inserts() -> Vec<DecodedRecord> {
    let tuple = [0, 0, 7, 0, 1, 0, 16, 0, 42, 0, 0, 0, 0, 0, 0, 0];
    let insert = |count: usize| {
        record(rmgr::BTREE, 0x00, 4000 + 8 * count as u64, &((count / 2 + 1) as u16).to_le_bytes(), &tuple)
    };
    let empty_root = record(rmgr::BTREE, 0xA0, 3992, &[0; 8], &[]);
    let count = (BLOCK_BYTES - 24 - 16) / (4 + tuple.len());
    std::iter::once(empty_root).chain((0..count).map(insert)).collect()
}

/// An empty page of an index: bytes of special space and what its last bytes say (page id or flags).
fn index_page(special_bytes: usize, last: [u8; 4]) -> Page {
    let mut page = [0; BLOCK_BYTES];
    page::init(&mut page, special_bytes);
    page[BLOCK_BYTES - 4..].copy_from_slice(&last);
    page
}

/// An index tuple of 16 bytes.
const TUPLE: [u8; 16] = [0, 0, 7, 0, 1, 0, 16, 0, 42, 0, 0, 0, 0, 0, 0, 0];

/// `count` insertions into a page: `main` and the data before the tuple follow from the number of tuples on the page.
fn index_inserts(
    rmid: u8,
    info: u8,
    count: usize,
    parts: impl Fn(u16) -> (Vec<u8>, Vec<u8>),
) -> Vec<DecodedRecord> {
    let insert = |number: usize| {
        let (main, mut data) = parts(number as u16);
        data.extend(TUPLE);
        record(rmid, info, 5000 + 8 * number as u64, &main, &data)
    };
    (0..count).map(insert).collect()
}

/// A leaf of a posting tree with twenty lists of 200 rows, then rows that come to the last one by one.
fn posting_list_growth() -> (Page, Vec<DecodedRecord>) {
    // DATA, LEAF, COMPRESSED; the lists begin behind the right bound.
    let mut leaf = index_page(8, [0, 0, 0x83, 0]);
    let mut lower = 32;
    for block in 0..20_u8 {
        let mut list = vec![0, 0, block, 0, 1, 0, 200, 0];
        list.extend([1; 200]);
        leaf[lower..lower + list.len()].copy_from_slice(&list);
        lower += list.len();
    }
    page::set_lower(&mut leaf, lower as u16);
    let add = |number: u16| {
        let mut data = vec![1, 0, 19, 4, 1, 0, 0, 0, 20, 0];
        data.extend((number + 1).to_le_bytes());
        record(rmgr::GIN, 0x20, 6000 + 8 * u64::from(number), &[3, 0], &data)
    };
    (leaf, (0..100).map(add).collect())
}

/// Leaf tuples that are added to a chain, each behind its head: it is written to the page and linked to the head.
fn trie_leaves() -> (Page, Vec<DecodedRecord>) {
    // LEAF; the head of the chain is tuple 1.
    let mut page = index_page(8, [0, 0, 0x82, 0xff]);
    page[BLOCK_BYTES - 8] = 4;
    // Live, 16 bytes; no next tuple; a row; the value.
    let leaf = [16 << 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 1, 0, 42, 0, 0, 0];
    page::add_item(&mut page, &leaf, page::AddItem::IndexBefore(1)).expect("an empty page has room");
    let add = |number: u16| {
        // No new page, no nulls; the leaf's number, the head's; no parent.
        let mut main = vec![0, 0];
        main.extend([number + 2, 1, 0, 0].map(u16::to_le_bytes).concat());
        main.extend(leaf);
        record(rmgr::SPGIST, 0x10, 6500 + 8 * u64::from(number), &main, &[])
    };
    (page, (0..300).map(add).collect())
}

/// Inserts into a hash bucket; the metapage counts each tuple.
fn hash_inserts() -> Vec<DecodedRecord> {
    let mut inserts = index_inserts(rmgr::HASH, 0x20, 300, |number| (middle(number), Vec::new()));
    for insert in &mut inserts {
        let metapage = DecodedBlock {
            id: 1,
            block: BlockNumber(0),
            data: Bytes::new(),
            has_data: false,
            ..insert.blocks[0].clone()
        };
        insert.blocks.push(metapage);
    }
    inserts
}

/// The number in the middle of so many tuples.
fn middle(number: u16) -> Vec<u8> {
    (number / 2 + 1).to_le_bytes().to_vec()
}

pub fn all() -> Vec<Workload> {
    let entry = |number: u16| (vec![2, 0], [&middle(number)[..], &[0, 0]].concat());
    let one_more = |_: u16| (vec![0, 0, 1, 0], Vec::new());
    let same_page = |_: u16| (vec![1, 0], Vec::new());
    let (posting_leaf, growth) = posting_list_growth();
    let (trie_page, trie_leaves) = trie_leaves();
    let mut range = index_page(8, [0, 0, 0x93, 0xf0]);
    page::add_item(&mut range, &TUPLE, page::AddItem::IndexBefore(1)).expect("an empty page has room");
    let of = |id, what, page: Page, records: &[DecodedRecord]| -> Workload {
        let work: Work = relation(page, records);
        Workload { id, what, work }
    };
    vec![
        of("btree_insert", "btree leaf inserts", [0; BLOCK_BYTES], &leaf_inserts()),
        of("hash_insert", "hash inserts", index_page(16, [2, 0, 0x80, 0xff]), &hash_inserts()),
        of(
            "gin_entry",
            "GIN entries",
            index_page(8, [0, 0, 2, 0]),
            &index_inserts(rmgr::GIN, 0x20, 300, entry),
        ),
        of("gin_posting_list", "rows added to GIN posting lists", posting_leaf, &growth),
        of(
            "gist_insert",
            "GiST inserts",
            index_page(16, [1, 0, 0x81, 0xff]),
            &index_inserts(rmgr::GIST, 0x00, 300, one_more),
        ),
        of("spgist_leaf", "SP-GiST leaf tuples", trie_page, &trie_leaves),
        of("brin_update", "BRIN updates in place", range, &index_inserts(rmgr::BRIN, 0x30, 300, same_page)),
    ]
}
