//! Multixacts at page ends, at both wraps, from an older minor, and truncated.

use proptest::prelude::*;
use std::collections::BTreeMap;
use strata_common::Lsn;
use strata_pgwal::fields::FieldWriter;
use strata_pgwal::rmgr;

use super::*;
use crate::effect::PageValue;
use crate::slru::SlruPage;
use crate::{Page, apply_slru};

fn record(info: u8, main_data: Vec<u8>) -> DecodedRecord {
    DecodedRecord {
        lsn: Lsn(0x0100_0028),
        end_lsn: Lsn(0x0100_0100),
        prev: Lsn(0x0100_0000),
        xid: 500,
        rmid: rmgr::MULTIXACT,
        info,
        origin: None,
        toplevel_xid: None,
        main_data: main_data.into(),
        blocks: Vec::new(),
    }
}

fn created(multi: u32, offset: u32, members: &[(u32, u32)]) -> DecodedRecord {
    let mut main = FieldWriter::default();
    main.u32(multi).u32(offset).u32(members.len() as u32);
    for (xid, status) in members {
        main.u32(*xid).u32(*status);
    }
    record(CREATE, main.into_bytes())
}

/// Pages of both SLRUs; those that have no beginning are zeros.
#[derive(Default)]
struct Slrus(BTreeMap<SlruPage, Box<Page>>);

impl Slrus {
    fn replay(&mut self, record: &DecodedRecord) -> Vec<Effect> {
        let effects = crate::effects(record).expect("a good record");
        for effect in &effects {
            let Effect::Slru(SlruEffect::Page { page, value: PageValue::Change { bytes, .. } }) = effect
            else {
                continue;
            };
            let content = self.0.entry(*page).or_insert_with(|| Box::new([0; 8192]));
            apply_slru(content, *page, record.end_lsn, bytes).expect("applies");
        }
        effects
    }

    fn offset(&self, multi: u32) -> u32 {
        let page = SlruPage { kind: SlruKind::MultiXactOffsets, page: u64::from(multi / 2048) };
        let at = (multi % 2048 * 4) as usize;
        self.0
            .get(&page)
            .map_or(0, |content| u32::from_le_bytes(content[at..at + 4].try_into().expect("four")))
    }

    /// By the macros of multixact.c: flags in a byte, transaction id in a word, in groups of 20 bytes.
    fn member(&self, offset: u32) -> (u32, u32) {
        let page = SlruPage { kind: SlruKind::MultiXactMembers, page: u64::from(offset / 1636) };
        let group = (offset / 4 % 409 * 20) as usize;
        let xid_at = group + 4 + (offset % 4 * 4) as usize;
        let content = self.0.get(&page).expect("the page was written");
        let xid = u32::from_le_bytes(content[xid_at..xid_at + 4].try_into().expect("four"));
        (xid, u32::from(content[group + (offset % 4) as usize]))
    }
}

fn zeroed(info: u8, page: i64) -> DecodedRecord {
    record(info, page.to_le_bytes().to_vec())
}

#[test]
fn its_own_offset_and_that_of_the_next_are_set() {
    let mut slrus = Slrus::default();
    let effects = slrus.replay(&created(10, 100, &[(600, 1), (700, 5)]));
    assert_eq!((slrus.offset(10), slrus.offset(11)), (100, 102));
    assert_eq!((slrus.member(100), slrus.member(101)), ((600, 1), (700, 5)));
    assert!(effects.contains(&Effect::NextMultiAtLeast { multi: 11, offset: 102 }));
    assert!(effects.contains(&Effect::NextXidPast(700)));
}

#[test]
fn the_next_one_may_be_on_the_next_page_or_at_the_beginning() {
    let mut slrus = Slrus::default();
    slrus.replay(&created(2047, 50, &[(600, 1)]));
    assert_eq!((slrus.offset(2047), slrus.offset(2048)), (50, 51));
    // The id after the highest is 1, not 0.
    slrus.replay(&created(u32::MAX, 70, &[(600, 1)]));
    assert_eq!((slrus.offset(u32::MAX), slrus.offset(0), slrus.offset(1)), (70, 0, 71));
}

#[test]
fn an_older_minor_zeroes_the_next_page_only_later() {
    let mut slrus = Slrus::default();
    slrus.replay(&created(2047, 50, &[(600, 1)]));
    slrus.replay(&zeroed(ZERO_OFFSETS_PAGE, 1));
    assert_eq!(slrus.offset(2048), 51, "the end of 2047 survives");
    slrus.replay(&created(2048, 51, &[(600, 1), (601, 1)]));
    assert_eq!((slrus.offset(2048), slrus.offset(2049)), (51, 53));
}

