//! A whole log record, and its parts: block references with images and data, main data, origin, top-level xid.
//!
//! The layout is that of `src/include/access/xlogrecord.h`, the checks are those of `DecodeXLogRecord` in
//! `src/backend/access/transam/xlogreader.c` and, because nothing here may panic on foreign bytes, a few more
//! (fork numbers, holes inside the page). All parts are slices of the record's own bytes: nothing is copied.

use bytes::Bytes;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelFork, RelTag};

use crate::fields::{FieldReader, Short};
use crate::record_header::{RECORD_HEADER_BYTES, RMGR_INFO_MASK, RecordHeader};

/// Highest number of a block reference (`XLR_MAX_BLOCK_ID`).
pub const BLOCK_ID_MAX: u8 = 32;
pub(crate) const ID_DATA_SHORT: u8 = 255;
pub(crate) const ID_DATA_LONG: u8 = 254;
pub(crate) const ID_ORIGIN: u8 = 253;
pub(crate) const ID_TOPLEVEL_XID: u8 = 252;

pub(crate) const FORK_MASK: u8 = 0x0F;
pub(crate) const HAS_IMAGE: u8 = 0x10;
pub(crate) const HAS_DATA: u8 = 0x20;
pub(crate) const WILL_INIT: u8 = 0x40;
pub(crate) const SAME_REL: u8 = 0x80;

pub(crate) const IMAGE_HAS_HOLE: u8 = 0x01;
pub(crate) const IMAGE_APPLY: u8 = 0x02;
pub(crate) const IMAGE_PGLZ: u8 = 0x04;
pub(crate) const IMAGE_LZ4: u8 = 0x08;
pub(crate) const IMAGE_ZSTD: u8 = 0x10;

/// A reassembled record: its bytes without page headers, and where it lay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawRecord {
    /// Position of its first byte; never inside a page header.
    pub lsn: Lsn,
    /// End of the record, aligned: what `pd_lsn` of its pages is set to. A page's start if the record ends a page; the
    /// next segment's start for XLOG SWITCH.
    pub end_lsn: Lsn,
    /// The record, fixed header first.
    pub bytes: Bytes,
}

/// A record in parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecodedRecord {
    pub lsn: Lsn,
    pub end_lsn: Lsn,
    /// Start of the record before (`xl_prev`).
    pub prev: Lsn,
    /// The transaction, or 0.
    pub xid: u32,
    pub rmid: u8,
    pub info: u8,
    /// Replication origin.
    pub origin: Option<u16>,
    /// Top-level transaction of a subtransaction's first record at `wal_level=logical`.
    pub toplevel_xid: Option<u32>,
    pub main_data: Bytes,
    /// Block references, by ascending id. Ids may have gaps.
    pub blocks: Vec<DecodedBlock>,
}

impl DecodedRecord {
    /// `info` without the bits that are the log's own (`XLR_INFO_MASK`).
    pub fn rmgr_info(&self) -> u8 {
        self.info & RMGR_INFO_MASK
    }

    /// The block reference with this id.
    pub fn block(&self, id: u8) -> Option<&DecodedBlock> {
        self.blocks.iter().find(|block| block.id == id)
    }

    /// Resource manager and record type as `pg_waldump` names them, such as `Heap/INSERT+INIT`.
    pub fn name(&self) -> String {
        crate::rmgr::record_name(self.rmid, self.info)
    }
}

/// One block reference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecodedBlock {
    pub id: u8,
    pub rel: RelFork,
    pub block: BlockNumber,
    /// Redo makes the page anew and needs no old content.
    pub will_init: bool,
    pub image: Option<BlockImage>,
    /// Data of this block; empty if there is none.
    pub data: Bytes,
    pub has_data: bool,
}

/// How the bytes of an image are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageCompression {
    None,
    Pglz,
    Lz4,
    Zstd,
}

