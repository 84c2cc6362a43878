//! Small objects: a later term's and a later generation's stay, damage is refused, restarts keep them and a deletion takes them along.

use bytes::Bytes;
use strata_common::{Lsn, Term};
use strata_objstore::{FaultRates, ObjectKey, ObjectStore, PutCondition};
use strata_pageserver::storage::{ErrorKind, ObjectName, StorageError, Timeline};

use super::model::{Bench, run, timeline_id};
use super::owners::other;

const START: Lsn = Lsn(1000);
const NAME: ObjectName = ObjectName::LfcState;

async fn put(timeline: &Timeline, term: u64, text: &'static str) -> Result<(), StorageError> {
    timeline.put_object(NAME, Term(term), Bytes::from_static(text.as_bytes())).await
}

/// Term and content.
async fn get(timeline: &Timeline) -> Option<(u64, Bytes)> {
    let found = timeline.get_object(NAME).await.expect("reads");
    found.map(|object| (object.term.0, object.content))
}

fn holds(term: u64, text: &'static str) -> Option<(u64, Bytes)> {
    Some((term, Bytes::from_static(text.as_bytes())))
}

#[test]
fn a_later_term_replaces_and_an_earlier_one_is_refused() {
    run(async {
        let bench = Bench::new(false).await;
        let (timeline, _) = bench.import(1, START, &[0]).await;
        assert_eq!(get(&timeline).await, None);
        for (term, text) in [(5, "first"), (5, "second"), (7, "later")] {
            put(&timeline, term, text).await.expect("puts");
            assert_eq!(get(&timeline).await, holds(term, text));
        }
        let error = put(&timeline, 6, "too late").await.expect_err("refused");
        let id = timeline_id(1);
        let sentence = format!("term 6 of this compute is over: term 7 has put lfc-state of timeline {id}");
        assert_eq!(error.to_string(), sentence);
        assert_eq!(get(&timeline).await, holds(7, "later"));
    });
}

#[test]
fn what_is_too_large_is_refused() {
    run(async {
        let bench = Bench::new(false).await;
        let (timeline, _) = bench.import(1, START, &[0]).await;
        let of = |bytes: usize| Bytes::from(vec![7u8; bytes]);
        timeline.put_object(NAME, Term(1), of(8 << 20)).await.expect("as large as may be");
        let error = timeline.put_object(NAME, Term(1), of((8 << 20) + 1)).await.expect_err("refused");
        assert_eq!(error.to_string(), "a small object of 8388609 bytes is larger than 8388608");
        assert_eq!(error.kind(), ErrorKind::BadInput);
        assert_eq!(get(&timeline).await, Some((1, of(8 << 20))));
    });
}

#[test]
fn it_outlives_the_pageserver_and_a_stale_one_cannot_replace_it() {
    run(async {
        let mut bench = Bench::new(false).await;
        let (timeline, _) = bench.import(1, START, &[0]).await;
        put(&timeline, 1, "kept").await.expect("puts");
        bench.reopen().await;
        std::fs::remove_dir_all(bench.local_dir()).expect("removes");
        let old = bench.storage.attach(timeline_id(1)).await.expect("attaches");
        assert_eq!(get(&old).await, holds(1, "kept"));
        let new = other(&bench, 9, 1).await.attach(timeline_id(1)).await.expect("takes over");
        put(&new, 2, "new").await.expect("puts");
        let error = put(&old, 3, "of a stale pageserver").await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
        assert_eq!(get(&new).await, holds(2, "new"));
        bench.storage.shutdown().await;
        assert!(matches!(put(&old, 3, "after its end").await, Err(StorageError::ShutDown(_))));
    });
}

/// Two computes put at once through two pageservers while answers are lost: the later term's object is what stays.
#[test]
fn the_later_term_wins_every_race() {
    for seed in 0..40 {
        run(async move {
            let bench = Bench::new(false).await;
            let (timeline, _) = bench.import(1, START, &[0]).await;
            timeline.checkpoint().await.expect("uploads");
            let same = other(&bench, 1, seed).await.attach(timeline_id(1)).await.expect("attaches");
            bench.store.set_rates(FaultRates { answer_lost: 200, ..FaultRates::default() });
            let (earlier, later) = tokio::join!(put(&same, 3, "earlier"), put(&timeline, 4, "later"));
            later.expect("puts");
            assert!(matches!(earlier, Ok(()) | Err(StorageError::LaterTerm { .. })), "{earlier:?}");
            bench.store.set_rates(FaultRates::default());
            assert_eq!(get(&timeline).await, holds(4, "later"), "seed {seed}");
        });
    }
}

#[test]
fn a_damaged_one_is_refused_and_the_next_put_replaces_it() {
    run(async {
        let bench = Bench::new(false).await;
        let (timeline, _) = bench.import(1, START, &[0]).await;
        put(&timeline, 1, "good").await.expect("puts");
        let id = timeline_id(1);
        let key = ObjectKey::new(format!("objects/{}/{}/lfc-state", id.tenant, id.timeline)).expect("a name");
        let mut bytes = bench.store.get(&key).await.expect("is there").bytes.to_vec();
        bytes[62] ^= 1;
        bench.store.put(&key, bytes.into(), PutCondition::Always).await.expect("puts");
        let error = timeline.get_object(NAME).await.expect_err("refused");
        assert_eq!(error.to_string(), format!("object {key} is damaged: its checksum is wrong"));
        assert_eq!(error.kind(), ErrorKind::Corruption);
        put(&timeline, 1, "anew").await.expect("puts");
        assert_eq!(get(&timeline).await, holds(1, "anew"));
    });
}

#[test]
fn a_branch_sees_its_ancestors_until_it_has_its_own() {
    run(async {
        let mut bench = Bench::new(false).await;
        let (parent, _) = bench.import(1, START, &[0]).await;
        let branch = bench.storage.create_branch(timeline_id(2), timeline_id(1), START, Bytes::new()).await;
        let branch = branch.expect("branches");
        assert_eq!(get(&branch).await, None);
        put(&parent, 8, "parent").await.expect("puts");
        let found = branch.get_object(NAME).await.expect("reads").expect("the parent's");
        assert_eq!((found.timeline, found.term), (timeline_id(1), Term(8)));
        // Terms of another timeline mean nothing here.
        put(&branch, 2, "branch").await.expect("puts");
        assert_eq!(get(&branch).await, holds(2, "branch"));
        assert_eq!(get(&parent).await, holds(8, "parent"));
        // Killed half-way, the next start deletes the rest.
        bench.store.die_after(Some(1));
        bench.storage.delete(timeline_id(2)).await.expect_err("dies");
        bench.store.die_after(None);
        bench.reopen().await;
        bench.storage.attach_all().await.expect("lists");
        bench.storage.delete(timeline_id(1)).await.expect("deletes");
        assert_eq!(bench.store.list("").await.expect("lists"), [], "a deletion takes objects along");
    });
}
