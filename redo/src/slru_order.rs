//! Which SLRU segments are old: numbers wrap, so that "before" has a rule for each SLRU; and the names of segment files.
//!
//! Postgres: `SlruMayDeleteSegment` in `src/backend/access/transam/slru.c` and the `PagePrecedes` functions of `clog.c`,
//! `commit_ts.c` and `multixact.c`. A segment goes only if its first and its last page are before the page that is kept,
//! which also keeps a segment in whose middle the numbers wrap (S11).

use strata_pgwal::fullxid::{FIRST_NORMAL_XID, multixact_precedes, xid_precedes};

use crate::slru::{
    CLOG_XACTS_PER_PAGE, COMMIT_TS_XACTS_PER_PAGE, MULTI_MEMBERS_PER_PAGE, MULTI_OFFSETS_PER_PAGE,
    PAGES_PER_SEGMENT, SlruKind,
};

/// Lowest multixact id (`FirstMultiXactId`).
const FIRST_MULTI: u32 = 1;

impl SlruKind {
    /// Entries per page.
    pub fn entries_per_page(self) -> u32 {
        match self {
            SlruKind::Clog => CLOG_XACTS_PER_PAGE,
            SlruKind::MultiXactOffsets => MULTI_OFFSETS_PER_PAGE,
            SlruKind::MultiXactMembers => MULTI_MEMBERS_PER_PAGE,
            SlruKind::CommitTs => COMMIT_TS_XACTS_PER_PAGE,
        }
    }

    /// The last page that there can be: that of entry 2^32 - 1.
    pub fn last_page(self) -> u64 {
        u64::from(u32::MAX / self.entries_per_page())
    }

    /// Whether `page` is before `other` in this SLRU's wrapping order.
    pub fn page_precedes(self, page: u64, other: u64) -> bool {
        let per_page = self.entries_per_page();
        // A number well inside the page, as Postgres chooses it; special ids would not compare by distance.
        let inside = match self {
            SlruKind::Clog | SlruKind::CommitTs => FIRST_NORMAL_XID + 1,
            SlruKind::MultiXactOffsets => FIRST_MULTI + 1,
            SlruKind::MultiXactMembers => 0,
        };
        let entry = |page: u64| (page as u32).wrapping_mul(per_page).wrapping_add(inside);
        let precedes = match self {
            SlruKind::Clog | SlruKind::CommitTs => xid_precedes,
            SlruKind::MultiXactOffsets | SlruKind::MultiXactMembers => multixact_precedes,
        };
        let (one, two) = (entry(page), entry(other));
        precedes(one, two) && precedes(one, two.wrapping_add(per_page - 1))
    }

    /// Whether `SlruEffect::Truncate` to `first_kept_page` removes this segment.
    pub fn truncation_drops(self, segment: u64, first_kept_page: u64) -> bool {
        let first = segment * PAGES_PER_SEGMENT;
        let last = first + PAGES_PER_SEGMENT - 1;
        self.page_precedes(first, first_kept_page) && self.page_precedes(last, first_kept_page)
    }

    /// Whether `segment` is one of `from..to`, counted past the last one that there can be if `to` is lower.
    pub fn range_drops(self, segment: u64, from: u64, to: u64) -> bool {
        if from <= to {
            (from..to).contains(&segment)
        } else {
            segment < to || (from..=self.last_page() / PAGES_PER_SEGMENT).contains(&segment)
        }
    }
}

/// Name of a segment's file: at least four hex digits (`SlruFileName`; no SLRU that is kept has long names).
pub fn segment_file_name(segment: u64) -> String {
    format!("{segment:04X}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_distance() {
        for kind in SlruKind::ALL {
            let last = kind.last_page();
            assert!(kind.page_precedes(5, 6) && !kind.page_precedes(6, 5), "{kind:?}");
            assert!(!kind.page_precedes(7, 7), "{kind:?}: a page is not before itself");
            assert!(kind.page_precedes(last - 1, 3), "{kind:?}: numbers wrap");
            assert!(!kind.page_precedes(3, last - 1), "{kind:?}: numbers wrap");
        }
    }

    #[test]
    fn truncation_keeps_the_segment_of_the_page_and_what_is_ahead() {
        for kind in SlruKind::ALL {
            let kept = 10 * PAGES_PER_SEGMENT + 5;
            assert!(kind.truncation_drops(9, kept), "{kind:?}");
            assert!(!kind.truncation_drops(10, kept), "{kind:?}");
            assert!(!kind.truncation_drops(11, kept), "{kind:?}");
            // The last segment that there can be lies behind, across the wrap.
            let behind = kind.last_page() / PAGES_PER_SEGMENT - 1;
            assert!(kind.truncation_drops(behind, kept), "{kind:?}");
        }
    }

    #[test]
    fn a_range_of_member_segments_wraps() {
        let kind = SlruKind::MultiXactMembers;
        let last = kind.last_page() / PAGES_PER_SEGMENT;
        assert_eq!(last, 0x14078, "the segment of member 2^32 - 1");
        assert!(kind.range_drops(3, 3, 5) && kind.range_drops(4, 3, 5) && !kind.range_drops(5, 3, 5));
        assert!(kind.range_drops(last, last - 1, 2) && kind.range_drops(0, last - 1, 2));
        assert!(!kind.range_drops(2, last - 1, 2) && !kind.range_drops(last - 2, last - 1, 2));
        assert!(!kind.range_drops(4, 4, 4));
    }

    #[test]
    fn names_are_those_of_postgres() {
        assert_eq!(segment_file_name(0), "0000");
        assert_eq!(segment_file_name(0x14078), "14078");
    }
}
