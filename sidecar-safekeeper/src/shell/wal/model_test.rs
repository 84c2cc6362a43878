//! The store against a vector of bytes: random appends in pieces of any size, syncs, cuts, kills, and power cuts at any moment,
//! in the middle of an operation too. After each opening the log must end at a record's end, hold at least what was
//! synced, nothing that was cut, and exactly the bytes that were written.

use proptest::collection::vec;
use proptest::prelude::*;
use strata_common::Lsn;

use super::reader::WalReader;
use super::store::NextSegment;
use super::store_test::folder;
use super::test_log::{START, TestLog};
use super::{StoreError, WalStore};
use crate::shell::disk::faulty::FaultyDisk;

#[derive(Clone, Debug)]
enum Step {
    /// Records of this size are generated until so many bytes can be appended; those are.
    Append {
        record_bytes: usize,
        bytes: usize,
    },
    Sync,
    /// Cut to a record's end, this part of the way from the commit LSN to the end of whole records.
    Cut {
        permille: u64,
    },
    /// The process dies and comes back.
    Kill,
    /// Power goes.
    Crash {
        seed: u64,
    },
    /// Power will go after so many changes of the disk.
    CrashSoon {
        changes: usize,
        seed: u64,
    },
    /// The control file is written with a commit LSN this part of the way to what is synced.
    Commit {
        permille: u64,
    },
    Full {
        spare_bytes: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 1usize..300, 2 => 300usize..20_000, 1 => 20_000usize..300_000];
    let piece = prop_oneof![4 => 1usize..9_000, 2 => 9_000usize..200_000, 1 => 200_000usize..1_500_000];
    prop_oneof![
        8 => (size, piece).prop_map(|(record_bytes, bytes)| Step::Append { record_bytes, bytes }),
        5 => Just(Step::Sync),
        2 => (0u64..=1000).prop_map(|permille| Step::Cut { permille }),
        2 => Just(Step::Kill),
        2 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        2 => (0usize..40, any::<u64>()).prop_map(|(changes, seed)| Step::CrashSoon { changes, seed }),
        2 => (0u64..=1000).prop_map(|permille| Step::Commit { permille }),
        1 => (0usize..1_500_000).prop_map(|spare_bytes| Step::Full { spare_bytes }),
    ]
}

struct Model {
    disk: FaultyDisk,
    store: WalStore,
    log: TestLog,
    written: Lsn,
    /// End of whole records that a sync made durable: acknowledged.
    acknowledged: Lsn,
    /// What the control file would say.
    commit: Lsn,
    seed: u64,
}

fn open(disk: &FaultyDisk, known: Lsn) -> Result<WalStore, StoreError> {
    WalStore::open(folder(disk), START, known, NextSegment::WhenNeeded)
}

fn random(seed: &mut u64) -> impl FnMut(usize) -> usize + use<'_> {
    move |below| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize % below
    }
}

impl Model {
    fn new() -> Model {
        let disk = FaultyDisk::default();
        let store = open(&disk, START).expect("an empty folder opens");
        Model {
            disk,
            store,
            log: TestLog::begin(),
            written: START,
            acknowledged: START,
            commit: START,
            seed: 1,
        }
    }

    /// `lowest` is where the log may end at least: less than what is acknowledged only while a cut was under way.
    fn reopen(&mut self, lowest: Lsn) {
        self.disk.set_room(None);
        self.store = open(&self.disk, self.commit).unwrap_or_else(|error| {
            assert!(self.disk.is_dead(), "opens after a crash: {error}");
            let mut seed = self.seed;
            self.disk.crash(random(&mut seed));
            open(&self.disk, self.commit).expect("opens after a crash while it was opened")
        });
        let end = self.store.written();
        assert!(self.log.is_record_end(end), "{end} is a record's end");
        // The padding behind a record is zeros, written or not.
        assert!(lowest <= end && end <= self.written.align_up(), "{lowest} <= {end} <= {}", self.written);
        self.check_content(end);
        self.log.cut(end);
        self.written = end;
        // What was found was made durable.
        self.acknowledged = end;
        self.disk.crash(|_| 0);
        self.store = open(&self.disk, self.commit).expect("opens again");
        assert_eq!(self.store.written(), end, "what was found stays");
    }

