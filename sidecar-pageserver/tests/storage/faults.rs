//! A full disk, an object store that is away, broken bytes on either side: one clear sentence, reads go on, nothing is lost.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use strata_common::Lsn;
use strata_pageserver::storage::{ErrorKind, StorageError, Timeline, Value};

use super::model::{Bench, ModelTimeline, Record, compare, content, key, metadata, put, run, timeline_id};

const START: Lsn = Lsn(1000);

fn record(n: u64, bytes: usize) -> Record {
    let image = Bytes::from(vec![b'a' + (n % 26) as u8; bytes]);
    (START + 8 * (n + 1), vec![(key((n % 3) as u8), Value::Image(image))])
}

async fn fill(timeline: &Timeline, model: &mut ModelTimeline, count: u64) {
    for _ in 0..count {
        let record = record(model.log.len() as u64, 500);
        put(timeline, &record).await;
        model.log.push(record);
    }
}

/// Puts records until memory is full and the writer is held back. Fails if that never happens.
async fn fill_until_held(timeline: &Timeline, model: &mut ModelTimeline) {
    for _ in 0..200 {
        let record = record(model.log.len() as u64, 500);
        model.log.push(record.clone());
        timeline.put(record.0, record.1.clone()).expect("puts");
        let state = metadata(record.0);
        let finished = timeline.finish_record(record.0, &state);
        if tokio::time::timeout(Duration::from_secs(300), finished).await.is_err() {
            return;
        }
    }
    panic!("the writer is never held back");
}

#[test]
fn a_full_disk_pauses_the_log_and_nothing_else() {
    run(async {
        let bench = Bench::new(false).await;
        let (timeline, mut model) = bench.import(1, START, &[0, 1]).await;
        fill(&timeline, &mut model, 3).await;
        bench.disk.set_full(true);
        fill_until_held(&timeline, &mut model).await;
        let status = timeline.status();
        let problem = status.problem.expect("the reason is told");
        assert!(problem.contains("No space left on device") && problem.contains("delta."), "{problem}");
        assert!(status.memory_bytes < 2 * 20_000, "memory stays bounded: {}", status.memory_bytes);
        compare(&timeline, &model, model.last()).await;
        let before = timeline.remote_consistent();
        assert!(before < model.last());
        bench.disk.set_full(false);
        assert_eq!(timeline.checkpoint().await.expect("goes on by itself"), model.last());
        fill(&timeline, &mut model, 100).await;
        assert_eq!(timeline.status().problem, None);
        compare(&timeline, &model, model.last()).await;
    });
}

#[test]
fn with_the_object_store_away_layers_stay_here_and_reads_go_on() {
    run(async {
        let bench = Bench::new(false).await;
        let (timeline, mut model) = bench.import(1, START, &[0]).await;
        bench.store.set_down(true);
        fill(&timeline, &mut model, 300).await;
        assert_eq!(timeline.flush().await.expect("flushing needs no object store"), model.last());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(timeline.remote_consistent(), START, "nothing is promised");
        assert!(timeline.status().problem.is_some_and(|p| p.contains("object store")));
        compare(&timeline, &model, model.last()).await;
        bench.store.set_down(false);
        assert_eq!(timeline.checkpoint().await.expect("goes on by itself"), model.last());
        assert_eq!(timeline.status().problem, None);
    });
}

