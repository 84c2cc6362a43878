//! What `apply` and `effects` decide before a resource manager is asked, and that nothing makes them panic.

use proptest::prelude::*;
use strata_common::{BlockNumber, ForkNumber, Lsn};
use strata_pgwal::rmgr::{BRIN, HEAP, HEAP2, record_name, record_type_name};

use super::*;
use crate::change::{
    CHANGE_VERSION, Keep, encode_fsm_truncate_tail, encode_record, encode_vm_clear, encode_vm_truncate_tail,
};
use crate::testing::*;

const DELETE: u8 = 0x10;

fn delete_first_row(end: u64) -> DecodedRecord {
    record(HEAP, DELETE, end, &[9, 0, 0, 0, 1, 0, 0, 0], vec![reference(0, main_page(7), &[])])
}

fn heap_page() -> Page {
    let mut page = [0; BLOCK_BYTES];
    page::init(&mut page, 0);
    page::add_item(&mut page, &[0; 40], page::AddItem::HeapAt(1)).unwrap();
    page::set_lsn(&mut page, Lsn(100));
    page
}

fn applied(page: &Page, id: PageId, lsn: u64, change: &[u8]) -> Result<Page, Fault> {
    let mut page = *page;
    apply(&mut page, id, Lsn(lsn), change).map_err(|error| error.fault)?;
    Ok(page)
}

#[test]
fn a_page_that_is_already_there_is_left_alone() {
    let record = delete_first_row(100);
    let change = encode_record(&record, &record.blocks[0], Keep::ALL);
    assert_eq!(applied(&heap_page(), main_page(7), 100, &change), Ok(heap_page()));
    let changed = applied(&heap_page(), main_page(7), 101, &change).unwrap();
    assert_eq!(page::lsn(&changed), Lsn(101));
}

#[test]
fn a_page_that_was_never_initialized_is_an_error() {
    let record = delete_first_row(100);
    let change = encode_record(&record, &record.blocks[0], Keep::ALL);
    assert_eq!(applied(&[0; BLOCK_BYTES], main_page(7), 100, &change), Err(Fault::PageIsNew));
}

/// W16: only GiST and hash go on after an image; for the others it is the last word even inside a change.
#[test]
fn an_image_inside_a_change_is_restored() {
    let mut record = delete_first_row(200);
    record.blocks[0] = image_reference(0, main_page(7), &heap_page(), true);
    let change = encode_record(&record, &record.blocks[0], Keep::ALL);
    let mut expected = heap_page();
    page::set_lsn(&mut expected, Lsn(200));
    assert_eq!(applied(&[0; BLOCK_BYTES], main_page(7), 200, &change), Ok(expected));

    let mut effects = Vec::new();
    rmgr::push_page_beyond_image(&record, &record.blocks[0], Keep::ALL, &mut effects).unwrap();
    let value = PageValue::Change { bytes: change, will_init: true };
    assert_eq!(effects, [Effect::Page { page: main_page(7), value }]);
}

#[test]
fn own_changes_are_for_their_own_fork() {
    let block = BlockNumber(7);
    let page = |fork| PageId { rel: REL.fork(fork), block: BlockNumber(0) };
    let fsm = PageId { block: BlockNumber(2), ..page(ForkNumber::FreeSpaceMap) };
    let vm = page(ForkNumber::VisibilityMap);
    let full = [0xff; BLOCK_BYTES];
    for (id, change) in [
        (vm, encode_vm_clear(block, 3)),
        (vm, encode_vm_truncate_tail(block)),
        (fsm, encode_fsm_truncate_tail(block)),
    ] {
        let changed = applied(&full, id, 100, &change).unwrap();
        assert_ne!(changed, full);
        assert_eq!(page::lsn(&changed), page::lsn(&full), "V6");
        let wrong = ChangeError::WrongPage.into();
        assert_eq!(applied(&full, main_page(0), 100, &change), Err(wrong));
    }
    let elsewhere = PageId { block: BlockNumber(1), ..vm };
    let change = encode_vm_clear(block, 3);
    assert_eq!(applied(&full, elsewhere, 100, &change), Err(ChangeError::WrongPage.into()));
    assert_eq!(applied(&full, vm, 100, &slru::encode_zero()), Err(ChangeError::WrongPage.into()));
}

