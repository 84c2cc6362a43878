//! Which mask fits a page that was found, when no record tells: by the size and the last bytes of its special space.
//!
//! Index types sign their special space in its last word (`src/include/access/*.h`, the `*_PAGE_ID` constants); a btree keeps a
//! smaller number there, GIN eight flags, a sequence its magic number in front. What is signed otherwise belongs to an access
//! method of an extension, which logs by generic records.

use strata_common::BLOCK_BYTES;
use strata_pgwal::rmgr;

use crate::Page;
use crate::page::{self, u16_at};

/// Vacuum cycle ids of btrees end here (`MAX_BT_CYCLE_ID` in `src/include/access/nbtree.h`).
const BTREE_CYCLE_ID_MAX: u16 = 0xff7f;
const HASH_PAGE_ID: u16 = 0xff80;
const GIST_PAGE_ID: u16 = 0xff81;
const SPGIST_PAGE_ID: u16 = 0xff82;
const BRIN_PAGE_TYPES: std::ops::RangeInclusive<u16> = 0xf091..=0xf093;
const SEQUENCE_MAGIC: [u8; 4] = 0x1717_u32.to_le_bytes();
/// GIN has eight flags.
const GIN_FLAGS_MAX: u16 = 0xff;

/// The resource manager whose mask fits `page`, a page of a MAIN or INIT fork; `None` if its header makes no sense.
pub fn resource_manager_of(page: &Page) -> Option<u8> {
    let special = usize::from(page::special(page));
    let signature = u16_at(page, BLOCK_BYTES - 2);
    match BLOCK_BYTES.checked_sub(special)? {
        0 => Some(rmgr::HEAP),
        16 if signature <= BTREE_CYCLE_ID_MAX => Some(rmgr::BTREE),
        16 if signature == HASH_PAGE_ID => Some(rmgr::HASH),
        16 if signature == GIST_PAGE_ID => Some(rmgr::GIST),
        8 if page[special..special + 4] == SEQUENCE_MAGIC && signature == 0 => Some(rmgr::SEQ),
        8 if signature == SPGIST_PAGE_ID => Some(rmgr::SPGIST),
        8 if BRIN_PAGE_TYPES.contains(&signature) => Some(rmgr::BRIN),
        8 if signature <= GIN_FLAGS_MAX => Some(rmgr::GIN),
        _ if special >= page::HEADER_BYTES => Some(rmgr::GENERIC),
        _ => None,
    }
}

/// Zero, or initialised and never filled: no line pointer, no content, no bit of a map. Such a page may never have been logged.
pub fn is_blank(page: &Page) -> bool {
    let special = usize::from(page::special(page));
    let inside = (page::HEADER_BYTES..=BLOCK_BYTES).contains(&special);
    let fresh = inside && page::is_empty(page) && page::special(page) == page::upper(page);
    let content = if fresh { &page[page::HEADER_BYTES..special] } else { &page[..] };
    content.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::set_u16_at;

    fn with_special(bytes: u16, signature: u16) -> Page {
        let mut page = [0; BLOCK_BYTES];
        page::init(&mut page, bytes.into());
        if bytes > 0 {
            set_u16_at(&mut page, BLOCK_BYTES - 2, signature);
        }
        page
    }

    #[test]
    fn kinds_of_pages_are_told_by_their_special_space() {
        for (bytes, signature, rmid) in [
            (0, 0, rmgr::HEAP),
            (16, 0, rmgr::BTREE),
            (16, 0xff7f, rmgr::BTREE),
            (16, 0xff80, rmgr::HASH),
            (16, 0xff81, rmgr::GIST),
            (8, 0xff82, rmgr::SPGIST),
            (8, 0xf091, rmgr::BRIN),
            (8, 0xf093, rmgr::BRIN),
            (8, 0x80, rmgr::GIN),
            (8, 0xff83, rmgr::GENERIC),
            (24, 0, rmgr::GENERIC),
            (16, 0xff82, rmgr::GENERIC),
        ] {
            assert_eq!(
                resource_manager_of(&with_special(bytes, signature)),
                Some(rmid),
                "{bytes} {signature:#x}"
            );
        }
        let mut sequence = with_special(8, 0);
        set_u16_at(&mut sequence, BLOCK_BYTES - 8, 0x1717);
        assert_eq!(resource_manager_of(&sequence), Some(rmgr::SEQ));
        set_u16_at(&mut sequence, BLOCK_BYTES - 2, 0x8000);
        assert_eq!(resource_manager_of(&sequence), Some(rmgr::GENERIC), "no sequence has a signature, too");
        assert_eq!(resource_manager_of(&[0; BLOCK_BYTES]), None);
        assert_eq!(resource_manager_of(&[0xff; BLOCK_BYTES]), None);
    }

    #[test]
    fn blank_is_zero_or_freshly_initialised() {
        assert!(is_blank(&[0; BLOCK_BYTES]));
        let mut page = with_special(0, 0);
        assert!(is_blank(&page));
        page[100] = 1;
        assert!(!is_blank(&page), "a bit of a map page lies where a heap page has free space");
        assert!(!is_blank(&[1; BLOCK_BYTES]));
    }
}
