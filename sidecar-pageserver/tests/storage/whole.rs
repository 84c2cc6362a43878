//! The life of timelines: import over several layers, branches, deletion, order of the log, time, and what a read may ask.

use std::time::Duration;

use bytes::Bytes;
use strata_common::Lsn;
use strata_objstore::ObjectStore;
use strata_pageserver::storage::{Key, KeyRange, StorageError, Value};

use super::model::{Bench, compare, content, key, metadata, put, run, timeline_id};

const START: Lsn = Lsn(1000);

fn image(text: &str) -> Value {
    Value::Image(Bytes::from(text.to_owned()))
}

fn change(text: &str) -> Value {
    Value::Change { bytes: Bytes::from(text.to_owned()), will_init: false }
}

#[test]
fn an_import_covers_all_keys_with_several_layers() {
    run(async {
        let mut bench = Bench::new(false).await;
        let (timeline, model) = bench.import(1, START, &[0, 1, 2, 3, 4, 6]).await;
        assert!(timeline.status().layers >= 2, "{:?}", timeline.status());
        compare(&timeline, &model, START).await;
        // Trap G4: in a covered range an absent key does not exist.
        for absent in [Key::MIN, key(5), Key::MAX] {
            assert!(timeline.get(absent, START).await.expect("reads").is_absent());
        }
        let again = bench.storage.begin_import(timeline_id(1), START);
        assert!(matches!(again.err(), Some(StorageError::AlreadyExists(_))));
        bench.reopen().await;
        let timeline = bench.storage.attach(timeline_id(1)).await.expect("attaches");
        assert_eq!(timeline.disk_consistent_at_start(), (START, metadata(START)));
        compare(&timeline, &model, START).await;
    });
}

#[test]
fn an_import_that_is_given_up_leaves_no_timeline_and_may_be_made_again() {
    run(async {
        let bench = Bench::new(false).await;
        let mut import = bench.storage.begin_import(timeline_id(1), START).expect("begins");
        let second = bench.storage.begin_import(timeline_id(1), START);
        assert!(matches!(second.err(), Some(StorageError::AlreadyExists(_))));
        for k in 0..5 {
            import.add(key(k), Bytes::from(vec![k; 1000])).await.expect("adds");
        }
        let backwards = import.add(key(2), Bytes::new()).await;
        assert!(matches!(backwards, Err(StorageError::Unsorted(k)) if k == key(2)));
        drop(import);
        assert_eq!(bench.storage.list_remote().await.expect("lists"), []);
        let (timeline, model) = bench.import(1, START, &[0, 2]).await;
        compare(&timeline, &model, START).await;
    });
}

#[test]
fn a_branch_and_its_ancestor_do_not_meet() {
    run(async {
        let bench = Bench::new(false).await;
        let (parent, _) = bench.import(1, START, &[0]).await;
        put(&parent, &(Lsn(1010), vec![(key(5), image("a")), (key(0), image("parent"))])).await;
        let storage = &bench.storage;
        let branch = storage.create_branch(timeline_id(2), timeline_id(1), Lsn(1010), metadata(Lsn(1010)));
        let branch = branch.await.expect("branches");
        put(&parent, &(Lsn(1020), vec![(key(5), change("+parent"))])).await;
        put(&branch, &(Lsn(1018), vec![(key(5), change("+branch"))])).await;
        let read = async |timeline: &strata_pageserver::storage::Timeline, lsn| {
            content(&timeline.get(key(5), Lsn(lsn)).await.expect("reads"))
                .map(|c| String::from_utf8_lossy(&c).into_owned())
        };
        assert_eq!(read(&parent, 1020).await.as_deref(), Some("a+parent"));
        assert_eq!(read(&branch, 1018).await.as_deref(), Some("a+branch"));
        assert_eq!(read(&branch, 1010).await.as_deref(), Some("a"));
        let scanned = branch.scan(KeyRange::one(key(0)), Lsn(1018)).await.expect("scans");
        assert_eq!(scanned, [(key(0), Bytes::from_static(b"parent"))]);
        let scanned = branch.scan(KeyRange::ALL, Lsn(1018)).await;
        assert!(matches!(scanned, Err(StorageError::NotAnImage { .. })), "key 5 holds a change");
        let later = storage.create_branch(timeline_id(3), timeline_id(1), Lsn(1021), Bytes::new()).await;
        assert!(matches!(later, Err(StorageError::NotYet { .. })));
        let earlier = storage.create_branch(timeline_id(3), timeline_id(2), Lsn(1009), Bytes::new()).await;
        assert!(matches!(earlier, Err(StorageError::BelowStart { .. })));
    });
}

