//! What records do to stored values, on the map model: sizes, gaps, truncation, drops, databases, marks.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use strata_common::guard::prove;
use strata_common::{BlockNumber, ForkNumber, Guard, Lsn, RelFork, RelTag};
use strata_pgwal::rmgr;
use strata_pgwal::{RawRecord, RecordSpec};
use strata_redo::effect::{DatabaseTag, PageId, PageValue, TruncateForks};

use super::*;
use crate::core::key::{VALUE_BYTES_MAX, Value};
use crate::ingest::incoming::{Gathered, Head, Incoming};
use crate::ingest::testkit::control_state;
use crate::keyspace::AuxFile;
use crate::store::model::MapStore;

const REL: RelTag = RelTag { tablespace: 1663, database: 5, relation: 16_384 };

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

/// Ingest over an empty model, driven effect by effect as if each came in a record of its own.
struct Bench {
    store: Arc<MapStore>,
    ingest: Ingest<MapStore>,
}

impl Bench {
    fn new() -> Bench {
        let store = Arc::new(MapStore::default());
        let ingest = block_on(Ingest::resume(store.clone(), Arc::default(), control_state(Lsn(0x1000))));
        Bench { store, ingest: ingest.expect("an empty store has no bad values") }
    }

    /// A record with these effects; returns its end.
    fn record(&mut self, effects: Vec<Effect>) -> Lsn {
        let start = self.ingest.control.lsn;
        let end = start + 64;
        block_on(async {
            if effects.iter().any(is_wholesale) {
                self.ingest.flush().await.expect("the model takes everything");
            }
            for effect in effects {
                self.ingest.effect(end, effect).await.expect("the model takes everything");
            }
        });
        self.ingest.control.finish_record(start, end, Lsn(start.0 - 64), false);
        self.ingest.marked = false;
        end
    }

    fn flush(&mut self) {
        block_on(self.ingest.flush()).expect("the model takes everything");
    }

    fn view(&mut self, lsn: Lsn) -> View<MapStore> {
        self.flush();
        View::new(self.store.clone(), lsn)
    }

    fn blocks(&mut self, rel: RelFork) -> Option<u32> {
        let lsn = self.ingest.control.lsn;
        block_on(self.view(lsn).rel_blocks(rel)).expect("sizes can be read")
    }

    fn first_byte(&mut self, rel: RelFork, block: u32) -> u8 {
        let lsn = self.ingest.control.lsn;
        block_on(self.view(lsn).page(rel, BlockNumber(block))).expect("pages can be read")[0]
    }
}

fn main_fork() -> RelFork {
    REL.fork(ForkNumber::Main)
}

fn image(rel: RelFork, block: u32, byte: u8) -> Effect {
    let page = PageId { rel, block: BlockNumber(block) };
    Effect::Page { page, value: PageValue::Image(Bytes::from(vec![byte; 8192])) }
}

fn truncate(blocks: u32, forks: u32) -> Effect {
    Effect::RelTruncate { rel: REL, blocks: BlockNumber(blocks), forks: TruncateForks(forks) }
}

#[test]
fn pages_make_their_fork_and_gaps_are_zero() {
    let mut bench = Bench::new();
    assert_eq!(bench.blocks(main_fork()), None);
    bench.record(vec![image(main_fork(), 3, 7)]);
    assert_eq!(bench.blocks(main_fork()), Some(4));
    assert_eq!((bench.first_byte(main_fork(), 2), bench.first_byte(main_fork(), 3)), (0, 7));
}

#[test]
fn nothing_of_before_a_truncation_or_drop_shows_again() {
    let mut bench = Bench::new();
    bench.record((0..4).map(|block| image(main_fork(), block, 9)).collect());
    bench.record(vec![truncate(1, TruncateForks::MAIN)]);
    assert_eq!(bench.blocks(main_fork()), Some(1));
    bench.record(vec![image(main_fork(), 3, 5)]);
    let bytes: Vec<u8> = (0..4).map(|block| bench.first_byte(main_fork(), block)).collect();
    assert_eq!(bytes, [9, 0, 0, 5]);
    bench.record(vec![Effect::RelDrop(REL)]);
    assert_eq!(bench.blocks(main_fork()), None);
    // The same relfilenumber again (R5).
    bench.record(vec![Effect::RelCreate(main_fork())]);
    assert_eq!(bench.blocks(main_fork()), Some(0));
    bench.record(vec![image(main_fork(), 1, 2)]);
    assert_eq!((bench.first_byte(main_fork(), 0), bench.first_byte(main_fork(), 1)), (0, 2));
}

