//! Coming to a term: greetings, votes, the choice of the donor, and the history that follows from it; or finding the history
//! of a term that was won before. Traps K2, K16; invariant SK-2.

use strata_common::{Lsn, NodeId, Term, TermHistory, TermStart};
use strata_proto::quorum::{Candidate, Elected, GreetingReply, ToAcceptor, VoteReply, VoteRequest};

use super::peer::Mode;
use super::proposer::{Phase, Proposer};
use super::types::{Command, Purpose};

impl Proposer {
    pub(super) fn campaign(&mut self, candidate: Candidate, out: &mut Vec<Command>) {
        if self.purpose != Purpose::Elect || self.phase == Phase::Leading {
            return;
        }
        self.phase = Phase::Gathering;
        self.candidate = Some(candidate);
        self.try_campaign(out);
    }

    pub(super) fn greeted(&mut self, node: NodeId, reply: GreetingReply, out: &mut Vec<Command>) {
        if *self.facts.get_or_insert(reply.facts) != reply.facts {
            let reason = format!("safekeeper {node} keeps another log under this timeline's id");
            return self.impossible(reason, out);
        }
        if reply.member.node != node {
            let reason =
                format!("safekeeper {} answers at the address of safekeeper {node}", reply.member.node);
            return self.impossible(reason, out);
        }
        if reply.membership.generation > self.membership.generation {
            if self.phase == Phase::Leading {
                let reason =
                    format!("safekeeper {node} knows a newer membership than this term was won with");
                return self.impossible(reason, out);
            }
            self.membership = reply.membership.clone();
        }
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.greeting.as_ref().is_some_and(|before| before.member != reply.member) {
            peer.acked = None;
        }
        peer.commit = reply.commit_lsn;
        peer.greeting = Some(reply);
        peer.mode = Mode::Waiting;
        match (&self.phase, self.purpose) {
            (Phase::Leading, _) => self.announce(node, out),
            (Phase::Voting, _) => self.ask_vote(node, out),
            (_, Purpose::Elect) => self.try_campaign(out),
            (_, Purpose::Resume(term)) => self.try_resume(term, out),
        }
    }

