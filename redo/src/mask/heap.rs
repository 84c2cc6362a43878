//! Mask of heap pages: `heap_mask` in `src/backend/access/heap/heapam.c`, but stricter.
//!
//! Postgres clears all of `HEAP_XACT_MASK` on every tuple that is not frozen, and with it the bits that say who holds
//! which row lock and whether `t_xmax` is a multixact. Those bits come from the log and must be right; here only bits
//! that truly change without a record are blanked: the four COMMITTED and INVALID hints and COMBOCID (trap W10).
//! `t_cid` is blanked because combo command ids are not logged (W6), a speculative `t_ctid` because its token is not (W7).

use strata_common::{BLOCK_BYTES, BlockNumber};

use super::MaskError;
use super::primitive;
use crate::Page;
use crate::page::{self, LineState, set_u16_at, u16_at};

/// `t_infomask` bits (`src/include/access/htup_details.h`).
mod infomask {
    pub const COMBOCID: u16 = 0x0020;
    pub const XMIN_COMMITTED: u16 = 0x0100;
    pub const XMIN_INVALID: u16 = 0x0200;
    pub const XMIN_FROZEN: u16 = XMIN_COMMITTED | XMIN_INVALID;
    pub const XMAX_COMMITTED: u16 = 0x0400;
    pub const XMAX_INVALID: u16 = 0x0800;
}

/// Bytes of a tuple header without null bitmap (`SizeofHeapTupleHeader`).
const TUPLE_HEADER_BYTES: usize = 23;
const CID_AT: usize = 8;
const CTID_AT: usize = 12;
const INFOMASK_AT: usize = 20;
/// Offset number in `t_ctid` that marks a speculative insertion (`SpecTokenOffsetNumber`).
const SPECULATIVE: u16 = 0xfffe;

pub fn mask(block: BlockNumber, page: &mut Page) -> Result<(), MaskError> {
    primitive::mask_lsn_and_checksum(page);
    primitive::mask_page_hints(page);
    primitive::mask_free_space(page)?;
    for offset in 1..=page::item_count(page) {
        // A line pointer without a tuple inside the page has nothing to mask.
        let Ok(span) = page::stored_item(page, offset) else { continue };
        let normal = page::line(page, offset).is_ok_and(|line| line.state() == LineState::Normal);
        if normal && span.length >= TUPLE_HEADER_BYTES {
            mask_tuple(block, offset, span.at, page);
        }
        let end = span.at + span.length;
        page[end..page::align(end).min(BLOCK_BYTES)].fill(0);
    }
    Ok(())
}

fn mask_tuple(block: BlockNumber, offset: u16, at: usize, page: &mut Page) {
    let mut bits = u16_at(page, at + INFOMASK_AT);
    bits &= !(infomask::XMAX_COMMITTED | infomask::XMAX_INVALID | infomask::COMBOCID);
    if bits & infomask::XMIN_FROZEN != infomask::XMIN_FROZEN {
        bits &= !infomask::XMIN_FROZEN;
    }
    set_u16_at(page, at + INFOMASK_AT, bits);
    page[at + CID_AT..][..4].fill(0);
    if u16_at(page, at + CTID_AT + 4) == SPECULATIVE {
        set_u16_at(page, at + CTID_AT, (block.0 >> 16) as u16);
        set_u16_at(page, at + CTID_AT + 2, block.0 as u16);
        set_u16_at(page, at + CTID_AT + 4, offset);
    }
}