/// A full-page image without its hole, maybe compressed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockImage {
    /// Redo restores the page from it. An image without is for `wal_consistency_checking` only.
    pub apply: bool,
    /// Bytes before the hole. `hole_offset + hole_length <= 8192`.
    pub hole_offset: u16,
    /// Size of the hole of zeros that was left out; 0 if there is none.
    pub hole_length: u16,
    pub compression: ImageCompression,
    pub bytes: Bytes,
}

/// A record whose parts do not fit together. Its checksum is right when it comes from a `WalStreamDecoder`, so this is
/// damage done before it was logged, or a format that is not Postgres 17's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("record at {lsn} has parts that do not add up to its length")]
    Length { lsn: Lsn },
    #[error("record at {lsn} has block reference {id} out of order or out of range")]
    BlockId { lsn: Lsn, id: u8 },
    #[error("record at {lsn}, block reference {id}: data flag and data length {length} disagree")]
    DataFlag { lsn: Lsn, id: u8, length: u16 },
    #[error(
        "record at {lsn}, block reference {id}: image of {length} bytes with flags {flags:#04x} and a hole of {hole_length} at {hole_offset}"
    )]
    Image { lsn: Lsn, id: u8, length: u16, flags: u8, hole_offset: u16, hole_length: u16 },
    #[error("record at {lsn}, block reference {id} is of the relation before, and there is none")]
    NoRelationBefore { lsn: Lsn, id: u8 },
    #[error("record at {lsn}, block reference {id} names fork {fork}, which does not exist")]
    Fork { lsn: Lsn, id: u8, fork: u8 },
}

struct BlockHeader {
    block: DecodedBlock,
    image_bytes: usize,
    data_bytes: usize,
}

/// Takes a record apart.
pub fn decode(raw: &RawRecord) -> Result<DecodedRecord, DecodeError> {
    let lsn = raw.lsn;
    let bad_length = |_: Short| DecodeError::Length { lsn };
    let header = RecordHeader::parse(&raw.bytes).map_err(bad_length)?;
    if header.total_bytes as usize != raw.bytes.len() {
        return Err(DecodeError::Length { lsn });
    }
    let mut record = DecodedRecord {
        lsn,
        end_lsn: raw.end_lsn,
        prev: header.prev,
        xid: header.xid,
        rmid: header.rmid,
        info: header.info,
        origin: None,
        toplevel_xid: None,
        main_data: Bytes::new(),
        blocks: Vec::new(),
    };
    let mut fields = FieldReader::new(&raw.bytes[RECORD_HEADER_BYTES..]);
    let mut blocks: Vec<BlockHeader> = Vec::new();
    let mut payload_bytes = 0usize;
    let mut main_bytes = 0usize;
    // The headers end where the rest is exactly the payload that they announced, or with the main data's header.
    while fields.left() > payload_bytes {
        match fields.u8().map_err(bad_length)? {
            ID_DATA_SHORT => {
                main_bytes = usize::from(fields.u8().map_err(bad_length)?);
                break;
            }
            ID_DATA_LONG => {
                main_bytes = fields.u32().map_err(bad_length)? as usize;
                break;
            }
            ID_ORIGIN => record.origin = Some(fields.u16().map_err(bad_length)?),
            ID_TOPLEVEL_XID => record.toplevel_xid = Some(fields.u32().map_err(bad_length)?),
            id => {
                let before = blocks.last().map(|header| &header.block);
                let block = block_header(lsn, id, before, &mut fields)?;
                payload_bytes += block.image_bytes + block.data_bytes;
                blocks.push(block);
            }
        }
    }
    if fields.left() != payload_bytes + main_bytes {
        return Err(DecodeError::Length { lsn });
    }
    let mut at = RECORD_HEADER_BYTES + fields.taken();
    let mut slice = |bytes: usize| {
        at += bytes;
        raw.bytes.slice(at - bytes..at)
    };
    record.blocks.reserve_exact(blocks.len());
    for BlockHeader { mut block, image_bytes, data_bytes } in blocks {
        if let Some(image) = &mut block.image {
            image.bytes = slice(image_bytes);
        }
        if data_bytes > 0 {
            block.data = slice(data_bytes);
        }
        record.blocks.push(block);
    }
    if main_bytes > 0 {
        record.main_data = slice(main_bytes);
    }
    Ok(record)
}

