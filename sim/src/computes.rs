//! Computes: the real proposer core, a source of records, and what a compute does when it wins, loses, is fenced or resumes.

use std::collections::BTreeMap;

use bytes::Bytes;
use strata_common::{Lsn, NodeId, Term};
use strata_proto::quorum::Candidate;
use strata_safekeeper::core::DurableState;
use strata_walproposer::core::{AcceptorAddress, Command, Event, Limits, Proposer, Purpose};

use crate::checker::Violation;
use crate::records::record;
use crate::world::{Action, World};

#[derive(Debug)]
pub(crate) struct Compute {
    pub core: Proposer,
    pub sessions: BTreeMap<NodeId, u64>,
    /// Set once the term is won or found again: where the next append goes.
    pub next: Option<Lsn>,
    /// Ends of records below `next`, for appends that end inside one.
    pending: Vec<u8>,
    resumed: bool,
}

/// Small, so that windows overflow and acceptors must catch up.
const LIMITS: Limits = Limits {
    in_flight_bytes_max: 600,
    message_bytes_max: 200,
    retained_bytes_max: 500,
    pending_bytes_max: 2000,
};

impl World {
    /// A new compute, which campaigns; its number.
    pub fn start_compute(&mut self) -> u64 {
        let compute = self.add_compute(Purpose::Elect);
        self.after(1, Action::Campaign { compute });
        compute
    }

    fn add_compute(&mut self, purpose: Purpose) -> u64 {
        let number = self.number();
        let at = |node: NodeId| AcceptorAddress { node, address: node.to_string() };
        let nodes: Vec<NodeId> = self.safekeepers.keys().copied().collect();
        #[cfg_attr(not(feature = "mutants"), expect(unused_mut, reason = "a mutant is set below"))]
        let mut core = Proposer::new(purpose, nodes.iter().copied().map(at).collect(), LIMITS);
        #[cfg(feature = "mutants")]
        {
            core.mutant = match self.options.mutant {
                Some(crate::Mutant::Proposer(mutant)) => Some(mutant),
                Some(crate::Mutant::WipedVotesAndCounts) => {
                    Some(strata_walproposer::core::Mutant::CountWiped)
                }
                _ => None,
            };
        }
        let resumed = purpose != Purpose::Elect;
        let compute = Compute { core, sessions: BTreeMap::new(), next: None, pending: Vec::new(), resumed };
        self.computes.insert(number, compute);
        for node in nodes {
            let delay = self.rng.between(1, 30);
            self.after(delay, Action::Connect { compute: number, node });
        }
        self.after(100, Action::Tick { compute: number });
        number
    }

    /// The process is gone; its connections end.
    pub fn end_compute(&mut self, compute: u64) {
        let Some(gone) = self.computes.remove(&compute) else { return };
        for session in gone.sessions.into_values() {
            self.cut_connection(session);
        }
    }

    /// The worker is gone and another one resumes the term, if it was won.
    pub(crate) fn resume_compute(&mut self, compute: u64) {
        let term = self.computes.get(&compute).filter(|c| c.next.is_some()).map(|c| c.core.term());
        self.end_compute(compute);
        if let Some(term) = term {
            self.add_compute(Purpose::Resume(term));
        }
    }

    pub(crate) fn campaign(&mut self, compute: u64) -> Result<(), Violation> {
        let candidate = Candidate(self.rng.bytes16());
        self.proposer_step(compute, Event::Campaign { candidate })
    }

    /// The term that a compute has, once it may append.
    pub fn term_of(&self, compute: u64) -> Option<Term> {
        self.computes.get(&compute).filter(|c| c.next.is_some()).map(|c| c.core.term())
    }

    pub(crate) fn tick(&mut self, compute: u64) -> Result<(), Violation> {
        if self.computes.contains_key(&compute) {
            self.after(100, Action::Tick { compute });
        }
        self.proposer_step(compute, Event::Tick)
    }