#[test]
fn trap_r2_a_creation_of_what_is_there_keeps_its_size() {
    prove(Guard::CreateKeepsSize, || {
        let mut bench = Bench::new();
        bench.record(vec![image(main_fork(), 3, 7)]);
        for _ in 0..2 {
            bench.record(vec![Effect::RelCreate(main_fork())]);
            assert_eq!((bench.blocks(main_fork()), bench.first_byte(main_fork(), 3)), (Some(4), 7));
        }
    });
}

#[test]
fn trap_r7_very_many_relations_are_dropped_without_looking_them_up() {
    prove(Guard::DropsLookNothingUp, very_many_relations_are_dropped_without_looking_them_up);
}

/// R7: counted in questions to storage, each of which goes through every layer.
fn very_many_relations_are_dropped_without_looking_them_up() {
    let mut bench = Bench::new();
    let rel = |number: u32| RelTag { relation: 20_000 + number, ..REL };
    let count = 20_000;
    for numbers in (0..count).collect::<Vec<_>>().chunks(1000) {
        bench.record(numbers.iter().map(|n| image(rel(*n).fork(ForkNumber::Main), 0, 1)).collect());
    }
    let unlogged = [rel(7), rel(count - 1)];
    bench.record(vec![image(unlogged[0].fork(ForkNumber::Init), 0, 2)]);
    bench.flush();
    // Another process, which knows nothing yet; the second unlogged relation is born there.
    let control = bench.ingest.control.clone();
    let ingest = block_on(Ingest::resume(bench.store.clone(), Arc::default(), control));
    bench.ingest = ingest.expect("just stored");
    bench.record(vec![image(unlogged[1].fork(ForkNumber::Init), 0, 3)]);
    let asked = |bench: &Bench| {
        let of = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        (of(&bench.store.gets), of(&bench.store.scans))
    };
    let before = asked(&bench);
    bench.record((0..count).map(|number| Effect::RelDrop(rel(number))).collect());
    let after = asked(&bench);
    assert_eq!((after.0 - before.0, after.1 - before.1), (0, 1), "questions to storage");
    for number in [0, 7, 8, count - 1] {
        for fork in ForkNumber::ALL {
            assert_eq!(bench.blocks(rel(number).fork(fork)), None, "{number}");
        }
    }
    let lsn = bench.ingest.control.lsn;
    let view = bench.view(lsn);
    let left = block_on(view.scan_live(keyspace::kind_range(keyspace::Kind::InitFork))).expect("readable");
    assert!(left.is_empty(), "no base backup makes an unlogged relation of them");
    let ends = bench.store.written_at(lsn);
    let inits = ends
        .iter()
        .filter(|(key, _)| matches!(keyspace::KeyName::of(*key), Some(keyspace::KeyName::InitFork(_))));
    assert_eq!(inits.count(), unlogged.len(), "only those that there were");
}

#[test]
fn create_does_not_shrink_and_truncation_does_not_grow() {
    let mut bench = Bench::new();
    bench.record(vec![image(main_fork(), 1, 1)]);
    bench.record(vec![Effect::RelCreate(main_fork())]);
    assert_eq!(bench.blocks(main_fork()), Some(2));
    bench.record(vec![truncate(8, TruncateForks::MAIN)]);
    assert_eq!(bench.blocks(main_fork()), Some(2));
}

