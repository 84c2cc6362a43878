//! Ends of transactions with every part that a record can have, page boundaries of the clog, and damaged records.

use proptest::prelude::*;
use strata_common::Lsn;
use strata_pgwal::fields::FieldWriter;
use strata_pgwal::rmgr;

use super::*;
use crate::effect::{PageValue, SlruEffect};
use crate::slru::{SlruKind, SlruPage};
use crate::{Page, apply_slru};

const END: Lsn = Lsn(0x0100_0100);

fn record(info: u8, xid: u32, origin: Option<u16>, main_data: Vec<u8>) -> DecodedRecord {
    DecodedRecord {
        lsn: Lsn(0x0100_0028),
        end_lsn: END,
        prev: Lsn(0x0100_0000),
        xid,
        rmid: rmgr::XACT,
        info,
        origin,
        toplevel_xid: None,
        main_data: main_data.into(),
        blocks: Vec::new(),
    }
}

fn all(record: &DecodedRecord) -> Vec<Effect> {
    crate::effects(record).expect("a good record")
}

/// Status of each transaction after the effects were applied to pages of zeros.
fn status_after(effects: &[Effect], xid: u32) -> u8 {
    let page = u64::from(xid / 32_768);
    let mut content: Page = [0; 8192];
    for effect in effects {
        let Effect::Slru(SlruEffect::Page { page: at, value: PageValue::Change { bytes, .. } }) = effect
        else {
            continue;
        };
        if *at == (SlruPage { kind: SlruKind::Clog, page }) {
            apply_slru(&mut content, *at, END, bytes).expect("applies");
        }
    }
    content[(xid % 32_768 / 4) as usize] >> (xid % 4 * 2) & 3
}

#[test]
fn a_plain_commit_sets_one_status_and_its_time() {
    let effects = all(&record(COMMIT, 700, None, 12345i64.to_le_bytes().to_vec()));
    assert_eq!((status_after(&effects, 700), status_after(&effects, 701)), (1, 0));
    assert!(effects.contains(&Effect::CommitTime { xid: 700, micros: 12345, committed: Some(700) }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::NextXidPast(_))));
}

/// A record with every part.
fn full(commits: bool, subxacts: &[u32]) -> Vec<u8> {
    let mut main = FieldWriter::default();
    let present = part::DATABASE
        | part::SUBXACTS
        | part::RELATIONS
        | part::DROPPED_STATS
        | part::INVALIDATIONS
        | part::TWO_PHASE
        | part::GID
        | part::ORIGIN;
    main.i64(777).u32(present).u32(5).u32(1663).u32(subxacts.len() as u32);
    subxacts.iter().for_each(|xid| {
        main.u32(*xid);
    });
    main.u32(2).u32(1663).u32(5).u32(16_384).u32(1663).u32(5).u32(16_385);
    main.u32(1).put(&[0xEE; STATS_ITEM_BYTES]);
    if commits {
        main.u32(2).put(&[0xDD; 2 * INVALIDATION_BYTES]);
    }
    main.u32(32_760).put(b"name\0").u64(0xABCD).i64(888);
    main.into_bytes()
}

#[test]
fn a_prepared_commit_with_every_part_over_three_pages() {
    let subxacts = [32_761, 32_768, 40_000, 65_536];
    let main = full(true, &subxacts);
    let effects = all(&record(COMMIT_PREPARED | HAS_INFO, 0, Some(3), main));
    for xid in [32_760].iter().chain(&subxacts) {
        assert_eq!(status_after(&effects, *xid), 1, "transaction {xid}");
    }
    assert!(effects.contains(&Effect::NextXidPast(65_536)));
    assert!(effects.contains(&Effect::CommitTime {
        xid: 32_760,
        micros: 777,
        committed: subxacts.last().copied()
    }));
    let origin =
        Effect::OriginAdvance { origin: 3, remote_lsn: Lsn(0xABCD), local_lsn: END, backward: false };
    assert!(effects.contains(&origin));
    let relation = |relation| RelTag { tablespace: 1663, database: 5, relation };
    assert!(effects.contains(&Effect::RelDrop(relation(16_384))));
    assert!(effects.contains(&Effect::RelDrop(relation(16_385))));
    assert!(effects.contains(&Effect::TwoPhaseFinish { xid: 32_760, end: TwoPhaseEnd::Committed }));
    // A commit that came from elsewhere has its time there.
    let times = effects.iter().filter_map(|effect| match effect {
        Effect::Slru(SlruEffect::Page { page, value: PageValue::Change { bytes, .. } })
            if page.kind == SlruKind::CommitTs =>
        {
            Some((page, bytes))
        }
        _ => None,
    });
    let mut pages = 0;
    for (page, bytes) in times {
        let mut content: Page = [0; 8192];
        apply_slru(&mut content, *page, END, bytes).expect("applies");
        assert!(content.windows(10).any(|entry| entry == [0x78, 3, 0, 0, 0, 0, 0, 0, 3, 0]));
        pages += 1;
    }
    assert_eq!(pages, 3);
    // One change a page (G3).
    let clog = effects.iter().filter(
        |effect| matches!(effect, Effect::Slru(SlruEffect::Page { page, .. }) if page.kind == SlruKind::Clog),
    );
    assert_eq!(clog.count(), 3);
}

