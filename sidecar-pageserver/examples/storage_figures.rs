//! Figures of the storage alone, printed: ingest of a gigabyte of small changes, then reads. Takes minutes.
//! `cargo run --release -p strata-pageserver --example storage_figures`

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use strata_common::{Generation, Lsn, TenantId, TenantTimelineId, TimelineId};
use strata_objstore::LocalStore;
use strata_pageserver::storage::{Key, Storage, StorageConfig, Timeline, Value};

const PAGES: u32 = 20_000;
const RECORDS: u64 = 6_000_000;
const CHANGE_BYTES: usize = 160;
const READS: u32 = 20_000;

fn key(page: u32) -> Key {
    let mut key = Key([3; 18]);
    key.0[14..].copy_from_slice(&page.to_be_bytes());
    key
}

fn draw(random: &mut u64) -> u32 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*random >> 33) as u32
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = Arc::new(LocalStore::open(dir.path().join("store")).await.expect("opens"));
    let config = StorageConfig::new(dir.path().join("local"));
    let storage = Storage::open(config, store, Generation(1)).await.expect("opens");
    let id = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
    let start = Instant::now();
    let mut import = storage.begin_import(id, Lsn(8)).expect("begins");
    let mut random = 1;
    for page in 0..PAGES {
        let mut image = vec![0u8; 8192];
        image[..4096].chunks_mut(4).for_each(|part| part.copy_from_slice(&draw(&mut random).to_le_bytes()));
        import.add(key(page), image.into()).await.expect("adds");
    }
    let timeline = import.finish(Bytes::new()).await.expect("finishes");
    println!("import of {} MB: {:.2} s", (u64::from(PAGES) * 8192) >> 20, start.elapsed().as_secs_f64());
    report_reads("image layers only", &timeline, &mut random).await;

    let start = Instant::now();
    let mut change = [0u8; CHANGE_BYTES];
    for n in 0..RECORDS {
        change[..8].copy_from_slice(&n.to_le_bytes());
        change[8..40].chunks_mut(4).for_each(|part| part.copy_from_slice(&draw(&mut random).to_le_bytes()));
        let value = Value::Change { bytes: Bytes::copy_from_slice(&change), will_init: false };
        let lsn = Lsn(16 + n * 8);
        timeline.put(lsn, vec![(key(draw(&mut random) % PAGES), value)]).expect("puts");
        timeline.finish_record(lsn, b"").await.expect("finishes");
    }
    let took = start.elapsed().as_secs_f64();
    let megabytes = (RECORDS * CHANGE_BYTES as u64) >> 20;
    println!(
        "ingest of {RECORDS} changes, {megabytes} MB: {took:.2} s, {:.0} changes/s",
        RECORDS as f64 / took
    );
    let start = Instant::now();
    timeline.checkpoint().await.expect("uploads");
    println!("checkpoint after it: {:.2} s; {:?}", start.elapsed().as_secs_f64(), timeline.status());
    report_reads("after ingest, resident", &timeline, &mut random).await;
    let (hits, misses) = storage.cache_counts();
    println!("block cache: {hits} hits, {misses} misses");
    storage.shutdown().await;
}

async fn report_reads(what: &str, timeline: &Timeline, random: &mut u64) {
    let last = timeline.last_record();
    let mut times: Vec<Duration> = Vec::new();
    let mut changes = 0;
    for _ in 0..READS {
        let key = key(draw(random) % PAGES);
        let start = Instant::now();
        let parts = timeline.get(key, last).await.expect("reads");
        times.push(start.elapsed());
        assert!(parts.rooted && parts.image.is_some_and(|(_, image)| image.len() == 8192));
        changes += parts.changes.len();
    }
    times.sort();
    let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e6;
    let mean = changes as f64 / f64::from(READS);
    println!("{what}: get p50 {:.1} us, p99 {:.1} us, {mean:.1} changes a page", at(50), at(99));
}
