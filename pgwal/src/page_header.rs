//! Header of a log page (`XLogPageHeaderData`, `XLogLongPageHeaderData` in `src/include/access/xlog_internal.h`).
//!
//! Every 8 KiB page of the log starts with 24 bytes; the first page of a segment with 40, which also name the cluster
//! and the sizes (trap S4). A record that does not fit goes on behind the header of the next page, which says so.

use strata_common::lsn::WAL_PAGE_BYTES;
use strata_common::{Lsn, SystemId};

use crate::fields::{FieldReader, FieldWriter, Short};
use crate::segment::{SegmentBytes, TimelineNumber};

/// `XLOG_PAGE_MAGIC` of Postgres 17.
pub const PAGE_MAGIC: u16 = 0xD116;
/// Size of a short header, bytes.
pub const SHORT_HEADER_BYTES: usize = 24;
/// Size of a long header, bytes.
pub const LONG_HEADER_BYTES: usize = 40;

/// The page starts with the rest of a record (`XLP_FIRST_IS_CONTRECORD`).
pub const FIRST_IS_CONTRECORD: u16 = 0x0001;
/// The header is a long one (`XLP_LONG_HEADER`).
pub const LONG_HEADER: u16 = 0x0002;
/// The page's first record stands where the rest of a lost one was due (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`).
pub const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

/// What is wrong with a page header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageHeaderError {
    #[error("log page at {at} has magic {found:#06x}, not {PAGE_MAGIC:#06x}")]
    Magic { at: Lsn, found: u16 },
    #[error("log page at {at} has unknown flags {found:#06x}")]
    Flags { at: Lsn, found: u16 },
    #[error("log page at {at} starts a segment but has no long header")]
    NoLongHeader { at: Lsn },
    #[error("log page at {at} says that its address is {found}")]
    Address { at: Lsn, found: Lsn },
    #[error("log page at {at} belongs to cluster {found}, not {expected}")]
    System { at: Lsn, found: SystemId, expected: SystemId },
    #[error("log page at {at} says segments of {segment_bytes} bytes and pages of {page_bytes}")]
    Sizes { at: Lsn, segment_bytes: u32, page_bytes: u32 },
    #[error("log page at {at} has timeline {found}, lower than {before} before it")]
    Timeline { at: Lsn, found: TimelineNumber, before: TimelineNumber },
}

/// The part that only the first page of a segment has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongHeader {
    pub system_id: SystemId,
    pub segment_bytes: u32,
    pub page_bytes: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalPageHeader {
    pub magic: u16,
    pub flags: u16,
    pub timeline: TimelineNumber,
    /// Position of the page's first byte.
    pub address: Lsn,
    /// Bytes of the record that goes on here, from this page on; 0 if none does.
    pub remaining_bytes: u32,
    pub long: Option<LongHeader>,
}

impl WalPageHeader {
    /// Size of the header of the page that holds `lsn`, bytes.
    pub fn bytes_at(lsn: Lsn, segment_bytes: SegmentBytes) -> usize {
        let first_page = lsn.segment_offset(segment_bytes.get()) < WAL_PAGE_BYTES;
        if first_page { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES }
    }

    /// The header that Postgres would write at `address`, of the size that belongs there.
    pub fn at(address: Lsn, timeline: TimelineNumber, system_id: SystemId, size: SegmentBytes) -> Self {
        assert!(address.page_offset() == 0, "{address} is not a page's start");
        let long = size.is_segment_start(address).then(|| LongHeader {
            system_id,
            segment_bytes: u32::try_from(size.get()).expect("a segment size has 32 bits"),
            page_bytes: WAL_PAGE_BYTES as u32,
        });
        let flags = if long.is_some() { LONG_HEADER } else { 0 };
        WalPageHeader { magic: PAGE_MAGIC, flags, timeline, address, remaining_bytes: 0, long }
    }

