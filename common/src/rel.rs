//! Names of relations, forks and blocks as Postgres numbers them.
//!
//! Facts of Postgres: `src/include/storage/relfilelocator.h`, `src/include/common/relpath.h`, `src/include/storage/block.h`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Size of a page of a relation (`BLCKSZ`), bytes.
pub const BLOCK_BYTES: usize = 8192;

/// Number of a block in a fork. `BlockNumber::INVALID` is `InvalidBlockNumber`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockNumber(pub u32);

impl BlockNumber {
    pub const INVALID: BlockNumber = BlockNumber(u32::MAX);
}

impl fmt::Display for BlockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The four forks, with Postgres's numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum ForkNumber {
    Main = 0,
    FreeSpaceMap = 1,
    VisibilityMap = 2,
    Init = 3,
}

impl ForkNumber {
    pub const ALL: [ForkNumber; 4] =
        [ForkNumber::Main, ForkNumber::FreeSpaceMap, ForkNumber::VisibilityMap, ForkNumber::Init];

    /// The fork with Postgres's number `raw`, or `None` if there is no such fork.
    pub fn from_raw(raw: u8) -> Option<ForkNumber> {
        ForkNumber::ALL.get(usize::from(raw)).copied()
    }

    pub fn raw(self) -> u8 {
        self as u8
    }

    /// What follows the relfilenumber in a file name: nothing, `_fsm`, `_vm` or `_init`.
    pub fn file_suffix(self) -> &'static str {
        match self {
            ForkNumber::Main => "",
            ForkNumber::FreeSpaceMap => "_fsm",
            ForkNumber::VisibilityMap => "_vm",
            ForkNumber::Init => "_init",
        }
    }
}

/// A relation's physical identity (`RelFileLocator`). Database 0 holds the shared catalogs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelTag {
    pub tablespace: u32,
    pub database: u32,
    pub relation: u32,
}

impl RelTag {
    pub fn fork(self, fork: ForkNumber) -> RelFork {
        RelFork { rel: self, fork }
    }
}

impl fmt::Display for RelTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.relation)
    }
}

impl fmt::Debug for RelTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One fork of a relation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelFork {
    pub rel: RelTag,
    pub fork: ForkNumber,
}

impl fmt::Display for RelFork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.rel, self.fork.file_suffix())
    }
}

impl fmt::Debug for RelFork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
