//! Mask of GIN pages: `gin_mask` in `src/backend/access/gin/ginxlog.c`, but stricter.
//!
//! Redo makes a deleted page of the pending list anew while the primary only marks it, so that nothing of it can be compared.
//! Postgres treats deleted pages of posting trees alike and hides `pd_prune_xid`, in which GIN keeps what decides when such
//! a page may be used again. Both come from the log; here they are compared.

use strata_common::BLOCK_BYTES;

use super::{MaskError, primitive};
use crate::Page;
use crate::page::{self, u16_at};

/// Bytes of `GinPageOpaqueData`, at the end of every GIN page, and bits of its flags (`src/include/access/ginblock.h`).
const OPAQUE_BYTES: usize = 8;
const FLAGS_AT: usize = BLOCK_BYTES - 2;
const DATA: u16 = 1 << 0;
const DELETED: u16 = 1 << 2;

pub fn mask(page: &mut Page) -> Result<(), MaskError> {
    if usize::from(page::special(page)) != BLOCK_BYTES - OPAQUE_BYTES {
        return Err(MaskError::of_pointers(page));
    }
    primitive::mask_lsn_and_checksum(page);
    let delete_xid = page::prune_xid(page);
    primitive::mask_page_hints(page);
    let kind = u16_at(page, FLAGS_AT) & (DATA | DELETED);
    if kind == DELETED {
        primitive::mask_content(page);
        return Ok(());
    }
    page::set_prune_xid(page, delete_xid);
    // Pages of posting trees of versions before 9.4 do not say where their data ends.
    if usize::from(page::lower(page)) > page::HEADER_BYTES {
        primitive::mask_free_space(page)?;
    }
    Ok(())
}
