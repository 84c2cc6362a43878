//! Headers of heap tuples (`src/include/access/htup_details.h`), and the bits that records carry for them.

use strata_common::BlockNumber;

use crate::Page;
use crate::error::Fault;
use crate::page::{self, AddItem};

/// Bytes of the fixed header (`SizeofHeapTupleHeader`).
pub const TUPLE_HEADER_BYTES: usize = 23;
/// Where user data begins in the tuple, a byte.
pub const T_HOFF_AT: usize = 22;

/// Bits of `t_infomask`.
pub mod infomask {
    pub const XMAX_KEYSHR_LOCK: u16 = 0x0010;
    pub const COMBOCID: u16 = 0x0020;
    pub const XMAX_EXCL_LOCK: u16 = 0x0040;
    pub const XMAX_LOCK_ONLY: u16 = 0x0080;
    pub const XMAX_COMMITTED: u16 = 0x0400;
    pub const XMAX_INVALID: u16 = 0x0800;
    pub const XMAX_IS_MULTI: u16 = 0x1000;
    pub const MOVED: u16 = 0xC000;
    pub const LOCK_MASK: u16 = XMAX_EXCL_LOCK | XMAX_KEYSHR_LOCK;
    pub const XMAX_BITS: u16 = XMAX_COMMITTED | XMAX_INVALID | XMAX_IS_MULTI | LOCK_MASK | XMAX_LOCK_ONLY;
}

/// Bits of `t_infomask2`.
pub mod infomask2 {
    pub const KEYS_UPDATED: u16 = 0x2000;
    pub const HOT_UPDATED: u16 = 0x4000;
}

/// Bits of a record's `infobits_set` (`src/include/access/heapam_xlog.h`).
pub mod infobit {
    pub const XMAX_IS_MULTI: u8 = 0x01;
    pub const XMAX_LOCK_ONLY: u8 = 0x02;
    pub const XMAX_EXCL_LOCK: u8 = 0x04;
    pub const XMAX_KEYSHR_LOCK: u8 = 0x08;
    pub const KEYS_UPDATED: u8 = 0x10;
}

/// A row version's address: `ItemPointerData`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tid {
    pub block: BlockNumber,
    pub offset: u16,
}

impl Tid {
    /// What the t_ctid of a row that went to another partition is set to.
    pub const MOVED_PARTITIONS: Tid = Tid { block: BlockNumber::INVALID, offset: 0xfffd };
}

/// The fixed header of a tuple in a page.
pub struct TupleHeader<'a>(&'a mut [u8; TUPLE_HEADER_BYTES]);

