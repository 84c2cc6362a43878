//! The proposer's state, and where each event goes.

use std::collections::BTreeMap;

use strata_common::{Lsn, NodeId, Term, TermHistory};
use strata_proto::quorum::{Candidate, FromAcceptor, Greeting, LogFacts, Member, Membership, ToAcceptor};

use super::log::LogWindow;
use super::peer::{Mode, Peer};
use super::types::{
    AcceptorAddress, AcceptorState, AcceptorStatus, Command, CreateCopy, Event, Limits, Purpose, Ready,
};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Greets acceptors; with a candidate a campaign begins as soon as a majority of members is there.
    Gathering,
    Voting,
    /// The term's history is known; `ready` has been said or waits for a majority to confirm (a resumed term).
    Leading,
    Over,
}

#[derive(Debug)]
pub struct Proposer {
    pub(super) purpose: Purpose,
    pub(super) limits: Limits,
    pub(super) phase: Phase,
    pub(super) candidate: Option<Candidate>,
    /// The highest term heard of.
    pub(super) seen_term: Term,
    pub(super) term: Term,
    /// Set for a candidate that had a term before: the highest it had or asked for itself.
    pub(super) own_term: Option<Term>,
    pub(super) history: TermHistory,
    pub(super) start: Lsn,
    pub(super) ready: bool,
    pub(super) commit: Lsn,
    pub(super) membership: Membership,
    pub(super) facts: Option<LogFacts>,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) log: LogWindow,
    #[cfg(feature = "mutants")]
    pub mutant: Option<super::Mutant>,
}