fn only_layer(dir: PathBuf, prefix: &str) -> PathBuf {
    let found: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn flip(path: &PathBuf, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("reads");
    file.write_all_at(&[byte[0] ^ 1], at).expect("writes");
}

fn layer_dir(root: PathBuf) -> PathBuf {
    let id = timeline_id(1);
    root.join(id.tenant.to_string()).join(id.timeline.to_string())
}

#[test]
fn a_broken_block_is_named_and_a_good_copy_fetched() {
    run(async {
        let mut bench = Bench::new(false).await;
        let (timeline, mut model) = bench.import(1, START, &[0]).await;
        fill(&timeline, &mut model, 2).await;
        timeline.checkpoint().await.expect("uploads");
        let file = only_layer(layer_dir(bench.local_dir()), "delta.");
        flip(&file, 30);
        bench.store.set_down(true);
        let error = timeline.get(key(0), model.last()).await.expect_err("PS-5");
        assert_eq!(error.kind(), ErrorKind::Corruption);
        let text = error.to_string();
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        let wanted = format!("layer file {name}, block 0: the checksum is wrong");
        assert!(text.starts_with(&wanted) && !text.contains('\n'), "{text}");
        bench.store.set_down(false);
        let before = bench.store.gets();
        compare(&timeline, &model, model.last()).await;
        assert_eq!(bench.store.gets() - before, 1, "downloaded once");
        // What lies in the folder is good again, too.
        bench.reopen().await;
        let timeline = bench.storage.attach(timeline_id(1)).await.expect("attaches");
        compare(&timeline, &model, model.last()).await;
    });
}

#[test]
fn a_damaged_page_does_not_hold_back_the_log() {
    run(async {
        let bench = Bench::new(true).await;
        let (timeline, mut model) = bench.import(1, START, &[0]).await;
        fill(&timeline, &mut model, 2).await;
        timeline.checkpoint().await.expect("uploads");
        // Both copies of the layer under the changes to come.
        flip(&only_layer(layer_dir(bench.local_dir()), "delta."), 30);
        flip(&only_layer(layer_dir(bench.dir.path().join("store/layers")), "delta."), 30);
        let hot = key(0);
        let mut last = model.last();
        for n in 0..5u8 {
            last = last + 8;
            let change = Value::Change { bytes: Bytes::from(vec![n]), will_init: false };
            timeline.put(last, vec![(hot, change)]).expect("puts");
            timeline.finish_record(last, &metadata(last)).await.expect("finishes");
        }
        let reached = tokio::time::timeout(Duration::from_secs(600), timeline.checkpoint()).await;
        assert_eq!(reached.expect("the flush goes on").expect("uploads"), last);
        let error = timeline.get(hot, last).await.expect_err("PS-5");
        assert_eq!(error.kind(), ErrorKind::Corruption);
    });
}

#[test]
fn an_import_of_what_exists_leaves_nothing_behind() {
    run(async {
        let bench = Bench::new(false).await;
        bench.import(1, START, &[0]).await;
        let id = timeline_id(1);
        let refused = bench.storage.begin_import(id, START).map(|_| ());
        assert!(matches!(refused, Err(StorageError::AlreadyExists(_))), "{refused:?}");
        bench.storage.delete(id).await.expect("deletes");
        bench.storage.begin_import(id, START).map(|_| ()).expect("the id is free again");
    });
}

#[test]
fn a_broken_object_never_gets_a_final_name() {
    run(async {
        let mut bench = Bench::new(false).await;
        let (timeline, mut model) = bench.import(1, START, &[0]).await;
        fill(&timeline, &mut model, 2).await;
        timeline.checkpoint().await.expect("uploads");
        let object = only_layer(layer_dir(bench.dir.path().join("store/layers")), "delta.");
        flip(&object, 30);
        bench.storage.shutdown().await;
        std::fs::remove_dir_all(bench.local_dir()).expect("removes");
        bench.reopen().await;
        let timeline = bench.storage.attach(timeline_id(1)).await.expect("attaches");
        let error = timeline.get(key(0), model.last()).await.expect_err("trap G19");
        let text = error.to_string();
        let name = object.file_name().expect("a file").to_string_lossy().into_owned();
        assert!(text.starts_with(&format!("layer file {name}, the copy in the object store:")), "{text}");
        let local = layer_dir(bench.local_dir());
        let names = std::fs::read_dir(&local).map_or(0, |entries| {
            entries
                .filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with("delta.")))
                .count()
        });
        assert_eq!(names, 0);
        flip(&object, 30);
        compare(&timeline, &model, model.last()).await;
    });
}

#[test]
fn readers_at_once_share_one_download() {
    run(async {
        let bench = Bench::new(false).await;
        let (timeline, mut model) = bench.import(1, START, &[]).await;
        fill(&timeline, &mut model, 1).await;
        timeline.checkpoint().await.expect("uploads");
        assert_eq!(timeline.evict_all().await.expect("evicts"), 2);
        assert_eq!(timeline.status().resident_bytes, 0);
        let before = bench.store.gets();
        let reads = (0..20).map(|_| timeline.get(key(0), model.last()));
        for parts in futures::future::join_all(reads).await {
            assert_eq!(content(&parts.expect("reads")), model.read(key(0), model.last()));
        }
        assert_eq!(bench.store.gets() - before, 1);
    });
}

#[test]
fn what_is_not_in_the_object_store_is_never_evicted() {
    run(async {
        let bench = Bench::new(false).await;
        let (timeline, mut model) = bench.import(1, START, &[0]).await;
        bench.store.set_down(true);
        fill(&timeline, &mut model, 1).await;
        timeline.flush().await.expect("flushes");
        assert_eq!(timeline.evict_all().await.expect("evicts"), 1, "the imported layer only");
        let parts = timeline.get(key(0), model.last()).await.expect("reads");
        assert_eq!(content(&parts), model.read(key(0), model.last()));
    });
}

#[test]
fn an_index_that_does_not_read_is_an_error_of_its_timeline_only() {
    run(async {
        let mut bench = Bench::new(false).await;
        bench.import(1, START, &[0]).await;
        bench.import(2, START, &[0]).await;
        let id = timeline_id(1);
        let index = format!("store/timelines/{}/{}/index-00000001", id.tenant, id.timeline);
        flip(&bench.dir.path().join(index), 200);
        bench.reopen().await;
        let attached = bench.storage.attach_all().await.expect("lists");
        let [(first, Err(error)), (second, Ok(_))] = &attached[..] else { panic!("{attached:?}") };
        assert_eq!((*first, *second), (id, timeline_id(2)));
        assert!(matches!(error, StorageError::CorruptIndex { .. }), "{error}");
        assert!(error.to_string().contains("its checksum is"), "{error}");
    });
}
