//! Generic records: the way in which extensions without a resource manager of their own log their pages (bloom is one).
//!
//! Postgres: `generic_redo` in `src/backend/access/transam/generic_xlog.c`. The data of each reference is a list of pieces
//! (offset, length, bytes) that replace what the page has there. What lies between `pd_lower` and `pd_upper` is not in the
//! list and becomes zero, as it did on the page that Postgres wrote.

use strata_common::BLOCK_BYTES;
use strata_pgwal::DecodedRecord;

use super::{Redo, push_page};
use crate::Page;
use crate::change::Keep;
use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::page;
use crate::wire::Parts;

/// What a generic record does: every page that it refers to changes, each by its own data alone.
pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let keep = Keep { main_bytes: 0, data: true };
    record.blocks.iter().try_for_each(|block| push_page(record, block, keep, out))
}

/// Redoes the page of any reference.
pub fn apply(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    redo.check_init(false)?;
    let mut parts = Parts::new(redo.change.data, "generic delta");
    while !parts.is_empty() {
        let at = usize::from(parts.u16()?);
        let length = usize::from(parts.u16()?);
        let piece = parts.take(length)?;
        let Some(target) = page.get_mut(at..at + length) else {
            return Err(Fault::Mismatch("a generic delta leads out of the page"));
        };
        target.copy_from_slice(piece);
    }
    let (lower, upper) = (usize::from(page::lower(page)), usize::from(page::upper(page)));
    if lower > upper || upper > BLOCK_BYTES {
        let (lower, upper, special) = (page::lower(page), page::upper(page), page::special(page));
        return Err(Fault::PagePointers { lower, upper, special });
    }
    page[lower..upper].fill(0);
    page::set_lsn(page, redo.lsn);
    Ok(())
}

#[cfg(test)]
mod tests {
    use strata_common::Lsn;
    use strata_pgwal::rmgr::GENERIC;

    use super::*;
    use crate::testing::{Pages, image_reference, main_page, record, reference};

    fn piece(at: u16, bytes: &[u8]) -> Vec<u8> {
        [&at.to_le_bytes()[..], &(bytes.len() as u16).to_le_bytes(), bytes].concat()
    }

    /// An empty page with a special space of 8 bytes and rubbish in the hole.
    fn before() -> Page {
        let mut page = [0; BLOCK_BYTES];
        page::init(&mut page, 8);
        page::set_lsn(&mut page, Lsn(100));
        page[4000..4100].fill(0xdd);
        page
    }

    #[test]
    fn pieces_replace_and_the_hole_becomes_zero() {
        let mut pages = Pages::with([(main_page(1), before()), (main_page(2), before())]);
        let lower = 40u16.to_le_bytes();
        let delta = [piece(12, &lower), piece(24, b"sixteen bytes...")].concat();
        let other = piece(8184, b"special!");
        let blocks = vec![reference(0, main_page(1), &delta), reference(2, main_page(2), &other)];
        pages.run(&record(GENERIC, 0, 500, &[], blocks));

        let page = pages.get(main_page(1));
        assert_eq!((page::lsn(page), page::lower(page)), (Lsn(500), 40));
        assert_eq!(&page[24..40], b"sixteen bytes...");
        assert!(page[40..8184].iter().all(|&byte| byte == 0), "the hole is zero");
        let page = pages.get(main_page(2));
        assert_eq!(&page[8184..], b"special!");
        assert!(page[24..8184].iter().all(|&byte| byte == 0), "the hole is zero");
    }

    /// A page that is logged whole needs no page before it.
    #[test]
    fn a_page_logged_whole_is_its_image() {
        let mut pages = Pages::default();
        let image = image_reference(0, main_page(3), &before(), true);
        pages.run(&record(GENERIC, 0, 500, &[], vec![image]));
        let mut expected = before();
        page::set_lsn(&mut expected, Lsn(500));
        assert_eq!(*pages.get(main_page(3)), expected);
    }

    #[test]
    fn deltas_that_do_not_fit_are_refused() {
        let refused = |delta: &[u8]| {
            let mut pages = Pages::with([(main_page(1), before())]);
            let block = reference(0, main_page(1), delta);
            pages.replay(&record(GENERIC, 0, 500, &[], vec![block])).unwrap_err().fault
        };
        assert_eq!(refused(&[1]), Fault::Short { what: "generic delta" });
        assert_eq!(refused(&[0, 0, 9, 0, 1]), Fault::Short { what: "generic delta" });
        let outside = Fault::Mismatch("a generic delta leads out of the page");
        assert_eq!(refused(&piece(8191, &[1, 2])), outside);
        assert_eq!(refused(&piece(0xffff, &[])), outside);
        let fault = refused(&piece(12, &[0xff, 0x7f]));
        assert_eq!(fault, Fault::PagePointers { lower: 0x7fff, upper: 8184, special: 8184 });
        let fault = refused(&piece(14, &[0xff, 0x7f]));
        assert_eq!(fault, Fault::PagePointers { lower: 24, upper: 0x7fff, special: 8184 });
    }
}
