//! The invariants, checked after every step against what the disks hold and what proposers said.
//!
//! The checker knows what the engines cannot: which bytes each term's proposer appended. A history then says what a log must
//! hold, and the ledger is what some proposer once called committed: it only grows, and every majority must be able to prove it.

use std::collections::BTreeMap;

use strata_common::invariants::Invariant;
use strata_common::{Lsn, NodeId, Term, TermHistory};
use strata_proto::quorum::{FromAcceptor, Membership};

use crate::disk::Disk;
use crate::records::LOG_START;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{invariant} violated: {what}")]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
}

/// How much is looked at. With `Loss` only what a user would notice counts: a committed record gone or replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checks {
    All,
    Loss,
}

#[derive(Debug)]
pub struct Checker {
    pub checks: Checks,
    /// Committed log, from `LOG_START`.
    pub ledger: Vec<u8>,
    /// What each term's proposer appended: start and bytes.
    terms: BTreeMap<Term, (Lsn, Vec<u8>)>,
    winners: BTreeMap<Term, u64>,
}

fn violation<T>(invariant: Invariant, what: String) -> Result<T, Violation> {
    Err(Violation { invariant, what })
}

impl Checker {
    pub fn new(checks: Checks) -> Checker {
        Checker { checks, ledger: Vec::new(), terms: BTreeMap::new(), winners: BTreeMap::new() }
    }

    pub fn ledger_end(&self) -> Lsn {
        Lsn(LOG_START + self.ledger.len() as u64)
    }

    /// A proposer has won a term.
    pub fn won(&mut self, compute: u64, term: Term, start: Lsn) -> Result<(), Violation> {
        if let Some(other) = self.winners.insert(term, compute)
            && self.checks == Checks::All
        {
            return violation(Invariant::Sk2, format!("computes {other} and {compute} both won term {term}"));
        }
        self.terms.insert(term, (start, Vec::new()));
        Ok(())
    }

    pub fn appended(&mut self, term: Term, wal: &[u8]) {
        if let Some((_, bytes)) = self.terms.get_mut(&term) {
            bytes.extend_from_slice(wal);
        }
    }

    /// What the log of `term` holds from its start on, as far as it was appended.
    pub fn of_term(&self, term: Term) -> Option<(Lsn, &[u8])> {
        self.terms.get(&term).map(|(start, bytes)| (*start, &bytes[..]))
    }

    /// What a log with this history must hold up to `end`.
    fn content(&self, history: &TermHistory, end: Lsn) -> Result<Vec<u8>, Violation> {
        let mut content = Vec::new();
        for (index, entry) in history.0.iter().enumerate() {
            let until = history.0.get(index + 1).map_or(end, |next| next.lsn.min(end));
            let Some((start, bytes)) = self.terms.get(&entry.term) else {
                return violation(Invariant::Sk2, format!("nobody won term {} of a history", entry.term));
            };
            let length = until.checked_sub(entry.lsn).unwrap_or(0) as usize;
            if *start != entry.lsn || length > bytes.len() {
                let what = format!(
                    "term {} appended {} bytes from {start}, a log has {length} from {}",
                    entry.term,
                    bytes.len(),
                    entry.lsn
                );
                return violation(Invariant::Sk1, what);
            }
            content.extend_from_slice(&bytes[..length]);
        }
        if LOG_START + content.len() as u64 != end.0 {
            return violation(
                Invariant::Sk1,
                format!("a history covers {} bytes of a log that ends at {end}", content.len()),
            );
        }
        Ok(content)
    }

    /// A proposer calls everything below `commit` committed.
    pub fn committed(&mut self, history: &TermHistory, commit: Lsn) -> Result<(), Violation> {
        let content = self.content(history, commit)?;
        let common = content.len().min(self.ledger.len());
        if let Some(at) = (0..common).find(|&at| content[at] != self.ledger[at]) {
            let lsn = Lsn(LOG_START + at as u64);
            let term = history.last_term();
            return violation(
                Invariant::Sk1,
                format!("term {term} commits another record at {lsn} than was committed there before"),
            );
        }
        if content.len() > self.ledger.len() {
            self.ledger = content;
        }
        Ok(())
    }