#[test]
fn truncation_clears_the_tails_of_the_maps() {
    let mut bench = Bench::new();
    let (vm, fsm) = (REL.fork(ForkNumber::VisibilityMap), REL.fork(ForkNumber::FreeSpaceMap));
    bench.record(vec![image(main_fork(), 9, 1), image(vm, 0, 0), image(vm, 1, 0), image(fsm, 2, 0)]);
    let end = bench.record(vec![truncate(5, 7)]);
    assert_eq!((bench.blocks(vm), bench.blocks(main_fork())), (Some(1), Some(5)));
    let written = bench.store.written_at(end);
    let changed: Vec<Key> =
        written.iter().filter(|(_, v)| matches!(v, Value::Change { .. })).map(|(k, _)| *k).collect();
    let tail = strata_redo::fsm::cut(BlockNumber(5)).tail_page.expect("five blocks end inside a map page");
    assert_eq!(changed, [keyspace::rel_block(fsm, tail), keyspace::rel_block(vm, BlockNumber(0))]);
}

#[test]
fn bits_are_cleared_only_where_the_map_has_the_page() {
    let mut bench = Bench::new();
    let clear = || Effect::ClearVmBits { heap: REL, heap_block: BlockNumber(3), bits: 3 };
    bench.record(vec![clear()]);
    assert_eq!(bench.ingest.counts().vm_clears_skipped, 1);
    let vm = REL.fork(ForkNumber::VisibilityMap);
    bench.record(vec![image(main_fork(), 0, 0), image(vm, 0, 0)]);
    let end = bench.record(vec![clear()]);
    bench.flush();
    assert_eq!(bench.ingest.counts().vm_clears_skipped, 1);
    let keys: Vec<Key> = bench.store.written_at(end).into_iter().map(|(key, _)| key).collect();
    assert!(keys.contains(&keyspace::rel_block(vm, BlockNumber(0))), "{keys:?}");
}

/// A block that a record skips is one of zeros, whatever lay there before a cut.
#[test]
fn trap_w14_skipped_blocks_are_zero() {
    Guard::GapZeros.is_needed_for(|| {
        let mut bench = Bench::new();
        bench.record((0..4).map(|block| image(main_fork(), block, 9)).collect());
        bench.record(vec![truncate(0, TruncateForks::MAIN)]);
        bench.record(vec![image(main_fork(), 3, 5)]);
        (0..4).map(|block| bench.first_byte(main_fork(), block)).eq([0, 0, 0, 5])
    });
}

/// A bit is cleared where the map has no page: nothing to do, and no page to make.
#[test]
fn trap_v3_a_missing_map_page_is_passed_over() {
    Guard::MissingMapPage.is_needed_for(|| {
        let mut bench = Bench::new();
        bench.record(vec![image(main_fork(), 3, 7)]);
        let end = bench.record(vec![Effect::ClearVmBits { heap: REL, heap_block: BlockNumber(3), bits: 3 }]);
        bench.flush();
        let vm = keyspace::rel_block(REL.fork(ForkNumber::VisibilityMap), BlockNumber(0));
        !bench.store.written_at(end).iter().any(|(key, _)| *key == vm)
    });
}

/// V5: a compute saves maps without locking their relation, so an image may follow the drop.
#[test]
fn an_image_of_a_map_does_not_bring_a_dropped_relation_back() {
    let mut bench = Bench::new();
    let fsm = REL.fork(ForkNumber::FreeSpaceMap);
    bench.record(vec![image(main_fork(), 0, 1), image(fsm, 2, 7)]);
    assert_eq!((bench.blocks(fsm), bench.first_byte(fsm, 2)), (Some(3), 7));
    bench.record(vec![Effect::RelDrop(REL)]);
    bench.record(vec![image(fsm, 2, 7)]);
    assert_eq!(bench.blocks(fsm), None);
    assert_eq!(bench.ingest.counts().images_of_dropped_maps, 1);
}

/// Takes in a record as it comes in the log; returns its end.
fn take_in(bench: &mut Bench, rmid: u8, info: u8, body: Vec<u8>) -> Lsn {
    let start = bench.ingest.control.lsn;
    let bytes = RecordSpec::plain(rmid, info, body.into()).encode(Lsn(start.0 - 64));
    let end_lsn = start + (bytes.len() as u64).next_multiple_of(8);
    let incoming = read(&RawRecord { lsn: start, end_lsn, bytes });
    block_on(bench.ingest.records(incoming)).expect("the model takes everything");
    end_lsn
}