#[test]
fn an_abort_has_no_invalidations_and_no_commit_timestamp() {
    let effects = all(&record(ABORT_PREPARED | HAS_INFO, 0, Some(3), full(false, &[32_761])));
    assert_eq!((status_after(&effects, 32_760), status_after(&effects, 32_761)), (2, 2));
    assert!(effects.contains(&Effect::TwoPhaseFinish { xid: 32_760, end: TwoPhaseEnd::Aborted }));
    assert!(!effects.iter().any(|effect| {
        matches!(effect, Effect::Slru(SlruEffect::Page { page, .. }) if page.kind == SlruKind::CommitTs)
    }));
}

#[test]
fn transaction_ids_wrap_within_a_record() {
    let mut main = FieldWriter::default();
    main.i64(0).u32(part::SUBXACTS).u32(2).u32(u32::MAX).u32(3);
    let effects = all(&record(COMMIT | HAS_INFO, u32::MAX - 1, None, main.into_bytes()));
    for xid in [u32::MAX - 1, u32::MAX, 3] {
        assert_eq!(status_after(&effects, xid), 1, "transaction {xid}");
    }
    assert!(effects.contains(&Effect::NextXidPast(3)));
}

fn prepared(magic: u32, subxacts: &[u32]) -> Vec<u8> {
    let mut main = FieldWriter::default();
    main.u32(magic).u32(0).u32(900).u32(5).i64(1).u32(10).u32(subxacts.len() as u32).zero_to(54).u16(5);
    main.u64(0x1234).i64(0).put(b"gid1\0").zero_to(80);
    subxacts.iter().for_each(|xid| {
        main.u32(*xid);
    });
    main.into_bytes()
}

#[test]
fn a_prepared_transaction_keeps_its_data() {
    let main = prepared(TWO_PHASE_MAGIC, &[901, 902]);
    let effects = all(&record(PREPARE, 900, None, main.clone()));
    assert_eq!(
        effects,
        [Effect::NextXidPast(902), Effect::TwoPhasePrepare { xid: 900, data: main.clone().into() }]
    );
    let effects = all(&record(PREPARE, 900, Some(7), main));
    let origin =
        Effect::OriginAdvance { origin: 7, remote_lsn: Lsn(0x1234), local_lsn: END, backward: false };
    assert!(effects.contains(&origin));
    assert!(crate::effects(&record(PREPARE, 900, None, prepared(1, &[]))).is_err());
}

/// With wal_level replica a prepared transaction's end does not say its name.
#[test]
fn a_prepared_transaction_without_its_name_ends() {
    let mut main = FieldWriter::default();
    main.i64(777).u32(part::TWO_PHASE).u32(900);
    let effects = all(&record(COMMIT_PREPARED | HAS_INFO, 0, None, main.into_bytes()));
    assert_eq!(status_after(&effects, 900), 1);
    assert!(effects.contains(&Effect::TwoPhaseFinish { xid: 900, end: TwoPhaseEnd::Committed }));
}

/// Changes that are not to be replicated again come from no origin whose progress is kept.
#[test]
fn what_is_not_to_be_replicated_moves_no_origin() {
    let mut main = FieldWriter::default();
    main.i64(777).u32(part::ORIGIN).u64(0xABCD).i64(888);
    let effects = all(&record(COMMIT | HAS_INFO, 700, Some(DO_NOT_REPLICATE), main.into_bytes()));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::OriginAdvance { .. })));
}

#[test]
fn transactions_that_cannot_be_are_refused() {
    let malformed =
        |record: &DecodedRecord| matches!(crate::effects(record), Err(EffectError::Malformed { .. }));
    assert!(malformed(&record(COMMIT, 0, None, vec![0; 8])), "no transaction id");
    let mut unnamed = prepared(TWO_PHASE_MAGIC, &[]);
    unnamed[8..12].fill(0);
    assert!(malformed(&record(PREPARE, 900, None, unnamed)), "nor a prepared one");
    // More subtransactions than a page of the clog has entries, all of one page.
    let count = 32_768 + 1;
    let mut main = FieldWriter::default();
    main.i64(0).u32(part::SUBXACTS).u32(count);
    (0..count).for_each(|_| {
        main.u32(701);
    });
    let main = main.into_bytes();
    assert!(malformed(&record(COMMIT | HAS_INFO, 700, None, main.clone())));
    assert!(malformed(&record(ABORT | HAS_INFO, 700, None, main)));
}

#[test]
fn what_concerns_standbys_only_does_nothing() {
    for info in [ASSIGNMENT, INVALIDATIONS] {
        assert_eq!(all(&record(info, 5, None, Vec::new())), []);
    }
    assert!(matches!(crate::effects(&record(0x70, 5, None, Vec::new())), Err(EffectError::Unknown { .. })));
}

proptest! {
    #[test]
    fn cut_or_changed_records_never_panic(
        cut: prop::sample::Index, at: prop::sample::Index, value: u8, operation in 0u8..8,
    ) {
        let mut main = full(true, &[32_761, 32_768]);
        let at = at.index(main.len());
        main[at] = value;
        main.truncate(cut.index(main.len() + 1));
        let _ = crate::effects(&record(operation << 4 | HAS_INFO, 5, None, main));
    }
}