/// After a restart the branch may be asked before its ancestor has read the log up to the branch point again.
#[test]
fn a_read_of_a_branch_waits_for_its_ancestor() {
    run(async {
        let mut bench = Bench::new(false).await;
        let (parent, _) = bench.import(1, START, &[0]).await;
        let record = (Lsn(1010), vec![(key(0), image("later"))]);
        put(&parent, &record).await;
        let branch = bench.storage.create_branch(timeline_id(2), timeline_id(1), Lsn(1010), Bytes::new());
        branch.await.expect("branches");
        bench.reopen().await;
        let branch = bench.storage.attach(timeline_id(2)).await.expect("attaches, and its ancestor");
        let parent = bench.storage.timeline(timeline_id(1)).expect("attached with its branch");
        assert_eq!(parent.last_record(), START, "the record was never flushed");
        let early = branch.get(key(0), Lsn(1010)).await;
        assert!(
            matches!(early, Err(StorageError::NotYet { .. })),
            "bounded, never the older content: {early:?}"
        );
        let (read, ()) = tokio::join!(branch.get(key(0), Lsn(1010)), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            put(&parent, &record).await;
        });
        assert_eq!(content(&read.expect("reads")).as_deref(), Some(b"later".as_slice()));
    });
}

#[test]
fn deletion_is_for_leaves_and_survives_being_interrupted() {
    run(async {
        let mut bench = Bench::new(false).await;
        let (parent, model) = bench.import(1, START, &[0, 1, 2, 3]).await;
        put(&parent, &(Lsn(1010), vec![(key(0), image("x"))])).await;
        let child = timeline_id(2);
        let branch = bench.storage.create_branch(child, timeline_id(1), Lsn(1010), Bytes::new()).await;
        put(&branch.expect("branches"), &(Lsn(1020), vec![(key(0), image("y"))])).await;
        // Also when the branch is not attached here.
        bench.reopen().await;
        bench.storage.attach(timeline_id(1)).await.expect("attaches");
        let refused = bench.storage.delete(timeline_id(1)).await;
        assert!(
            matches!(refused, Err(StorageError::HasBranches { child: c, .. }) if c == child),
            "{refused:?}"
        );
        bench.storage.delete(child).await.expect("a leaf goes");
        assert!(matches!(bench.storage.timeline(child), Err(StorageError::NotFound(_))));
        // Killed after the mark: the next start goes on (trap G13).
        bench.store.die_after(Some(2));
        bench.storage.delete(timeline_id(1)).await.expect_err("dies");
        bench.store.die_after(None);
        assert!(!bench.store.list("").await.expect("lists").is_empty(), "something was left");
        bench.reopen().await;
        assert!(bench.storage.attach_all().await.expect("lists").is_empty());
        assert_eq!(bench.store.list("").await.expect("lists"), []);
        let (timeline, model) = bench.import(1, model.start, &[6]).await;
        compare(&timeline, &model, START).await;
    });
}

#[test]
fn the_log_comes_in_order_and_reads_stay_within_it() {
    run(async {
        let bench = Bench::new(false).await;
        let (timeline, _) = bench.import(1, START, &[0]).await;
        let out_of_order =
            |r: Result<(), StorageError>| assert!(matches!(r, Err(StorageError::OutOfOrder { .. })), "{r:?}");
        out_of_order(timeline.put(START, vec![(key(0), image("at the start"))]));
        timeline.put(Lsn(1010), vec![(key(0), image("x"))]).expect("puts");
        out_of_order(timeline.put(Lsn(1009), vec![(key(0), image("x"))]));
        out_of_order(timeline.finish_record(Lsn(1009), b"").await);
        assert_eq!(timeline.last_record(), START, "what is not finished is not there");
        let early = timeline.get(key(0), Lsn(1010)).await;
        assert!(matches!(early, Err(StorageError::NotYet { last, .. }) if last == START));
        timeline.finish_record(Lsn(1010), b"").await.expect("finishes");
        out_of_order(timeline.put(Lsn(1010), vec![]));
        let below = timeline.get(key(0), Lsn(999)).await;
        assert!(matches!(below, Err(StorageError::BelowStart { .. })));
        // Trap G11: a record that puts nothing moves everything on, too.
        timeline.finish_record(Lsn(1050), &metadata(Lsn(1050))).await.expect("finishes");
        assert_eq!(timeline.checkpoint().await.expect("uploads"), Lsn(1050));
        timeline.finish_record(Lsn(1060), &metadata(Lsn(1060))).await.expect("finishes");
        assert_eq!(timeline.checkpoint().await.expect("an empty layer is no file"), Lsn(1060));
        assert_eq!(timeline.status().delta_layers, 1);
    });
}