/// S12: statistics belong to the end of a clean stop that they come right before, and to no other moment.
#[test]
fn statistics_are_those_of_a_clean_stop() {
    use rmgr::xlog_info::{CHECKPOINT_SHUTDOWN, NOOP};
    let message = || crate::ingest::testkit::message(0, statistics::PREFIX, b"the file");
    let checkpoint = || crate::ingest::testkit::checkpoint().encode().to_vec();
    for (between, kept) in [(false, true), (true, false)] {
        let mut bench = Bench::new();
        let at_message = take_in(&mut bench, rmgr::LOGICALMSG, 0, message());
        if between {
            take_in(&mut bench, rmgr::XLOG, NOOP, Vec::new());
        }
        let stopped = take_in(&mut bench, rmgr::XLOG, CHECKPOINT_SHUTDOWN, checkpoint());
        let later = take_in(&mut bench, rmgr::XLOG, CHECKPOINT_SHUTDOWN, checkpoint());
        let mut at = |lsn| {
            let key = keyspace::aux(AuxFile::PgStat);
            block_on(bench.view(lsn).value_of_this_moment(key)).expect("values can be read")
        };
        assert_eq!(at(stopped).as_deref(), kept.then_some(&b"the file"[..]));
        assert_eq!((at(at_message), at(later)), (None, None));
    }
}

#[test]
fn init_forks_are_listed_while_they_live() {
    let mut bench = Bench::new();
    let init = REL.fork(ForkNumber::Init);
    bench.record(vec![Effect::RelCreate(init)]);
    let lsn = bench.record(vec![image(init, 0, 1)]);
    let list = |bench: &mut Bench, lsn| {
        block_on(bench.view(lsn).scan_live(keyspace::kind_range(keyspace::Kind::InitFork)))
            .expect("a scan")
            .len()
    };
    assert_eq!(list(&mut bench, lsn), 1);
    let gone = bench.record(vec![Effect::RelDrop(REL)]);
    assert_eq!((list(&mut bench, lsn), list(&mut bench, gone)), (1, 0));
}

#[test]
fn a_database_is_copied_as_it_is_at_the_record_and_dropped_whole() {
    let mut bench = Bench::new();
    let (from, to) =
        (DatabaseTag { tablespace: 1663, database: 5 }, DatabaseTag { tablespace: 1663, database: 6 });
    let copy_of = |fork: ForkNumber| RelTag { database: 6, ..REL }.fork(fork);
    bench.record(vec![
        image(main_fork(), 2, 4),
        image(REL.fork(ForkNumber::Init), 0, 8),
        Effect::RelMap { database: from, map: Bytes::from_static(b"map") },
    ]);
    bench.record(vec![Effect::DatabaseCopy { from, to }]);
    // Later changes of the source are not the copy's.
    bench.record(vec![image(main_fork(), 2, 5)]);
    assert_eq!(
        (bench.blocks(copy_of(ForkNumber::Main)), bench.blocks(copy_of(ForkNumber::Init))),
        (Some(3), Some(1))
    );
    let main = copy_of(ForkNumber::Main);
    assert_eq!((bench.first_byte(main, 0), bench.first_byte(main, 2)), (0, 4));
    let lsn = bench.ingest.control.lsn;
    let map = block_on(bench.view(lsn).value(keyspace::rel_map(1663, 6))).expect("a value");
    assert_eq!(map.as_deref(), Some(&b"map"[..]));
    bench.record(vec![Effect::DatabaseDrop(to)]);
    assert_eq!(bench.blocks(main), None);
    assert_eq!(bench.blocks(main_fork()), Some(3), "the source stays");
    let lsn = bench.ingest.control.lsn;
    assert_eq!(block_on(bench.view(lsn).value(keyspace::database(1663, 6))).expect("a value"), None);
}

