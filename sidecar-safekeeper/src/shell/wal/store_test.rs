//! The store by example: positions, segments, cuts, faults. The model test beside it does the same at random.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use strata_common::Lsn;
use strata_pgwal::{RecordSpec, WalWriter};

use super::reader::WalReader;
use super::store::NextSegment;
use super::test_log::{LOG, START, TestLog};
use super::{LogFolder, StoreError, Synced, WalStore};
use crate::shell::disk::faulty::FaultyDisk;
use crate::shell::disk::{Disk, RealDisk};

pub fn folder(disk: &FaultyDisk) -> LogFolder {
    LogFolder { disk: Arc::new(disk.clone()), path: PathBuf::from("/t"), segment_bytes: LOG.segment_bytes }
}

fn open(disk: &FaultyDisk, known: Lsn) -> WalStore {
    WalStore::open(folder(disk), START, known, NextSegment::WhenNeeded).expect("opens")
}

fn read_all(folder: LogFolder, from: Lsn, to: Lsn) -> Vec<u8> {
    let mut reader = WalReader::new(folder);
    let mut all = Vec::new();
    while from + (all.len() as u64) < to {
        let piece = reader.read(from + all.len() as u64, to, 100_000).expect("readable");
        assert!(!piece.is_empty());
        all.extend_from_slice(&piece);
    }
    all
}

fn segments(disk: &FaultyDisk) -> Vec<String> {
    disk.list(Path::new("/t")).expect("works")
}

#[test]
fn only_whole_records_count_and_everything_is_stored() {
    let disk = FaultyDisk::default();
    let mut log = TestLog::begin();
    let first = log.add(100);
    let second = log.add(30_000);
    let mut store = open(&disk, START);
    store.write(START, &log.slice(START, first + 10)).expect("room");
    assert_eq!(store.sync().expect("works"), Synced { written: first + 10, flush: first });
    store.write(first + 10, &log.slice(first + 10, second)).expect("room");
    assert_eq!(store.sync().expect("works"), Synced { written: second, flush: second });
    assert_eq!(read_all(folder(&disk), START, second), log.bytes);
}

#[test]
fn segments_are_made_one_after_the_other_and_read_across() {
    let disk = FaultyDisk::default();
    let mut log = TestLog::begin();
    log.add_many(50, 60_000);
    let mut store = open(&disk, START);
    store.write(START, &log.slice(START, log.end())).expect("room");
    let synced = store.sync().expect("works");
    assert_eq!(synced, Synced { written: log.end(), flush: log.end() });
    assert_eq!(
        segments(&disk),
        ["000000010000000000000001", "000000010000000000000002", "000000010000000000000003"]
    );
    assert_eq!(read_all(folder(&disk), START, log.end()), log.bytes);
    drop(store);
    disk.crash(|_| 0);
    assert_eq!(open(&disk, START).written(), log.end());
}

#[test]
fn a_segment_that_was_made_ahead_is_used() {
    let root = tempfile::tempdir().expect("temporary folder");
    let folder = LogFolder {
        disk: Arc::new(RealDisk),
        path: root.path().to_owned(),
        segment_bytes: LOG.segment_bytes,
    };
    let mut store = WalStore::open(folder.clone(), START, START, NextSegment::Ahead).expect("opens");
    let mut log = TestLog::begin();
    while log.end() < Lsn(5 << 20) {
        let from = log.end();
        let to = log.add(50_000);
        store.write(from, &log.slice(from, to)).expect("room");
        store.sync().expect("works");
    }
    assert_eq!(read_all(folder.clone(), START, log.end()), log.bytes);
    drop(store);
    let store = WalStore::open(folder.clone(), START, START, NextSegment::Ahead).expect("opens");
    assert_eq!(store.written(), log.end());
    // The segment ahead of the end goes on opening: only log may lie behind the end's segment.
    assert_eq!(folder.list().expect("works").last(), Some(&folder.segment_start(log.end())));
}