    fn check_content(&self, end: Lsn) {
        let mut reader = WalReader::new(folder(&self.disk));
        let mut at = START;
        while at < end {
            let piece = reader.read(at, end, 1 << 20).expect("readable");
            assert_eq!(piece, self.log.slice(at, at + piece.len() as u64), "content at {at}");
            at = at + piece.len() as u64;
        }
    }

    fn crash(&mut self, lowest: Lsn) {
        let mut seed = self.seed;
        self.disk.crash(random(&mut seed));
        self.seed = seed;
        self.reopen(lowest);
    }

    /// What to do with an operation's outcome: whether it was done.
    fn settle(&mut self, outcome: Result<(), StoreError>, lowest_if_dead: Lsn) -> bool {
        match outcome {
            Ok(()) => true,
            Err(error) if error.is_full() => {
                self.disk.set_room(None);
                false
            }
            Err(_) => {
                assert!(self.disk.is_dead(), "operations fail only when the machine is dead");
                self.crash(lowest_if_dead);
                false
            }
        }
    }

    fn append(&mut self, record_bytes: usize, bytes: usize) {
        let end = self.written + bytes as u64;
        while self.log.end() < end {
            self.log.add(record_bytes);
        }
        let wal = self.log.slice(self.written, end);
        loop {
            let outcome = self.store.write(self.written, &wal);
            let was_full = outcome.as_ref().is_err_and(StoreError::is_full);
            // Bytes of a write that failed half-way may be found, so they count as written.
            let before = std::mem::replace(&mut self.written, end);
            if self.settle(outcome, self.acknowledged) || !was_full {
                return;
            }
            self.written = before;
        }
    }

    fn cut(&mut self, permille: u64) {
        let room = self.store.records_end() - self.commit;
        let to = self.log.end_at_or_below(self.commit + room * permille / 1000).max(self.commit);
        let outcome = self.store.truncate(to);
        if self.settle(outcome, to.min(self.acknowledged)) {
            self.log.cut(to);
            self.written = to;
            self.acknowledged = to;
        }
    }

    fn perform(&mut self, step: &Step) {
        match *step {
            Step::Append { record_bytes, bytes } => self.append(record_bytes, bytes),
            Step::Sync => {
                let outcome = self.store.sync();
                let flush = outcome.as_ref().map(|synced| synced.flush).ok();
                if self.settle(outcome.map(drop), self.acknowledged) {
                    self.acknowledged = flush.expect("it was done");
                    assert_eq!(self.acknowledged, self.log.end_at_or_below(self.written));
                }
            }
            Step::Cut { permille } => self.cut(permille),
            Step::Kill => self.reopen(self.acknowledged),
            Step::Crash { seed } => {
                self.seed = seed;
                self.crash(self.acknowledged);
            }
            Step::CrashSoon { changes, seed } => {
                self.seed = seed;
                self.disk.set_fuse(changes);
            }
            Step::Commit { permille } => {
                let room = self.acknowledged - self.commit;
                let to = self.log.end_at_or_below(self.commit + room * permille / 1000);
                self.commit = to.max(self.commit);
            }
            Step::Full { spare_bytes } => self.disk.set_room(Some(self.disk.used_bytes() + spare_bytes)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    #[test]
    fn the_store_is_a_vector_of_bytes(steps in vec(step(), 1..40)) {
        let mut model = Model::new();
        for step in &steps {
            model.perform(step);
        }
        let acknowledged = model.acknowledged;
        model.crash(acknowledged);
    }
}

/// More for long searches: `STRATA_MODEL_CASES`.
fn cases() -> u32 {
    std::env::var("STRATA_MODEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(150)
}
