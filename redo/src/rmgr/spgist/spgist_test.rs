//! SP-GiST redo on hand-built pages: branches that no workload reaches (a parent on the page of either inner tuple, records
//! of a build, a source page that is made anew), refusals, and that no bytes make it panic.

use proptest::prelude::*;
use strata_common::Lsn;
use strata_pgwal::rmgr::SPGIST;

use super::page_ops::add_or_replace;
use super::*;
use crate::page::{item_count, stored_item};
use crate::testing::{Pages, effect_error, init_reference, main_page, record, reference};

const XID: u32 = 0x0a0b_0c0d;
const REDIRECT: u8 = 16 << 2 | 1;
const DEAD: u8 = 16 << 2 | 2;
const PLACEHOLDER: u8 = 16 << 2 | 3;

fn leaf(mark: u8, next: u16) -> Vec<u8> {
    [&[24 << 2, 0, 0, 0][..], &next.to_le_bytes(), &[mark; 18]].concat()
}

/// An inner tuple with a prefix of 8 bytes and `nodes` nodes of 16.
fn inner(mark: u8, nodes: u16) -> Vec<u8> {
    let first = 8u32 << 16 | u32::from(nodes) << 3;
    let size = 16 + 16 * nodes;
    let node = [&[mark; 6][..], &16u16.to_le_bytes(), &[mark; 8]].concat();
    let nodes = node.repeat(nodes.into());
    [&first.to_le_bytes()[..], &size.to_le_bytes(), &[0, 0], &[mark; 8], &nodes].concat()
}

fn page_of(kind: opaque::Kind, tuples: &[Vec<u8>]) -> Page {
    let mut page = [0; strata_common::BLOCK_BYTES];
    opaque::init(&mut page, kind, 0);
    for tuple in tuples {
        let offset = item_count(&page) + 1;
        add_or_replace(&mut page, tuple, offset).unwrap();
    }
    page::set_lsn(&mut page, Lsn(100));
    page
}

fn leaves(tuples: &[Vec<u8>]) -> Page {
    page_of(opaque::Kind::Leaf, tuples)
}

fn inners(tuples: &[Vec<u8>]) -> Page {
    page_of(opaque::Kind::Inner, tuples)
}

fn with(pages: impl IntoIterator<Item = (u32, Page)>) -> Pages {
    Pages::with(pages.into_iter().map(|(block, page)| (main_page(block), page)))
}

fn item(pages: &Pages, block: u32, offset: u16) -> &[u8] {
    let page = pages.get(main_page(block));
    &page[stored_item(page, offset).unwrap().range()]
}

/// First byte of every tuple: of those that are gone, what is left.
fn kinds(pages: &Pages, block: u32) -> Vec<u8> {
    (1..=item_count(pages.get(main_page(block)))).map(|offset| item(pages, block, offset)[0]).collect()
}

/// Redirects and placeholders that the page counts.
fn counts(pages: &Pages, block: u32) -> (u8, u8) {
    let page = pages.get(main_page(block));
    (page[8186], page[8188])
}

fn pointer(block: u32, offset: u16) -> Vec<u8> {
    [&[0, 0][..], &(block as u16).to_le_bytes(), &offset.to_le_bytes()].concat()
}

fn node_pointer(pages: &Pages, block: u32, offset: u16, node: usize) -> Vec<u8> {
    item(pages, block, offset)[16 + 16 * node..][..6].to_vec()
}

fn state(is_build: bool) -> Vec<u8> {
    [&XID.to_le_bytes()[..], &[is_build.into(), 9, 9, 9]].concat()
}