    /// Appends up to a few records, maybe ending inside one. A resumed term first appends again what it had appended before.
    pub(crate) fn produce(&mut self, compute: u64) -> Result<(), Violation> {
        let Some(state) = self.computes.get_mut(&compute) else { return Ok(()) };
        let Some(begin) = state.next.filter(|_| state.core.has_room()) else {
            self.after(30, Action::Produce { compute });
            return Ok(());
        };
        let term = state.core.term();
        let known = self.checker.of_term(term);
        let again = known.map(|(start, bytes)| &bytes[(begin - start) as usize..]).unwrap_or_default();
        let wal = if again.is_empty() {
            let length = self.rng.between(1, 31);
            if state.pending.is_empty() {
                self.next_number += 1;
                state.pending = record(self.next_number, length);
            }
            let length = if self.rng.chance(30) {
                self.rng.between(1, state.pending.len() as u64) as usize
            } else {
                state.pending.len()
            };
            let rest = state.pending.split_off(length);
            let wal = std::mem::replace(&mut state.pending, rest);
            self.checker.appended(term, &wal);
            wal
        } else {
            let length = self.rng.between(1, (again.len() as u64).min(400)) as usize;
            again[..length].to_vec()
        };
        state.next = Some(begin + wal.len() as u64);
        let pause = self.rng.between(1, 12);
        self.after(pause, Action::Produce { compute });
        self.proposer_step(compute, Event::Append { begin, wal: Bytes::from(wal) })
    }

    pub(crate) fn proposer_step(&mut self, compute: u64, event: Event) -> Result<(), Violation> {
        let Some(state) = self.computes.get_mut(&compute) else { return Ok(()) };
        let mut commands = Vec::new();
        state.core.step(event, &mut commands);
        state.core.settle(&mut commands);
        for command in commands {
            match command {
                Command::Send { node, message } => {
                    let session = self.computes.get(&compute).and_then(|c| c.sessions.get(&node).copied());
                    if let Some(session) = session {
                        self.send_to_safekeeper(session, message);
                    }
                }
                Command::Create { node, copy } => {
                    let state =
                        DurableState::new(copy.incarnation, copy.membership, copy.facts, copy.start_lsn);
                    self.create_copy(node, state);
                }
                Command::Ready(ready) => {
                    self.ready(compute, ready.term, ready.start_lsn, ready.append_lsn)?
                }
                Command::Committed { commit } => self.compute_committed(compute, commit)?,
                Command::Lost { .. } => {
                    let pause = self.rng.between(10, 300);
                    self.after(pause, Action::Campaign { compute });
                }
                Command::Fenced { .. } => {
                    self.report.fenced += 1;
                    self.end_compute(compute);
                    return Ok(());
                }
                Command::Impossible { reason } => {
                    self.note(format!("compute {compute} gives up: {reason}"));
                    self.end_compute(compute);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn ready(&mut self, compute: u64, term: Term, start: Lsn, next: Lsn) -> Result<(), Violation> {
        let Some(state) = self.computes.get_mut(&compute) else { return Ok(()) };
        state.next = Some(next);
        if state.resumed {
            self.report.terms_resumed += 1;
            // Goes on with the rest of a record that was appended in part.
            let (known_start, bytes) = self.checker.of_term(term).unwrap_or((start, &[]));
            let whole = crate::records::whole(bytes);
            let torn = &bytes[whole..];
            if let Some(&length) = torn.first() {
                let number =
                    u64::from_le_bytes(std::array::from_fn(|at| torn.get(at).copied().unwrap_or(0))) >> 8;
                let full = record(number, u64::from(length) / 8);
                let usable = torn.len() >= 8;
                let rest = if usable {
                    full[torn.len()..].to_vec()
                } else {
                    vec![0xEE; usize::from(length) - torn.len()]
                };
                state.pending = rest;
            }
            assert!(next >= known_start, "a resumed term goes on in its own log");
        } else {
            self.report.terms_won += 1;
            self.checker.won(compute, term, start)?;
        }
        self.after(1, Action::Produce { compute });
        Ok(())
    }

    fn compute_committed(&mut self, compute: u64, commit: Lsn) -> Result<(), Violation> {
        let Some(state) = self.computes.get(&compute) else { return Ok(()) };
        self.checker.committed(state.core.history(), commit)?;
        let disks = self.safekeepers.values().filter_map(|s| s.disk.as_ref());
        let disks = disks
            .filter(|disk| self.membership.members.iter().any(|m| m.incarnation == disk.state.incarnation));
        self.checker.commit_is_held(&self.membership, self.wiped as usize, disks, commit)
    }
}
