//! The stored form of one page's change: everything that redo of this page needs, and nothing of other pages (W16).
//!
//! A change made from a record holds what `apply` reads of it: resource manager, info, transaction id, main data, the data of
//! this page's block reference, and number and block of the record's other references. Other kinds are changes that no
//! record spells out: tails of maps after a truncation, bits without a reference, SLRU entries. The bytes are described
//! in FORMAT.md; a version byte comes first, so that stored changes outlive a change of this code.

use bytes::Bytes;
use strata_common::BlockNumber;
use strata_pgwal::{DecodedBlock, DecodedRecord, rmgr};

use crate::error::Fault;
use crate::image::ImageView;
use crate::slru::SlruChange;
use crate::wire::{Parts, length_bytes, put_length};

/// First byte of every encoded change.
pub const CHANGE_VERSION: u8 = 1;

/// Second byte: what kind of change it is.
pub(crate) mod kind {
    pub const RECORD: u8 = 0;
    pub const VM_CLEAR: u8 = 1;
    pub const VM_TRUNCATE_TAIL: u8 = 2;
    pub const FSM_TRUNCATE_TAIL: u8 = 3;
    pub const SLRU_ZERO: u8 = 16;
    pub const CLOG_STATUS: u8 = 17;
    pub const MULTI_OFFSETS: u8 = 18;
    pub const MULTI_MEMBERS: u8 = 19;
    pub const COMMIT_TS: u8 = 20;
    pub const MULTI_OFFSETS_BEGIN: u8 = 21;
}

mod flag {
    pub const WILL_INIT: u8 = 0x01;
    pub const HAS_IMAGE: u8 = 0x02;
    pub const ALL: u8 = WILL_INIT | HAS_IMAGE;
}

/// Bytes of one reference to another block: id and block number.
const REFERENCE_BYTES: usize = 5;
/// What comes before the references, and before the bytes of an image and their length.
const RECORD_HEADER_BYTES: usize = 11;
const IMAGE_HEADER_BYTES: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("stored change of version {0}, this one reads {CHANGE_VERSION}")]
    Version(u8),
    #[error("stored change of unknown kind {0}")]
    Kind(u8),
    #[error("stored change with unknown flags {0:#04x}")]
    Flags(u8),
    #[error("stored change has {0} bytes too many")]
    Trailing(usize),
    #[error("a change of this kind is not one of such a page")]
    WrongPage,
}

/// A change, borrowed from its encoded bytes.
#[derive(Clone, Copy, Debug)]
pub enum PageChange<'a> {
    /// What a log record does to this page.
    Record(RecordChange<'a>),
    /// Clears `bits` of one heap block in a visibility map page, without moving the page's LSN (V1, V6).
    VmClear {
        heap_block: BlockNumber,
        bits: u8,
    },
    /// Clears what a visibility map page says of blocks from `heap_blocks` on (V4).
    VmTruncateTail {
        heap_blocks: BlockNumber,
    },
    /// The same in a leaf page of the free space map, and the page's upper nodes follow.
    FsmTruncateTail {
        heap_blocks: BlockNumber,
    },
    Slru(SlruChange<'a>),
}

/// One page's share of a log record.
#[derive(Clone, Copy, Debug)]
pub struct RecordChange<'a> {
    pub rmid: u8,
    /// Without the log's own bits.
    pub info: u8,
    pub xid: u32,
    /// Id of the block reference that names this page.
    pub id: u8,
    /// The page is made anew; its old content does not matter.
    pub will_init: bool,
    /// Main data, cut to what redo of this page reads.
    pub main: &'a [u8],
    pub data: &'a [u8],
    pub(crate) references: &'a [u8],
    /// Restored first; then the record goes on.
    pub image: Option<ImageView<'a>>,
}

impl RecordChange<'_> {
    /// Block number of the record's reference `id`, if it has one and it is not this page's own.
    #[inline]
    pub fn other_block(&self, id: u8) -> Option<BlockNumber> {
        let mut references = self.references.chunks_exact(REFERENCE_BYTES);
        let found = references.find(|reference| reference[0] == id)?;
        found.last_chunk().map(|block| BlockNumber(u32::from_le_bytes(*block)))
    }
}

impl<'a> PageChange<'a> {
    /// Reads an encoded change.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<PageChange<'a>, Fault> {
        let mut parts = Parts::new(bytes, "stored change");
        let version = parts.u8()?;
        if version != CHANGE_VERSION {
            return Err(ChangeError::Version(version).into());
        }
        let change = match parts.u8()? {
            kind::RECORD => PageChange::Record(decode_record(&mut parts)?),
            kind::VM_CLEAR => {
                PageChange::VmClear { heap_block: BlockNumber(parts.u32()?), bits: parts.u8()? }
            }
            kind::VM_TRUNCATE_TAIL => PageChange::VmTruncateTail { heap_blocks: BlockNumber(parts.u32()?) },
            kind::FSM_TRUNCATE_TAIL => PageChange::FsmTruncateTail { heap_blocks: BlockNumber(parts.u32()?) },
            other => PageChange::Slru(SlruChange::decode(other, &mut parts)?),
        };
        if !parts.is_empty() {
            return Err(ChangeError::Trailing(parts.rest().len()).into());
        }
        Ok(change)
    }
}

