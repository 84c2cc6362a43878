//! Counters and settings follow recovery's rules (S6, G16); states survive being stored.

use super::*;
use crate::ingest::testkit::{control_state, parameters};

#[test]
fn a_state_comes_back_from_storage() {
    let mut state = control_state(Lsn(0x2000));
    state.finish_record(Lsn(0x1f00), Lsn(0x2000), Lsn(0x1e00), true);
    state.log_term = Term(9);
    let bytes = state.encode();
    let found = ControlState::decode(&bytes).expect("just encoded");
    assert_eq!((found.lsn, found.checkpoint, found.mark), (state.lsn, state.checkpoint, state.mark));
    assert_eq!(found.control_file.settings, state.control_file.settings);
    assert_eq!(found.log_term, Term(9));
    // Version 1: the same without the term.
    let old = [&[1], &bytes[1..9], &bytes[17..]].concat();
    let found = ControlState::decode(&old).expect("version 1 is read");
    assert_eq!((found.mark, found.log_term), (state.mark, Term::ZERO));
    assert!(ControlState::decode(&bytes[..bytes.len() - 1]).is_err());
    assert!(ControlState::decode(&[]).is_err());
}

#[test]
fn transaction_ids_wrap_into_the_next_epoch() {
    let mut state = control_state(Lsn(8));
    state.checkpoint.next_xid = FullTransactionId::new(4, u32::MAX);
    state.see_xid(u32::MAX);
    assert_eq!(state.checkpoint.next_xid, FullTransactionId::new(5, 3));
    state.see_xid(u32::MAX - 5);
    assert_eq!(state.checkpoint.next_xid, FullTransactionId::new(5, 3), "an older id moves nothing");
    state.apply(&Effect::NextXidPast(10));
    assert_eq!(state.checkpoint.next_xid, FullTransactionId::new(5, 11));
}

#[test]
fn a_shutdown_checkpoint_is_exact_and_an_online_one_only_moves_forward() {
    let mut state = control_state(Lsn(8));
    state.checkpoint.next_oid = 30_000;
    state.checkpoint.next_multi = 50;
    let record = CheckPoint {
        next_xid: FullTransactionId::new(0, 5),
        next_oid: 20_000,
        next_multi: 40,
        oldest_xid: 900,
        ..state.checkpoint
    };
    let before = state.checkpoint;
    let changed = state.apply(&Effect::Checkpoint { kind: CheckpointKind::Online, checkpoint: record });
    assert!(changed.mark && changed.checkpoint);
    assert_eq!(state.checkpoint.next_xid, before.next_xid);
    assert_eq!((state.checkpoint.next_oid, state.checkpoint.next_multi), (30_000, 50));
    assert_eq!(state.checkpoint.oldest_xid, 900);
    state.apply(&Effect::Checkpoint { kind: CheckpointKind::Shutdown, checkpoint: record });
    assert_eq!(state.checkpoint, record);
}

#[test]
fn commit_times_are_kept_as_a_maximum() {
    let mut state = control_state(Lsn(8));
    for micros in [50, 70, 60] {
        state.apply(&Effect::CommitTime { xid: 800, micros, committed: Some(800) });
    }
    assert_eq!(state.mark.latest_commit_unix_micros, POSTGRES_EPOCH_UNIX_MICROS + 70);
}

#[test]
fn commit_timestamps_reach_as_far_as_the_newest_commit() {
    let mut state = control_state(Lsn(8));
    state.control_file.settings.track_commit_timestamp = true;
    state.checkpoint.oldest_commit_ts_xid = 790;
    for (xid, committed) in [(800, Some(805)), (801, Some(801)), (810, None)] {
        state.apply(&Effect::CommitTime { xid, micros: 1, committed });
    }
    assert_eq!((state.checkpoint.oldest_commit_ts_xid, state.checkpoint.newest_commit_ts_xid), (790, 805));
}

#[test]
fn parameters_reach_pg_control_and_start_and_end_commit_timestamps() {
    let mut state = control_state(Lsn(8));
    state.checkpoint.next_xid = FullTransactionId::new(0, 777);
    let changed = state.apply(&Effect::ParameterChange(parameters(true)));
    assert!(changed.control_file && changed.checkpoint);
    assert!(state.control_file.settings.track_commit_timestamp);
    assert_eq!(state.control_file.settings.max_connections, 123);
    assert_eq!(state.checkpoint.oldest_commit_ts_xid, 777);
    state.apply(&Effect::ParameterChange(parameters(false)));
    assert_eq!((state.checkpoint.oldest_commit_ts_xid, state.checkpoint.newest_commit_ts_xid), (0, 0));
}

#[test]
fn truncation_records_move_the_oldest_ids_at_once() {
    let mut state = control_state(Lsn(8));
    let changed = state.apply(&Effect::OldestXid { xid: 5000, database: 16 });
    assert!(changed.checkpoint && !changed.mark);
    assert_eq!((state.checkpoint.oldest_xid, state.checkpoint.oldest_xid_db), (5000, 16));
    state.apply(&Effect::OldestMulti { multi: 9, database: 17 });
    state.apply(&Effect::OldestMulti { multi: 3, database: 18 });
    assert_eq!((state.checkpoint.oldest_multi, state.checkpoint.oldest_multi_db), (9, 17));
    assert!(!state.apply(&Effect::NextOid(40_000)).checkpoint, "marks hold what moves often");
}