impl TupleHeader<'_> {
    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn set_xmin(&mut self, xid: u32) {
        self.set(0, &xid.to_le_bytes());
    }

    pub fn set_xmax(&mut self, xid: u32) {
        self.set(4, &xid.to_le_bytes());
    }

    /// The field that holds cmin, cmax or the xvac of an old VACUUM FULL.
    pub fn set_field3(&mut self, value: u32) {
        self.set(8, &value.to_le_bytes());
    }

    /// `HeapTupleHeaderSetCmax(FirstCommandId, false)`, which is also what SetCmin does.
    pub fn set_first_command(&mut self) {
        self.set_field3(0);
        self.set_infomask(self.infomask() & !infomask::COMBOCID);
    }

    pub fn set_ctid(&mut self, tid: Tid) {
        self.set(12, &((tid.block.0 >> 16) as u16).to_le_bytes());
        self.set(14, &(tid.block.0 as u16).to_le_bytes());
        self.set(16, &tid.offset.to_le_bytes());
    }

    pub fn infomask2(&self) -> u16 {
        self.u16_at(18)
    }

    pub fn set_infomask2(&mut self, bits: u16) {
        self.set(18, &bits.to_le_bytes());
    }

    pub fn infomask(&self) -> u16 {
        self.u16_at(20)
    }

    pub fn set_infomask(&mut self, bits: u16) {
        self.set(20, &bits.to_le_bytes());
    }

    pub fn hoff(&self) -> u8 {
        self.0[T_HOFF_AT]
    }

    pub fn clear_hot_updated(&mut self) {
        self.set_infomask2(self.infomask2() & !infomask2::HOT_UPDATED);
    }

    pub fn set_hot_updated(&mut self) {
        self.set_infomask2(self.infomask2() | infomask2::HOT_UPDATED);
    }

    /// Forgets what was known of xmax and takes a record's bits (`fix_infomask_from_infobits`).
    pub fn replace_xmax_bits(&mut self, infobits: u8) {
        let chosen = |bit: u8, value: u16| if infobits & bit != 0 { value } else { 0 };
        let mask = self.infomask() & !(infomask::XMAX_BITS | infomask::MOVED)
            | chosen(infobit::XMAX_IS_MULTI, infomask::XMAX_IS_MULTI)
            | chosen(infobit::XMAX_LOCK_ONLY, infomask::XMAX_LOCK_ONLY)
            | chosen(infobit::XMAX_EXCL_LOCK, infomask::XMAX_EXCL_LOCK)
            | chosen(infobit::XMAX_KEYSHR_LOCK, infomask::XMAX_KEYSHR_LOCK);
        self.set_infomask(mask);
        let mask2 = self.infomask2() & !infomask2::KEYS_UPDATED
            | chosen(infobit::KEYS_UPDATED, infomask2::KEYS_UPDATED);
        self.set_infomask2(mask2);
    }

    /// Whether xmax only locks the row (`HEAP_XMAX_IS_LOCKED_ONLY`).
    pub fn is_locked_only(&self) -> bool {
        let mask = self.infomask();
        mask & infomask::XMAX_LOCK_ONLY != 0
            || mask & (infomask::XMAX_IS_MULTI | infomask::LOCK_MASK) == infomask::XMAX_EXCL_LOCK
    }
}

/// The header of the tuple at `offset`, which must be a normal item.
#[inline]
pub fn tuple(page: &mut Page, offset: u16) -> Result<TupleHeader<'_>, Fault> {
    let span = page::normal_item(page, offset)?;
    match page[span.range()].first_chunk_mut() {
        Some(header) => Ok(TupleHeader(header)),
        None => Err(Fault::TupleTooShort { offset, length: span.length as u16 }),
    }
}

/// The header fields that a record carries (`xl_heap_header`, and the end of `xl_multi_insert_tuple`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredHeader {
    pub infomask2: u16,
    pub infomask: u16,
    pub hoff: u8,
}

/// What a new tuple gets that is not in its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewTuple {
    pub header: StoredHeader,
    pub xmin: u32,
    pub xmax: u32,
    /// Its own address: where it goes and what t_ctid says.
    pub tid: Tid,
    /// Bytes after the fixed header: null bitmap, padding, user data.
    pub body_bytes: usize,
}

/// Makes room for a tuple at its address and writes its fixed header. Returns where the body is to be written.
#[inline]
pub fn place_tuple(page: &mut Page, new: &NewTuple) -> Result<std::ops::Range<usize>, Fault> {
    let bytes = TUPLE_HEADER_BYTES + new.body_bytes;
    let (_, span) = page::reserve_item(page, bytes, AddItem::HeapAt(new.tid.offset))?;
    let body = span.at + TUPLE_HEADER_BYTES..span.at + bytes;
    let header = page[span.range()].first_chunk_mut().expect("the item is at least a header long");
    let mut header = TupleHeader(header);
    header.set_xmin(new.xmin);
    header.set_xmax(new.xmax);
    header.set_field3(0);
    header.set_ctid(new.tid);
    header.set_infomask2(new.header.infomask2);
    header.set_infomask(new.header.infomask & !infomask::COMBOCID);
    header.0[T_HOFF_AT] = new.header.hoff;
    Ok(body)
}