#[test]
fn zeroing_clears_all_but_the_first_entry() {
    let mut slrus = Slrus::default();
    slrus.replay(&created(2049, 50, &[(600, 1)]));
    slrus.replay(&created(1, 7, &[(600, 1)]));
    slrus.replay(&zeroed(ZERO_OFFSETS_PAGE, 1));
    slrus.replay(&zeroed(ZERO_OFFSETS_PAGE, 0));
    assert_eq!((slrus.offset(2049), slrus.offset(2050)), (0, 0));
    assert_eq!((slrus.offset(1), slrus.offset(2)), (7, 0), "page 0 begins with multixact 1");
}

#[test]
fn members_cross_pages_and_wrap_within_a_record() {
    let mut slrus = Slrus::default();
    let members: Vec<(u32, u32)> = (0..4000).map(|n| (1000 + n, n % 6)).collect();
    slrus.replay(&created(5, 1630, &members));
    for (at, member) in members.iter().enumerate() {
        assert_eq!(slrus.member(1630 + at as u32), *member, "member {at}");
    }
    // S11: offsets go from 2^32 - 1 to 0, in the middle of the last page; an end at 0 is written as 1.
    let start = u32::MAX - 2;
    slrus.replay(&created(6, start, &members[..5]));
    let places = [start, start + 1, u32::MAX, 0, 1];
    for (place, member) in places.iter().zip(&members) {
        assert_eq!(slrus.member(*place), *member, "member at {place}");
    }
    assert_eq!((slrus.offset(6), slrus.offset(7)), (start, 2));
    slrus.replay(&created(8, start, &members[..3]));
    assert_eq!(slrus.offset(9), 1);
}

#[test]
fn a_page_is_changed_once_by_a_record() {
    let members: Vec<(u32, u32)> = (0..3000).map(|n| (1000 + n, 0)).collect();
    let effects = crate::effects(&created(5, u32::MAX - 100, &members)).expect("good");
    let mut pages: Vec<SlruPage> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Slru(SlruEffect::Page { page, .. }) => Some(*page),
            _ => None,
        })
        .collect();
    let count = pages.len();
    pages.sort();
    pages.dedup();
    assert_eq!(pages.len(), count, "G3");
}

#[test]
fn truncation_steps_one_back_and_drops_member_segments() {
    let mut main = FieldWriter::default();
    main.u32(5).u32(1).u32(4096).u32(10).u32(52_352 * 3 + 1);
    let effects = crate::effects(&record(TRUNCATE, main.into_bytes())).expect("good");
    assert_eq!(
        effects,
        [
            Effect::OldestMulti { multi: 4096, database: 5 },
            Effect::Slru(SlruEffect::DropSegments {
                kind: SlruKind::MultiXactMembers,
                from_segment: 0,
                to_segment: 3
            }),
            Effect::Slru(SlruEffect::Truncate { kind: SlruKind::MultiXactOffsets, first_kept_page: 1 }),
        ]
    );
    let mut main = FieldWriter::default();
    main.u32(5).u32(u32::MAX - 9).u32(1).u32(7).u32(8);
    let effects = crate::effects(&record(TRUNCATE, main.into_bytes())).expect("good");
    let last_page = u64::from(u32::MAX / 2048);
    let kept = SlruEffect::Truncate { kind: SlruKind::MultiXactOffsets, first_kept_page: last_page };
    assert_eq!(
        effects[1..],
        [Effect::Slru(kept)],
        "nothing of the members goes; the id before 1 is the highest"
    );
}

#[test]
fn impossible_values_are_refused() {
    assert!(crate::effects(&created(5, 5, &[(1, 6)])).is_err());
    assert!(crate::effects(&zeroed(ZERO_OFFSETS_PAGE, -1)).is_err());
    assert!(crate::effects(&zeroed(ZERO_MEMBERS_PAGE, 1 << 40)).is_err());
    let mut main = FieldWriter::default();
    main.u32(1).u32(1).u32(u32::MAX);
    assert!(crate::effects(&record(CREATE, main.into_bytes())).is_err());
    assert!(matches!(crate::effects(&record(0x40, Vec::new())), Err(EffectError::Unknown { .. })));
}

proptest! {
    #[test]
    fn any_main_data_is_refused_or_applied(info in 0u8..4, main in prop::collection::vec(any::<u8>(), 0..80)) {
        let record = record(info << 4, main);
        if crate::effects(&record).is_ok() {
            Slrus::default().replay(&record);
        }
    }
}
