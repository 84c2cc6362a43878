//! Streams in any pieces, cut, damaged, over page and segment boundaries, switched and overwritten.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::{self, LOG};
use crate::page_header::{LONG_HEADER_BYTES, SHORT_HEADER_BYTES};
use crate::write::{EncodedWal, RecordSpec, WalWriter};

const SEGMENT: u64 = 1 << 20;
const PREV: Lsn = Lsn(0x0010_0028);

fn write_all(start: Lsn, specs: &[RecordSpec]) -> Vec<EncodedWal> {
    let mut writer = WalWriter::new(start, PREV, LOG);
    specs.iter().map(|spec| writer.append(spec)).collect()
}

fn log_bytes(records: &[EncodedWal]) -> Vec<u8> {
    records.iter().flat_map(|record| record.bytes.iter().copied()).collect()
}

fn decoder(start: Lsn) -> WalStreamDecoder {
    WalStreamDecoder::new(start, LOG.segment_bytes).with_system_id(LOG.system_id).with_prev(PREV)
}

/// Feeds `bytes` in pieces of the given sizes, over and over; all records until the end or the first error.
fn drain(
    decoder: &mut WalStreamDecoder,
    bytes: &[u8],
    pieces: &[usize],
) -> (Vec<RawRecord>, Option<StreamError>) {
    let mut records = Vec::new();
    let mut left = bytes;
    let mut sizes = pieces.iter().cycle();
    loop {
        loop {
            match decoder.next() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(error) => return (records, Some(error)),
            }
        }
        if left.is_empty() {
            return (records, None);
        }
        let piece = left.len().min(*sizes.next().expect("a cycle never ends"));
        decoder.feed(Bytes::copy_from_slice(&left[..piece]));
        left = &left[piece..];
    }
}

/// Where records can start: anywhere aligned behind a header, with segment and page ends near.
fn start() -> impl Strategy<Value = Lsn> {
    let near_page_end = (1u64..32).prop_map(|words| Lsn(3 * SEGMENT + 8192 - words * 8 + 8192));
    let near_segment_end = (1u64..1000).prop_map(|words| Lsn(3 * SEGMENT - words * 8));
    let boundary =
        prop::sample::select(vec![Lsn(3 * SEGMENT), Lsn(3 * SEGMENT + 8192), Lsn(3 * SEGMENT + 40)]);
    let anywhere = (3u64..1023).prop_map(|words| Lsn(3 * SEGMENT + 8192 + words * 8));
    prop_oneof![near_page_end, near_segment_end, boundary, anywhere]
}

fn switch() -> RecordSpec {
    RecordSpec { rmid: rmgr::XLOG, info: xlog_info::SWITCH, ..RecordSpec::default() }
}