    /// SK-3: what is called committed is on the disks of a majority; `wiped` members may have had it.
    pub fn commit_is_held<'a>(
        &self,
        membership: &Membership,
        wiped: usize,
        disks: impl Iterator<Item = &'a Disk>,
        commit: Lsn,
    ) -> Result<(), Violation> {
        let held = disks.filter(|disk| disk.durable_end() >= commit).count();
        if self.checks == Checks::All && held + wiped < membership.majority() {
            return violation(Invariant::Sk3, format!("{commit} is called committed and is on {held} disks"));
        }
        Ok(())
    }

    /// A copy holds what its history says, and calls committed what is.
    pub fn copy(&self, node: NodeId, disk: &Disk, commit: Lsn) -> Result<(), Violation> {
        if disk.is_restarting() {
            return Ok(());
        }
        let end = disk.durable_end();
        let content = self.content(&disk.durable_history(), end);
        if self.checks == Checks::All && end > Lsn(LOG_START) && disk.state.history.last_term() > Term::ZERO {
            let content = content?;
            let from = (disk.base.0 - LOG_START) as usize;
            if content.get(from..) != Some(disk.read(disk.base, end)) {
                return violation(
                    Invariant::Sk1,
                    format!("the log of safekeeper {node} is not what its history says"),
                );
            }
        }
        if commit > self.ledger_end() {
            return violation(
                Invariant::Sk3,
                format!("safekeeper {node} calls {commit} committed, nobody else does"),
            );
        }
        let from = disk.base;
        if commit > from && commit <= disk.base + disk.log.len() as u64 {
            let ledger = &self.ledger[(from.0 - LOG_START) as usize..(commit.0 - LOG_START) as usize];
            if disk.read(from, commit) != ledger {
                return violation(
                    Invariant::Sk1,
                    format!("safekeeper {node} lost committed log below {commit}"),
                );
            }
        }
        Ok(())
    }

    /// SK-1: whichever majority of the surviving members an election meets, it finds all that was committed.
    pub fn provable<'a>(
        &self,
        membership: &Membership,
        survivors: impl Iterator<Item = &'a Disk>,
    ) -> Result<(), Violation> {
        if self.checks == Checks::Loss {
            return Ok(());
        }
        let survivors: Vec<&Disk> = survivors.collect();
        for set in 0u32..1 << survivors.len() {
            if set.count_ones() as usize != membership.majority() {
                continue;
            }
            let members = survivors
                .iter()
                .enumerate()
                .filter(|(index, _)| set & (1 << index) != 0)
                .map(|(_, disk)| *disk);
            let Some(donor) =
                members.max_by_key(|disk| (disk.durable_history().last_term(), disk.durable_end()))
            else {
                continue;
            };
            let end = donor.durable_end();
            if end < self.ledger_end() {
                return violation(
                    Invariant::Sk1,
                    format!("a majority would go on from {end}, committed is {}", self.ledger_end()),
                );
            }
            if self.content(&donor.durable_history(), end)?[..self.ledger.len()] != self.ledger[..] {
                return violation(
                    Invariant::Sk1,
                    "a majority would go on from another log than was committed".to_owned(),
                );
            }
        }
        Ok(())
    }

    /// SK-4: nothing committed is cut from a copy that holds it.
    pub fn cut(&self, node: NodeId, disk: &Disk, to: Lsn, highest_commit: Lsn) -> Result<(), Violation> {
        if self.checks == Checks::Loss {
            return Ok(());
        }
        let from = (disk.base.0 - LOG_START) as usize;
        let held = disk.read(disk.base, disk.durable_end());
        let committed = self.ledger.get(from..).unwrap_or_default();
        let common = held.iter().zip(committed).take_while(|(a, b)| a == b).count();
        let common = disk.base + crate::records::whole(&held[..common]) as u64;
        if to < common.max(highest_commit) {
            return violation(
                Invariant::Sk4,
                format!("safekeeper {node} cuts at {to}, it held committed log up to {common}"),
            );
        }
        Ok(())
    }

    /// SK-5 and K1: an answer tells nothing that a crash could take back.
    pub fn reply(&self, node: NodeId, disk: &Disk, message: &FromAcceptor) -> Result<(), Violation> {
        let (term, flush, voted) = match message {
            FromAcceptor::Greeting(m) => (m.term, m.flush_lsn, false),
            FromAcceptor::Vote(m) => (m.term, m.flush_lsn, m.granted),
            FromAcceptor::Elected(m) => (m.term, m.flush_lsn, false),
            FromAcceptor::Append(m) => (m.term, m.flush_lsn, false),
        };
        if self.checks == Checks::Loss {
            return Ok(());
        }
        if term > disk.state.term || (voted && disk.state.vote.is_none()) {
            return violation(
                Invariant::Sk5,
                format!("safekeeper {node} answers in term {term}, on disk is {}", disk.state.term),
            );
        }
        if flush > disk.durable_end() {
            return violation(
                Invariant::Sk3,
                format!("safekeeper {node} acknowledges {flush}, on disk is {}", disk.durable_end()),
            );
        }
        Ok(())
    }
}
