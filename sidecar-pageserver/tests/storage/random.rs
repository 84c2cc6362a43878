//! Random histories against the model: puts, flushes, uploads, crashes, branches, lost folders; and death at any step (PS-4).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use strata_common::Lsn;
use strata_objstore::FaultRates;
use strata_pageserver::storage::{Timeline, Value};

use super::model::{
    Bench, IMAGE_KEYS, KEYS, ModelTimeline, Record, compare, key, metadata, put, recover, run, timeline_id,
};

#[derive(Clone, Debug)]
enum Step {
    /// A record on one of the timelines: gap to its end, and puts of (key, kind, length).
    Record(prop::sample::Index, u64, Vec<(u8, u8, u16)>),
    Flush(prop::sample::Index),
    Checkpoint(prop::sample::Index),
    Evict(prop::sample::Index),
    /// The process is killed and started again.
    Restart,
    /// ... and its folder is lost.
    RestartEmpty,
    /// A branch of a timeline at one of its records.
    Branch(prop::sample::Index, prop::sample::Index),
    Compare(prop::sample::Index),
}

fn record() -> impl Strategy<Value = Step> {
    let put = (0..KEYS, 0..4u8, 0..600u16);
    (any::<prop::sample::Index>(), 1..50u64, prop::collection::vec(put, 0..6))
        .prop_map(|(which, gap, puts)| Step::Record(which, gap, puts))
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<prop::sample::Index>;
    prop_oneof![
        24 => record(),
        3 => which().prop_map(Step::Flush),
        3 => which().prop_map(Step::Checkpoint),
        2 => which().prop_map(Step::Evict),
        2 => Just(Step::Restart),
        1 => Just(Step::RestartEmpty),
        1 => (which(), which()).prop_map(|(a, b)| Step::Branch(a, b)),
        2 => which().prop_map(Step::Compare),
    ]
}

fn make_record(end: Lsn, puts: &[(u8, u8, u16)]) -> Record {
    let value = |n: usize, (k, kind, length): &(u8, u8, u16)| {
        let mut text = format!("[{end} {n} {k}]").into_bytes();
        text.resize(text.len() + usize::from(*length), b'.');
        let bytes = Bytes::from(text);
        let value = match kind {
            _ if *k < IMAGE_KEYS => Value::Image(bytes),
            0 => Value::Image(bytes),
            1 => Value::Change { bytes, will_init: true },
            _ => Value::Change { bytes, will_init: false },
        };
        (key(*k), value)
    };
    (end, puts.iter().enumerate().map(|(n, put)| value(n, put)).collect())
}

/// Timelines with their models, parents before children.
struct World {
    bench: Bench,
    all: Vec<(Arc<Timeline>, ModelTimeline)>,
}

impl World {
    async fn new(materialize: bool) -> World {
        let bench = Bench::new(materialize).await;
        let first = bench.import(1, Lsn(1000), &[0, 1, 4, 5]).await;
        World { bench, all: vec![first] }
    }

    async fn step(&mut self, step: &Step) {
        let count = self.all.len();
        match step {
            Step::Record(which, gap, puts) => {
                let (timeline, model) = &mut self.all[which.index(count)];
                let record = make_record(model.last() + *gap, puts);
                put(timeline, &record).await;
                model.log.push(record);
            }
            Step::Flush(which) => {
                let (timeline, model) = &self.all[which.index(count)];
                assert_eq!(timeline.flush().await.expect("flushes"), model.last());
            }
            Step::Checkpoint(which) => {
                let (timeline, model) = &mut self.all[which.index(count)];
                assert_eq!(timeline.checkpoint().await.expect("uploads"), model.last());
                model.promised = model.last();
            }
            Step::Evict(which) => {
                self.all[which.index(count)].0.evict_all().await.expect("evicts");
            }
            Step::Branch(which, at) if count < 5 => {
                let (_, model) = &self.all[which.index(count)];
                let lsn =
                    if model.log.is_empty() { model.start } else { model.log[at.index(model.log.len())].0 };
                let id = timeline_id(count as u8 + 1);
                let branch = self.bench.storage.create_branch(id, model.id, lsn, metadata(lsn)).await;
                let ancestor = Some((Box::new(model.clone()), lsn));
                let child = ModelTimeline {
                    id,
                    start: lsn,
                    imported: Default::default(),
                    log: Vec::new(),
                    ancestor,
                    promised: lsn,
                };
                self.all.push((branch.expect("branches"), child));
            }
            Step::Branch(..) => {}
            Step::Restart => self.restart().await,
            Step::RestartEmpty => {
                self.note_promises();
                self.bench.storage.shutdown().await;
                std::fs::remove_dir_all(self.bench.local_dir()).expect("removes");
                self.restart().await;
            }
            Step::Compare(which) => {
                let (timeline, model) = &self.all[which.index(count)];
                compare(timeline, model, model.last()).await;
            }
        }
    }