    /// The same header, for a page that starts with the last `remaining_bytes` of a record.
    pub fn continuing(mut self, remaining_bytes: u32) -> Self {
        self.flags |= FIRST_IS_CONTRECORD;
        self.remaining_bytes = remaining_bytes;
        self
    }

    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Reads a header; a long one if its flag is set.
    pub fn parse(bytes: &[u8]) -> Result<WalPageHeader, Short> {
        let mut fields = FieldReader::new(bytes);
        let mut header = WalPageHeader {
            magic: fields.u16()?,
            flags: fields.u16()?,
            timeline: fields.u32()?,
            address: Lsn(fields.u64()?),
            remaining_bytes: fields.u32()?,
            long: None,
        };
        fields.skip(4)?;
        if header.has(LONG_HEADER) {
            header.long = Some(LongHeader {
                system_id: SystemId(fields.u64()?),
                segment_bytes: fields.u32()?,
                page_bytes: fields.u32()?,
            });
        }
        Ok(header)
    }

    /// The header's bytes: 24, or 40 of a long one.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = FieldWriter::with_capacity(LONG_HEADER_BYTES);
        fields.u16(self.magic).u16(self.flags).u32(self.timeline).u64(self.address.0);
        fields.u32(self.remaining_bytes).zero_to(SHORT_HEADER_BYTES);
        if let Some(long) = self.long {
            fields.u64(long.system_id.0).u32(long.segment_bytes).u32(long.page_bytes);
        }
        fields.into_bytes()
    }

    /// Checks the header of the page at `at`, as `XLogReaderValidatePageHeader` does.
    pub fn check(
        &self,
        at: Lsn,
        segment_bytes: SegmentBytes,
        system_id: Option<SystemId>,
    ) -> Result<(), PageHeaderError> {
        if self.magic != PAGE_MAGIC {
            return Err(PageHeaderError::Magic { at, found: self.magic });
        }
        if self.flags & !ALL_FLAGS != 0 {
            return Err(PageHeaderError::Flags { at, found: self.flags });
        }
        // Postgres takes a long header anywhere; its own writer and the sizes above only know it at a segment's start.
        if self.long.is_some() != segment_bytes.is_segment_start(at) {
            return Err(match self.long {
                None => PageHeaderError::NoLongHeader { at },
                Some(_) => PageHeaderError::Flags { at, found: self.flags },
            });
        }
        if self.address != at {
            return Err(PageHeaderError::Address { at, found: self.address });
        }
        let Some(long) = self.long else { return Ok(()) };
        if let Some(expected) = system_id.filter(|&expected| expected != long.system_id) {
            return Err(PageHeaderError::System { at, found: long.system_id, expected });
        }
        if u64::from(long.segment_bytes) != segment_bytes.get()
            || u64::from(long.page_bytes) != WAL_PAGE_BYTES
        {
            let LongHeader { segment_bytes, page_bytes, .. } = long;
            return Err(PageHeaderError::Sizes { at, segment_bytes, page_bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SegmentBytes = SegmentBytes::DEFAULT;
    const SYSTEM: SystemId = SystemId(77);

    #[test]
    fn headers_round_trip_and_check() {
        for at in [Lsn(0x0200_0000), Lsn(0x0200_2000)] {
            let header = WalPageHeader::at(at, 1, SYSTEM, SIZE).continuing(99);
            let bytes = header.encode();
            assert_eq!(bytes.len(), WalPageHeader::bytes_at(at, SIZE));
            assert_eq!(WalPageHeader::parse(&bytes), Ok(header));
            assert_eq!(header.check(at, SIZE, Some(SYSTEM)), Ok(()));
            assert!(header.check(at + WAL_PAGE_BYTES, SIZE, None).is_err());
            assert!(WalPageHeader::parse(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let at = Lsn(0x0200_0000);
        let good = WalPageHeader::at(at, 1, SYSTEM, SIZE);
        let check =
            |header: WalPageHeader| header.check(at, SIZE, Some(SYSTEM)).expect_err("must be refused");
        assert!(matches!(check(WalPageHeader { magic: 1, ..good }), PageHeaderError::Magic { .. }));
        assert!(matches!(check(WalPageHeader { flags: 0x12, ..good }), PageHeaderError::Flags { .. }));
        assert!(matches!(
            check(WalPageHeader { flags: 0, long: None, ..good }),
            PageHeaderError::NoLongHeader { .. }
        ));
        assert!(matches!(check(WalPageHeader { address: Lsn(0), ..good }), PageHeaderError::Address { .. }));
        let other = good.check(at, SIZE, Some(SystemId(78)));
        assert!(matches!(other, Err(PageHeaderError::System { .. })));
        assert!(matches!(good.check(at, SegmentBytes::MIN, None), Err(PageHeaderError::Sizes { .. })));
    }
}
