//! Mask of SP-GiST pages: `spg_mask` in `src/backend/access/spgist/spgxlog.c`.

use super::{MaskError, primitive};
use crate::Page;
use crate::page::{self, HEADER_BYTES};

pub fn mask(page: &mut Page) -> Result<(), MaskError> {
    primitive::mask_lsn_and_checksum(page);
    primitive::mask_page_hints(page);
    // Without a header there is no free space to speak of.
    if usize::from(page::lower(page)) >= HEADER_BYTES {
        primitive::mask_free_space(page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use strata_common::BLOCK_BYTES;

    use super::*;

    #[test]
    fn free_space_is_hidden_if_the_header_says_where_it_is() {
        for (lower, kept) in [(24, 0), (0, 7)] {
            let mut page = [0; BLOCK_BYTES];
            page::init(&mut page, 8);
            page::set_lower(&mut page, lower);
            page[100] = 7;
            page[8190] = 0x82;
            mask(&mut page).expect("a sound page");
            assert_eq!((page[100], page[8190]), (kept, 0x82));
        }
    }
}
