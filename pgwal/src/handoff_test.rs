//! Handoff records and their segments at every kind of place in the log.

use super::*;
use crate::arbitrary::LOG;
use crate::checkpoint::tests::sample;
use crate::page_header::{LONG_HEADER_BYTES, SHORT_HEADER_BYTES};
use crate::stream::WalStreamDecoder;

const SEGMENT: u64 = 1 << 20;

/// Every kind of place: mid-page, segment and page start, spanning pages, ending a page, straddling segments.
fn places() -> Vec<Lsn> {
    let segment = Lsn(5 * SEGMENT);
    let padded = HANDOFF_RECORD_BYTES.next_multiple_of(8) as u64;
    vec![
        segment,
        segment + LONG_HEADER_BYTES as u64,
        segment + 400,
        segment + 8192,
        segment + 8192 + SHORT_HEADER_BYTES as u64,
        segment + 8192 * 7 + 4000,
        Lsn(segment.0 + 8192 * 7 - 8),
        Lsn(segment.0 + 8192 - 64),
        Lsn(segment.0 + 8192 * 7 - padded),
        Lsn(6 * SEGMENT - padded),
        Lsn(6 * SEGMENT - 8),
        Lsn(6 * SEGMENT - 112),
        Lsn(0x5_0000_0000 - 32),
    ]
}

#[test]
fn a_handoff_record_is_a_record_of_the_log() {
    for at in places() {
        let prev = Lsn(at.0 - 200);
        let (wal, checkpoint) = handoff_record(at, prev, sample(), LOG);
        assert_eq!(wal.record.bytes.len(), HANDOFF_RECORD_BYTES);
        assert_eq!((wal.record.bytes[24], wal.record.bytes[25]), (0xFF, 0x58));
        assert_eq!((checkpoint.redo, checkpoint.oldest_active_xid), (wal.record_lsn, 0));
        let mut decoder =
            WalStreamDecoder::new(at, LOG.segment_bytes).with_system_id(LOG.system_id).with_prev(prev);
        decoder.feed(wal.bytes.clone());
        let record = decoder.next().expect("the log is good").expect("the record is whole");
        assert_eq!(record, wal.record);
        assert_eq!(shutdown_checkpoint(&record), Ok(Some(checkpoint)));
        assert_eq!(decoder.position(), wal.end_lsn);
    }
}

#[test]
fn fabricated_segments_hold_what_a_server_reads() {
    for at in places() {
        let (wal, _) = handoff_record(at, Lsn(at.0 - 200), sample(), LOG);
        let segments = fabricate_segments(&wal.record, LOG);
        let straddles =
            wal.record_lsn.segment_start(SEGMENT) != Lsn(wal.end_lsn.0 - 1).segment_start(SEGMENT);
        assert_eq!(segments.len(), if straddles { 2 } else { 1 }, "at {at}");
        let mut log = Vec::new();
        for segment in &segments {
            assert_eq!(segment.start.segment_offset(SEGMENT), 0);
            assert_eq!(segment.file_name, segment_file_name(1, segment.start, LOG.segment_bytes));
            let file = segment.to_file();
            assert_eq!(file.len() as u64, SEGMENT);
            let header = WalPageHeader::parse(&file).expect("long enough");
            assert_eq!(header.check(segment.start, LOG.segment_bytes, Some(LOG.system_id)), Ok(()));
            log.extend_from_slice(&file);
        }
        let start = segments[0].start;
        let page = Lsn(wal.record_lsn.0 - wal.record_lsn.page_offset());
        let header = WalPageHeader::parse(&log[(page - start) as usize..]).expect("long enough");
        assert_eq!(header.check(page, LOG.segment_bytes, Some(LOG.system_id)), Ok(()), "at {at}");
        let mut decoder = WalStreamDecoder::new(wal.record_lsn, LOG.segment_bytes);
        decoder.feed(Bytes::copy_from_slice(&log[(wal.record_lsn - start) as usize..]));
        assert_eq!(decoder.next(), Ok(Some(wal.record)), "at {at}");
    }
}

#[test]
fn other_records_are_no_shutdown_checkpoint() {
    let spec = RecordSpec::plain(rmgr::XLOG, xlog_info::CHECKPOINT_ONLINE, Bytes::from(vec![0; 88]));
    let wal = crate::write::encode_record(Lsn(5 * SEGMENT), Lsn(8), &spec, LOG);
    assert_eq!(shutdown_checkpoint(&wal.record), Ok(None));
    let spec = RecordSpec::plain(rmgr::XLOG, xlog_info::CHECKPOINT_SHUTDOWN, Bytes::from(vec![0; 80]));
    let wal = crate::write::encode_record(Lsn(5 * SEGMENT), Lsn(8), &spec, LOG);
    assert!(shutdown_checkpoint(&wal.record).is_err());
}
