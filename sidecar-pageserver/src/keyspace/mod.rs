//! What every key of a timeline means. The storage below sees 18 opaque, ordered bytes; all meaning is here.
//!
//! Layout, big-endian, so that byte order is the natural order: kind (1), tablespace (4), database (4), relation (4),
//! fork (1), block (4). Kinds that need fewer fields leave the others zero. Everything of one database, one relation or
//! one fork is one contiguous range per kind, and no key holds a list (R7: dropping 100,000 relations is 100,000 small
//! writes, never a quadratic rewrite of directories).
//!
//! Values are in `values`; the byte formats of both are in `FORMAT.md`.

pub mod values;

use std::fmt;

use strata_common::{BlockNumber, ForkNumber, RelFork, RelTag};
use strata_redo::slru::SlruKind;

use crate::core::key::{Key, KeyRange};

/// First byte of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    RelBlock = 0x01,
    RelSize = 0x02,
    InitFork = 0x03,
    Database = 0x04,
    Tablespace = 0x05,
    RelMap = 0x06,
    SlruBlock = 0x07,
    SlruSegment = 0x08,
    TwoPhase = 0x09,
    Control = 0x0a,
    Mark = 0x0b,
    Aux = 0x0c,
    Origin = 0x0d,
}

/// The SLRU with number `raw` on the wire (`page.v1.Slru`) and in keys.
pub fn slru_from_raw(raw: u32) -> Option<SlruKind> {
    SlruKind::ALL.into_iter().find(|kind| *kind as u32 == raw)
}

/// Pages of one SLRU segment file (`SLRU_PAGES_PER_SEGMENT`, `src/include/access/slru.h`).
pub const SLRU_PAGES_PER_SEGMENT: u32 = 32;

/// Parts of the control state, each with a key of its own because they change at different rates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ControlPart {
    /// struct CheckPoint: the counters that change rarely; `next*` of the mark win.
    CheckPoint = 1,
    /// pg_control: settings and build parameters.
    ControlFile = 2,
}

/// Files that the log does not know but that an imported or cleanly stopped cluster has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum AuxFile {
    /// `pg_stat/pgstat.stat`; good only at the very LSN at which it was saved (S12).
    PgStat = 1,
}

fn key(kind: Kind, a: u32, b: u32, c: u32, fork: u8, block: u32) -> Key {
    let mut raw = [0u8; 18];
    raw[0] = kind as u8;
    raw[1..5].copy_from_slice(&a.to_be_bytes());
    raw[5..9].copy_from_slice(&b.to_be_bytes());
    raw[9..13].copy_from_slice(&c.to_be_bytes());
    raw[13] = fork;
    raw[14..18].copy_from_slice(&block.to_be_bytes());
    Key(raw)
}

pub fn rel_block(rel: RelFork, block: BlockNumber) -> Key {
    let RelTag { tablespace, database, relation } = rel.rel;
    key(Kind::RelBlock, tablespace, database, relation, rel.fork.raw(), block.0)
}

pub fn rel_size(rel: RelFork) -> Key {
    let RelTag { tablespace, database, relation } = rel.rel;
    key(Kind::RelSize, tablespace, database, relation, rel.fork.raw(), 0)
}

/// Says that a relation has an INIT fork, so that a base backup finds the unlogged relations without reading all sizes.
pub fn init_fork(rel: RelTag) -> Key {
    key(Kind::InitFork, rel.tablespace, rel.database, rel.relation, 0, 0)
}

pub fn database(tablespace: u32, database: u32) -> Key {
    key(Kind::Database, tablespace, database, 0, 0, 0)
}

pub fn tablespace(tablespace: u32) -> Key {
    key(Kind::Tablespace, tablespace, 0, 0, 0, 0)
}

pub fn rel_map(tablespace: u32, database: u32) -> Key {
    key(Kind::RelMap, tablespace, database, 0, 0, 0)
}

pub fn slru_block(slru: SlruKind, page: u32) -> Key {
    key(Kind::SlruBlock, slru as u32, 0, 0, 0, page)
}

pub fn slru_segment(slru: SlruKind, segment: u32) -> Key {
    key(Kind::SlruSegment, slru as u32, 0, 0, 0, segment)
}