#[test]
fn other_resource_managers_are_refused_by_name() {
    for (rmid, name) in [(99, "invalid099/UNKNOWN (10)"), (200, "custom200/UNKNOWN (10)")] {
        let record = record(rmid, 0x10, 100, &[], vec![reference(0, main_page(7), &[])]);
        let EffectError::Unknown { name: told, .. } = effect_error(&record) else { panic!("known") };
        assert_eq!(told, name);
        let change = encode_record(&record, &record.blocks[0], Keep::ALL);
        assert_eq!(applied(&heap_page(), main_page(7), 200, &change), Err(Fault::Unknown));
    }
}

/// Every type that `pg_waldump` has a name for does something or is known to do nothing; no other is taken for one.
#[test]
fn every_record_type_of_postgres_17_is_known() {
    let main = [0; 600];
    for rmid in 0..=strata_pgwal::rmgr::BUILTIN_MAX {
        for info in (0..16).map(|high| high << 4) {
            let known =
                !matches!(effects(&record(rmid, info, 500, &main, vec![])), Err(EffectError::Unknown { .. }));
            // Of these Postgres ignores the bit for a page that is made anew where no page is.
            let ignored = if matches!(rmid, HEAP | HEAP2 | BRIN) { 0x80 } else { 0 };
            let named = record_type_name(rmid, info & !ignored).is_some();
            assert_eq!(known, named, "{}", record_name(rmid, info));
        }
    }
}

fn any_page() -> impl Strategy<Value = Page> {
    let lines = proptest::collection::vec((0u16..8192, 0u16..4, 0u16..200), 0..12);
    (any::<u8>(), lines, any::<bool>()).prop_map(|(fill, lines, sound)| {
        let mut page = [fill; BLOCK_BYTES];
        if sound {
            page::init(&mut page, 0);
            page::set_upper(&mut page, 4096);
        }
        page::set_lower(&mut page, (page::HEADER_BYTES + 4 * lines.len()) as u16);
        for (offset, (at, state, length)) in (1..).zip(lines) {
            let raw = u32::from(at & !7) | u32::from(state) << 15 | u32::from(length) << 17;
            page::set_line(&mut page, offset, page::LinePointer(raw)).unwrap();
        }
        page::set_lsn(&mut page, Lsn(1));
        page
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// Records of random bytes on random pages: an error or a page, never a panic.
    #[test]
    fn random_records_never_panic(
        page in any_page(),
        rmid in prop_oneof![Just(HEAP), Just(HEAP2), any::<u8>()],
        info in any::<u8>(),
        small in proptest::collection::vec(0u8..12, 0..24),
        flags in any::<u8>(),
        data in proptest::collection::vec(prop_oneof![3 => 0u8..6, 1 => any::<u8>()], 0..80),
        id in 0u8..4,
        fork in 0u8..4,
    ) {
        let fork = ForkNumber::from_raw(fork).unwrap();
        let page_id = PageId { rel: REL.fork(fork), block: BlockNumber(0) };
        let mut main = small;
        for at in [1, 2, 7] {
            if let Some(byte) = main.get_mut(at) {
                *byte = flags;
            }
        }
        let blocks = (0..4).map(|other| {
            if other == id { reference(other, page_id, &data) } else { reference(other, main_page(1), &data) }
        });
        let record = record(rmid, info, 200, &main, blocks.collect());
        let _ = effects(&record);
        let change = encode_record(&record, &record.blocks[usize::from(id)], Keep::ALL);
        let _ = applied(&page, page_id, 200, &change);
    }

    #[test]
    fn random_changes_never_panic(
        page in any_page(),
        kind in 0u8..4,
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
        fork in 0u8..4,
        block in 0u32..3,
    ) {
        let fork = ForkNumber::from_raw(fork).unwrap();
        let page_id = PageId { rel: REL.fork(fork), block: BlockNumber(block) };
        let change = [&[CHANGE_VERSION, kind], &bytes[..]].concat();
        let _ = applied(&page, page_id, 200, &change);
        let _ = applied(&page, page_id, 200, &bytes);
    }
}
