//! Turns a stream of log bytes, as they lie in segments, into whole checked records.
//!
//! The decoder is fed contiguous bytes in pieces of any size and gives back records as soon as they are whole: page
//! headers are checked and taken out, records that go on behind a page or segment boundary are put together, and each
//! must have a right checksum and point back at the record before it (trap S3). What it says about the end of the last
//! whole record, `position`, is what "record-aligned" means for safekeepers (trap K8).
//!
//! The rules are those of `XLogDecodeNextRecord` in `src/backend/access/transam/xlogreader.c`. An error is final: the
//! bytes are not this log, and every later call repeats it.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use strata_common::lsn::WAL_PAGE_BYTES;
use strata_common::{Lsn, SystemId};

use crate::page_header::{
    FIRST_IS_CONTRECORD, FIRST_IS_OVERWRITE_CONTRECORD, LONG_HEADER_BYTES, PageHeaderError, WalPageHeader,
};
use crate::record::{RawRecord, decode};
use crate::record_header::{RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RMGR_INFO_MASK, RecordHeader, record_crc};
use crate::rmgr::{self, xlog_info};
use crate::segment::{SegmentBytes, TimelineNumber};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    PageHeader(#[from] PageHeaderError),
    /// Zeros where a record is due. In a file this is how the log ends; in a stream it is an error.
    #[error("no record at {lsn}: the log ends here")]
    NoRecord { lsn: Lsn },
    #[error("record at {lsn} has a length of {length} bytes")]
    RecordLength { lsn: Lsn, length: u32 },
    #[error("record at {lsn} has resource manager {rmid}, which cannot be")]
    ResourceManager { lsn: Lsn, rmid: u8 },
    #[error("record at {lsn} has {found} as the record before, not {expected}")]
    PrevLink { lsn: Lsn, found: Lsn, expected: Lsn },
    #[error("record at {lsn} points at {found} as the record before, which is not before it")]
    PrevLinkAhead { lsn: Lsn, found: Lsn },
    #[error(
        "record at {lsn}, of resource manager {}, has checksum {found:08x}, its content {expected:08x}",
        rmgr::manager_name(*rmid)
    )]
    Crc { lsn: Lsn, rmid: u8, found: u32, expected: u32 },
    #[error("page at {page} does not go on with the record at {lsn}")]
    NotContinued { lsn: Lsn, page: Lsn },
    #[error(
        "page at {page} goes on with {remaining} bytes of the record at {lsn}, of which {missing} are missing"
    )]
    ContinuationLength { lsn: Lsn, page: Lsn, remaining: u32, missing: u32 },
    #[error("{start} is no place where a record can begin")]
    Start { start: Lsn },
    #[error("page at {page} starts inside a record: it is no place to begin")]
    InsideRecord { page: Lsn },
    #[error("record at {lsn} does not explain why the record at {overwritten} was left unfinished")]
    NotOverwritten { lsn: Lsn, overwritten: Lsn },
}

/// Where the decoder is in the log.
enum State {
    /// Before a record (or before the page header that precedes it).
    Between,
    /// In a record that goes on behind a page boundary. `header_checked` once its fixed header was whole and good.
    Inside {
        lsn: Lsn,
        total_bytes: u32,
        gathered: BytesMut,
        header_checked: bool,
    },
    /// Behind an XLOG SWITCH record, which takes the rest of its segment.
    Skipping {
        record: RawRecord,
        next_segment: Lsn,
    },
    Failed(StreamError),
}

pub struct WalStreamDecoder {
    segment_bytes: SegmentBytes,
    system_id: Option<SystemId>,
    state: State,
    /// Fed and not yet taken.
    chunks: VecDeque<Bytes>,
    available_bytes: u64,
    /// Position of the first byte of `chunks`.
    read_lsn: Lsn,
    position: Lsn,
    last_record: Option<Lsn>,
    last_timeline: TimelineNumber,
    /// The page that was entered last starts with the rest of a record, although none was being read.
    page_starts_inside: bool,
    /// A record that was cut off by a page with the overwrite flag; the next record must own up to it.
    cut_off: Option<Lsn>,
}

