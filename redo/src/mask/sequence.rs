//! Mask of sequence pages: `seq_mask` in `src/backend/commands/sequence.c`.

use super::{MaskError, primitive};
use crate::Page;

pub fn mask(page: &mut Page) -> Result<(), MaskError> {
    primitive::mask_lsn_and_checksum(page);
    primitive::mask_free_space(page)
}
