//! Mask of GiST pages: `gist_mask` in `src/backend/access/gist/gistxlog.c`, and one flag more.
//!
//! The node sequence number and FOLLOW_RIGHT of a left half change after the record was made that completes its split.
//! TUPLES_DELETED is set by redo of DELETE and not by the primary; nothing reads it. Scans mark entries of leaves dead
//! without a record (W11).

use strata_common::BLOCK_BYTES;

use super::{MaskError, primitive};
use crate::Page;
use crate::page::{self, set_u16_at, u16_at};

/// Bytes of `GISTPageOpaqueData`, at the end of every GiST page, and where its fields lie (`src/include/access/gist.h`).
const OPAQUE_BYTES: usize = 16;
const OPAQUE_AT: usize = BLOCK_BYTES - OPAQUE_BYTES;
const NSN_BYTES: usize = 8;
const FLAGS_AT: usize = OPAQUE_AT + 12;
const LEAF: u16 = 1 << 0;
const TUPLES_DELETED: u16 = 1 << 2;
const FOLLOW_RIGHT: u16 = 1 << 3;
const HAS_GARBAGE: u16 = 1 << 4;

pub fn mask(page: &mut Page) -> Result<(), MaskError> {
    primitive::mask_lsn_and_checksum(page);
    primitive::mask_page_hints(page);
    primitive::mask_free_space(page)?;
    if usize::from(page::special(page)) != OPAQUE_AT {
        return Err(MaskError::of_pointers(page));
    }
    page[OPAQUE_AT..OPAQUE_AT + NSN_BYTES].fill(0);
    let flags = u16_at(page, FLAGS_AT);
    if flags & LEAF != 0 {
        primitive::mask_line_flags(page);
    }
    set_u16_at(page, FLAGS_AT, (flags | FOLLOW_RIGHT) & !(TUPLES_DELETED | HAS_GARBAGE));
    Ok(())
}