fn specs() -> impl Strategy<Value = Vec<RecordSpec>> {
    vec(prop_oneof![20 => arbitrary::record(), 1 => Just(switch())], 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn records_come_back_whatever_the_pieces(
        start in start(), specs in specs(), pieces in vec(1usize..20_000, 1..6),
    ) {
        let written = write_all(start, &specs);
        let mut decoder = decoder(start);
        let (records, error) = drain(&mut decoder, &log_bytes(&written), &pieces);
        prop_assert_eq!(error, None);
        let expected: Vec<RawRecord> = written.iter().map(|wal| wal.record.clone()).collect();
        prop_assert_eq!(records, expected);
        prop_assert_eq!(decoder.position(), written.last().expect("not empty").end_lsn);
        prop_assert_eq!(decoder.fed_to(), decoder.position());
    }

    #[test]
    fn a_cut_stream_gives_whole_records_only(start in start(), specs in specs(), cut: prop::sample::Index) {
        let written = write_all(start, &specs);
        let bytes = log_bytes(&written);
        let cut = cut.index(bytes.len());
        let mut decoder = decoder(start);
        let (records, error) = drain(&mut decoder, &bytes[..cut], &[8192]);
        prop_assert_eq!(error, None);
        let whole = written.iter().take_while(|wal| wal.end_lsn <= start + cut as u64).count();
        prop_assert_eq!(records.len(), whole);
        let end = if whole == 0 { start } else { written[whole - 1].end_lsn };
        prop_assert_eq!(decoder.position(), end);
        // The rest completes it: nothing was lost by asking too early.
        let (rest, error) = drain(&mut decoder, &bytes[cut..], &[100]);
        prop_assert_eq!((whole + rest.len(), error), (written.len(), None));
    }

    #[test]
    fn a_flipped_bit_never_yields_a_wrong_record(
        start in start(), specs in specs(), at: prop::sample::Index, bit in 0u8..8,
    ) {
        let written = write_all(start, &specs);
        let mut bytes = log_bytes(&written);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let mut decoder = decoder(start);
        let (records, error) = drain(&mut decoder, &bytes, &[4096]);
        for (record, wal) in records.iter().zip(&written) {
            prop_assert_eq!(record, &wal.record);
        }
        // Padding, and header bits that mean nothing, are the only places where damage may go unseen.
        let spoiled = start + at as u64;
        let victim = written.iter().position(|wal| spoiled < wal.end_lsn).expect("inside some record");
        prop_assert!(records.len() >= victim || error.is_some());
        if let Some(error) = error {
            prop_assert_eq!(decoder.next(), Err(error), "an error is final");
        }
    }

    #[test]
    fn any_bytes_are_refused_or_wait(start in start(), bytes in vec(any::<u8>(), 0..20_000)) {
        let (records, _) = drain(&mut decoder(start), &bytes, &[1000]);
        prop_assert!(records.is_empty());
    }
}

fn spec(main_bytes: usize) -> RecordSpec {
    RecordSpec::plain(rmgr::LOGICALMSG, 0, vec![7; main_bytes].into())
}

/// A record of exactly `total` bytes.
fn sized(total: usize) -> RecordSpec {
    let main = total - RECORD_HEADER_BYTES - if total - RECORD_HEADER_BYTES - 2 < 256 { 2 } else { 5 };
    let sized = spec(main);
    assert_eq!(sized.encode(PREV).len(), total);
    sized
}

#[test]
fn a_record_that_ends_a_page_ends_at_the_next_page_start() {
    let start = Lsn(3 * SEGMENT + 8192 * 2 - 64);
    let written = write_all(start, &[sized(64), sized(64)]);
    assert_eq!(written[0].end_lsn, Lsn(3 * SEGMENT + 8192 * 2));
    assert_eq!(written[1].record_lsn, written[0].end_lsn + SHORT_HEADER_BYTES as u64);
    let (records, error) = drain(&mut decoder(start), &log_bytes(&written), &[1]);
    assert_eq!((records.len(), error), (2, None));

    // Trap L1: both the page's start and the first byte behind its header are places to go on from.
    let second = &written[1];
    for from in [second.begin, second.record_lsn] {
        let mut decoder = WalStreamDecoder::new(from, LOG.segment_bytes).with_prev(written[0].record_lsn);
        decoder.feed(second.bytes.slice((from - second.begin) as usize..));
        assert_eq!(decoder.next(), Ok(Some(second.record.clone())));
    }
}

#[test]
fn a_record_over_a_segment_boundary_goes_on_behind_a_long_header() {
    let start = Lsn(3 * SEGMENT - 8);
    let written = write_all(start, &[sized(64)]);
    assert_eq!(written[0].bytes.len(), 64 + LONG_HEADER_BYTES);
    assert_eq!(written[0].record_lsn, start);
    let (records, _) = drain(&mut decoder(start), &log_bytes(&written), &[5]);
    assert_eq!(records[0], written[0].record);
}

#[test]
fn a_switch_is_whole_when_its_segment_is() {
    let start = Lsn(3 * SEGMENT + 8192 * 3 + 800);
    let written = write_all(start, &[switch(), sized(64)]);
    assert_eq!(written[0].end_lsn, Lsn(4 * SEGMENT));
    let mut decoder = decoder(start);
    let bytes = log_bytes(&written);
    let padding_missing = (Lsn(4 * SEGMENT) - start - 1) as usize;
    decoder.feed(Bytes::copy_from_slice(&bytes[..padding_missing]));
    assert_eq!(decoder.next(), Ok(None));
    assert_eq!(decoder.position(), start);
    decoder.feed(Bytes::copy_from_slice(&bytes[padding_missing..]));
    assert_eq!(decoder.next(), Ok(Some(written[0].record.clone())));
    assert_eq!(decoder.position(), Lsn(4 * SEGMENT));
    assert_eq!(decoder.next(), Ok(Some(written[1].record.clone())));
}

#[test]
fn a_switch_that_ends_its_segment_skips_nothing() {
    let start = Lsn(4 * SEGMENT - 24);
    let written = write_all(start, &[switch(), sized(64)]);
    assert_eq!(written[0].end_lsn, Lsn(4 * SEGMENT));
    let (records, error) = drain(&mut decoder(start), &log_bytes(&written), &[7]);
    assert_eq!((records.len(), error), (2, None));
}

#[test]
fn links_back_are_checked() {
    let start = Lsn(3 * SEGMENT + 8192 + 800);
    let written = write_all(start, &[sized(64), sized(64)]);
    let bytes = Bytes::from(log_bytes(&written));
    let mut wrong = WalStreamDecoder::new(start, LOG.segment_bytes).with_prev(Lsn(8));
    wrong.feed(bytes.clone());
    assert!(matches!(wrong.next(), Err(StreamError::PrevLink { .. })));

    let mut unknown = WalStreamDecoder::new(start, LOG.segment_bytes);
    unknown.feed(bytes);
    assert!(unknown.next().is_ok_and(|record| record.is_some()));

    let ahead = sized(64).encode(start + 8);
    let mut decoder = WalStreamDecoder::new(start, LOG.segment_bytes);
    decoder.feed(ahead);
    assert!(matches!(decoder.next(), Err(StreamError::PrevLinkAhead { .. })));
}

/// A record cut off at a page boundary, and the page that explains it.
fn overwritten(lsn_in_record: Lsn) -> (Lsn, Vec<u8>) {
    let start = Lsn(3 * SEGMENT + 8192 * 2 - 80);
    let page = Lsn(3 * SEGMENT + 8192 * 2);
    let first = &write_all(start, &[sized(32)])[0];
    let victim = first.end_lsn;
    let cut_off = crate::write::encode_record(victim, start, &sized(300), LOG);
    let mut bytes = first.bytes.to_vec();
    bytes.extend_from_slice(&cut_off.bytes[..(page - victim) as usize]);
    let main_data = [lsn_in_record.0.to_le_bytes(), [0; 8]].concat();
    let spec = RecordSpec::plain(rmgr::XLOG, xlog_info::OVERWRITE_CONTRECORD, main_data.into());
    let mut replacement = crate::write::encode_record(page, start, &spec, LOG).bytes.to_vec();
    replacement[2] |= FIRST_IS_OVERWRITE_CONTRECORD as u8;
    bytes.extend_from_slice(&replacement);
    (victim, bytes)
}

#[test]
fn an_overwritten_record_is_dropped_with_its_explanation() {
    let start = Lsn(3 * SEGMENT + 8192 * 2 - 80);
    let (victim, _) = overwritten(Lsn(0));
    let (_, bytes) = overwritten(victim);
    let (records, error) = drain(&mut decoder(start), &bytes, &[9]);
    assert_eq!((records.len(), error), (2, None));
    assert_eq!(records[1].lsn, Lsn(3 * SEGMENT + 8192 * 2 + SHORT_HEADER_BYTES as u64));

    let (_, bytes) = overwritten(victim + 8);
    let (records, error) = drain(&mut decoder(start), &bytes, &[9]);
    assert_eq!(records.len(), 1);
    assert!(matches!(error, Some(StreamError::NotOverwritten { overwritten, .. }) if overwritten == victim));
}

#[test]
fn bad_continuations_are_named() {
    let start = Lsn(3 * SEGMENT + 8192 * 2 - 80);
    let good = log_bytes(&write_all(start, &[sized(300)]));
    let run = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[80 + at] = value;
        drain(&mut decoder(start), &bytes, &[64]).1
    };
    assert!(matches!(run(2, 0), Some(StreamError::NotContinued { .. })));
    assert!(matches!(run(16, 1), Some(StreamError::ContinuationLength { remaining: 1, missing: 220, .. })));
    let mut inside = WalStreamDecoder::new(Lsn(3 * SEGMENT + 8192 * 2), LOG.segment_bytes);
    inside.feed(Bytes::copy_from_slice(&good[80..]));
    assert!(matches!(inside.next(), Err(StreamError::InsideRecord { .. })));
}

