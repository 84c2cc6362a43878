//! Mask of hash pages: `hash_mask` in `src/backend/access/hash/hash_xlog.c`.
//!
//! Scans mark entries dead and set HAS_DEAD_TUPLES without a record (W11). Of an unused page nothing is compared.

use strata_common::BLOCK_BYTES;

use super::{MaskError, primitive};
use crate::Page;
use crate::page::{self, set_u16_at, u16_at};

const OPAQUE_BYTES: usize = 16;
const FLAGS_AT: usize = BLOCK_BYTES - 4;

/// Bits of `hasho_flag` (`src/include/access/hash.h`); the low four are the page's type.
const TYPE: u16 = 0x000f;
const UNUSED: u16 = 0;
const OVERFLOW: u16 = 1 << 0;
const BUCKET: u16 = 1 << 1;
const HAS_DEAD_TUPLES: u16 = 1 << 7;

pub fn mask(page: &mut Page) -> Result<(), MaskError> {
    primitive::mask_lsn_and_checksum(page);
    primitive::mask_page_hints(page);
    primitive::mask_free_space(page)?;
    if usize::from(page::special(page)) != BLOCK_BYTES - OPAQUE_BYTES {
        return Err(MaskError::of_pointers(page));
    }
    match u16_at(page, FLAGS_AT) & TYPE {
        UNUSED => primitive::mask_content(page),
        BUCKET | OVERFLOW => primitive::mask_line_flags(page),
        _ => {}
    }
    let flags = u16_at(page, FLAGS_AT);
    set_u16_at(page, FLAGS_AT, flags & !HAS_DEAD_TUPLES);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{AddItem, LineState};

    fn page_of(flags: u16) -> Page {
        let mut page = [0; BLOCK_BYTES];
        page::init(&mut page, OPAQUE_BYTES);
        page::add_item(&mut page, &[5; 16], AddItem::IndexBefore(1)).expect("room");
        let line = page::line(&page, 1).expect("a line pointer");
        page::set_line(&mut page, 1, line.with_state(LineState::Dead)).expect("a line pointer");
        set_u16_at(&mut page, FLAGS_AT, flags | HAS_DEAD_TUPLES);
        mask(&mut page).expect("a sound page");
        page
    }

    #[test]
    fn marks_of_dead_entries_are_hidden_and_unused_pages_whole() {
        for flags in [BUCKET, OVERFLOW, BUCKET | 1 << 5] {
            let page = page_of(flags);
            assert_eq!(page::line(&page, 1).map(|line| line.state()), Ok(LineState::Unused));
            assert_eq!((u16_at(&page, FLAGS_AT), page[8160]), (flags, 5));
        }
        let bitmap = page_of(1 << 2);
        assert_eq!(page::line(&bitmap, 1).map(|line| line.state()), Ok(LineState::Dead));
        assert!(page_of(UNUSED)[24..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn another_special_space_is_refused() {
        let mut page = [0; BLOCK_BYTES];
        page::init(&mut page, 8);
        assert!(mask(&mut page).is_err());
    }
}
