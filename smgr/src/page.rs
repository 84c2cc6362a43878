//! Page layouts as far as eviction needs them: the header, heap tuples, and what index methods keep at a page's end.
//!
//! Facts of Postgres: `src/include/storage/bufpage.h`, `itemid.h`, `src/include/access/htup_details.h`, `nbtree.h`,
//! `src/backend/commands/sequence.c`. Reads are checked: a page of another kind that looks like one of these gives a wrong
//! guess at worst, never a read out of bounds.

use strata_common::{BLOCK_BYTES, Lsn};

const HEADER_BYTES: usize = 24;
const ALL_VISIBLE: u16 = 0x0004;
const LINE_POINTER_BYTES: usize = 4;
const LINE_POINTER_NORMAL: u32 = 1;

/// A page of a relation, read only.
#[derive(Clone, Copy)]
pub struct Page<'a>(&'a [u8; BLOCK_BYTES]);

/// What a page holds, by the size and content of its special area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// No special area: a heap page, or one of a method that keeps nothing there.
    Heap,
    /// A sequence's only page; `log_count` values are in the log ahead of the page.
    Sequence { log_count: i64 },
    /// 16 bytes of special area with a vacuum cycle id: btree. Other methods put an id above the valid range there.
    BtreeInVacuum { cycle_id: u16 },
    /// Any other special area.
    Index,
}

impl<'a> Page<'a> {
    pub fn new(bytes: &'a [u8; BLOCK_BYTES]) -> Page<'a> {
        Page(bytes)
    }

    fn u16(self, at: usize) -> u16 {
        self.0.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
    }

    fn u32(self, at: usize) -> u32 {
        self.0.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// pd_lsn: the high half first, each half in the machine's order.
    pub fn lsn(self) -> Lsn {
        Lsn((u64::from(self.u32(0)) << 32) | u64::from(self.u32(4)))
    }

    /// `PageIsNew` looks at pd_upper only; here every byte counts, for content must not be lost.
    pub fn is_all_zero(self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// PD_ALL_VISIBLE.
    pub fn is_all_visible(self) -> bool {
        self.u16(10) & ALL_VISIBLE != 0
    }

    fn lower(self) -> usize {
        usize::from(self.u16(12))
    }

    fn special(self) -> usize {
        usize::from(self.u16(16))
    }

    /// Bytes of the special area; 0 if the header makes no sense.
    pub fn special_bytes(self) -> usize {
        let special = self.special();
        if (HEADER_BYTES..=BLOCK_BYTES).contains(&special) { BLOCK_BYTES - special } else { 0 }
    }

    /// Initialised, but without any line pointer or item (`PageIsEmpty` and pd_upper at the special area).
    pub fn is_empty(self) -> bool {
        self.lower() <= HEADER_BYTES && usize::from(self.u16(14)) == self.special()
    }

    /// Nothing but the header: true for a visibility map page without any bit.
    pub fn is_zero_after_header(self) -> bool {
        self.0[HEADER_BYTES..].iter().all(|byte| *byte == 0)
    }

    pub fn kind(self) -> PageKind {
        const SEQUENCE_MAGIC: u32 = 0x1717;
        const BTREE_CYCLE_ID_MAX: u16 = 0xff7f;
        match self.special_bytes() {
            0 => PageKind::Heap,
            8 if self.u32(self.special()) == SEQUENCE_MAGIC => {
                PageKind::Sequence { log_count: self.sequence_log_count() }
            }
            16 if (1..=BTREE_CYCLE_ID_MAX).contains(&self.u16(BLOCK_BYTES - 2)) => {
                PageKind::BtreeInVacuum { cycle_id: self.u16(BLOCK_BYTES - 2) }
            }
            _ => PageKind::Index,
        }
    }

    /// log_cnt of `FormData_pg_sequence_data`: last_value int8, log_cnt int8, is_called bool. Any doubt counts as ahead.
    fn sequence_log_count(self) -> i64 {
        let Some(tuple) = self.heap_tuples().next() else { return 1 };
        let data = tuple.at + usize::from(self.0[tuple.at + 22]);
        match self.0.get(data + 8..data + 16) {
            Some(bytes) => i64::from_le_bytes(bytes.try_into().expect("eight bytes")),
            None => 1,
        }
    }

    /// Tuples that a line pointer in use names and whose header lies inside the page.
    pub fn heap_tuples(self) -> impl Iterator<Item = HeapTuple<'a>> {
        let end = self.lower().min(self.special().min(BLOCK_BYTES));
        let count = end.saturating_sub(HEADER_BYTES) / LINE_POINTER_BYTES;
        (0..count).filter_map(move |index| {
            let pointer = self.u32(HEADER_BYTES + index * LINE_POINTER_BYTES);
            let (at, flags) = ((pointer & 0x7fff) as usize, (pointer >> 15) & 3);
            let usable = flags == LINE_POINTER_NORMAL && at + HeapTuple::HEADER_BYTES <= BLOCK_BYTES;
            usable.then_some(HeapTuple { page: self, at })
        })
    }
}

/// Header of a heap tuple (`HeapTupleHeaderData`).
#[derive(Clone, Copy)]
pub struct HeapTuple<'a> {
    page: Page<'a>,
    at: usize,
}

impl HeapTuple<'_> {
    const HEADER_BYTES: usize = 23;
    const COMBO_CID: u16 = 0x0020;
    const XMIN_FROZEN: u16 = 0x0300;
    const XMAX_INVALID: u16 = 0x0800;
    const XMAX_IS_MULTI: u16 = 0x1000;
    const SPECULATIVE_OFFSET: u16 = 0xfffe;

    fn infomask(self) -> u16 {
        self.page.u16(self.at + 20)
    }

    /// The inserting transaction, or `None` if it is frozen and so surely finished.
    pub fn xmin(self) -> Option<u32> {
        let frozen = self.infomask() & Self::XMIN_FROZEN == Self::XMIN_FROZEN;
        (!frozen).then(|| self.page.u32(self.at))
    }

    /// The deleting or locking transaction, or `None` if there is none or it is known to have aborted.
    pub fn xmax(self) -> Option<Xmax> {
        let raw = self.page.u32(self.at + 4);
        let infomask = self.infomask();
        if raw == 0 || infomask & Self::XMAX_INVALID != 0 {
            None
        } else if infomask & Self::XMAX_IS_MULTI != 0 {
            Some(Xmax::Multi)
        } else {
            Some(Xmax::Xid(raw))
        }
    }

    /// Whether command ids are kept that the log does not have: redo writes command 0 and no combo flag.
    pub fn has_command_id(self) -> bool {
        self.page.u32(self.at + 8) != 0 || self.infomask() & Self::COMBO_CID != 0
    }

    /// Whether t_ctid holds a speculative insertion's token.
    pub fn is_speculative(self) -> bool {
        self.page.u16(self.at + 16) == Self::SPECULATIVE_OFFSET
    }
}

/// A tuple's xmax.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Xmax {
    Xid(u32),
    Multi,
}