    fn note_promises(&mut self) {
        for (timeline, model) in &mut self.all {
            model.promised = model.promised.max(timeline.remote_consistent());
        }
    }

    async fn restart(&mut self) {
        self.bench.storage.shutdown().await;
        // Whatever was reported until the very end is a promise.
        self.note_promises();
        self.bench.reopen().await;
        let attached = self.bench.storage.attach_all().await.expect("lists");
        assert_eq!(attached.len(), self.all.len(), "every timeline comes back");
        for (timeline, model) in &mut self.all {
            *timeline = self.bench.storage.timeline(model.id).expect("attached");
            recover(timeline, model).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn the_storage_answers_as_the_model_does(steps in prop::collection::vec(step(), 1..70), materialize: bool) {
        run(async {
            let mut world = World::new(materialize).await;
            for step in &steps {
                world.step(step).await;
            }
            world.step(&Step::Restart).await;
            for (timeline, model) in &world.all {
                compare(timeline, model, model.last()).await;
            }
            world.bench.storage.shutdown().await;
        });
    }

    /// The same with an object store that refuses, delays and loses answers all the time.
    #[test]
    fn a_bad_object_store_changes_no_answer(steps in prop::collection::vec(step(), 1..40), materialize: bool) {
        run(async {
            let mut world = World::new(materialize).await;
            world.bench.store.set_rates(FaultRates {
                refused: 100, answer_lost: 150, delayed: 100, delay: Duration::from_millis(3),
            });
            for step in &steps {
                world.step(step).await;
            }
            world.step(&Step::Restart).await;
            world.bench.storage.shutdown().await;
        });
    }

    /// Killed after any number of steps on the disk or puts to the store, it comes back with all that it had promised.
    #[test]
    fn death_at_any_step_loses_no_promise(
        records in prop::collection::vec(record(), 5..40),
        disk_steps in 0..120u64,
        puts in 0..40u64,
        checkpoint_every in 2..9usize,
        power_failure: bool,
    ) {
        run(async {
            let mut world = World::new(false).await;
            world.bench.disk.die_after(disk_steps);
            world.bench.store.die_after(Some(puts));
            for (n, step) in records.iter().enumerate() {
                let Step::Record(_, gap, wanted) = step else { continue };
                let (timeline, model) = &mut world.all[0];
                let record = make_record(model.last() + *gap, wanted);
                for value in &record.1 {
                    timeline.put(record.0, vec![value.clone()]).expect("memory does not die");
                }
                model.log.push(record.clone());
                // With a dead disk memory fills up and this waits for ever: then the process is over.
                let state = metadata(record.0);
                let finished = timeline.finish_record(record.0, &state);
                if tokio::time::timeout(Duration::from_secs(60), finished).await.is_err() {
                    break;
                }
                if n % checkpoint_every == 0 {
                    let _may_be_dead = tokio::time::timeout(Duration::from_secs(20), timeline.checkpoint()).await;
                }
                let promised = timeline.remote_consistent();
                model.promised = model.promised.max(promised);
            }
            world.bench.storage.shutdown().await;
            world.note_promises();
            if power_failure {
                world.bench.disk.crash().expect("crashes");
            }
            world.bench.store.die_after(None);
            world.restart().await;
            let (timeline, model) = &mut world.all[0];
            prop_assert_eq!(timeline.checkpoint().await.expect("uploads"), model.last());
            world.restart().await;
            Ok(())
        })?;
    }
}