impl Proposer {
    pub fn new(purpose: Purpose, acceptors: Vec<AcceptorAddress>, limits: Limits) -> Proposer {
        let term = match purpose {
            Purpose::Elect => Term::ZERO,
            Purpose::Resume(term) => term,
        };
        Proposer {
            purpose,
            limits,
            phase: Phase::Gathering,
            candidate: None,
            seen_term: term,
            term,
            own_term: None,
            history: TermHistory::default(),
            start: Lsn::INVALID,
            ready: false,
            commit: Lsn::INVALID,
            membership: Membership::default(),
            facts: None,
            peers: acceptors.into_iter().map(|at| (at.node, Peer::new(at))).collect(),
            log: LogWindow::default(),
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }

    /// For a candidate that had `term`: a higher one that it did not ask for itself is somebody else's, and ends it instead of
    /// being outbid (SK-2: a beaten compute must not take its timeline back).
    pub fn after(mut self, term: Term) -> Proposer {
        self.own_term = Some(term);
        self
    }

    /// One event in; what follows from it at once out. What can wait for the end of a batch is left to `settle`.
    pub fn step(&mut self, event: Event, out: &mut Vec<Command>) {
        if self.phase == Phase::Over {
            return;
        }
        match event {
            Event::Connected { node } => self.connected(node, out),
            Event::Disconnected { node } => self.disconnected(node, out),
            Event::NotFound { node, fresh } => self.not_found(node, fresh, out),
            Event::Received { node, message } => self.received(node, message, out),
            Event::Campaign { candidate } => self.campaign(candidate, out),
            Event::Append { begin, wal } => {
                assert!(self.ready, "nothing is appended before the term is ready");
                self.log.push(begin, wal);
            }
            Event::Tick => self.tick(out),
        }
    }

    pub fn term(&self) -> Term {
        self.term
    }

    pub fn commit_lsn(&self) -> Lsn {
        self.commit
    }

    pub fn history(&self) -> &TermHistory {
        &self.history
    }

    /// Whether more log may be appended now (`Limits::pending_bytes_max`).
    pub fn has_room(&self) -> bool {
        self.log.end().checked_sub(self.majority_synced()).unwrap_or(0) < self.limits.pending_bytes_max
    }

    pub fn status(&self) -> Vec<AcceptorStatus> {
        self.peers.values().map(|peer| self.status_of(peer)).collect()
    }

    fn status_of(&self, peer: &Peer) -> AcceptorStatus {
        let state = match peer.mode {
            Mode::Down => AcceptorState::Down,
            _ if peer.greeting.is_some() && self.knows_members() && !self.counts(peer) => {
                AcceptorState::Learner
            }
            Mode::Streaming => AcceptorState::Streaming,
            Mode::CatchingUp { .. } | Mode::Stranded => AcceptorState::CatchingUp,
            Mode::Greeting | Mode::Waiting | Mode::Announced => AcceptorState::Joining,
        };
        let greeting = peer.greeting.as_ref();
        let flush_lsn = peer.acked.or(greeting.map(|g| g.flush_lsn)).unwrap_or_default();
        AcceptorStatus {
            node: peer.node(),
            address: peer.at.address.clone(),
            state,
            term: if peer.acked.is_some() { self.term } else { greeting.map_or(Term::ZERO, |g| g.term) },
            flush_lsn,
            commit_lsn: peer.commit,
            lag_bytes: self.log.end().checked_sub(flush_lsn).unwrap_or(0),
            pageserver: peer.pageserver,
        }
    }

    fn knows_members(&self) -> bool {
        !self.membership.members.is_empty()
    }

    /// Trap K16: a copy counts only in the life that the membership names.
    pub(super) fn counts(&self, peer: &Peer) -> bool {
        let Some(greeting) = &peer.greeting else { return false };
        self.counts_member(greeting.member)
    }

    pub(super) fn counts_member(&self, member: Member) -> bool {
        #[cfg(feature = "mutants")]
        if self.mutant == Some(super::Mutant::CountWiped) {
            return self.membership.members.iter().any(|m| m.node == member.node);
        }
        self.membership.contains(member)
    }

    fn connected(&mut self, node: NodeId, out: &mut Vec<Command>) {
        let term = if self.purpose == Purpose::Elect && self.phase != Phase::Leading {
            Term::ZERO
        } else {
            self.term
        };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.mode = Mode::Greeting;
        peer.vote = None;
        out.push(Command::Send { node, message: ToAcceptor::Greeting(Greeting { term }) });
    }

    fn disconnected(&mut self, node: NodeId, _out: &mut Vec<Command>) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.mode = Mode::Down;
        }
    }

    /// The timeline is made there as a learner's copy, once this proposer knows what it is.
    fn not_found(&mut self, node: NodeId, fresh: strata_common::Incarnation, out: &mut Vec<Command>) {
        let Some(facts) = self.facts.filter(|_| self.phase == Phase::Leading && self.ready) else { return };
        let known = self.peers.values().filter(|peer| peer.is_active() && peer.node() != node);
        let Some(start_lsn) = known.filter_map(|p| p.greeting.as_ref()).map(|g| g.oldest_lsn).min() else {
            return;
        };
        let copy = CreateCopy { incarnation: fresh, membership: self.membership.clone(), facts, start_lsn };
        out.push(Command::Create { node, copy });
    }

    pub(super) fn fence(&mut self, out: &mut Vec<Command>) {
        self.phase = Phase::Over;
        out.push(Command::Fenced { term: self.seen_term });
    }

    fn received(&mut self, node: NodeId, message: FromAcceptor, out: &mut Vec<Command>) {
        let told = match &message {
            FromAcceptor::Greeting(m) => m.term,
            FromAcceptor::Vote(m) => m.term,
            FromAcceptor::Elected(m) => m.term,
            FromAcceptor::Append(m) => m.term,
        };
        self.seen_term = self.seen_term.max(told);
        if told > self.term && self.owns_term() {
            return self.fence(out);
        }
        match message {
            FromAcceptor::Greeting(reply) => self.greeted(node, reply, out),
            FromAcceptor::Vote(reply) => self.voted(node, reply, out),
            FromAcceptor::Elected(reply) => self.announced(node, reply, out),
            FromAcceptor::Append(reply) => self.appended(node, reply, out),
        }
    }

    /// A higher term ends a term that is ours; a candidate has only lost.
    fn owns_term(&self) -> bool {
        self.phase == Phase::Leading || self.purpose != Purpose::Elect
    }

    pub(super) fn impossible(&mut self, reason: String, out: &mut Vec<Command>) {
        self.phase = Phase::Over;
        out.push(Command::Impossible { reason });
    }

    pub(super) fn say_ready(&mut self, append_lsn: Lsn, out: &mut Vec<Command>) {
        let Some(facts) = self.facts else { return };
        self.ready = true;
        self.log = LogWindow::starting_at(append_lsn);
        out.push(Command::Ready(Ready { term: self.term, start_lsn: self.start, append_lsn, facts }));
    }
}