fn decode_record<'a>(parts: &mut Parts<'a>) -> Result<RecordChange<'a>, Fault> {
    let rmid = parts.u8()?;
    let info = parts.u8()?;
    let xid = parts.u32()?;
    let id = parts.u8()?;
    let flags = parts.u8()?;
    if flags & !flag::ALL != 0 {
        return Err(ChangeError::Flags(flags).into());
    }
    let count = usize::from(parts.u8()?);
    let references = parts.take(count * REFERENCE_BYTES)?;
    let main_bytes = parts.length()?;
    let main = parts.take(main_bytes)?;
    let data_bytes = parts.length()?;
    let data = parts.take(data_bytes)?;
    let image = if flags & flag::HAS_IMAGE != 0 { Some(ImageView::decode(parts)?) } else { None };
    let will_init = flags & flag::WILL_INIT != 0;
    Ok(RecordChange { rmid, info, xid, id, will_init, main, data, references, image })
}

/// What of a record goes into a change.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Bytes of main data that redo of this page reads, counted from the start.
    pub main_bytes: usize,
    /// Whether redo reads the data of this page's reference.
    pub data: bool,
}

impl Keep {
    /// Everything.
    pub const ALL: Keep = Keep { main_bytes: usize::MAX, data: true };
}

/// Encodes the share of `record` that changes the page of `block`. An image with APPLY is kept inside; callers for whom it
/// is the last word store the restored page instead.
pub fn encode_record(record: &DecodedRecord, block: &DecodedBlock, keep: Keep) -> Bytes {
    let main = &record.main_data[..record.main_data.len().min(keep.main_bytes)];
    let data: &[u8] = if keep.data { &block.data } else { &[] };
    let image = block.image.as_ref().filter(|image| image.apply);
    let image_bytes =
        image.map_or(0, |image| IMAGE_HEADER_BYTES + length_bytes(image.bytes.len()) + image.bytes.len());
    let references = record.blocks.len().saturating_sub(1) * REFERENCE_BYTES;
    let parts = length_bytes(main.len()) + main.len() + length_bytes(data.len()) + data.len();
    // Exactly: a buffer with room left would cost a second allocation when it is frozen.
    let room = RECORD_HEADER_BYTES + references + parts + image_bytes;
    let mut out = Vec::with_capacity(room);
    out.extend([CHANGE_VERSION, kind::RECORD, record.rmid, record.rmgr_info()]);
    out.extend(record.xid.to_le_bytes());
    let will_init = if block.will_init { flag::WILL_INIT } else { 0 };
    out.extend([block.id, will_init | if image.is_some() { flag::HAS_IMAGE } else { 0 }]);
    let others = || record.blocks.iter().filter(|other| other.id != block.id);
    out.push(others().count() as u8);
    for other in others() {
        out.push(other.id);
        out.extend(other.block.0.to_le_bytes());
    }
    put_length(&mut out, main.len());
    out.extend(main);
    put_length(&mut out, data.len());
    out.extend(data);
    if let Some(image) = image {
        ImageView::from(image).encode(&mut out);
    }
    debug_assert!(out.len() == room, "{} bytes in room for {room}", out.len());
    Bytes::from(out)
}

/// Encodes `PageChange::VmClear`.
pub fn encode_vm_clear(heap_block: BlockNumber, bits: u8) -> Bytes {
    let mut out = vec![CHANGE_VERSION, kind::VM_CLEAR];
    out.extend(heap_block.0.to_le_bytes());
    out.push(bits);
    Bytes::from(out)
}

/// Encodes `PageChange::VmTruncateTail`: MAIN has `heap_blocks` blocks from now on.
pub fn encode_vm_truncate_tail(heap_blocks: BlockNumber) -> Bytes {
    encode_truncate(kind::VM_TRUNCATE_TAIL, heap_blocks)
}

/// Encodes `PageChange::FsmTruncateTail`: MAIN has `heap_blocks` blocks from now on.
pub fn encode_fsm_truncate_tail(heap_blocks: BlockNumber) -> Bytes {
    encode_truncate(kind::FSM_TRUNCATE_TAIL, heap_blocks)
}

fn encode_truncate(kind: u8, heap_blocks: BlockNumber) -> Bytes {
    let mut out = vec![CHANGE_VERSION, kind];
    out.extend(heap_blocks.0.to_le_bytes());
    Bytes::from(out)
}

/// Name of a stored change for messages, whatever its bytes are.
pub fn name(bytes: &[u8]) -> String {
    match bytes {
        [CHANGE_VERSION, kind::RECORD, rmid, info, ..] => rmgr::record_name(*rmid, *info),
        [CHANGE_VERSION, kind::VM_CLEAR, ..] => "visibility map clear".to_owned(),
        [CHANGE_VERSION, kind::VM_TRUNCATE_TAIL, ..] => "visibility map truncation".to_owned(),
        [CHANGE_VERSION, kind::FSM_TRUNCATE_TAIL, ..] => "free space map truncation".to_owned(),
        [CHANGE_VERSION, kind @ kind::SLRU_ZERO..=kind::MULTI_OFFSETS_BEGIN, ..] => {
            format!("SLRU change {kind}")
        }
        [version, kind, ..] => format!("change of version {version} and kind {kind}"),
        _ => "change without a header".to_owned(),
    }
}

#[cfg(test)]
#[path = "change_test.rs"]
mod tests;
