//! The fixed header of a log record and its checksum (`XLogRecord` in `src/include/access/xlogrecord.h`).

use strata_common::Lsn;

use crate::fields::{FieldReader, FieldWriter, Short};

/// Size of the fixed header, bytes.
pub const RECORD_HEADER_BYTES: usize = 24;
/// The largest record that Postgres can read (`XLogRecordMaxSize`), bytes.
pub const RECORD_BYTES_MAX: u32 = 1020 * 1024 * 1024;
/// Where the checksum lies in the header; it covers everything but itself.
const CRC_OFFSET: usize = 20;

/// Bits of `info` that belong to the resource manager (`XLR_RMGR_INFO_MASK`).
pub const RMGR_INFO_MASK: u8 = 0xF0;
/// The record changes relation files in ways that its block references do not show (`XLR_SPECIAL_REL_UPDATE`).
pub const SPECIAL_REL_UPDATE: u8 = 0x01;
/// The record carries images to compare with what redo makes (`XLR_CHECK_CONSISTENCY`).
pub const CHECK_CONSISTENCY: u8 = 0x02;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// Size of the whole record with this header, bytes.
    pub total_bytes: u32,
    pub xid: u32,
    /// Start of the record before.
    pub prev: Lsn,
    pub info: u8,
    pub rmid: u8,
    /// CRC-32C of what follows the header, then of the header's first 20 bytes.
    pub crc: u32,
}

impl RecordHeader {
    pub fn parse(bytes: &[u8]) -> Result<RecordHeader, Short> {
        let mut fields = FieldReader::new(bytes);
        let total_bytes = fields.u32()?;
        let xid = fields.u32()?;
        let prev = Lsn(fields.u64()?);
        let info = fields.u8()?;
        let rmid = fields.u8()?;
        fields.skip(2)?;
        Ok(RecordHeader { total_bytes, xid, prev, info, rmid, crc: fields.u32()? })
    }

    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut fields = FieldWriter::with_capacity(RECORD_HEADER_BYTES);
        fields.u32(self.total_bytes).u32(self.xid).u64(self.prev.0).u8(self.info).u8(self.rmid);
        fields.zero_to(CRC_OFFSET).u32(self.crc);
        fields.into_bytes().try_into().expect("the fields above have 24 bytes")
    }
}

/// Checksum of a whole record, header first. `record` must hold at least a header.
pub fn record_crc(record: &[u8]) -> u32 {
    let body = crc32c::crc32c(&record[RECORD_HEADER_BYTES..]);
    crc32c::crc32c_append(body, &record[..CRC_OFFSET])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips() {
        let header = RecordHeader { total_bytes: 30, xid: 7, prev: Lsn(0x28), info: 0x10, rmid: 9, crc: 5 };
        assert_eq!(RecordHeader::parse(&header.encode()), Ok(header));
        assert!(RecordHeader::parse(&header.encode()[..23]).is_err());
    }

    #[test]
    fn checksum_leaves_out_only_itself() {
        let mut record = vec![1u8; 40];
        let crc = record_crc(&record);
        for at in 0..record.len() {
            record[at] ^= 1;
            assert_eq!(
                record_crc(&record) == crc,
                (CRC_OFFSET..RECORD_HEADER_BYTES).contains(&at),
                "byte {at}"
            );
            record[at] ^= 1;
        }
    }
}