#[test]
fn what_was_cut_is_never_found_again() {
    let disk = FaultyDisk::default();
    let mut log = TestLog::begin();
    let keep = log.add(500);
    log.add_many(40, 60_000);
    let mut store = open(&disk, START);
    store.write(START, &log.slice(START, log.end())).expect("room");
    store.sync().expect("works");
    store.truncate(keep).expect("works");
    assert_eq!((store.written(), store.records_end()), (keep, keep));
    assert_eq!(segments(&disk).len(), 1);
    drop(store);
    disk.crash(|_| 0);
    let mut store = open(&disk, START);
    assert_eq!(store.written(), keep);
    log.cut(keep);
    let end = log.add(700);
    store.write(keep, &log.slice(keep, end)).expect("room");
    store.sync().expect("works");
    drop(store);
    disk.crash(|_| 0);
    assert_eq!(open(&disk, keep).written(), end);
    assert_eq!(read_all(folder(&disk), START, end), log.bytes);
}

#[test]
fn a_switch_ends_at_the_next_segment() {
    let disk = FaultyDisk::default();
    let mut log = TestLog::begin();
    let before = log.add(100);
    let switched = log.add_switch();
    assert_eq!(switched, Lsn(2 << 20));
    let after = log.add(100);
    let mut store = open(&disk, START);
    store.write(START, &log.slice(START, before + 100)).expect("room");
    assert_eq!(store.sync().expect("works").flush, before);
    store.write(before + 100, &log.slice(before + 100, after)).expect("room");
    assert_eq!(store.sync().expect("works").flush, after);
    drop(store);
    assert_eq!(open(&disk, START).written(), after);
}

#[test]
fn log_below_the_horizon_goes_by_whole_segments() {
    let disk = FaultyDisk::default();
    let mut log = TestLog::begin();
    while log.end() < Lsn(4 << 20) {
        log.add(60_000);
    }
    let mut store = open(&disk, START);
    store.write(START, &log.slice(START, log.end())).expect("room");
    store.sync().expect("works");
    let horizon = log.end_at_or_below(Lsn((3 << 20) + 500_000));
    assert_eq!(store.remove_below(horizon).expect("works"), 2);
    assert_eq!(segments(&disk), ["000000010000000000000003", "000000010000000000000004"]);
    // Names come back in a crash, because removal is not made durable; opening with the new horizon removes them.
    drop(store);
    disk.crash(|_| 0);
    assert_eq!(segments(&disk).len(), 4);
    let store = WalStore::open(folder(&disk), horizon, horizon, NextSegment::WhenNeeded).expect("opens");
    assert_eq!((store.written(), segments(&disk).len()), (log.end(), 2));
}

#[test]
fn a_log_that_begins_anew_finds_nothing_of_the_old() {
    let disk = FaultyDisk::default();
    let mut log = TestLog::begin();
    log.add(60_000);
    let mut store = open(&disk, START);
    store.write(START, &log.slice(START, log.end())).expect("room");
    store.sync().expect("works");
    let anew = Lsn((9 << 20) + 4096);
    // A crash before the reset: the control file already says where the log begins anew.
    drop(store);
    let mut store = WalStore::open(folder(&disk), anew, anew, NextSegment::WhenNeeded).expect("opens");
    assert_eq!((store.written(), segments(&disk).len()), (anew, 0));
    store.reset(anew).expect("works");
    assert_eq!(store.written(), anew);
}

#[test]
fn a_full_disk_keeps_what_is_there_and_goes_on_later() {
    let disk = FaultyDisk::default();
    let mut log = TestLog::begin();
    log.add_many(30, 60_000);
    let mut store = open(&disk, START);
    let half = log.end_at_or_below(START + 900_000);
    store.write(START, &log.slice(START, half)).expect("room");
    store.sync().expect("works");
    disk.set_room(Some(disk.used_bytes() + 500_000));
    let rest = log.slice(half, log.end());
    let error = store.write(half, &rest).expect_err("no room for another segment");
    assert!(error.is_full(), "{error}");
    assert_eq!(segments(&disk).len(), 1, "no half segment takes the last room");
    assert!(store.write(half, &rest).expect_err("still no room").is_full());
    disk.set_room(None);
    store.write(half, &rest).expect("room");
    assert_eq!(store.sync().expect("works").flush, log.end());
    assert_eq!(read_all(folder(&disk), START, log.end()), log.bytes);
}

