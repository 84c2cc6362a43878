//! Pages through the cache: it saves work, and never gives a page of another moment.

use bytes::Bytes;
use strata_common::{BLOCK_BYTES, ForkNumber, RelTag, TenantId, TimelineId};

use super::*;
use crate::ingest::testkit::control_state;
use crate::storage::Value;
use crate::store::model::MapStore;

const BEGIN: Lsn = Lsn(0x1000);
const BLOCK: BlockNumber = BlockNumber(3);

fn rel() -> RelFork {
    RelTag { tablespace: 1663, database: 5, relation: 16384 }.fork(ForkNumber::Main)
}

struct Bench(Arc<Timeline<MapStore>>);

impl Bench {
    fn new() -> Bench {
        let id = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
        let cache = Arc::new(PageCache::new(1 << 20));
        Bench(Timeline::new(id, Arc::default(), control_state(BEGIN), cache, TimelineSlot(0)))
    }

    /// All bytes of the page become `byte` at `lsn`, if it changes, and the log goes on to there.
    async fn log(&self, lsn: Lsn, byte: Option<u8>) {
        let value = byte.map(|byte| Value::Image(Bytes::from(vec![byte; BLOCK_BYTES])));
        let values = value.map(|value| (keyspace::rel_block(rel(), BLOCK), lsn, value));
        self.0.store.put(values.into_iter().collect()).expect("the model takes it");
        self.0.store.finish(lsn, &[]).await.expect("the model takes it");
        self.0.publish(&ControlState { lsn, ..self.0.control() }, Counts::default());
    }

    /// The page's bytes as of `lsn`, and how often storage was asked for them.
    async fn read(&self, lsn: Lsn) -> (u8, u64) {
        let before = self.0.store.gets.load(Ordering::Relaxed);
        let page = self.0.page(rel(), BLOCK, 10, lsn).await.expect("it is there");
        assert!(page.iter().all(|byte| *byte == page[0]));
        (page[0], self.0.store.gets.load(Ordering::Relaxed) - before)
    }
}

#[tokio::test]
async fn a_page_that_was_seen_as_of_a_moment_is_not_looked_for_again() {
    let bench = Bench::new();
    bench.log(BEGIN + 0x10, Some(1)).await;
    assert_eq!(bench.read(BEGIN + 0x10).await, (1, 1));
    assert_eq!(bench.read(BEGIN + 0x10).await, (1, 0));
    bench.log(BEGIN + 0x40, None).await;
    assert_eq!(bench.read(BEGIN + 0x40).await, (1, 1), "it may have changed");
    for lsn in [0x40, 0x20, 0x10] {
        assert_eq!(bench.read(BEGIN + lsn).await, (1, 0), "it was seen not to have changed");
    }
    bench.log(BEGIN + 0x50, Some(2)).await;
    bench.log(BEGIN + 0x60, None).await;
    assert_eq!(bench.read(BEGIN + 0x60).await, (2, 1));
    assert_eq!(bench.read(BEGIN + 0x4f).await, (1, 1), "the version before is another one");
    assert_eq!(bench.read(BEGIN + 0x55).await, (2, 0), "and does not drive the newer one out");
}
