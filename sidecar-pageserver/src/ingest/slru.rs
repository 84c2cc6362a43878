//! SLRU segments: which exist, how long they are, and the puts that keep stored directory and pages in step with them.
//!
//! There are few segments at any time (truncation removes them, S11, S13), so all live ones are in memory. Recovery reads
//! a page that does not exist as zeros (`SlruPhysicalReadPage`), hence a change of such a page initialises it.

use std::collections::BTreeMap;

use bytes::Bytes;
use strata_common::Lsn;
use strata_redo::effect::PageValue;
use strata_redo::slru::{SlruKind, SlruPage};

use crate::core::key::Value;
use crate::ingest::IngestError;
use crate::ingest::batch::Batch;
use crate::keyspace::values::{decode_blocks, encode_blocks, tombstone};
use crate::keyspace::{self, KeyName, SLRU_PAGES_PER_SEGMENT};
use crate::store::Store;

/// Pages of each live segment.
#[derive(Default)]
pub struct SlruSegments {
    pages: BTreeMap<(SlruKind, u32), u32>,
}

impl SlruSegments {
    /// The segments alive at `lsn`.
    pub async fn load<S: Store>(store: &S, lsn: Lsn) -> Result<SlruSegments, IngestError> {
        let mut segments = SlruSegments::default();
        for kind in SlruKind::ALL {
            for (key, value) in store.scan(keyspace::slru_segments(kind), lsn).await? {
                let Some(KeyName::SlruSegment(_, segment)) = KeyName::of(key) else { continue };
                if let Some(pages) = decode_blocks(&value)? {
                    segments.pages.insert((kind, segment), pages);
                }
            }
        }
        Ok(segments)
    }

    /// A page changes; it and those before it in its segment come into being if need be.
    pub fn page(&mut self, batch: &mut Batch, lsn: Lsn, page: SlruPage, value: PageValue) {
        // Page numbers are entry numbers of 32 bits divided by entries per page.
        let number = u32::try_from(page.page).expect("an SLRU page number fits 32 bits in Postgres 17");
        let is_new = self.extend_to(batch, lsn, page.kind, number);
        let value = match value {
            PageValue::Image(bytes) => Value::Image(bytes),
            PageValue::Change { bytes, will_init } => Value::Change { bytes, will_init: will_init || is_new },
        };
        batch.put(lsn, keyspace::slru_block(page.kind, number), value);
    }

    /// Makes the page, of zeros, if it does not exist.
    pub fn ensure(&mut self, batch: &mut Batch, lsn: Lsn, kind: SlruKind, page: u32) {
        if self.extend_to(batch, lsn, kind, page) {
            batch.image(lsn, keyspace::slru_block(kind, page), Bytes::new());
        }
    }

    /// True if the page did not exist.
    fn extend_to(&mut self, batch: &mut Batch, lsn: Lsn, kind: SlruKind, page: u32) -> bool {
        let (segment, within) = (page / SLRU_PAGES_PER_SEGMENT, page % SLRU_PAGES_PER_SEGMENT);
        let pages = self.pages.entry((kind, segment)).or_insert(0);
        if within < *pages {
            return false;
        }
        for gap in *pages..within {
            batch.image(
                lsn,
                keyspace::slru_block(kind, segment * SLRU_PAGES_PER_SEGMENT + gap),
                Bytes::new(),
            );
        }
        *pages = within + 1;
        batch.image(lsn, keyspace::slru_segment(kind, segment), encode_blocks(*pages));
        true
    }

    /// Segments that lie wholly before `first_kept_page` in the SLRU's wrapping order go (S11).
    pub fn truncate(&mut self, batch: &mut Batch, lsn: Lsn, kind: SlruKind, first_kept_page: u64) {
        self.remove(batch, lsn, kind, |segment| kind.truncation_drops(u64::from(segment), first_kept_page));
    }

    /// Segments `from..to` go, past the wrap if `to` is lower.
    pub fn drop_range(&mut self, batch: &mut Batch, lsn: Lsn, kind: SlruKind, from: u64, to: u64) {
        self.remove(batch, lsn, kind, |segment| kind.range_drops(u64::from(segment), from, to));
    }