#[test]
fn lengths_are_bounded_before_they_are_believed() {
    let start = Lsn(3 * SEGMENT + 8192 + 800);
    for (length, expected) in [
        (0u32, StreamError::NoRecord { lsn: start }),
        (23, StreamError::RecordLength { lsn: start, length: 23 }),
        (RECORD_BYTES_MAX + 1, StreamError::RecordLength { lsn: start, length: RECORD_BYTES_MAX + 1 }),
    ] {
        let mut decoder = decoder(start);
        decoder.feed(Bytes::copy_from_slice(&length.to_le_bytes()));
        assert_eq!(decoder.next(), Err(expected));
    }
}

#[test]
fn impossible_starts_are_refused() {
    for start in [Lsn(0), Lsn(3 * SEGMENT + 4), Lsn(3 * SEGMENT + 24), Lsn(3 * SEGMENT + 8192 + 16)] {
        assert_eq!(decoder(start).next(), Err(StreamError::Start { start }));
    }
}

#[test]
fn timelines_never_go_back() {
    let start = Lsn(3 * SEGMENT + 8192);
    let mut bytes = log_bytes(&write_all(start, &[sized(8192)]));
    bytes[4] = 2;
    let (_, error) = drain(&mut decoder(start), &bytes, &[64]);
    assert!(matches!(error, Some(StreamError::PageHeader(PageHeaderError::Timeline { .. }))));
}
