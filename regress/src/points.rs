//! Random places in a log at which a hot standby can be looked at.
//!
//! A place is the end of a record. Between two of them lies a checkpoint, so that the standby can write out what it has (`standby`).
//! And no catalog is locked there as a session of the primary has it for itself: a client of the standby would wait for the record
//! that ends the lock, which does not come.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Result, ensure};
use strata_common::Lsn;
use strata_pgwal::record::decode;
use strata_pgwal::{DecodedRecord, RawRecord, rmgr};

use crate::random::Numbers;

/// What kinds of records of `STANDBY` and `XACT` are (`src/include/storage/standbydefs.h`, `src/include/access/xact.h`).
const STANDBY_LOCK: u8 = 0x00;
const RUNNING_XACTS: u8 = 0x10;
const XACT_KIND: u8 = 0x70;
const XACT_COMMIT: u8 = 0x00;
const XACT_ABORT: u8 = 0x20;
/// `FirstNormalObjectId`: relations below are catalogs.
const FIRST_NORMAL_OID: u32 = 16384;
/// Database `postgres` (`src/include/catalog/pg_database.dat`), where the client is.
const POSTGRES_DATABASE: u32 = 5;

/// The same choices from the same seed on every machine.
#[derive(Clone, Debug)]
pub struct Chance(Numbers);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(Numbers::from_seed(seed))
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound as u64) as usize
    }

    /// `count` of them, in their order; all if there are not so many.
    pub fn some<T: Clone>(&mut self, of: &[T], count: usize) -> Vec<T> {
        let mut left: Vec<usize> = (0..of.len()).collect();
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < count && !left.is_empty() {
            chosen.push(left.swap_remove(self.below(left.len())));
        }
        chosen.sort_unstable();
        chosen.into_iter().map(|at| of[at].clone()).collect()
    }
}

/// Follows which catalogs are locked.
#[derive(Default)]
struct Locks {
    /// By transaction.
    held: HashSet<u32>,
}

impl Locks {
    fn see(&mut self, record: &DecodedRecord) {
        let word = |at: usize| {
            record.main_data.get(at..at + 4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four")))
        };
        match (record.rmid, record.rmgr_info()) {
            (rmgr::STANDBY, STANDBY_LOCK) => {
                for lock in 0..word(0).unwrap_or(0) as usize {
                    let at = 4 + lock * 12;
                    let (Some(xid), Some(database), Some(relation)) = (word(at), word(at + 4), word(at + 8))
                    else {
                        break;
                    };
                    if relation < FIRST_NORMAL_OID && matches!(database, 0 | POSTGRES_DATABASE) {
                        self.held.insert(xid);
                    }
                }
            }
            // The oldest transaction that runs: locks of older ones, subtransactions among them, are over.
            (rmgr::STANDBY, RUNNING_XACTS) => {
                if let Some(oldest) = word(16) {
                    self.held.retain(|xid| xid.wrapping_sub(oldest) < 1 << 31);
                }
            }
            (rmgr::XACT, info) if matches!(info & XACT_KIND, XACT_COMMIT | XACT_ABORT) => {
                self.held.remove(&record.xid);
            }
            _ => {}
        }
    }
}

/// `count` places after the first checkpoint of `records`, ascending.
pub fn choose(records: &[RawRecord], count: usize, chance: &mut Chance) -> Result<Vec<Lsn>> {
    let mut locks = Locks::default();
    let mut checkpoints = 0;
    // By the number of checkpoints before.
    let mut places: BTreeMap<usize, Vec<Lsn>> = BTreeMap::new();
    for raw in records {
        let record = decode(raw)?;
        locks.see(&record);
        let is_checkpoint = record.rmid == rmgr::XLOG
            && matches!(
                record.rmgr_info(),
                rmgr::xlog_info::CHECKPOINT_ONLINE | rmgr::xlog_info::CHECKPOINT_SHUTDOWN
            );
        checkpoints += usize::from(is_checkpoint);
        if checkpoints > 0 && locks.held.is_empty() {
            places.entry(checkpoints).or_default().push(raw.end_lsn);
        }
    }
    let stretches: Vec<Vec<Lsn>> = places.into_values().collect();
    ensure!(
        stretches.len() >= count,
        "{checkpoints} checkpoints leave {} stretches of log for {count} places",
        stretches.len()
    );
    let chosen = chance.some(&stretches, count);
    Ok(chosen.iter().map(|stretch| stretch[chance.below(stretch.len())]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use strata_pgwal::write::RecordSpec;

    fn log(specs: &[RecordSpec]) -> Vec<RawRecord> {
        let mut at = Lsn(0x1000);
        specs
            .iter()
            .map(|spec| {
                let bytes = spec.encode(Lsn(0));
                let end_lsn = Lsn(at.0 + bytes.len() as u64).align_up();
                let record = RawRecord { lsn: at, end_lsn, bytes };
                at = end_lsn;
                record
            })
            .collect()
    }

    fn lock(xid: u32, database: u32, relation: u32) -> RecordSpec {
        let words = [1, xid, database, relation].map(u32::to_le_bytes).concat();
        RecordSpec::plain(rmgr::STANDBY, STANDBY_LOCK, words.into())
    }

    fn end(xid: u32) -> RecordSpec {
        RecordSpec { xid, ..RecordSpec::plain(rmgr::XACT, XACT_COMMIT, Bytes::from_static(&[0; 8])) }
    }

    fn checkpoint() -> RecordSpec {
        let info = rmgr::xlog_info::CHECKPOINT_ONLINE;
        RecordSpec::plain(rmgr::XLOG, info, Bytes::from_static(&[0; 88]))
    }

    fn running(oldest: u32) -> RecordSpec {
        let words = [0, 0, 0, oldest + 1, oldest, oldest].map(u32::to_le_bytes).concat();
        RecordSpec::plain(rmgr::STANDBY, RUNNING_XACTS, words.into())
    }

    #[test]
    fn no_place_lies_under_a_catalogs_lock_nor_before_a_checkpoint() {
        let specs = [
            end(1),
            checkpoint(),
            lock(7, 5, 1259),
            end(6),
            end(7),
            lock(8, 99, 1259),
            checkpoint(),
            lock(9, 0, 1262),
            running(10),
        ];
        let records = log(&specs);
        let allowed = [1, 4, 5, 6, 8].map(|at| records[at].end_lsn);
        for seed in 0..200 {
            let places = choose(&records, 2, &mut Chance::new(seed)).expect("two stretches");
            assert!(places.len() == 2 && places.is_sorted(), "{places:?}");
            assert!(places.iter().all(|place| allowed.contains(place)), "{places:?}");
            assert!(places[0] < records[6].end_lsn && places[1] >= records[6].end_lsn, "{places:?}");
        }
        assert!(choose(&records, 3, &mut Chance::new(1)).is_err());
    }

    #[test]
    fn chance_takes_each_once_and_differs_by_seed() {
        let all: Vec<usize> = (0..50).collect();
        let some = Chance::new(3).some(&all, 20);
        assert!(some.len() == 20 && some.is_sorted() && some.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(some, Chance::new(3).some(&all, 20));
        assert_ne!(some, Chance::new(4).some(&all, 20));
        assert_eq!(Chance::new(3).some(&all, 60), all);
    }
}
