//! The record that a new compute starts from, and the segment files that go with it (decision D5).
//!
//! Before a Postgres starts, its supervisor appends one genuine shutdown-checkpoint record to the log, the handoff
//! record. The data folder then gets a `pg_control` that says "shut down, checkpoint at that record" and segment files
//! whose bytes are true as far as Postgres reads them: the long header of each segment, the header of each page that
//! the record touches, and the record itself (traps S1, S3, S4, S6). Everything else in them is zero, which nobody
//! reads: a server that starts from a shut-down state looks at its checkpoint record only, and writes on behind it.

use bytes::Bytes;
use strata_common::Lsn;
use strata_common::lsn::WAL_PAGE_BYTES;

use crate::checkpoint::{CHECKPOINT_BYTES, CheckPoint};
use crate::page_header::WalPageHeader;
use crate::record::{DecodeError, RawRecord, decode};
use crate::rmgr::{self, xlog_info};
use crate::segment::segment_file_name;
use crate::write::{EncodedWal, LogIdentity, RecordSpec, lay_out};

/// Size of a handoff record, bytes: header, main data header, checkpoint.
pub const HANDOFF_RECORD_BYTES: usize = 114;

/// A shutdown checkpoint at the end of the log. `at` is the end of the record at `prev`. Of `checkpoint` all but
/// `redo` and `oldest_active_xid` is taken as it is.
pub fn handoff_record(
    at: Lsn,
    prev: Lsn,
    checkpoint: CheckPoint,
    log: LogIdentity,
) -> (EncodedWal, CheckPoint) {
    let header_bytes = if at.page_offset() == 0 { WalPageHeader::bytes_at(at, log.segment_bytes) } else { 0 };
    let record_lsn = at + header_bytes as u64;
    let checkpoint = CheckPoint { redo: record_lsn, oldest_active_xid: 0, ..checkpoint };
    let main_data = Bytes::copy_from_slice(&checkpoint.encode());
    let spec = RecordSpec::plain(rmgr::XLOG, xlog_info::CHECKPOINT_SHUTDOWN, main_data);
    let encoded = crate::write::encode_record(at, prev, &spec, log);
    assert!(encoded.record_lsn == record_lsn, "the checkpoint names its own position");
    (encoded, checkpoint)
}

/// The checkpoint in a shutdown-checkpoint record, or `None` for any other record: whether a log ends in one.
pub fn shutdown_checkpoint(record: &RawRecord) -> Result<Option<CheckPoint>, DecodeError> {
    let decoded = decode(record)?;
    if decoded.rmid != rmgr::XLOG || decoded.rmgr_info() != xlog_info::CHECKPOINT_SHUTDOWN {
        return Ok(None);
    }
    let lsn = record.lsn;
    if decoded.main_data.len() != CHECKPOINT_BYTES {
        return Err(DecodeError::Length { lsn });
    }
    CheckPoint::parse(&decoded.main_data).map(Some).map_err(|_| DecodeError::Length { lsn })
}

/// A segment file of a fabricated `pg_wal`: zero but for its pieces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FabricatedSegment {
    /// Name in `pg_wal`.
    pub file_name: String,
    /// Position of its first byte.
    pub start: Lsn,
    /// Size of the file, bytes.
    pub file_bytes: u64,
    /// Offset and bytes of what is not zero, ascending and apart.
    pub pieces: Vec<(u64, Bytes)>,
}

impl FabricatedSegment {
    /// The whole file.
    pub fn to_file(&self) -> Vec<u8> {
        let mut file = vec![0; self.file_bytes as usize];
        for (offset, bytes) in &self.pieces {
            let offset = *offset as usize;
            file[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        file
    }
}

/// The segment files of a `pg_wal` whose log ends with `record`: one, or two if the record straddles them.
pub fn fabricate_segments(record: &RawRecord, log: LogIdentity) -> Vec<FabricatedSegment> {
    let size = log.segment_bytes.get();
    let page_start = Lsn(record.lsn.0 - record.lsn.page_offset());
    // A record that is first on its page is asked for at the page's start, so that the header comes with it.
    let first_on_page =
        record.lsn.page_offset() == WalPageHeader::bytes_at(record.lsn, log.segment_bytes) as u64;
    let at = if first_on_page { page_start } else { record.lsn };
    let encoded = lay_out(at, record.bytes.clone(), false, log);
    assert!(encoded.record_lsn == record.lsn, "the record lies where it lay");
    let header = |address: Lsn| {
        Bytes::from(WalPageHeader::at(address, log.timeline, log.system_id, log.segment_bytes).encode())
    };
    let mut segments = Vec::new();
    let mut start = record.lsn.segment_start(size);
    // `end_lsn` of the record itself, without what a switch would skip; at a segment's start no byte of it is used.
    while start < encoded.end_lsn {
        let mut pieces = Vec::new();
        let from = encoded.begin.max(start);
        let to = encoded.end_lsn.min(start + size);
        if from > start {
            pieces.push((0, header(start)));
            if page_start > start && from > page_start {
                pieces.push((page_start - start, header(page_start)));
            }
        }
        let begin = encoded.begin;
        pieces.push((from - start, encoded.bytes.slice((from - begin) as usize..(to - begin) as usize)));
        let file_name = segment_file_name(log.timeline, start, log.segment_bytes);
        segments.push(FabricatedSegment { file_name, start, file_bytes: size, pieces });
        start = start + size;
    }
    debug_assert!(segments.iter().all(|segment| segment.file_bytes % WAL_PAGE_BYTES == 0));
    segments
}

#[cfg(test)]
#[path = "handoff_test.rs"]
mod tests;