impl WalStreamDecoder {
    /// A decoder for the log from `start` on. `start` is the end or the start of a record; it may be a page's start.
    /// A start that can be neither makes the first `next` fail.
    pub fn new(start: Lsn, segment_bytes: SegmentBytes) -> WalStreamDecoder {
        let page_offset = start.page_offset();
        let in_page_header =
            page_offset != 0 && page_offset < WalPageHeader::bytes_at(start, segment_bytes) as u64;
        let state = if start.is_valid() && start.is_aligned() && !in_page_header {
            State::Between
        } else {
            State::Failed(StreamError::Start { start })
        };
        WalStreamDecoder {
            segment_bytes,
            system_id: None,
            state,
            chunks: VecDeque::new(),
            available_bytes: 0,
            read_lsn: start,
            position: start,
            last_record: None,
            last_timeline: 0,
            page_starts_inside: false,
            cut_off: None,
        }
    }

    /// Long page headers must name this cluster.
    pub fn with_system_id(mut self, system_id: SystemId) -> WalStreamDecoder {
        self.system_id = Some(system_id);
        self
    }

    /// The first record must point back at `prev`. Without this the first record's link is only plausible.
    pub fn with_prev(mut self, prev: Lsn) -> WalStreamDecoder {
        self.last_record = Some(prev);
        self
    }