#[test]
fn two_phase_files_have_64_bit_names_and_their_checksum() {
    let mut bench = Bench::new();
    bench.ingest.control.checkpoint.next_xid = FullTransactionId::new(3, 10);
    let prepare = |xid| Effect::TwoPhasePrepare { xid, data: Bytes::from_static(b"state") };
    let lsn = bench.record(vec![prepare(9), prepare(4_000_000_000)]);
    let files =
        block_on(bench.view(lsn).scan_live(keyspace::kind_range(keyspace::Kind::TwoPhase))).expect("a scan");
    let keys: Vec<Key> = files.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [keyspace::two_phase((2 << 32) | 4_000_000_000), keyspace::two_phase((3 << 32) | 9)]);
    let crc = crc32c::crc32c(b"state").to_le_bytes();
    assert_eq!(files[0].1, [&b"state"[..], &crc].concat());
}

#[test]
fn a_flush_leaves_a_mark_at_whatever_record_is_last() {
    let mut bench = Bench::new();
    let first = bench.record(vec![image(main_fork(), 0, 1)]);
    let second = bench.record(vec![image(main_fork(), 1, 1)]);
    let (at, mark) = block_on(bench.view(second).mark()).expect("a mark");
    assert_eq!((at, mark.record_lsn, mark.prev_record_lsn), (second, first, Lsn(first.0 - 64)));
    assert!(block_on(View::new(bench.store.clone(), first).mark()).is_err(), "no mark between the flushes");
}

#[test]
fn an_origin_goes_back_only_if_it_is_meant() {
    let mut bench = Bench::new();
    let advance = |remote: u64, backward| Effect::OriginAdvance {
        origin: 3,
        remote_lsn: Lsn(remote),
        local_lsn: Lsn(0x2000),
        backward,
    };
    let mut positions = Vec::new();
    for (remote, backward) in [(100, false), (90, false), (110, false), (80, true), (85, false)] {
        let lsn = bench.record(vec![advance(remote, backward)]);
        let stored = block_on(bench.view(lsn).value(keyspace::origin(3))).expect("a value");
        positions.push(stored.map(|bytes| bytes[0]));
    }
    assert_eq!(positions, [100, 100, 110, 80, 85].map(Some));
    // The next process finds it in storage.
    let control = bench.ingest.control.clone();
    bench.ingest = block_on(Ingest::resume(bench.store.clone(), Arc::default(), control)).expect("resumes");
    let lsn = bench.record(vec![advance(84, false)]);
    let stored = block_on(bench.view(lsn).value(keyspace::origin(3))).expect("a value");
    assert_eq!(stored.map(|bytes| bytes[0]), Some(85));
}

/// A record of no effect of its own, with these effects.
fn incoming(start: Lsn, effects: Vec<Effect>) -> Incoming {
    let spec = RecordSpec::plain(rmgr::XLOG, rmgr::xlog_info::NOOP, Bytes::new());
    let raw = RawRecord { lsn: start, end_lsn: start + 64, bytes: spec.encode(Lsn(start.0 - 64)) };
    let empty = read(&raw);
    assert!(empty.effects.as_slice().is_empty());
    let heads: Vec<Head> = empty.heads.map(|head| Head { effects: effects.len(), ..head }).collect();
    Incoming { heads: heads.into_iter(), effects: effects.into_iter() }
}

fn read(raw: &RawRecord) -> Incoming {
    let mut gathered = Gathered::default();
    gathered.add(raw).expect("a whole record");
    gathered.finish()
}