    fn greeted_members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.values().filter(|p| p.mode == Mode::Waiting && self.counts(p)).map(|p| p.node())
    }

    fn try_campaign(&mut self, out: &mut Vec<Command>) {
        let there: Vec<NodeId> = self.greeted_members().collect();
        if self.candidate.is_none()
            || self.membership.members.is_empty()
            || there.len() < self.membership.majority()
        {
            return;
        }
        if self.own_term.is_some_and(|own| self.seen_term > own) {
            return self.fence(out);
        }
        self.phase = Phase::Voting;
        self.term = self.seen_term.next();
        self.seen_term = self.term;
        self.own_term = self.own_term.map(|_| self.term);
        for peer in self.peers.values_mut() {
            peer.vote = None;
        }
        for node in there {
            self.ask_vote(node, out);
        }
    }

    fn ask_vote(&mut self, node: NodeId, out: &mut Vec<Command>) {
        let Some(candidate) = self.candidate else { return };
        if self.peers.get(&node).is_some_and(|peer| self.counts(peer)) {
            let generation = self.membership.generation;
            let message = ToAcceptor::Vote(VoteRequest { term: self.term, candidate, generation });
            out.push(Command::Send { node, message });
        }
    }

    pub(super) fn voted(&mut self, node: NodeId, reply: VoteReply, out: &mut Vec<Command>) {
        if self.phase != Phase::Voting || reply.term < self.term {
            return;
        }
        if reply.term > self.term {
            return self.lose(out);
        }
        if !self.peers.get(&node).is_some_and(|peer| self.counts(peer)) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.vote = Some(reply);
        }
        let votes = || self.peers.values().filter(|p| self.counts(p)).filter_map(|p| p.vote.as_ref());
        let (members, majority) = (self.membership.members.len(), self.membership.majority());
        if votes().filter(|vote| vote.granted).count() >= majority {
            self.win(out);
        } else if votes().filter(|vote| !vote.granted).count() > members - majority {
            self.lose(out);
        }
    }

    fn lose(&mut self, out: &mut Vec<Command>) {
        // Whoever has these votes is another candidate.
        if self.own_term.is_some() {
            return self.fence(out);
        }
        self.phase = Phase::Gathering;
        self.candidate = None;
        out.push(Command::Lost { term: self.seen_term });
    }

    /// Trap K2: of the majority that voted, the log of the highest last term, and among these the longest, holds all that was
    /// ever committed. The new term begins at its end.
    fn win(&mut self, out: &mut Vec<Command>) {
        let granted = || {
            let voters = self.peers.values().filter(|p| self.counts(p));
            voters.filter_map(|p| p.vote.as_ref()).filter(|vote| vote.granted)
        };
        let rank = |vote: &&VoteReply| self.donor_rank(vote);
        let Some(donor) = granted().max_by_key(rank) else { return };
        let mut entries = donor.history.0.clone();
        entries.push(TermStart { term: self.term, lsn: donor.flush_lsn });
        let start = donor.flush_lsn;
        let commit = granted().map(|vote| vote.commit_lsn).max().unwrap_or_default();
        assert!(
            commit <= start,
            "SK-1: the majority's best log ends at {start}, below what is committed, {commit}"
        );
        #[cfg(feature = "mutants")]
        let commit = self.mutant_commit(commit);
        self.commit = commit;
        self.lead(TermHistory(entries), start, out);
        self.say_ready(start, out);
        if commit.is_valid() {
            out.push(Command::Committed { commit });
        }
    }

    fn donor_rank(&self, vote: &VoteReply) -> (Term, Lsn) {
        #[cfg(feature = "mutants")]
        if self.mutant == Some(super::Mutant::DonorByLength) {
            return (Term::ZERO, vote.flush_lsn);
        }
        (vote.history.last_term(), vote.flush_lsn)
    }

    #[cfg(feature = "mutants")]
    fn mutant_commit(&self, commit: Lsn) -> Lsn {
        if self.mutant != Some(super::Mutant::CommitOldTerms) {
            return commit;
        }
        let votes = self.peers.values().filter(|p| self.counts(p)).filter_map(|p| p.vote.as_ref());
        let mut held: Vec<Lsn> = votes.filter(|vote| vote.granted).map(|vote| vote.flush_lsn).collect();
        held.sort();
        commit.max(held[held.len() - self.membership.majority()])
    }

    /// Any acceptor whose log has reached the term knows its history, and a term has but one.
    fn try_resume(&mut self, term: Term, out: &mut Vec<Command>) {
        let greetings = || self.peers.values().filter_map(|p| p.greeting.as_ref());
        let commit = greetings().map(|g| g.commit_lsn).max().unwrap_or_default();
        let Some(known) = greetings().find(|g| g.history.last_term() == term) else {
            if greetings().count() == self.peers.len() {
                self.impossible(format!("no safekeeper knows term {term}"), out);
            }
            return;
        };
        let history = known.history.clone();
        let start = history.0.last().map_or(Lsn::INVALID, |entry| entry.lsn);
        self.commit = commit;
        self.lead(history, start, out);
        if commit.is_valid() {
            out.push(Command::Committed { commit });
        }
    }

    fn lead(&mut self, history: TermHistory, start: Lsn, out: &mut Vec<Command>) {
        self.phase = Phase::Leading;
        self.history = history;
        self.start = start;
        let waiting = self.peers.values().filter(|peer| peer.mode == Mode::Waiting);
        for node in waiting.map(|peer| peer.node()).collect::<Vec<_>>() {
            self.announce(node, out);
        }
    }

    /// Said on every connection, also within the term: it sets where appends go on and cuts a partial record.
    pub(super) fn announce(&mut self, node: NodeId, out: &mut Vec<Command>) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.mode = Mode::Announced;
        let (term, generation, history) = (self.term, self.membership.generation, self.history.clone());
        out.push(Command::Send { node, message: ToAcceptor::Elected(Elected { term, generation, history }) });
    }
}
