//! Round trips of records, and each kind of damage with its error.

use proptest::prelude::*;

use super::*;
use crate::arbitrary;
use crate::record_header::{RecordHeader, record_crc};
use crate::write::RecordSpec;

const LSN: Lsn = Lsn(0x0100_0028);

fn raw(bytes: impl Into<Bytes>) -> RawRecord {
    RawRecord { lsn: LSN, end_lsn: LSN + 8, bytes: bytes.into() }
}

/// A record whose parts after the fixed header are `body`, with a length and checksum that are right.
fn with_body(body: &[u8]) -> RawRecord {
    let total_bytes = (RECORD_HEADER_BYTES + body.len()) as u32;
    let mut header = RecordHeader { total_bytes, xid: 1, prev: Lsn(8), info: 0, rmid: 10, crc: 0 };
    let mut bytes = [&header.encode()[..], body].concat();
    header.crc = record_crc(&bytes);
    bytes[..RECORD_HEADER_BYTES].copy_from_slice(&header.encode());
    raw(bytes)
}

pub(crate) fn assert_same(spec: &RecordSpec, decoded: &DecodedRecord) {
    assert_eq!((spec.rmid, spec.info, spec.xid), (decoded.rmid, decoded.info, decoded.xid));
    assert_eq!((spec.origin, spec.toplevel_xid), (decoded.origin, decoded.toplevel_xid));
    assert_eq!(spec.main_data, decoded.main_data);
    assert_eq!(spec.blocks.len(), decoded.blocks.len());
    for (block, decoded) in spec.blocks.iter().zip(&decoded.blocks) {
        assert_eq!((block.id, block.rel, block.block), (decoded.id, decoded.rel, decoded.block));
        assert_eq!((block.will_init, &block.image), (decoded.will_init, &decoded.image));
        assert_eq!((&block.data, !block.data.is_empty()), (&decoded.data, decoded.has_data));
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(spec in arbitrary::record()) {
        let bytes = spec.encode(Lsn(0x0100_0000));
        let decoded = decode(&raw(bytes)).expect("an encoded record decodes");
        prop_assert_eq!(decoded.prev, Lsn(0x0100_0000));
        assert_same(&spec, &decoded);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        // Must not panic, and what is decoded must not claim more than there is.
        if let Ok(decoded) = decode(&with_body(&body)) {
            let parts: usize = decoded.blocks.iter().map(|b| b.data.len()).sum();
            prop_assert!(parts + decoded.main_data.len() <= body.len());
        }
    }

    #[test]
    fn a_changed_byte_never_panics(spec in arbitrary::record(), at: prop::sample::Index, mask in 1u8..) {
        let mut bytes = spec.encode(Lsn(8)).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        let _ = decode(&raw(bytes));
    }

    #[test]
    fn a_cut_record_is_refused(spec in arbitrary::record(), at: prop::sample::Index) {
        let bytes = spec.encode(Lsn(8));
        let cut = raw(bytes.slice(..at.index(bytes.len())));
        prop_assert_eq!(decode(&cut), Err(DecodeError::Length { lsn: LSN }));
    }
}

#[test]
fn each_kind_of_damage_has_its_error() {
    let rel = [0u8; 12];
    let block = |id: u8, flags: u8, length: u16, rest: &[u8]| {
        [&[id, flags], &length.to_le_bytes()[..], rest, &rel, &[0; 4]].concat()
    };
    let image = |length: u16, offset: u16, flags: u8| {
        [&length.to_le_bytes()[..], &offset.to_le_bytes(), &[flags]].concat()
    };
    let error = |body: Vec<u8>| decode(&with_body(&body)).expect_err("must be refused");
    let bad_image = |length, offset, flags| error(block(0, HAS_IMAGE, 0, &image(length, offset, flags)));

    assert!(matches!(error(block(33, 0, 0, &[])), DecodeError::BlockId { id: 33, .. }));
    let twice = [block(1, 0, 0, &[]), block(1, 0, 0, &[])].concat();
    assert!(matches!(error(twice), DecodeError::BlockId { id: 1, .. }));
    assert!(matches!(error(block(0, HAS_DATA, 0, &[])), DecodeError::DataFlag { .. }));
    assert!(matches!(error(block(0, 0, 5, &[])), DecodeError::DataFlag { length: 5, .. }));
    assert!(matches!(error(block(0, SAME_REL, 0, &[])), DecodeError::NoRelationBefore { .. }));
    assert!(matches!(error(block(0, 7, 0, &[])), DecodeError::Fork { fork: 7, .. }));
    assert!(matches!(error(vec![ID_DATA_SHORT, 5, 1]), DecodeError::Length { .. }));
    assert!(matches!(error(vec![ID_DATA_LONG, 1, 0]), DecodeError::Length { .. }));

    // Neither hole nor whole; a hole that is none; a hole beyond the page; compressed but not smaller.
    assert!(matches!(bad_image(8000, 0, 0), DecodeError::Image { .. }));
    assert!(matches!(bad_image(8192, 10, IMAGE_HAS_HOLE), DecodeError::Image { .. }));
    assert!(matches!(bad_image(100, 4000, IMAGE_HAS_HOLE), DecodeError::Image { .. }));
    assert!(matches!(bad_image(9000, 0, 0), DecodeError::Image { .. }));
    assert!(matches!(bad_image(8192, 0, IMAGE_LZ4), DecodeError::Image { .. }));
}

#[test]
fn a_record_without_parts_is_whole() {
    let decoded = decode(&with_body(&[])).expect("an empty record is legal");
    assert!(decoded.blocks.is_empty() && decoded.main_data.is_empty());
}
