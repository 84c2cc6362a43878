//! Encoding and decoding of stored changes.

use bytes::Bytes;
use proptest::prelude::*;
use strata_common::{BlockNumber, ForkNumber, Lsn, RelTag};
use strata_pgwal::{BlockImage, DecodedBlock, DecodedRecord, ImageCompression, rmgr};

use super::*;
use crate::image::ImageView;

const REL: RelTag = RelTag { tablespace: 1663, database: 5, relation: 16384 };

fn block(id: u8, number: u32) -> DecodedBlock {
    DecodedBlock {
        id,
        rel: REL.fork(ForkNumber::Main),
        block: BlockNumber(number),
        will_init: false,
        image: None,
        data: Bytes::from_static(b"block data"),
        has_data: true,
    }
}

fn record(blocks: Vec<DecodedBlock>) -> DecodedRecord {
    DecodedRecord {
        lsn: Lsn(0x100),
        end_lsn: Lsn(0x180),
        prev: Lsn(0x80),
        xid: 0x0102_0304,
        rmid: rmgr::HEAP,
        info: 0xA3,
        origin: None,
        toplevel_xid: None,
        main_data: Bytes::from_static(b"main data"),
        blocks,
    }
}

fn decoded(bytes: &Bytes) -> RecordChange<'_> {
    match PageChange::decode(bytes) {
        Ok(PageChange::Record(change)) => change,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_comes_back_with_the_numbers_of_its_other_blocks() {
    let record = record(vec![block(0, 7), block(1, u32::MAX), block(5, 9)]);
    let bytes = encode_record(&record, &record.blocks[1], Keep::ALL);
    let change = decoded(&bytes);
    assert_eq!((change.rmid, change.info, change.xid, change.id), (rmgr::HEAP, 0xA0, 0x0102_0304, 1));
    assert_eq!((change.main, change.data), (&b"main data"[..], &b"block data"[..]));
    assert!(!change.will_init && change.image.is_none());
    let blocks: Vec<_> = (0..=6).map(|id| change.other_block(id).map(|block| block.0)).collect();
    assert_eq!(blocks, [Some(7), None, None, None, None, Some(9), None]);
}

#[test]
fn only_what_is_asked_for_is_kept() {
    let mut record = record(vec![block(0, 7)]);
    record.blocks[0].will_init = true;
    let bytes = encode_record(&record, &record.blocks[0], Keep { main_bytes: 4, data: false });
    let change = decoded(&bytes);
    assert_eq!((change.main, change.data, change.will_init), (&b"main"[..], &b""[..], true));
    assert_eq!(bytes.len(), 2 + 9 + 1 + 4 + 1);
}

#[test]
fn an_image_travels_only_if_it_is_to_be_applied() {
    let mut record = record(vec![block(0, 7)]);
    let image = |apply| BlockImage {
        apply,
        hole_offset: 100,
        hole_length: 7000,
        compression: ImageCompression::Lz4,
        bytes: Bytes::from(vec![7; 300]),
    };
    record.blocks[0].image = Some(image(false));
    let bytes = encode_record(&record, &record.blocks[0], Keep::ALL);
    assert_eq!(decoded(&bytes).image, None);
    record.blocks[0].image = Some(image(true));
    let bytes = encode_record(&record, &record.blocks[0], Keep::ALL);
    assert_eq!(decoded(&bytes).image, Some(ImageView::from(&image(true))));
}

#[test]
fn every_prefix_is_refused_and_so_is_a_longer_change() {
    let mut record = record(vec![block(0, 7), block(1, 8)]);
    record.blocks[0].image = Some(BlockImage {
        apply: true,
        hole_offset: 0,
        hole_length: 0,
        compression: ImageCompression::Zstd,
        bytes: Bytes::from(vec![7; 200]),
    });
    let changes = [
        encode_record(&record, &record.blocks[0], Keep::ALL),
        encode_vm_clear(BlockNumber(70_000), 3),
        encode_vm_truncate_tail(BlockNumber(70_001)),
        encode_fsm_truncate_tail(BlockNumber(70_002)),
    ];
    for change in changes {
        assert!(PageChange::decode(&change).is_ok());
        for end in 0..change.len() {
            assert!(PageChange::decode(&change[..end]).is_err(), "{} at {end}", name(&change));
        }
        let longer = [&change[..], &[0]].concat();
        assert_eq!(PageChange::decode(&longer).unwrap_err(), ChangeError::Trailing(1).into());
    }
}

#[test]
fn other_versions_kinds_and_flags_are_refused() {
    let error = |bytes: &[u8]| PageChange::decode(bytes).unwrap_err();
    assert_eq!(error(&[2, 0]), ChangeError::Version(2).into());
    assert_eq!(error(&[1, 99]), ChangeError::Kind(99).into());
    assert_eq!(error(&[1, 0, 10, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]), ChangeError::Flags(4).into());
    assert_eq!(name(&[1, 0, 10, 0x80]), "Heap/INSERT+INIT");
    assert_eq!(name(&[1, 17]), "SLRU change 17");
    assert_eq!(name(&[9, 0]), "change of version 9 and kind 0");
    assert_eq!(name(&[]), "change without a header");
}

proptest! {
    #[test]
    fn decoding_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in 0u8..22) {
        let _ = PageChange::decode(&bytes);
        if bytes.len() > 2 {
            (bytes[0], bytes[1]) = (CHANGE_VERSION, kind);
            if let Ok(PageChange::Record(change)) = PageChange::decode(&bytes) {
                let _ = change.other_block(1);
            }
        }
        let _ = name(&bytes);
    }
}