    /// Takes the next bytes of the log, page headers included, in pieces of any size.
    pub fn feed(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.available_bytes += bytes.len() as u64;
            self.chunks.push_back(bytes);
        }
    }

    /// End of the last whole record that `next` returned, or the start if there was none.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// End of the bytes that were fed.
    pub fn fed_to(&self) -> Lsn {
        self.read_lsn + self.available_bytes
    }

    /// Start of the last whole record: what the next record's `xl_prev` must be.
    pub fn last_record(&self) -> Option<Lsn> {
        self.last_record
    }

    /// Timeline number in the last page header that was read, or 0.
    pub fn timeline(&self) -> TimelineNumber {
        self.last_timeline
    }

    /// The next whole record, or `None` until more bytes are fed.
    #[expect(clippy::should_implement_trait, reason = "None means 'feed more', so this is no iterator")]
    pub fn next(&mut self) -> Result<Option<RawRecord>, StreamError> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        self.advance().inspect_err(|error| self.state = State::Failed(error.clone()))
    }

    fn advance(&mut self) -> Result<Option<RawRecord>, StreamError> {
        loop {
            if let State::Skipping { next_segment, .. } = &self.state {
                let next_segment = *next_segment;
                self.discard_to(next_segment);
                if self.read_lsn < next_segment {
                    return Ok(None);
                }
                let State::Skipping { record, .. } = std::mem::replace(&mut self.state, State::Between)
                else {
                    unreachable!("the state was matched above");
                };
                return Ok(Some(self.deliver(record)));
            }
            if self.read_lsn.page_offset() == 0 && !self.enter_page()? {
                return Ok(None);
            }
            let whole = match &self.state {
                State::Between => self.begin_record()?,
                State::Inside { .. } => self.continue_record()?,
                State::Skipping { .. } | State::Failed(_) => unreachable!("handled above"),
            };
            match whole {
                Progress::More => {}
                Progress::Starved => return Ok(None),
                Progress::Record(record) => {
                    if let Some(record) = self.finish_record(record)? {
                        return Ok(Some(self.deliver(record)));
                    }
                }
            }
        }
    }

    /// Reads the header of the page at `read_lsn`. False if it is not there yet.
    fn enter_page(&mut self) -> Result<bool, StreamError> {
        let page = self.read_lsn;
        let header_bytes = WalPageHeader::bytes_at(page, self.segment_bytes);
        if self.available_bytes < header_bytes as u64 {
            return Ok(false);
        }
        let mut bytes = [0; LONG_HEADER_BYTES];
        self.peek(&mut bytes[..header_bytes]);
        // The flags say how long the header is; one that claims to be longer than it may be fails the check.
        let header = WalPageHeader::parse(&bytes).expect("the array holds a long header");
        header.check(page, self.segment_bytes, self.system_id)?;
        if header.timeline < self.last_timeline {
            let (found, before) = (header.timeline, self.last_timeline);
            return Err(PageHeaderError::Timeline { at: page, found, before }.into());
        }
        self.last_timeline = header.timeline;
        self.page_starts_inside = false;
        let continues = header.has(FIRST_IS_CONTRECORD);
        match &self.state {
            State::Inside { lsn, .. } if header.has(FIRST_IS_OVERWRITE_CONTRECORD) => {
                self.cut_off = Some(*lsn);
                self.state = State::Between;
                self.page_starts_inside = continues;
            }
            State::Inside { lsn, total_bytes, gathered, .. } => {
                if !continues {
                    return Err(StreamError::NotContinued { lsn: *lsn, page });
                }
                let missing = total_bytes - gathered.len() as u32;
                let remaining = header.remaining_bytes;
                if remaining != missing {
                    return Err(StreamError::ContinuationLength { lsn: *lsn, page, remaining, missing });
                }
            }
            _ => self.page_starts_inside = continues,
        }
        self.discard_to(page + header_bytes as u64);
        Ok(true)
    }

    fn begin_record(&mut self) -> Result<Progress, StreamError> {
        let lsn = self.read_lsn;
        if self.page_starts_inside {
            return Err(StreamError::InsideRecord { page: Lsn(lsn.0 - lsn.page_offset()) });
        }
        if self.available_bytes < 4 {
            return Ok(Progress::Starved);
        }
        let mut length = [0; 4];
        self.peek(&mut length);
        let total_bytes = u32::from_le_bytes(length);
        if total_bytes == 0 {
            return Err(StreamError::NoRecord { lsn });
        }
        if total_bytes < RECORD_HEADER_BYTES as u32 || total_bytes > RECORD_BYTES_MAX {
            return Err(StreamError::RecordLength { lsn, length: total_bytes });
        }
        let page_left = WAL_PAGE_BYTES - lsn.page_offset();
        if u64::from(total_bytes) > page_left {
            self.state = State::Inside { lsn, total_bytes, gathered: BytesMut::new(), header_checked: false };
            return Ok(Progress::More);
        }
        if self.available_bytes >= RECORD_HEADER_BYTES as u64 {
            let mut header = [0; RECORD_HEADER_BYTES];
            self.peek(&mut header);
            self.check_header(lsn, &header)?;
        }
        // The padding belongs to the record: without it `end_lsn` would lie beyond the bytes that are there.
        let end_lsn = (lsn + u64::from(total_bytes)).align_up();
        if self.available_bytes < end_lsn - lsn {
            return Ok(Progress::Starved);
        }
        let bytes = self.take(total_bytes as usize);
        self.discard_to(end_lsn);
        Ok(Progress::Record(RawRecord { lsn, end_lsn, bytes }))
    }

    fn continue_record(&mut self) -> Result<Progress, StreamError> {
        let page_left = WAL_PAGE_BYTES - self.read_lsn.page_offset();
        let State::Inside { lsn, total_bytes, gathered, header_checked } = &mut self.state else {
            unreachable!("called inside a record only");
        };
        let lsn = *lsn;
        let missing = u64::from(*total_bytes) - gathered.len() as u64;
        let mut wanted = missing.min(page_left).min(self.available_bytes);
        self.read_lsn = self.read_lsn + wanted;
        self.available_bytes -= wanted;
        while wanted > 0 {
            let chunk = self.chunks.front_mut().expect("available_bytes counts the chunks");
            let piece = (chunk.len() as u64).min(wanted);
            gathered.extend_from_slice(&chunk.split_to(piece as usize));
            wanted -= piece;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        let whole = gathered.len() == *total_bytes as usize;
        if !*header_checked && gathered.len() >= RECORD_HEADER_BYTES {
            *header_checked = true;
            let mut header = [0; RECORD_HEADER_BYTES];
            header.copy_from_slice(&gathered[..RECORD_HEADER_BYTES]);
            self.check_header(lsn, &header)?;
        }
        if !whole {
            let at_page_end = self.read_lsn.page_offset() == 0;
            return Ok(if at_page_end { Progress::More } else { Progress::Starved });
        }
        let end_lsn = self.read_lsn.align_up();
        if self.available_bytes < end_lsn - self.read_lsn {
            return Ok(Progress::Starved);
        }
        self.discard_to(end_lsn);
        let State::Inside { gathered, .. } = std::mem::replace(&mut self.state, State::Between) else {
            unreachable!("the state was matched above");
        };
        Ok(Progress::Record(RawRecord { lsn, end_lsn, bytes: gathered.freeze() }))
    }

    /// Checks what the fixed header says, before its length is believed any further.
    fn check_header(&self, lsn: Lsn, header: &[u8; RECORD_HEADER_BYTES]) -> Result<(), StreamError> {
        let header = RecordHeader::parse(header).expect("the array holds a header");
        if !rmgr::is_valid(header.rmid) {
            return Err(StreamError::ResourceManager { lsn, rmid: header.rmid });
        }
        let found = header.prev;
        match self.last_record {
            Some(expected) if found != expected => Err(StreamError::PrevLink { lsn, found, expected }),
            None if found >= lsn => Err(StreamError::PrevLinkAhead { lsn, found }),
            _ => Ok(()),
        }
    }

    /// Checks a whole record. `None` if it is a switch whose segment has not been skipped yet.
    fn finish_record(&mut self, mut record: RawRecord) -> Result<Option<RawRecord>, StreamError> {
        let lsn = record.lsn;
        let header = RecordHeader::parse(&record.bytes).expect("a whole record has a header");
        let expected = record_crc(&record.bytes);
        if header.crc != expected {
            return Err(StreamError::Crc { lsn, rmid: header.rmid, found: header.crc, expected });
        }
        let info = header.info & RMGR_INFO_MASK;
        if let Some(overwritten) = self.cut_off.take() {
            let explains = header.rmid == rmgr::XLOG
                && info == xlog_info::OVERWRITE_CONTRECORD
                && overwritten_lsn(&record) == Some(overwritten);
            if !explains {
                return Err(StreamError::NotOverwritten { lsn, overwritten });
            }
        }
        if header.rmid == rmgr::XLOG && info == xlog_info::SWITCH {
            if !self.segment_bytes.is_segment_start(record.end_lsn) {
                record.end_lsn = self.segment_bytes.next_segment(record.end_lsn);
            }
            self.state = State::Skipping { next_segment: record.end_lsn, record };
            return Ok(None);
        }
        Ok(Some(record))
    }

    fn deliver(&mut self, record: RawRecord) -> RawRecord {
        self.position = record.end_lsn;
        self.last_record = Some(record.lsn);
        record
    }

    /// Copies the first bytes of what is available without taking them; there must be enough.
    fn peek(&self, into: &mut [u8]) {
        let mut filled = 0;
        for chunk in &self.chunks {
            let piece = chunk.len().min(into.len() - filled);
            into[filled..filled + piece].copy_from_slice(&chunk[..piece]);
            filled += piece;
            if filled == into.len() {
                return;
            }
        }
        unreachable!("the caller has checked that the bytes are there");
    }

    /// Takes bytes that are available; without a copy if they lie in one chunk.
    fn take(&mut self, bytes: usize) -> Bytes {
        self.read_lsn = self.read_lsn + bytes as u64;
        self.available_bytes -= bytes as u64;
        let front = self.chunks.front_mut().expect("the caller has checked that the bytes are there");
        let taken = if front.len() >= bytes {
            front.split_to(bytes)
        } else {
            let mut gathered = BytesMut::with_capacity(bytes);
            while gathered.len() < bytes {
                let chunk = self.chunks.front_mut().expect("the caller has checked that the bytes are there");
                let piece = chunk.len().min(bytes - gathered.len());
                gathered.extend_from_slice(&chunk.split_to(piece));
                if chunk.is_empty() {
                    self.chunks.pop_front();
                }
            }
            gathered.freeze()
        };
        if self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
        taken
    }

    /// Drops available bytes up to `lsn`, or all of them if there are fewer.
    fn discard_to(&mut self, lsn: Lsn) {
        let mut left = (lsn - self.read_lsn).min(self.available_bytes);
        self.read_lsn = self.read_lsn + left;
        self.available_bytes -= left;
        while left > 0 {
            let chunk = self.chunks.front_mut().expect("available_bytes counts the chunks");
            let piece = (chunk.len() as u64).min(left);
            chunk.advance(piece as usize);
            left -= piece;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

enum Progress {
    /// Go on: a page boundary was reached.
    More,
    /// More bytes are needed.
    Starved,
    Record(RawRecord),
}

/// Which record an OVERWRITE_CONTRECORD record replaces (`xl_overwrite_contrecord`).
fn overwritten_lsn(record: &RawRecord) -> Option<Lsn> {
    let main_data = decode(record).ok()?.main_data;
    let bytes = main_data.get(..8)?.try_into().ok()?;
    Some(Lsn(u64::from_le_bytes(bytes)))
}

#[cfg(test)]
#[path = "stream_test.rs"]
mod tests;