fn block_header(
    lsn: Lsn,
    id: u8,
    before: Option<&DecodedBlock>,
    fields: &mut FieldReader<'_>,
) -> Result<BlockHeader, DecodeError> {
    let bad_length = |_: Short| DecodeError::Length { lsn };
    if id > BLOCK_ID_MAX || before.is_some_and(|before| id <= before.id) {
        return Err(DecodeError::BlockId { lsn, id });
    }
    let flags = fields.u8().map_err(bad_length)?;
    let length = fields.u16().map_err(bad_length)?;
    let has_data = flags & HAS_DATA != 0;
    if has_data != (length > 0) {
        return Err(DecodeError::DataFlag { lsn, id, length });
    }
    let mut image_bytes = 0;
    let mut image = None;
    if flags & HAS_IMAGE != 0 {
        let (header, bytes) = image_header(lsn, id, fields)?;
        image = Some(header);
        image_bytes = bytes;
    }
    let rel = if flags & SAME_REL == 0 {
        RelTag {
            tablespace: fields.u32().map_err(bad_length)?,
            database: fields.u32().map_err(bad_length)?,
            relation: fields.u32().map_err(bad_length)?,
        }
    } else {
        before.ok_or(DecodeError::NoRelationBefore { lsn, id })?.rel.rel
    };
    let fork = flags & FORK_MASK;
    let fork = ForkNumber::from_raw(fork).ok_or(DecodeError::Fork { lsn, id, fork })?;
    let block = DecodedBlock {
        id,
        rel: rel.fork(fork),
        block: BlockNumber(fields.u32().map_err(bad_length)?),
        will_init: flags & WILL_INIT != 0,
        image,
        data: Bytes::new(),
        has_data,
    };
    Ok(BlockHeader { block, image_bytes, data_bytes: usize::from(length) })
}

fn image_header(lsn: Lsn, id: u8, fields: &mut FieldReader<'_>) -> Result<(BlockImage, usize), DecodeError> {
    let bad_length = |_: Short| DecodeError::Length { lsn };
    let length = fields.u16().map_err(bad_length)?;
    let hole_offset = fields.u16().map_err(bad_length)?;
    let flags = fields.u8().map_err(bad_length)?;
    // Postgres tries the methods in this order when more than one bit is set.
    let compression = match flags {
        flags if flags & IMAGE_PGLZ != 0 => ImageCompression::Pglz,
        flags if flags & IMAGE_LZ4 != 0 => ImageCompression::Lz4,
        flags if flags & IMAGE_ZSTD != 0 => ImageCompression::Zstd,
        _ => ImageCompression::None,
    };
    let has_hole = flags & IMAGE_HAS_HOLE != 0;
    let page_bytes = BLOCK_BYTES as u16;
    let hole_length = match compression {
        ImageCompression::None => page_bytes.saturating_sub(length),
        _ if has_hole => fields.u16().map_err(bad_length)?,
        _ => 0,
    };
    let hole_fits = if has_hole {
        hole_offset > 0
            && hole_length > 0
            && u32::from(hole_offset) + u32::from(hole_length) <= BLOCK_BYTES as u32
    } else {
        hole_offset == 0 && hole_length == 0
    };
    let length_fits = match compression {
        ImageCompression::None => length <= page_bytes && (has_hole != (length == page_bytes)),
        _ => length < page_bytes,
    };
    if !hole_fits || !length_fits {
        return Err(DecodeError::Image { lsn, id, length, flags, hole_offset, hole_length });
    }
    let apply = flags & IMAGE_APPLY != 0;
    let image = BlockImage { apply, hole_offset, hole_length, compression, bytes: Bytes::new() };
    Ok((image, usize::from(length)))
}

#[cfg(test)]
#[path = "record_test.rs"]
mod tests;
