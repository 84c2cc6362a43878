//! Two and three owners of one timeline: the highest generation wins, and no loser's promise is unknown to the winner (PS-4, trap G7).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use strata_common::{Generation, Lsn};
use strata_objstore::{FaultRates, FaultyStore, LocalStore, ObjectStore};
use strata_pageserver::storage::faults::FaultyDisk;
use strata_pageserver::storage::{ErrorKind, Storage, StorageConfig, StorageError, Timeline, Value};

use super::model::{Bench, config, key, metadata, run, timeline_id};

/// Another process with a folder of its own over the bench's store.
pub async fn other(bench: &Bench, generation: u32, seed: u64) -> Storage {
    let store = LocalStore::open(bench.dir.path().join("store")).await.expect("opens");
    let faulty = FaultyStore::new(store, seed);
    faulty.set_rates(FaultRates {
        delayed: 600,
        delay: Duration::from_millis(1 + seed % 5),
        ..Default::default()
    });
    let mut config: StorageConfig = config(&bench.dir, &FaultyDisk::new(), false);
    config.dir = bench.dir.path().join(format!("local-{generation}"));
    let store: Arc<dyn ObjectStore> = Arc::new(faulty);
    Storage::open(config, store, Generation(generation)).await.expect("opens")
}

/// Writes records and uploads them until it is stopped; what it reported is what it promised.
async fn write_until_stale(timeline: Arc<Timeline>) -> Lsn {
    for _ in 0..60 {
        let lsn = timeline.last_record() + 8;
        let value = Value::Image(Bytes::from(format!("{} at {lsn}", timeline.generation())));
        if timeline.put(lsn, vec![(key(0), value)]).is_err() {
            break;
        }
        if timeline.finish_record(lsn, &metadata(lsn)).await.is_err() || timeline.checkpoint().await.is_err()
        {
            break;
        }
    }
    timeline.remote_consistent()
}

#[test]
fn a_stale_owner_is_refused_and_says_so() {
    run(async {
        let bench = Bench::new(false).await;
        let (old, _) = bench.import(1, Lsn(1000), &[0]).await;
        let second = other(&bench, 2, 3).await;
        let new = second.attach(timeline_id(1)).await.expect("takes over");
        old.put(Lsn(1008), vec![(key(0), Value::Image(Bytes::from_static(b"late")))]).expect("memory only");
        old.finish_record(Lsn(1008), b"").await.expect("memory only");
        let error = old.checkpoint().await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Stale);
        let id = timeline_id(1);
        let sentence = format!(
            "timeline {id}: generation 00000001 of this pageserver is stale, a later generation has taken over"
        );
        assert_eq!(error.to_string(), sentence);
        assert!(matches!(old.put(Lsn(1016), vec![]), Err(StorageError::Stale { .. })), "and stays refused");
        assert_eq!(old.remote_consistent(), Lsn(1000), "nothing was promised");
        assert!(old.get(key(0), Lsn(1000)).await.expect("reads go on").rooted);
        assert_eq!(new.checkpoint().await.expect("the new owner goes on"), Lsn(1000));
        let error = other(&bench, 1, 4).await.attach(timeline_id(1)).await.expect_err("too old");
        assert_eq!(error.kind(), ErrorKind::Stale);
    });
}

#[test]
fn no_promise_of_a_loser_is_unknown_to_the_winner() {
    let mut taken_over_while_writing = 0;
    for seed in 0..40 {
        let (promised, started, stale) = run(async move {
            let bench = Bench::new(false).await;
            bench.import(1, Lsn(1000), &[0]).await;
            bench.storage.shutdown().await;
            let id = timeline_id(1);
            let first = other(&bench, 2, seed).await.attach(id).await.expect("attaches");
            let writing = tokio::spawn(write_until_stale(first.clone()));
            tokio::time::sleep(Duration::from_millis(seed % 17)).await;
            // Two attach at once, both may come through for a moment; the lower one must notice.
            let (third, fourth) = (other(&bench, 3, seed + 100).await, other(&bench, 4, seed + 200).await);
            let write_after = |storage: Storage, pause: u64| async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                match storage.attach(id).await {
                    Ok(timeline) => {
                        Some((timeline.disk_consistent_at_start().0, write_until_stale(timeline).await))
                    }
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Stale, "{e}");
                        None
                    }
                }
            };
            let (lower, winner) =
                tokio::join!(write_after(third, seed % 3), write_after(fourth, (seed / 3) % 5));
            let promised =
                writing.await.expect("no panic").max(lower.map_or(Lsn(0), |(_, promised)| promised));
            let winner = winner.expect("the highest generation wins");
            (promised, winner.0, first.status().problem)
        });
        assert!(started >= promised, "seed {seed}: {promised} was promised, the winner began at {started}");
        assert!(stale.is_some_and(|text| text.contains("is stale")), "seed {seed}");
        taken_over_while_writing += usize::from(promised > Lsn(1000));
    }
    assert!(taken_over_while_writing > 10, "the race must happen: {taken_over_while_writing} of 40");
}
