//! Mask of BRIN pages: `brin_mask` in `src/backend/access/brin/brin_xlog.c`.
//!
//! A revmap page keeps its items between `pd_lower` and `pd_upper`, which is therefore compared; so is a metapage whose
//! `pd_lower` was never set. BRIN_EVACUATE_PAGE is set without a record.

use strata_common::BLOCK_BYTES;

use super::{MaskError, primitive};
use crate::Page;
use crate::page::{self, HEADER_BYTES, set_u16_at, u16_at};

const SPECIAL_BYTES: usize = 8;
/// In the special space (`src/include/access/brin_page.h`): flags, then the page's type.
const FLAGS_AT: usize = BLOCK_BYTES - 4;
const TYPE_AT: usize = BLOCK_BYTES - 2;
const EVACUATE_PAGE: u16 = 1 << 0;
const META: u16 = 0xf091;
const REGULAR: u16 = 0xf093;

pub fn mask(page: &mut Page) -> Result<(), MaskError> {
    primitive::mask_lsn_and_checksum(page);
    primitive::mask_page_hints(page);
    if usize::from(page::special(page)) != BLOCK_BYTES - SPECIAL_BYTES {
        return Err(MaskError::of_pointers(page));
    }
    let page_type = u16_at(page, TYPE_AT);
    if page_type == REGULAR || (page_type == META && usize::from(page::lower(page)) > HEADER_BYTES) {
        primitive::mask_free_space(page)?;
    }
    let flags = u16_at(page, FLAGS_AT);
    set_u16_at(page, FLAGS_AT, flags & !EVACUATE_PAGE);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(page_type: u16) -> Page {
        let mut page = [0; BLOCK_BYTES];
        page::init(&mut page, SPECIAL_BYTES);
        set_u16_at(&mut page, TYPE_AT, page_type);
        set_u16_at(&mut page, FLAGS_AT, 3);
        page[100] = 7;
        page[..10].fill(9);
        mask(&mut page).expect("a sound page");
        page
    }

    #[test]
    fn free_space_is_hidden_where_there_is_some() {
        assert_eq!(page_of(REGULAR)[100], 0);
        assert_eq!(page_of(0xf092)[100], 7, "the items of a revmap page are compared");
        assert_eq!(page_of(META)[100], 7, "a metapage without pd_lower too");
        let mut meta = page_of(META);
        page::set_lower(&mut meta, 40);
        mask(&mut meta).expect("a sound page");
        assert_eq!(meta[100], 0, "a metapage with pd_lower has free space");
        page::set_lower(&mut meta, 8190);
        assert!(mask(&mut meta).is_err());
        let page = page_of(REGULAR);
        assert_eq!((&page[..10], u16_at(&page, FLAGS_AT)), (&[0; 10][..], 2), "LSN, checksum, EVACUATE_PAGE");
    }
}
