//! Mask of pages with generic records: `generic_mask` in `src/backend/access/transam/generic_xlog.c`.

use super::{MaskError, primitive};
use crate::Page;

pub fn mask(page: &mut Page) -> Result<(), MaskError> {
    primitive::mask_lsn_and_checksum(page);
    primitive::mask_free_space(page)
}