/// Takes in a good record and a refused one; the first can still be flushed, and nothing of the second shows.
fn parks(refused: Vec<Effect>, reason: &str) {
    let mut bench = Bench::new();
    let start = bench.ingest.control.lsn;
    block_on(async {
        let good = incoming(start, vec![image(main_fork(), 0, 1)]);
        bench.ingest.records(good).await.expect("the model takes everything");
        let control = bench.ingest.control.encode();
        let first = vec![image(main_fork(), 1, 2), Effect::NextOid(77_777)];
        let bad = incoming(start + 64, first.into_iter().chain(refused).collect());
        let error = bench.ingest.records(bad).await.expect_err("it is refused");
        let IngestError::Record { name, lsn, reason: found } = error else { panic!("{error}") };
        assert_eq!((name.as_str(), lsn), ("XLOG/NOOP", start + 64));
        assert!(found.contains(reason), "{found}");
        assert_eq!(bench.ingest.control.encode(), control);
        bench.ingest.flush().await.expect("what came before is whole");
    });
    assert!(bench.store.written_at(start + 128).is_empty());
    assert_eq!(bench.first_byte(main_fork(), 0), 1);
}

#[test]
fn a_value_too_large_for_storage_parks_at_its_record() {
    let data = Bytes::from(vec![0; VALUE_BYTES_MAX]);
    parks(vec![Effect::TwoPhasePrepare { xid: 800, data }], "a value of 16777220 bytes");
}

#[test]
fn a_block_far_beyond_the_end_parks_at_its_record() {
    let rel = RelTag { relation: 7, ..REL }.fork(ForkNumber::Main);
    parks(vec![image(rel, (1 << 20) + 1, 1)], "1048577 blocks beyond the end");
    parks(vec![image(rel, u32::MAX, 1)], "blocks beyond the end");
}

#[test]
fn a_copy_of_a_large_database_parks_at_its_record() {
    let mut bench = Bench::new();
    bench.record(vec![image(main_fork(), 32_768, 1)]);
    bench.flush();
    let (from, to) =
        (DatabaseTag { tablespace: 1663, database: 5 }, DatabaseTag { tablespace: 1663, database: 6 });
    let copy = incoming(bench.ingest.control.lsn, vec![Effect::DatabaseCopy { from, to }]);
    assert!(copy.wants_flush_before());
    let error = block_on(bench.ingest.records(copy)).expect_err("32,769 pages are more than 256 MiB");
    assert!(error.to_string().contains("a database of 268443648 bytes"), "{error}");
}

/// A relation's life as effects, and as a plain vector of page bytes.
#[derive(Clone, Debug)]
enum Step {
    Write(u32, u8),
    Truncate(u32),
    Drop,
    Create,
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u32..12, 1u8..255).prop_map(|(block, byte)| Step::Write(block, byte)),
        2 => (0u32..12).prop_map(Step::Truncate),
        1 => Just(Step::Drop),
        1 => Just(Step::Create),
        2 => Just(Step::Flush),
    ]
}

proptest! {
    #[test]
    fn every_past_state_reads_as_it_was(steps in proptest::collection::vec(step(), 1..40)) {
        let mut bench = Bench::new();
        let mut oracle: Option<Vec<u8>> = None;
        let mut history = Vec::new();
        for step in steps {
            let effect = match step {
                Step::Flush => { bench.flush(); continue }
                Step::Write(block, byte) => {
                    let pages = oracle.get_or_insert_default();
                    pages.resize(pages.len().max(block as usize + 1), 0);
                    pages[block as usize] = byte;
                    image(main_fork(), block, byte)
                }
                Step::Truncate(blocks) => {
                    oracle.get_or_insert_default().truncate(blocks as usize);
                    truncate(blocks, TruncateForks::MAIN)
                }
                Step::Drop => { oracle = None; Effect::RelDrop(REL) }
                Step::Create => { oracle.get_or_insert_default(); Effect::RelCreate(main_fork()) }
            };
            let lsn = bench.record(vec![effect]);
            history.push((lsn, oracle.clone()));
        }
        for (lsn, expected) in history {
            let view = bench.view(lsn);
            let blocks = block_on(view.rel_blocks(main_fork())).expect("a size");
            prop_assert_eq!(blocks, expected.as_ref().map(|pages| pages.len() as u32));
            for (block, byte) in expected.into_iter().flatten().enumerate() {
                let page = block_on(view.page(main_fork(), BlockNumber(block as u32))).expect("a page");
                prop_assert_eq!(page[0], byte, "block {} as of {}", block, lsn);
            }
        }
    }
}