#[test]
fn a_failed_sync_is_an_error_that_no_room_cures() {
    let disk = FaultyDisk::default();
    let mut log = TestLog::begin();
    let end = log.add(100);
    let mut store = open(&disk, START);
    store.write(START, &log.slice(START, end)).expect("room");
    disk.set_sync_fails(true);
    let error = store.sync().expect_err("injected");
    assert!(!error.is_full(), "{error}");
    disk.set_sync_fails(false);
    drop(store);
    disk.crash(|_| 0);
    assert_eq!(open(&disk, START).written(), START, "what the failed sync was to keep is lost");
}

#[test]
fn bytes_that_are_no_log_are_refused() {
    let disk = FaultyDisk::default();
    let mut log = TestLog::begin();
    let end = log.add(100);
    let mut store = open(&disk, START);
    let mut bad = log.slice(START, end).to_vec();
    bad[50] ^= 1;
    let error = store.write(START, &Bytes::from(bad)).expect_err("checksum");
    assert!(matches!(error, StoreError::Content { .. }), "{error}");
    assert!(segments(&disk).is_empty(), "nothing was written");
}

#[test]
fn after_a_cut_what_was_refused_is_refused_again_and_good_log_is_taken() {
    let disk = FaultyDisk::default();
    let mut log = TestLog::begin();
    let first = log.add(100);
    log.add(100);
    let third = log.add(100);
    let mut store = open(&disk, START);
    store.write(START, &log.slice(START, first)).expect("room");
    // A record that is right in all but the one before it, which after a cut is only known if it was remembered.
    let follows_another = Lsn(START.0 - 8);
    let spec = RecordSpec::plain(0, 0x20, Bytes::from_static(b"content"));
    let link = WalWriter::new(first, follows_another, LOG).append(&spec).bytes;
    for _ in 0..3 {
        let error = store.write(first, &link).expect_err("it links elsewhere");
        let StoreError::Content { end, .. } = error else { panic!("{error}") };
        assert_eq!(end, first);
        store.truncate(end).expect("works");
    }
    // A good record before a bad one in the same bytes goes with it.
    let mut bad = log.slice(first, third).to_vec();
    let content = bad.len() - 12;
    bad[content] ^= 1;
    let error = store.write(first, &Bytes::from(bad)).expect_err("checksum");
    assert!(matches!(error, StoreError::Content { end, .. } if end == first), "{error}");
    store.truncate(first).expect("works");
    store.write(first, &log.slice(first, third)).expect("room");
    assert_eq!(store.sync().expect("works").flush, third);
    drop(store);
    disk.crash(|_| 0);
    assert_eq!(open(&disk, START).written(), third);
}

#[test]
fn a_missing_or_short_segment_is_named() {
    let disk = FaultyDisk::default();
    let mut log = TestLog::begin();
    log.add_many(30, 60_000);
    let mut store = open(&disk, START);
    store.write(START, &log.slice(START, log.end())).expect("room");
    store.sync().expect("works");
    drop(store);
    disk.remove_file(Path::new("/t/000000010000000000000001")).expect("there");
    let known = log.end();
    let error =
        WalStore::open(folder(&disk), START, known, NextSegment::WhenNeeded).map(drop).expect_err("refused");
    assert!(error.to_string().contains("000000010000000000000001 is missing"), "{error}");
    disk.create(Path::new("/t/000000010000000000000001")).expect("works");
    let error =
        WalStore::open(folder(&disk), START, known, NextSegment::WhenNeeded).map(drop).expect_err("refused");
    assert!(error.to_string().contains("has 0 bytes instead of 1048576"), "{error}");
}
