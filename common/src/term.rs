//! Terms of proposers, the history that says which term wrote which part of the log, and generations.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Lsn;

/// Number of an election. Term 0 is "before any election"; a proposer's term is at least 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl Term {
    pub const ZERO: Term = Term(0);

    pub fn next(self) -> Term {
        Term(self.0.checked_add(1).expect("terms never wrap"))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The log from `lsn` on (up to the next entry's start) was written by the proposer of `term`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TermStart {
    pub term: Term,
    pub lsn: Lsn,
}

/// Term starts in the order of terms; both terms and positions never go down.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TermHistory(pub Vec<TermStart>);

impl TermHistory {
    /// Term of the last entry, or `Term::ZERO` of an empty history.
    pub fn last_term(&self) -> Term {
        self.0.last().map_or(Term::ZERO, |entry| entry.term)
    }

    /// The last term that begins at or below `lsn`: no log below `lsn` is of a later one.
    pub fn term_at(&self, lsn: Lsn) -> Term {
        self.0.iter().rev().find(|entry| entry.lsn <= lsn).map_or(Term::ZERO, |entry| entry.term)
    }
}

/// Generation of a pageserver's attachment; part of the names of the objects that it writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Generation of a timeline's membership: which safekeepers, in which incarnation, vote and count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MembershipGeneration(pub u32);