    fn remove(&mut self, batch: &mut Batch, lsn: Lsn, kind: SlruKind, goes: impl Fn(u32) -> bool) {
        let of_kind = self.pages.range((kind, 0)..=(kind, u32::MAX));
        let gone: Vec<u32> =
            of_kind.map(|((_, segment), _)| *segment).filter(|segment| goes(*segment)).collect();
        for segment in gone {
            self.pages.remove(&(kind, segment));
            batch.image(lsn, keyspace::slru_segment(kind, segment), tombstone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clog(page: u64) -> SlruPage {
        SlruPage { kind: SlruKind::Clog, page }
    }

    fn change(will_init: bool) -> PageValue {
        PageValue::Change { bytes: Bytes::from_static(b"c"), will_init }
    }

    #[test]
    fn a_page_beyond_the_end_is_initialised_and_the_gap_is_zero() {
        let (mut segments, mut batch) = (SlruSegments::default(), Batch::default());
        segments.page(&mut batch, Lsn(8), clog(33), change(false));
        let init = Value::Change { bytes: Bytes::from_static(b"c"), will_init: true };
        let expected = [
            (keyspace::slru_block(SlruKind::Clog, 32), Lsn(8), Value::Image(Bytes::new())),
            (keyspace::slru_segment(SlruKind::Clog, 1), Lsn(8), Value::Image(encode_blocks(2))),
            (keyspace::slru_block(SlruKind::Clog, 33), Lsn(8), init),
        ];
        assert_eq!(batch.take(), expected);
        segments.page(&mut batch, Lsn(16), clog(33), change(false));
        let again = Value::Change { bytes: Bytes::from_static(b"c"), will_init: false };
        assert_eq!(batch.take(), [(keyspace::slru_block(SlruKind::Clog, 33), Lsn(16), again)]);
    }

    #[test]
    fn truncation_removes_whole_segments_in_wrapping_order() {
        let (mut segments, mut batch) = (SlruSegments::default(), Batch::default());
        let last = u32::MAX / strata_redo::slru::CLOG_XACTS_PER_PAGE / SLRU_PAGES_PER_SEGMENT;
        for segment in [last, 0, 1, 2] {
            let page = u64::from(segment) * u64::from(SLRU_PAGES_PER_SEGMENT);
            segments.page(&mut batch, Lsn(8), clog(page), change(true));
        }
        batch.take();
        segments.truncate(&mut batch, Lsn(16), SlruKind::Clog, 65);
        let gone: Vec<_> = batch.take().into_iter().map(|(key, _, _)| key).collect();
        let segment = |n| keyspace::slru_segment(SlruKind::Clog, n);
        assert_eq!(gone, [segment(0), segment(1), segment(last)]);
    }

    #[test]
    fn a_range_of_segments_goes_past_the_wrap() {
        let (mut segments, mut batch) = (SlruSegments::default(), Batch::default());
        let kind = SlruKind::MultiXactMembers;
        let last = (kind.last_page() / u64::from(SLRU_PAGES_PER_SEGMENT)) as u32;
        for segment in [0, 1, 7, last] {
            let page = u64::from(segment * SLRU_PAGES_PER_SEGMENT);
            segments.page(&mut batch, Lsn(8), SlruPage { kind, page }, change(true));
        }
        batch.take();
        segments.drop_range(&mut batch, Lsn(16), kind, u64::from(last), 1);
        let gone: Vec<_> = batch.take().into_iter().map(|(key, _, _)| key).collect();
        assert_eq!(gone, [keyspace::slru_segment(kind, 0), keyspace::slru_segment(kind, last)]);
    }

    #[test]
    fn a_page_is_made_once() {
        let (mut segments, mut batch) = (SlruSegments::default(), Batch::default());
        segments.ensure(&mut batch, Lsn(8), SlruKind::CommitTs, 3);
        segments.ensure(&mut batch, Lsn(8), SlruKind::CommitTs, 3);
        assert_eq!(batch.take().len(), 5, "four pages and one directory entry");
    }
}