pub fn two_phase(xid: u64) -> Key {
    key(Kind::TwoPhase, (xid >> 32) as u32, xid as u32, 0, 0, 0)
}

pub fn control(part: ControlPart) -> Key {
    key(Kind::Control, part as u32, 0, 0, 0, 0)
}

pub fn mark() -> Key {
    key(Kind::Mark, 0, 0, 0, 0, 0)
}

pub fn aux(file: AuxFile) -> Key {
    key(Kind::Aux, file as u32, 0, 0, 0, 0)
}

/// How far a replication origin is (`ReplicationState` in `src/backend/replication/logical/origin.c`).
pub fn origin(origin: u16) -> Key {
    key(Kind::Origin, u32::from(origin), 0, 0, 0, 0)
}

/// All keys that share the first `prefix` bytes with `key`.
fn prefix_range(key: Key, prefix: usize) -> KeyRange {
    let (mut first, mut last) = (key.0, key.0);
    first[prefix..].fill(0);
    last[prefix..].fill(0xff);
    KeyRange { first: Key(first), last: Key(last) }
}

/// All keys of a kind.
pub fn kind_range(kind: Kind) -> KeyRange {
    prefix_range(key(kind, 0, 0, 0, 0, 0), 1)
}

/// Keys of `kind` (`RelBlock`, `RelSize`, `InitFork`, `RelMap`, `Database`) of one database in one tablespace.
pub fn database_range(kind: Kind, tablespace: u32, database: u32) -> KeyRange {
    prefix_range(key(kind, tablespace, database, 0, 0, 0), 9)
}

/// Keys of `kind` in one tablespace.
pub fn tablespace_range(kind: Kind, tablespace: u32) -> KeyRange {
    prefix_range(key(kind, tablespace, 0, 0, 0, 0), 5)
}

/// Keys of `kind` (`RelBlock`, `RelSize`) of all forks of a relation.
pub fn relation_range(kind: Kind, rel: RelTag) -> KeyRange {
    prefix_range(key(kind, rel.tablespace, rel.database, rel.relation, 0, 0), 13)
}

/// The blocks of one fork.
pub fn fork_blocks(rel: RelFork) -> KeyRange {
    prefix_range(rel_block(rel, BlockNumber(0)), 14)
}

/// The segment directory of one SLRU.
pub fn slru_segments(slru: SlruKind) -> KeyRange {
    prefix_range(slru_segment(slru, 0), 5)
}

/// A key taken apart; what error messages print and what reads of a range need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyName {
    RelBlock(RelFork, BlockNumber),
    RelSize(RelFork),
    InitFork(RelTag),
    Database { tablespace: u32, database: u32 },
    Tablespace(u32),
    RelMap { tablespace: u32, database: u32 },
    SlruBlock(SlruKind, u32),
    SlruSegment(SlruKind, u32),
    TwoPhase(u64),
    Control(u32),
    Mark,
    Aux(u32),
    Origin(u32),
}