fn numbers(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[test]
fn a_leaf_joins_a_chain_and_its_parent_learns_of_it() {
    let mut pages = with([(5, leaves(&[leaf(1, 0)])), (2, inners(&[inner(7, 3)]))]);
    let main = [&[0, 0][..], &numbers(&[2, 1, 1, 2]), &leaf(3, 0)].concat();
    let blocks = vec![reference(0, main_page(5), &[]), reference(1, main_page(2), &[])];
    pages.run(&record(SPGIST, info::ADD_LEAF, 500, &main, blocks));
    assert_eq!(item(&pages, 5, 2), leaf(3, 0));
    assert_eq!(item(&pages, 5, 1), leaf(1, 2), "the head leads on");
    assert_eq!(node_pointer(&pages, 2, 1, 2), pointer(5, 2));
    assert_eq!(node_pointer(&pages, 2, 1, 1), [7; 6]);
    // On a fresh page of the tree of nulls; then over the dead mark of a chain.
    let main = [&[1, 1][..], &numbers(&[1, 0, 0, 0]), &leaf(4, 0)].concat();
    pages.run(&record(SPGIST, info::ADD_LEAF, 600, &main, vec![init_reference(0, main_page(9), &[])]));
    assert_eq!(&pages.get(main_page(9))[8184..], [12, 0, 0, 0, 0, 0, 0x82, 0xff]);
    let main = [&[0, 0][..], &numbers(&[1, 1, 0, 0]), &leaf(5, 0)].concat();
    pages.run(&record(SPGIST, info::ADD_LEAF, 700, &main, vec![reference(0, main_page(9), &[])]));
    assert_eq!((item(&pages, 9, 1), item_count(pages.get(main_page(9)))), (&leaf(5, 0)[..], 1));
}

fn move_leafs(is_build: bool, new_page: u8) -> Vec<u8> {
    let counts = [&2u16.to_le_bytes()[..], &[new_page, 0, 0, 9], &numbers(&[1, 0]), &[9, 9]].concat();
    let tuples = [leaf(2, 0), leaf(3, 1), leaf(4, 2)].concat();
    [counts, state(is_build), numbers(&[3, 1]), numbers(&[1, 2, 3]), tuples].concat()
}

#[test]
fn a_chain_moves_and_leaves_a_redirect() {
    for (is_build, first, expected) in [(false, REDIRECT, (1, 1)), (true, PLACEHOLDER, (0, 2))] {
        let source = leaves(&[leaf(1, 0), leaf(2, 0), leaf(3, 0)]);
        let mut pages = with([(5, source), (2, inners(&[inner(7, 1)]))]);
        let blocks = vec![
            reference(0, main_page(5), &[]),
            init_reference(1, main_page(6), &[]),
            reference(2, main_page(2), &[]),
        ];
        pages.run(&record(SPGIST, info::MOVE_LEAFS, 500, &move_leafs(is_build, 1), blocks));
        // The first number of the list gets the redirect, not the lowest.
        assert_eq!(kinds(&pages, 5), [PLACEHOLDER, 24 << 2, first]);
        assert_eq!(counts(&pages, 5), expected);
        assert_eq!(item(&pages, 6, 3), leaf(4, 2));
        assert_eq!(node_pointer(&pages, 2, 1, 0), pointer(6, 3));
        if !is_build {
            let redirect = [&[REDIRECT, 0, 0, 0, 0, 0][..], &pointer(6, 3), &XID.to_le_bytes()].concat();
            assert_eq!(item(&pages, 5, 3), redirect);
        }
        assert_eq!(item(&pages, 5, 1), [&[PLACEHOLDER, 0, 0, 0, 0, 0][..], &[0xff; 4], &[0; 6]].concat());
    }
}

/// A chain whose tuples are all dead moves as one new tuple.
#[test]
fn a_dead_chain_moves_as_one_tuple() {
    let mut pages =
        with([(5, leaves(&[leaf(1, 0)])), (6, leaves(&[leaf(9, 0)])), (2, inners(&[inner(7, 1)]))]);
    let counts = [&1u16.to_le_bytes()[..], &[0, 1, 0, 9], &numbers(&[1, 0]), &[9, 9]].concat();
    let main = [counts, state(false), numbers(&[1]), numbers(&[2]), leaf(4, 0)].concat();
    let blocks = (0..3).zip([5, 6, 2]).map(|(id, block)| reference(id, main_page(block), &[]));
    pages.run(&record(SPGIST, info::MOVE_LEAFS, 500, &main, blocks.collect()));
    assert_eq!((kinds(&pages, 5), item(&pages, 6, 2)), (vec![REDIRECT], &leaf(4, 0)[..]));
    assert_eq!(node_pointer(&pages, 2, 1, 0), pointer(6, 2));
}

/// `spgxlogAddNode`: the tuple goes from item 1 to item `new`, its parent is item 2 of reference `parent`, node 1.
fn add_node(new: u16, new_page: u8, parent: i8, is_build: bool) -> Vec<u8> {
    let fixed = [numbers(&[1, new]), vec![new_page, parent as u8], numbers(&[2, 1]), vec![9, 9]].concat();
    [fixed, state(is_build), inner(6, 4)].concat()
}

#[test]
fn an_inner_tuple_grows_in_place() {
    let mut pages = with([(3, inners(&[inner(5, 3), inner(8, 2)]))]);
    let blocks = vec![reference(0, main_page(3), &[])];
    pages.run(&record(SPGIST, info::ADD_NODE, 500, &add_node(0, 0, -1, false), blocks));
    assert_eq!((item(&pages, 3, 1), item(&pages, 3, 2)), (&inner(6, 4)[..], &inner(8, 2)[..]));
    assert_eq!(counts(&pages, 3), (0, 0));
}

#[test]
fn an_inner_tuple_that_moves_is_found_wherever_its_parent_is() {
    let source = inners(&[inner(5, 3), inner(8, 2)]);
    let other = inners(&[inner(1, 1), inner(9, 2)]);
    let three = |parent_block: u32, is_build: bool| {
        let mut pages = with([(3, source), (4, other), (8, other)]);
        let mut blocks = vec![reference(0, main_page(3), &[]), reference(1, main_page(4), &[])];
        let parent = match parent_block {
            3 => 0,
            4 => 1,
            _ => {
                blocks.push(reference(2, main_page(8), &[]));
                2
            }
        };
        pages.run(&record(SPGIST, info::ADD_NODE, 500, &add_node(3, 0, parent, is_build), blocks));
        for block in [3, 4, 8] {
            let expected =
                if block == parent_block { pointer(4, 3) } else { vec![if block == 3 { 8 } else { 9 }; 6] };
            assert_eq!(
                node_pointer(&pages, block, 2, 1),
                expected,
                "parent in block {parent_block}, block {block}"
            );
        }
        assert_eq!(item(&pages, 4, 3), inner(6, 4));
        pages
    };
    for parent_block in [3, 4, 8] {
        let pages = three(parent_block, false);
        let redirect = [&[REDIRECT, 0, 0, 0, 0, 0][..], &pointer(4, 3), &XID.to_le_bytes()].concat();
        assert_eq!((item(&pages, 3, 1), counts(&pages, 3)), (&redirect[..], (1, 0)));
    }
    let pages = three(8, true);
    assert_eq!((kinds(&pages, 3)[0], counts(&pages, 3)), (PLACEHOLDER, (0, 1)));
}

#[test]
fn a_split_tuple_keeps_its_place_and_the_rest_goes_elsewhere_or_not() {
    let main = |new_page, same| [numbers(&[1, 2]), vec![new_page, same], inner(6, 1), inner(5, 3)].concat();
    let mut pages = with([(3, inners(&[inner(5, 4)])), (4, inners(&[inner(1, 1)]))]);
    let blocks = vec![reference(0, main_page(3), &[]), reference(1, main_page(4), &[])];
    pages.run(&record(SPGIST, info::SPLIT_TUPLE, 500, &main(0, 0), blocks));
    assert_eq!((item(&pages, 3, 1), item(&pages, 4, 2)), (&inner(6, 1)[..], &inner(5, 3)[..]));
    pages.run(&record(SPGIST, info::SPLIT_TUPLE, 600, &main(0, 1), vec![reference(0, main_page(3), &[])]));
    assert_eq!((item(&pages, 3, 1), item(&pages, 3, 2)), (&inner(6, 1)[..], &inner(5, 3)[..]));
    // The tuple below goes to a page that is made for it, of inner tuples and not of nulls.
    let main = [numbers(&[1, 1]), vec![1, 0], inner(6, 1), inner(5, 3)].concat();
    let blocks = vec![reference(0, main_page(3), &[]), init_reference(1, main_page(9), &[])];
    pages.run(&record(SPGIST, info::SPLIT_TUPLE, 700, &main, blocks));
    assert_eq!((item(&pages, 3, 1), item(&pages, 9, 1)), (&inner(6, 1)[..], &inner(5, 3)[..]));
    assert_eq!(
        (page::lsn(pages.get(main_page(9))), &pages.get(main_page(9))[8184..]),
        (Lsn(700), &[0, 0, 0, 0, 0, 0, 0x82, 0xff][..])
    );
}

struct PickSplitCase {
    is_root: u8,
    init_source: u8,
    init_inner: u8,
    inner_is_parent: u8,
    is_build: bool,
}

/// Items 1 and 2 go; a leaf comes to each page; the inner tuple is item 2 (item 1 on a fresh page).
fn pick_split(case: &PickSplitCase) -> Vec<u8> {
    let inner_offset = if case.init_inner != 0 { 1u16 } else { 2 };
    let fixed = [
        vec![case.is_root, 9],
        numbers(&[2, 2]),
        vec![case.init_source, 1],
        numbers(&[inner_offset]),
        vec![case.init_inner, 0, case.inner_is_parent, 9],
        numbers(&[1, 1]),
        vec![9, 9],
    ];
    let offsets = [numbers(&[2, 1]), numbers(&[1, 1]), vec![0, 1]].concat();
    [fixed.concat(), state(case.is_build), offsets, inner(6, 2), leaf(3, 0), leaf(4, 0)].concat()
}

#[test]
fn a_chain_becomes_an_inner_tuple() {
    // The parent is on another page than the inner tuple; what stays of the chain leads to the latter.
    let case =
        PickSplitCase { is_root: 0, init_source: 0, init_inner: 0, inner_is_parent: 0, is_build: false };
    let mut pages = with([
        (5, leaves(&[leaf(1, 0), leaf(2, 0)])),
        (3, inners(&[inner(1, 1)])),
        (8, inners(&[inner(9, 2)])),
    ]);
    let blocks = vec![
        reference(0, main_page(5), &[]),
        init_reference(1, main_page(6), &[]),
        reference(2, main_page(3), &[]),
        reference(3, main_page(8), &[]),
    ];
    pages.run(&record(SPGIST, info::PICKSPLIT, 500, &pick_split(&case), blocks));
    assert_eq!((item(&pages, 5, 1), kinds(&pages, 5)[1]), (&leaf(3, 0)[..], REDIRECT));
    assert_eq!(counts(&pages, 5), (1, 0), "the placeholder was used again");
    assert_eq!(item(&pages, 6, 1), leaf(4, 0));
    assert_eq!(item(&pages, 3, 2), inner(6, 2));
    assert_eq!(node_pointer(&pages, 8, 1, 1), pointer(3, 2));
}

#[test]
fn pick_split_makes_pages_anew_and_finds_a_parent_on_the_inner_page() {
    let case =
        PickSplitCase { is_root: 0, init_source: 1, init_inner: 0, inner_is_parent: 1, is_build: false };
    let mut pages = with([(5, leaves(&[leaf(1, 0), leaf(2, 0)])), (3, inners(&[inner(1, 2)]))]);
    let blocks = vec![
        init_reference(0, main_page(5), &[]),
        init_reference(1, main_page(6), &[]),
        reference(2, main_page(3), &[]),
    ];
    pages.run(&record(SPGIST, info::PICKSPLIT, 500, &pick_split(&case), blocks));
    assert_eq!((kinds(&pages, 5), item(&pages, 5, 1)), (vec![24 << 2], &leaf(3, 0)[..]));
    assert_eq!(node_pointer(&pages, 3, 1, 1), pointer(3, 2));
    // In a build no redirect is left.
    let case = PickSplitCase { is_build: true, init_source: 0, ..case };
    let mut pages = with([(5, leaves(&[leaf(1, 0), leaf(2, 0)])), (3, inners(&[inner(1, 2)]))]);
    let blocks = vec![
        reference(0, main_page(5), &[]),
        init_reference(1, main_page(6), &[]),
        reference(2, main_page(3), &[]),
    ];
    pages.run(&record(SPGIST, info::PICKSPLIT, 500, &pick_split(&case), blocks));
    assert_eq!((kinds(&pages, 5)[1], counts(&pages, 5)), (PLACEHOLDER, (0, 1)));
}

#[test]
fn a_root_that_splits_becomes_the_inner_page() {
    let case =
        PickSplitCase { is_root: 1, init_source: 0, init_inner: 1, inner_is_parent: 0, is_build: false };
    let mut pages = with([]);
    let blocks = vec![init_reference(1, main_page(6), &[]), init_reference(2, main_page(1), &[])];
    pages.run(&record(SPGIST, info::PICKSPLIT, 500, &pick_split(&case), blocks));
    assert_eq!((item(&pages, 1, 1), item(&pages, 6, 1)), (&inner(6, 2)[..], &leaf(4, 0)[..]));
    assert_eq!(&pages.get(main_page(1))[8184..], [0, 0, 0, 0, 0, 0, 0x82, 0xff]);
}

#[test]
fn vacuum_of_leaves_marks_moves_and_links() {
    let mut pages = with([(5, leaves(&[1, 2, 3, 4, 5].map(|mark| leaf(mark, 0))))]);
    let lists = [[1, 2], [4, 3], [5, 3]];
    let main = [numbers(&[1, 1, 1, 1]), state(false), lists.map(|list| numbers(&list)).concat()].concat();
    // Item 1 is dead, 2 a placeholder; 4 moves to 3 and leaves a placeholder; 5 leads to 3.
    pages.run(&record(SPGIST, info::VACUUM_LEAF, 500, &main, vec![reference(0, main_page(5), &[])]));
    assert_eq!(kinds(&pages, 5), [DEAD, PLACEHOLDER, 24 << 2, PLACEHOLDER, 24 << 2]);
    assert_eq!((item(&pages, 5, 3), item(&pages, 5, 5)), (&leaf(4, 0)[..], &leaf(5, 3)[..]));
    assert_eq!(counts(&pages, 5), (0, 2));
}

#[test]
fn vacuum_of_a_root_and_of_redirects() {
    let mut pages = with([(1, leaves(&[1, 2, 3].map(|mark| leaf(mark, 0))))]);
    let main = [numbers(&[2, 0x0909]), state(false), numbers(&[1, 3])].concat();
    pages.run(&record(SPGIST, info::VACUUM_ROOT, 500, &main, vec![reference(0, main_page(1), &[])]));
    assert_eq!((kinds(&pages, 1).len(), item(&pages, 1, 1)), (1, &leaf(2, 0)[..]));

    let mut pages = with([(5, leaves(&[1, 2, 3].map(|mark| leaf(mark, 0))))]);
    let target = tuple::Place { block: strata_common::BlockNumber(6), offset: 1 };
    let remains =
        page_ops::Remains { first: tuple::TupleState::Redirect, rest: tuple::TupleState::Redirect, target };
    let redirects = State { redirect_xid: XID, is_build: false };
    let mut page = *pages.get(main_page(5));
    page_ops::delete(&mut page, redirects, &numbers(&[1, 3]), remains).unwrap();
    pages = with([(5, page)]);
    let main = [&numbers(&[2, 3])[..], &[0; 6], &numbers(&[1, 3])].concat();
    pages.run(&record(SPGIST, info::VACUUM_REDIRECT, 500, &main, vec![reference(0, main_page(5), &[])]));
    assert_eq!((kinds(&pages, 5), counts(&pages, 5)), (vec![PLACEHOLDER, 24 << 2], (0, 1)));
    let placeholder = [&[PLACEHOLDER, 0, 0, 0, 0, 0][..], &[0xff; 4], &[0; 2], &XID.to_le_bytes()].concat();
    assert_eq!(item(&pages, 5, 1), placeholder);
}

/// Of shared main data each page's change has what its redo reads.
#[test]
fn changes_hold_no_tuples_of_other_pages() {
    let whole = move_leafs(false, 0);
    let blocks = (0..3).map(|id| reference(id, main_page(id.into()), &[])).collect();
    let record = record(SPGIST, info::MOVE_LEAFS, 500, &whole, blocks);
    let read: Vec<usize> = record.blocks.iter().map(|block| main_bytes_read(&record, block)).collect();
    assert_eq!(read, [whole.len() - 72, whole.len(), whole.len() - 72]);
}

#[test]
fn records_that_do_not_fit_are_refused() {
    let refused = |info: u8, main: &[u8], block: strata_pgwal::DecodedBlock| {
        let mut target = leaves(&[leaf(1, 0), leaf(2, 0)]);
        let page = crate::PageId { rel: block.rel, block: block.block };
        let record = record(SPGIST, info, 900, main, vec![block, reference(5, main_page(7), &[])]);
        let change = crate::change::encode_record(&record, &record.blocks[0], Keep::ALL);
        crate::apply(&mut target, page, record.end_lsn, &change).unwrap_err().fault.to_string()
    };
    let leaf_at = |offset: u16| [&[0, 0][..], &numbers(&[offset, 0, 0, 0]), &leaf(3, 0)].concat();
    let told = refused(info::ADD_LEAF, &leaf_at(1), reference(0, main_page(5), &[]));
    assert!(told.contains("not a placeholder"), "{told}");
    let told = refused(info::ADD_LEAF, &leaf_at(4), reference(0, main_page(5), &[]));
    assert!(told.contains("cannot be added"), "{told}");
    let told = refused(info::ADD_LEAF, &leaf_at(3)[..20], reference(0, main_page(5), &[]));
    assert!(told.contains("cut short"), "{told}");
    let told = refused(info::ADD_LEAF, &leaf_at(3), init_reference(0, main_page(5), &[]));
    assert!(told.contains("disagree"), "{told}");
    // Item 2 is a leaf: what it would have as nodes leads out of it.
    let told = refused(info::ADD_NODE, &add_node(3, 0, 1, false), reference(1, main_page(5), &[]));
    assert!(told.contains("cut short"), "{told}");
    let unknown = effect_error(&record(SPGIST, 0x00, 900, &[], vec![]));
    assert!(matches!(unknown, EffectError::Unknown { .. }));
    let one = vec![reference(0, main_page(5), &[])];
    let missing = effect_error(&record(SPGIST, info::MOVE_LEAFS, 900, &move_leafs(false, 0), one));
    assert!(missing.to_string().contains("missing"), "{missing}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_record_makes_it_panic(
        kind in 0u8..10,
        small in proptest::collection::vec(0u8..4, 0..30),
        rest in proptest::collection::vec(prop_oneof![2 => 0u8..5, 1 => Just(96u8), 1 => any::<u8>()], 0..120),
        id in 0u8..4,
        is_leaf in any::<bool>(),
        will_init in any::<bool>(),
        rubbish in proptest::option::of((0usize..8150, proptest::collection::vec(any::<u8>(), 40))),
    ) {
        let mut page = if is_leaf {
            leaves(&[1, 2, 3].map(|mark| leaf(mark, 0)))
        } else {
            inners(&[inner(1, 2), inner(2, 3)])
        };
        if let Some((at, bytes)) = rubbish {
            page[at..at + 40].copy_from_slice(&bytes);
        }
        let main = [small, rest].concat();
        let mut blocks: Vec<_> = (0..4).map(|id| reference(id, main_page(id.into()), &[])).collect();
        blocks[usize::from(id)].will_init = will_init;
        let page_id = main_page(id.into());
        let record = record(SPGIST, kind << 4, 900, &main, blocks);
        let _ = crate::effects(&record);
        let change = crate::change::encode_record(&record, &record.blocks[usize::from(id)], Keep::ALL);
        let _ = crate::apply(&mut page, page_id, record.end_lsn, &change);
    }
}