#[test]
fn a_checkpoint_inside_of_a_record_waits_for_its_end() {
    run(async {
        let bench = Bench::new(false).await;
        let (timeline, _) = bench.import(1, START, &[0]).await;
        timeline.put(Lsn(1010), vec![(key(0), image("x"))]).expect("puts");
        timeline.finish_record(Lsn(1010), b"").await.expect("finishes");
        timeline.put(Lsn(1020), vec![(key(1), image("half"))]).expect("puts");
        let flushed = tokio::time::timeout(Duration::from_secs(100), timeline.flush()).await;
        assert!(flushed.is_err(), "trap G3: a layer never ends inside an LSN");
        timeline.put(Lsn(1020), vec![(key(2), image("whole"))]).expect("puts");
        timeline.finish_record(Lsn(1020), b"").await.expect("finishes");
        assert_eq!(timeline.flush().await.expect("flushes"), Lsn(1020));
    });
}

#[test]
fn what_is_old_is_flushed_without_being_asked() {
    run(async {
        let bench = Bench::new(false).await;
        let (timeline, _) = bench.import(1, START, &[0]).await;
        put(&timeline, &(Lsn(1010), vec![(key(0), image("x"))])).await;
        let mut remote = timeline.watch_remote_consistent();
        let waited =
            tokio::time::timeout(Duration::from_secs(59), remote.wait_for(|lsn| *lsn >= Lsn(1010))).await;
        assert!(waited.is_err(), "too early");
        drop(waited);
        let waited =
            tokio::time::timeout(Duration::from_secs(10), remote.wait_for(|lsn| *lsn >= Lsn(1010))).await;
        assert!(waited.is_ok());
    });
}

#[test]
fn a_known_image_spares_the_search() {
    run(async {
        let bench = Bench::new(false).await;
        let (timeline, _) = bench.import(1, START, &[5]).await;
        for n in 1..=4u64 {
            put(&timeline, &(START + n, vec![(key(5), change(&format!("+{n}")))])).await;
            timeline.flush().await.expect("flushes");
        }
        let known = Some((Lsn(1002), Bytes::from_static(b"known")));
        let parts = timeline.get_above(key(5), Lsn(1004), known.clone()).await.expect("reads");
        assert_eq!(parts.image, known);
        assert_eq!(parts.changes.len(), 2);
        assert_eq!(content(&parts).as_deref(), Some(b"known+3+4".as_slice()));
        let parts = timeline.get_above(key(5), Lsn(1002), known.clone()).await.expect("reads");
        assert_eq!((parts.image, parts.changes.len(), parts.rooted), (known, 0, true));
    });
}

#[test]
fn long_chains_get_an_image_when_their_layer_is_flushed() {
    run(async {
        let bench = Bench::new(true).await;
        let (timeline, _) = bench.import(1, START, &[5]).await;
        for n in 1..=40u64 {
            put(&timeline, &(START + n, vec![(key(5), change("+")), (key(6), change("-"))])).await;
        }
        timeline.flush().await.expect("flushes");
        let parts = timeline.get(key(5), Lsn(1040)).await.expect("reads");
        assert_eq!((parts.image.is_some(), parts.changes.len()), (true, 0));
        let earlier = timeline.get(key(5), Lsn(1039)).await.expect("reads");
        assert!(earlier.changes.len() >= 2, "history is untouched");
        let parts = timeline.get(key(6), Lsn(1040)).await.expect("reads");
        assert_eq!((parts.image, parts.changes.len(), parts.rooted), (None, 40, false), "no root, no image");
    });
}
