//! A log for tests: true records one after the other, cut at will and gone on with other content.

use bytes::Bytes;
use strata_common::{Lsn, SystemId};
use strata_pgwal::{LogIdentity, RecordSpec, SegmentBytes, WalWriter};

/// With the smallest segments, so that tests cross many.
pub const LOG: LogIdentity =
    LogIdentity { timeline: 1, system_id: SystemId(77), segment_bytes: SegmentBytes::MIN };
/// Behind the long header of the second segment.
pub const START: Lsn = Lsn((1 << 20) + 40);

const XLOG_RMGR: u8 = 0;
const XLOG_NOOP: u8 = 0x20;
const XLOG_SWITCH: u8 = 0x40;

/// What has been generated of a log, from `START` on.
pub struct TestLog {
    pub bytes: Vec<u8>,
    /// Ends of records, with the start of each; the first pair is the beginning.
    ends: Vec<(Lsn, Lsn)>,
    writer: WalWriter,
    /// Tells logs apart that were gone on with after a cut.
    flavour: u8,
}

impl TestLog {
    pub fn begin() -> TestLog {
        let writer = WalWriter::new(START, Lsn(1 << 20), LOG);
        TestLog { bytes: Vec::new(), ends: vec![(START, Lsn(1 << 20))], writer, flavour: 0 }
    }

    pub fn end(&self) -> Lsn {
        self.writer.position()
    }

    /// Adds a record with so much in it, none of it zero; returns its end.
    pub fn add(&mut self, content_bytes: usize) -> Lsn {
        let content = Bytes::from(vec![(self.flavour ^ content_bytes as u8) | 1; content_bytes]);
        self.add_spec(&RecordSpec::plain(XLOG_RMGR, XLOG_NOOP, content))
    }

    /// Adds so many of them.
    pub fn add_many(&mut self, records: usize, content_bytes: usize) {
        for _ in 0..records {
            self.add(content_bytes);
        }
    }

    /// Adds a switch to the next segment.
    pub fn add_switch(&mut self) -> Lsn {
        self.add_spec(&RecordSpec::plain(XLOG_RMGR, XLOG_SWITCH, Bytes::new()))
    }

    fn add_spec(&mut self, spec: &RecordSpec) -> Lsn {
        let encoded = self.writer.append(spec);
        self.bytes.extend_from_slice(&encoded.bytes);
        self.ends.push((encoded.end_lsn, encoded.record_lsn));
        encoded.end_lsn
    }

    pub fn slice(&self, from: Lsn, to: Lsn) -> Bytes {
        Bytes::copy_from_slice(&self.bytes[(from - START) as usize..(to - START) as usize])
    }

    /// End of the last whole record at or below `lsn`.
    pub fn end_at_or_below(&self, lsn: Lsn) -> Lsn {
        self.ends.iter().rev().map(|(end, _)| *end).find(|end| *end <= lsn).expect("the beginning is one")
    }

    pub fn is_record_end(&self, lsn: Lsn) -> bool {
        self.ends.iter().any(|(end, _)| *end == lsn)
    }

    /// Goes on with other content from `to`, a record's end.
    pub fn cut(&mut self, to: Lsn) {
        let kept = self.ends.iter().rposition(|(end, _)| *end == to).expect("a record's end");
        self.ends.truncate(kept + 1);
        self.bytes.truncate((to - START) as usize);
        self.writer = WalWriter::new(to, self.ends[kept].1, LOG);
        self.flavour = self.flavour.wrapping_add(1);
    }
}