impl KeyName {
    /// `None` for bytes that no function of this module makes.
    pub fn of(key: Key) -> Option<KeyName> {
        let field = |at: usize| u32::from_be_bytes([key.0[at], key.0[at + 1], key.0[at + 2], key.0[at + 3]]);
        let (a, b, c, block) = (field(1), field(5), field(9), field(14));
        let rel = RelTag { tablespace: a, database: b, relation: c };
        Some(match key.0[0] {
            0x01 => KeyName::RelBlock(rel.fork(ForkNumber::from_raw(key.0[13])?), BlockNumber(block)),
            0x02 => KeyName::RelSize(rel.fork(ForkNumber::from_raw(key.0[13])?)),
            0x03 => KeyName::InitFork(rel),
            0x04 => KeyName::Database { tablespace: a, database: b },
            0x05 => KeyName::Tablespace(a),
            0x06 => KeyName::RelMap { tablespace: a, database: b },
            0x07 => KeyName::SlruBlock(slru_from_raw(a)?, block),
            0x08 => KeyName::SlruSegment(slru_from_raw(a)?, block),
            0x09 => KeyName::TwoPhase((u64::from(a) << 32) | u64::from(b)),
            0x0a => KeyName::Control(a),
            0x0b => KeyName::Mark,
            0x0c => KeyName::Aux(a),
            0x0d => KeyName::Origin(a),
            _ => return None,
        })
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyName::RelBlock(rel, block) => write!(f, "relation {rel} block {block}"),
            KeyName::RelSize(rel) => write!(f, "size of relation {rel}"),
            KeyName::InitFork(rel) => write!(f, "init fork entry of relation {rel}"),
            KeyName::Database { tablespace, database } => write!(f, "database {tablespace}/{database}"),
            KeyName::Tablespace(tablespace) => write!(f, "tablespace {tablespace}"),
            KeyName::RelMap { tablespace, database } => write!(f, "relation map {tablespace}/{database}"),
            KeyName::SlruBlock(slru, page) => write!(f, "{} page {page}", slru.folder()),
            KeyName::SlruSegment(slru, segment) => write!(f, "{} segment {segment:04X}", slru.folder()),
            KeyName::TwoPhase(xid) => write!(f, "two-phase file {xid:016X}"),
            KeyName::Control(part) => write!(f, "control state {part}"),
            KeyName::Mark => write!(f, "record mark"),
            KeyName::Aux(file) => write!(f, "auxiliary file {file}"),
            KeyName::Origin(origin) => write!(f, "replication origin {origin}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rel(tablespace: u32, database: u32, relation: u32) -> RelTag {
        RelTag { tablespace, database, relation }
    }

    proptest! {
        #[test]
        fn block_keys_keep_order_and_come_back(a: [u32; 4], b: [u32; 4], fa in 0u8..4, fb in 0u8..4) {
            let fork = |raw| ForkNumber::from_raw(raw).expect("0 to 3");
            let ra = rel(a[0], a[1], a[2]).fork(fork(fa));
            let rb = rel(b[0], b[1], b[2]).fork(fork(fb));
            let (ka, kb) = (rel_block(ra, BlockNumber(a[3])), rel_block(rb, BlockNumber(b[3])));
            let natural = (a[0], a[1], a[2], fa, a[3]).cmp(&(b[0], b[1], b[2], fb, b[3]));
            prop_assert_eq!(ka.cmp(&kb), natural);
            prop_assert_eq!(KeyName::of(ka), Some(KeyName::RelBlock(ra, BlockNumber(a[3]))));
        }

        #[test]
        fn ranges_hold_exactly_their_own(database: u32, relation: u32, block: u32, other: u32) {
            let mine = rel(1663, database, relation);
            let key = rel_block(mine.fork(ForkNumber::Init), BlockNumber(block));
            prop_assert!(relation_range(Kind::RelBlock, mine).contains(key));
            prop_assert!(database_range(Kind::RelBlock, 1663, database).contains(key));
            prop_assert!(fork_blocks(mine.fork(ForkNumber::Init)).contains(key));
            prop_assert!(!fork_blocks(mine.fork(ForkNumber::Main)).contains(key));
            prop_assert_eq!(relation_range(Kind::RelBlock, rel(1663, database, other)).contains(key), other == relation);
            prop_assert_eq!(database_range(Kind::RelBlock, 1663, other).contains(key), other == database);
            prop_assert!(!kind_range(Kind::RelSize).contains(key));
        }
    }

    #[test]
    fn every_kind_comes_back() {
        let tag = rel(1663, 5, 16384);
        for (key, text) in [
            (rel_size(tag.fork(ForkNumber::VisibilityMap)), "size of relation 1663/5/16384_vm"),
            (init_fork(tag), "init fork entry of relation 1663/5/16384"),
            (database(1663, 5), "database 1663/5"),
            (tablespace(1663), "tablespace 1663"),
            (rel_map(1664, 0), "relation map 1664/0"),
            (slru_block(SlruKind::Clog, 7), "pg_xact page 7"),
            (slru_segment(SlruKind::MultiXactMembers, 0x14078), "pg_multixact/members segment 14078"),
            (two_phase(0x1_0000_0003), "two-phase file 0000000100000003"),
            (control(ControlPart::ControlFile), "control state 2"),
            (mark(), "record mark"),
            (aux(AuxFile::PgStat), "auxiliary file 1"),
        ] {
            assert_eq!(KeyName::of(key).expect("a known kind").to_string(), text);
        }
        assert_eq!(KeyName::of(Key([0xff; 18])), None);
    }
}
