//! Mask of btree pages: `btree_mask` in `src/backend/access/nbtree/nbtxlog.c`.
//!
//! Scans mark entries of leaves dead without a record (W11), and neither the vacuum cycle id nor SPLIT_END is logged (W8).

use strata_common::BLOCK_BYTES;

use super::MaskError;
use super::primitive;
use crate::Page;
use crate::page::{self, set_u16_at, u16_at};

/// `btpo_flags` bits (`src/include/access/nbtree.h`).
const LEAF: u16 = 1 << 0;
const SPLIT_END: u16 = 1 << 5;
const HAS_GARBAGE: u16 = 1 << 6;

/// Bytes of `BTPageOpaqueData`, at the end of every btree page, and where two of its fields lie in it.
const OPAQUE_BYTES: usize = 16;
const FLAGS_AT: usize = 12;
const CYCLE_ID_AT: usize = 14;

pub fn mask(page: &mut Page) -> Result<(), MaskError> {
    primitive::mask_lsn_and_checksum(page);
    primitive::mask_page_hints(page);
    primitive::mask_free_space(page)?;
    let special = usize::from(page::special(page));
    if special != BLOCK_BYTES - OPAQUE_BYTES {
        return Err(MaskError::of_pointers(page));
    }
    let flags = u16_at(page, special + FLAGS_AT);
    if flags & LEAF != 0 {
        primitive::mask_line_flags(page);
    }
    set_u16_at(page, special + FLAGS_AT, flags & !(SPLIT_END | HAS_GARBAGE));
    set_u16_at(page, special + CYCLE_ID_AT, 0);
    Ok(())
}
