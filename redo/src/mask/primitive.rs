//! Parts of a page that several masks blank: `src/backend/access/common/bufmask.c`.
//!
//! Pages may be broken: offsets are checked before use, and a line pointer that points outside the page is left alone.

use super::MaskError;
use crate::Page;
use crate::page::{self, LineState, flag};

/// LSN and checksum: they depend on when and where a page was written.
pub fn mask_lsn_and_checksum(page: &mut Page) {
    page[..10].fill(0);
}

/// Hints of the page header, which change without a record. Postgres blanks PD_ALL_VISIBLE too, because its recovery may
/// start behind a page's LSN; a replay in order has no such excuse, and a wrong flag is dangerous (V7).
pub fn mask_page_hints(page: &mut Page) {
    page::set_prune_xid(page, 0);
    page::clear_flags(page, flag::HAS_FREE_LINES | flag::PAGE_FULL);
}

/// The hole between line pointers and tuples.
pub fn mask_free_space(page: &mut Page) -> Result<(), MaskError> {
    let Ok(pointers) = page::pointers(page) else {
        return Err(MaskError::of_pointers(page));
    };
    page[pointers.lower..pointers.upper].fill(0);
    Ok(())
}

/// Flags of the line pointers in use: index scans mark dead entries without a record.
pub fn mask_line_flags(page: &mut Page) {
    for offset in 1..=page::item_count(page) {
        if let Ok(line) = page::line(page, offset)
            && line.is_used()
        {
            let _ = page::set_line(page, offset, line.with_state(LineState::Unused));
        }
    }
}

/// Everything but flags, place of the special space and size: for a page whose content nobody reads.
pub fn mask_content(page: &mut Page) {
    page[page::HEADER_BYTES..].fill(0);
    page::set_lower(page, 0);
    page::set_upper(page, 0);
}
