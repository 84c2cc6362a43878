//! The resource managers with a handful of plain records each: every field at its place, damaged records refused.

use proptest::prelude::*;
use strata_common::{BlockNumber, ForkNumber, Lsn, RelTag};
use strata_pgwal::DecodedRecord;
use strata_pgwal::fields::FieldWriter;
use strata_pgwal::relmap::{RelMap, RelMapping};
use strata_pgwal::rmgr;

use crate::effect::{DatabaseTag, Effect, PageValue, SlruEffect, TruncateForks};
use crate::slru::{SlruKind, SlruPage, encode_zero};

fn record(rmid: u8, info: u8, main_data: Vec<u8>) -> DecodedRecord {
    DecodedRecord {
        lsn: Lsn(0x0100_0028),
        end_lsn: Lsn(0x0100_0100),
        prev: Lsn(0x0100_0000),
        xid: 500,
        rmid,
        info,
        origin: None,
        toplevel_xid: None,
        main_data: main_data.into(),
        blocks: Vec::new(),
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn effects(rmid: u8, info: u8, main: Vec<u8>) -> Vec<Effect> {
    crate::effects(&record(rmid, info, main)).expect("a good record")
}

fn zeroed(kind: SlruKind, page: u64) -> Effect {
    let value = PageValue::Change { bytes: encode_zero(), will_init: true };
    Effect::Slru(SlruEffect::Page { page: SlruPage { kind, page }, value })
}

#[test]
fn pages_of_clog_and_commit_ts_begin_and_end() {
    assert_eq!(effects(rmgr::CLOG, 0x00, words(&[7, 0])), [zeroed(SlruKind::Clog, 7)]);
    assert_eq!(effects(rmgr::COMMIT_TS, 0x00, words(&[8, 0])), [zeroed(SlruKind::CommitTs, 8)]);
    assert_eq!(effects(rmgr::MULTIXACT, 0x10, words(&[9, 0])), [zeroed(SlruKind::MultiXactMembers, 9)]);
    let truncate = |kind, first_kept_page| Effect::Slru(SlruEffect::Truncate { kind, first_kept_page });
    // G16: the oldest transaction moves with the truncation.
    assert_eq!(
        effects(rmgr::CLOG, 0x10, words(&[33, 0, 1_100_000, 5])),
        [Effect::OldestXid { xid: 1_100_000, database: 5 }, truncate(SlruKind::Clog, 33)]
    );
    assert_eq!(
        effects(rmgr::COMMIT_TS, 0x10, words(&[33, 0, 1_100_000])),
        [Effect::OldestCommitTs { xid: 1_100_000 }, truncate(SlruKind::CommitTs, 33)]
    );
}

#[test]
fn relations_are_made_and_cut() {
    let rel = RelTag { tablespace: 1663, database: 5, relation: 16_384 };
    assert_eq!(
        effects(rmgr::SMGR, 0x10, words(&[1663, 5, 16_384, 3])),
        [Effect::RelCreate(rel.fork(ForkNumber::Init))]
    );
    assert_eq!(
        effects(rmgr::SMGR, 0x20, words(&[12, 1663, 5, 16_384, 7])),
        [
            Effect::RelCreate(rel.fork(ForkNumber::Main)),
            Effect::RelTruncate { rel, blocks: BlockNumber(12), forks: TruncateForks(7) }
        ]
    );
    assert!(crate::effects(&record(rmgr::SMGR, 0x10, words(&[1663, 5, 16_384, 4]))).is_err());
}

#[test]
fn databases_are_copied_made_and_dropped() {
    let tag = |tablespace, database| DatabaseTag { tablespace, database };
    assert_eq!(
        effects(rmgr::DBASE, 0x00, words(&[20, 1663, 1, 1664])),
        [Effect::DatabaseCopy { from: tag(1664, 1), to: tag(1663, 20) }]
    );
    assert_eq!(effects(rmgr::DBASE, 0x10, words(&[20, 1663])), [Effect::DatabaseCreate(tag(1663, 20))]);
    assert_eq!(
        effects(rmgr::DBASE, 0x20, words(&[20, 2, 1663, 30_000])),
        [Effect::DatabaseDrop(tag(1663, 20)), Effect::DatabaseDrop(tag(30_000, 20))]
    );
    assert!(crate::effects(&record(rmgr::DBASE, 0x20, words(&[20, u32::MAX, 1663]))).is_err());
}

#[test]
fn tablespaces_have_a_path() {
    let main = [&words(&[30_000])[..], b"/somewhere\0"].concat();
    let path = bytes::Bytes::from_static(b"/somewhere");
    assert_eq!(
        effects(rmgr::TBLSPC, 0x00, main.clone()),
        [Effect::TablespaceCreate { tablespace: 30_000, path }]
    );
    assert!(crate::effects(&record(rmgr::TBLSPC, 0x00, main[..8].to_vec())).is_err());
    assert_eq!(
        effects(rmgr::TBLSPC, 0x10, words(&[30_000])),
        [Effect::TablespaceDrop { tablespace: 30_000 }]
    );
}

#[test]
fn a_relation_map_is_whole_and_undamaged() {
    let map = RelMap { mappings: vec![RelMapping { catalog_oid: 1259, file_number: 16_500 }] }.encode();
    let main = [&words(&[5, 1663, 524])[..], &map].concat();
    let database = DatabaseTag { tablespace: 1663, database: 5 };
    let expected = Effect::RelMap { database, map: map.to_vec().into() };
    assert_eq!(effects(rmgr::RELMAP, 0x00, main.clone()), [expected]);
    let mut broken = main.clone();
    broken[30] ^= 1;
    assert!(crate::effects(&record(rmgr::RELMAP, 0x00, broken)).is_err());
    assert!(crate::effects(&record(rmgr::RELMAP, 0x00, main[..500].to_vec())).is_err());
}

#[test]
fn running_transactions_and_origins() {
    let running = words(&[2, 0, 0, 800, 790, 799, 790, 795]);
    let expected = Effect::RunningXacts { next_xid: 800, oldest_running_xid: 790, latest_completed_xid: 799 };
    assert_eq!(effects(rmgr::STANDBY, 0x10, running), [expected]);
    assert_eq!(effects(rmgr::STANDBY, 0x00, Vec::new()), []);
    assert_eq!(effects(rmgr::STANDBY, 0x20, Vec::new()), []);
    assert_eq!(effects(rmgr::LOGICALMSG, 0x00, Vec::new()), []);

    let mut main = FieldWriter::default();
    main.u64(0xABCD).u16(3).flag(true).zero_to(16);
    let local_lsn = Lsn(0x0100_0100);
    let set = Effect::OriginAdvance { origin: 3, remote_lsn: Lsn(0xABCD), local_lsn, backward: true };
    assert_eq!(effects(rmgr::REPLORIGIN, 0x00, main.into_bytes()), [set]);
    assert_eq!(effects(rmgr::REPLORIGIN, 0x10, vec![3, 0]), [Effect::OriginDrop { origin: 3 }]);
}

#[test]
fn commit_timestamps_go_when_they_are_switched_off() {
    let change = |on: u8| [&words(&[100, 8, 10, 5, 64, 1])[..], &[0, on, 0, 0]].concat();
    assert_eq!(effects(rmgr::XLOG, 0x60, change(1)).len(), 1);
    let off = effects(rmgr::XLOG, 0x60, change(0));
    let Effect::Slru(SlruEffect::DropSegments { kind, from_segment, to_segment }) = off[2] else {
        panic!("{off:?}");
    };
    for segment in [0, 1, kind.last_page() / 32] {
        assert!(kind.range_drops(segment, from_segment, to_segment));
    }
}

proptest! {
    #[test]
    fn any_main_data_is_refused_or_taken(
        rmid in prop::sample::select(vec![
            rmgr::SMGR, rmgr::CLOG, rmgr::DBASE, rmgr::TBLSPC, rmgr::RELMAP, rmgr::STANDBY,
            rmgr::COMMIT_TS, rmgr::REPLORIGIN, rmgr::LOGICALMSG, rmgr::XLOG,
        ]),
        info in 0u8..16,
        main in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let _ = crate::effects(&record(rmid, info << 4, main));
    }
}
