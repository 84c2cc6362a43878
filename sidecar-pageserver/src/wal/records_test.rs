//! Pieces come in the order of the log, whoever makes them and however it is cut, and what ends a stream comes behind all of them.

use bytes::Bytes;
use futures::stream;
use proptest::prelude::*;
use strata_common::SystemId;
use strata_pgwal::write::{LogIdentity, RecordSpec, WalWriter};
use strata_pgwal::{SegmentBytes, rmgr};

use super::*;
use crate::ingest::testkit::control_state;
use crate::wal::source::SourceError;

const START: Lsn = Lsn(0x1000);
/// Together far more than is worth a thread.
const RECORDS: usize = 2000;

/// A log, and where its records end.
fn log(records: usize) -> (Bytes, Vec<Lsn>) {
    let segment_bytes = SegmentBytes::new(16 << 20).expect("a power of two");
    let identity = LogIdentity { timeline: 1, system_id: SystemId(7), segment_bytes };
    let mut writer = WalWriter::new(START, Lsn(0), identity);
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for n in 0..records {
        let content = Bytes::from(vec![n as u8; n % 400]);
        bytes.extend_from_slice(
            &writer.append(&RecordSpec::plain(rmgr::XLOG, rmgr::xlog_info::NOOP, content)).bytes,
        );
        ends.push(writer.position());
    }
    (bytes.into(), ends)
}

fn chunk(begin: Lsn, wal: Bytes) -> WalChunk {
    WalChunk { begin_lsn: begin.0, wal, commit_lsn: begin.0, term: 5 }
}

/// Chunks of these sizes, the last of which repeats; one without log after each.
fn chunks(bytes: &Bytes, sizes: &[usize]) -> Vec<WalChunk> {
    let (mut chunks, mut at) = (Vec::new(), 0);
    let mut sizes = sizes.iter().copied();
    let mut size = 1;
    while at < bytes.len() {
        size = sizes.next().unwrap_or(size).min(bytes.len() - at);
        chunks.push(chunk(START + at as u64, bytes.slice(at..at + size)));
        at += size;
        chunks.push(chunk(START + at as u64, Bytes::new()));
    }
    chunks
}

/// Ends of all records that come, and how the stream ended: bad log, or the stream's own end.
fn all(chunks: Vec<WalChunk>) -> (Vec<Lsn>, Result<Bad, Ended>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream = LogStream::new("here".to_owned(), stream::iter(chunks.into_iter().map(Ok)));
        let mut records = Records::new(stream, &control_state(START));
        let mut ends = Vec::new();
        loop {
            match records.next().await {
                Ok(piece) => {
                    ends.extend(piece.records.ends());
                    assert_eq!(records.news().term, Term(5));
                    if let Some(bad) = piece.bad {
                        return (ends, Ok(bad));
                    }
                }
                Err(ended) => return (ends, Err(ended)),
            }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn records_come_in_order_however_the_log_is_cut(
        sizes in proptest::collection::vec(prop_oneof![1usize..3000, 60_000usize..200_000], 1..12),
        broken_at in proptest::option::of(0..RECORDS),
    ) {
        let (bytes, ends) = log(RECORDS);
        let mut bytes = Vec::from(bytes);
        if let Some(n) = broken_at {
            // The last byte of a record's checksum, which alone is not checked before the record is whole.
            let start = if n == 0 { START } else { ends[n - 1] };
            let at = (start - START) as usize;
            let crc = at + 23;
            prop_assume!(at / 8192 == crc / 8192 && !(START + at as u64).page_offset().is_multiple_of(8192));
            bytes[crc] ^= 1;
        }
        let (came, ended) = all(chunks(&bytes.into(), &sizes));
        match (broken_at, ended) {
            (None, Err(Ended::Source(SourceError::Ended { .. }))) => prop_assert_eq!(came, ends),
            (Some(n), Ok(Bad::Undecodable { after, .. })) => {
                prop_assert_eq!(&came[..], &ends[..n]);
                prop_assert_eq!(after, if n == 0 { START } else { ends[n - 1] });
            }
            (_, ended) => prop_assert!(false, "it ended with {:?}", ended.map(|_| "bad log")),
        }
    }
}

#[test]
fn a_gap_comes_behind_the_records_before_it() {
    let (bytes, ends) = log(RECORDS);
    for cut in [bytes.len() / 2, 3000] {
        let later = START + cut as u64 + 8;
        let chunks = vec![chunk(START, bytes.slice(..cut)), chunk(later, bytes.slice(cut + 8..))];
        let (came, ended) = all(chunks);
        let whole = ends.iter().take_while(|end| **end <= START + cut as u64).count();
        assert_eq!(came, ends[..whole]);
        let Err(Ended::Gap { expected, found, .. }) = ended else { panic!("it ended otherwise") };
        assert_eq!((expected, found), (START + cut as u64, later));
    }
}

#[test]
fn a_piece_ends_with_its_weight_and_the_next_one_goes_on() {
    let (bytes, ends) = log(120_000);
    let control = control_state(START);
    let mut decoder = WalStreamDecoder::new(START, control.control_file.segment_bytes());
    decoder.feed(bytes);
    let mut came = Vec::new();
    let mut pieces = 0;
    loop {
        let piece = Piece::next(&mut decoder);
        let count = piece.records.ends().count();
        // A record that does nothing weighs as much as what is kept of it.
        assert!(count <= PIECE_BYTES_MAX / 40, "{count} records in one piece");
        came.extend(piece.records.ends());
        pieces += 1;
        if !piece.has_more {
            break;
        }
    }
    assert!(pieces > 1, "{} records in one piece", came.len());
    assert_eq!(came, ends);
}
