//! Makes log bytes: records with their parts and checksum, laid out behind page headers over pages and segments.
//!
//! The counterpart of `record` and `stream`; the layout is that of `XLogRecordAssemble` in
//! `src/backend/access/transam/xloginsert.c` and `CopyXLogRecordToWAL` in `xlog.c`. Strata writes one kind of record
//! itself, the handoff record; tests and the simulator write all kinds.

use bytes::Bytes;
use strata_common::lsn::WAL_PAGE_BYTES;
use strata_common::{BLOCK_BYTES, BlockNumber, Guard, Lsn, RelFork, SystemId};

use crate::fields::FieldWriter;
use crate::page_header::WalPageHeader;
use crate::record::{
    BlockImage, HAS_DATA, HAS_IMAGE, ID_DATA_LONG, ID_DATA_SHORT, ID_ORIGIN, ID_TOPLEVEL_XID, IMAGE_APPLY,
    IMAGE_HAS_HOLE, IMAGE_LZ4, IMAGE_PGLZ, IMAGE_ZSTD, ImageCompression, RawRecord, SAME_REL, WILL_INIT,
};
use crate::record_header::{RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RMGR_INFO_MASK, RecordHeader, record_crc};
use crate::rmgr::{self, xlog_info};
use crate::segment::{SegmentBytes, TimelineNumber};

/// What page headers say about the log that they belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogIdentity {
    pub timeline: TimelineNumber,
    pub system_id: SystemId,
    pub segment_bytes: SegmentBytes,
}

/// A record to be written; everything but its place and its link back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecordSpec {
    pub rmid: u8,
    pub info: u8,
    pub xid: u32,
    pub origin: Option<u16>,
    pub toplevel_xid: Option<u32>,
    /// By ascending id.
    pub blocks: Vec<BlockSpec>,
    pub main_data: Bytes,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockSpec {
    pub id: u8,
    pub rel: RelFork,
    pub block: BlockNumber,
    pub will_init: bool,
    pub image: Option<BlockImage>,
    /// At most 65535 bytes; empty for none.
    pub data: Bytes,
}

/// Log bytes with a record in them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedWal {
    /// Position of the first of `bytes`: where the record was asked for.
    pub begin: Lsn,
    /// The record with all page headers between `begin` and `end_lsn`, padded to `end_lsn`.
    pub bytes: Bytes,
    /// Where the record itself begins: `begin`, or behind the page header there.
    pub record_lsn: Lsn,
    /// Aligned end; where the next record can be asked for.
    pub end_lsn: Lsn,
    /// The record without page headers.
    pub record: RawRecord,
}

impl RecordSpec {
    /// A record without block references.
    pub fn plain(rmid: u8, info: u8, main_data: Bytes) -> RecordSpec {
        RecordSpec { rmid, info, main_data, ..RecordSpec::default() }
    }

    /// The record's bytes with its checksum, fixed header first.
    pub fn encode(&self, prev: Lsn) -> Bytes {
        let payload: usize = self.blocks.iter().map(BlockSpec::payload_bytes).sum();
        let mut fields =
            FieldWriter::with_capacity(RECORD_HEADER_BYTES + payload + self.main_data.len() + 256);
        fields.zero_to(RECORD_HEADER_BYTES);
        let mut before: Option<&BlockSpec> = None;
        for block in &self.blocks {
            assert!(before.is_none_or(|before| before.id < block.id), "block references go by ascending id");
            block.encode_header(before, &mut fields);
            before = Some(block);
        }
        if let Some(origin) = self.origin {
            fields.u8(ID_ORIGIN).u16(origin);
        }
        if let Some(xid) = self.toplevel_xid {
            fields.u8(ID_TOPLEVEL_XID).u32(xid);
        }
        match (self.main_data.len(), u8::try_from(self.main_data.len())) {
            (0, _) => {}
            (_, Ok(length)) => {
                fields.u8(ID_DATA_SHORT).u8(length);
            }
            (length, Err(_)) => {
                fields.u8(ID_DATA_LONG).u32(u32::try_from(length).expect("main data has a 32-bit length"));
            }
        }
        for block in &self.blocks {
            if let Some(image) = &block.image {
                fields.put(&image.bytes);
            }
            fields.put(&block.data);
        }
        fields.put(&self.main_data);
        let mut bytes = fields.into_bytes();
        let total_bytes = u32::try_from(bytes.len()).expect("a record has a 32-bit length");
        assert!(total_bytes <= RECORD_BYTES_MAX, "a record of {total_bytes} bytes could not be read");
        let mut header =
            RecordHeader { total_bytes, xid: self.xid, prev, info: self.info, rmid: self.rmid, crc: 0 };
        bytes[..RECORD_HEADER_BYTES].copy_from_slice(&header.encode());
        header.crc = record_crc(&bytes);
        bytes[..RECORD_HEADER_BYTES].copy_from_slice(&header.encode());
        Bytes::from(bytes)
    }

    fn is_switch(&self) -> bool {
        self.rmid == rmgr::XLOG && self.info & RMGR_INFO_MASK == xlog_info::SWITCH
    }
}

impl BlockSpec {
    fn payload_bytes(&self) -> usize {
        self.data.len() + self.image.as_ref().map_or(0, |image| image.bytes.len())
    }

    fn encode_header(&self, before: Option<&BlockSpec>, fields: &mut FieldWriter) {
        let same_rel = before.is_some_and(|before| before.rel.rel == self.rel.rel);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        fields.u8(self.id).u8(self.rel.fork.raw()
            | flag(self.image.is_some(), HAS_IMAGE)
            | flag(!self.data.is_empty(), HAS_DATA)
            | flag(self.will_init, WILL_INIT)
            | flag(same_rel, SAME_REL));
        fields.u16(u16::try_from(self.data.len()).expect("a block's data has a 16-bit length"));
        if let Some(image) = &self.image {
            let compressed = image.compression != ImageCompression::None;
            assert!(
                compressed || image.bytes.len() + usize::from(image.hole_length) == BLOCK_BYTES,
                "a plain image and its hole make a page"
            );
            let method = match image.compression {
                ImageCompression::None => 0,
                ImageCompression::Pglz => IMAGE_PGLZ,
                ImageCompression::Lz4 => IMAGE_LZ4,
                ImageCompression::Zstd => IMAGE_ZSTD,
            };
            let has_hole = image.hole_length > 0;
            fields.u16(u16::try_from(image.bytes.len()).expect("an image is at most a page"));
            fields.u16(image.hole_offset);
            fields.u8(flag(has_hole, IMAGE_HAS_HOLE) | flag(image.apply, IMAGE_APPLY) | method);
            if has_hole && compressed {
                fields.u16(image.hole_length);
            }
        }
        if !same_rel {
            let rel = self.rel.rel;
            fields.u32(rel.tablespace).u32(rel.database).u32(rel.relation);
        }
        fields.u32(self.block.0);
    }
}

/// Lays `spec` out at `at`, which is the end of the record before it: aligned, and maybe a page's start.
pub fn encode_record(at: Lsn, prev: Lsn, spec: &RecordSpec, log: LogIdentity) -> EncodedWal {
    lay_out(at, spec.encode(prev), spec.is_switch(), log)
}

/// Lays the bytes of a whole record out at `at`. A switch takes the rest of its segment.
pub(crate) fn lay_out(at: Lsn, record: Bytes, is_switch: bool, log: LogIdentity) -> EncodedWal {
    assert!(at.is_valid() && at.is_aligned(), "{at} is no place where a record can begin");
    let mut out = Vec::with_capacity(record.len() + 256);
    let mut position = at;
    let mut record_lsn = at;
    let mut written = 0;
    while written < record.len() {
        if position.page_offset() == 0 {
            let mut header = WalPageHeader::at(position, log.timeline, log.system_id, log.segment_bytes);
            if written > 0 {
                header = header.continuing((record.len() - written) as u32);
            }
            let header = header.encode();
            position = position + header.len() as u64;
            out.extend_from_slice(&header);
        }
        if written == 0 && Guard::BehindTheHeader.holds() {
            record_lsn = position;
        }
        let page_left = (WAL_PAGE_BYTES - position.page_offset()) as usize;
        let piece = page_left.min(record.len() - written);
        out.extend_from_slice(&record[written..written + piece]);
        written += piece;
        position = position + piece as u64;
    }
    let mut end_lsn = position.align_up();
    out.resize((end_lsn - at) as usize, 0);
    if is_switch && !log.segment_bytes.is_segment_start(end_lsn) {
        let next_segment = log.segment_bytes.next_segment(end_lsn);
        while end_lsn < next_segment {
            if end_lsn.page_offset() == 0 {
                let header = WalPageHeader::at(end_lsn, log.timeline, log.system_id, log.segment_bytes);
                out.extend_from_slice(&header.encode());
            }
            end_lsn = Lsn(end_lsn.0 - end_lsn.page_offset()) + WAL_PAGE_BYTES;
            out.resize((end_lsn - at) as usize, 0);
        }
    }
    let raw = RawRecord { lsn: record_lsn, end_lsn, bytes: record };
    EncodedWal { begin: at, bytes: Bytes::from(out), record_lsn, end_lsn, record: raw }
}

/// Writes one record after the other, keeping place and link.
#[derive(Clone, Debug)]
pub struct WalWriter {
    log: LogIdentity,
    position: Lsn,
    prev: Lsn,
}

impl WalWriter {
    /// Goes on at `position`, the end of the record at `prev`.
    pub fn new(position: Lsn, prev: Lsn, log: LogIdentity) -> WalWriter {
        WalWriter { log, position, prev }
    }

    /// Where the next record goes.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// The last record's start.
    pub fn prev(&self) -> Lsn {
        self.prev
    }

    pub fn append(&mut self, spec: &RecordSpec) -> EncodedWal {
        let encoded = encode_record(self.position, self.prev, spec, self.log);
        self.position = encoded.end_lsn;
        self.prev = encoded.record_lsn;
        encoded
    }
}
