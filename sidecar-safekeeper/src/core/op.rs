//! Operations that must reach the disk in steps before they are answered: a vote, a new term's history, a restart of the log.
//!
//! One runs at a time. Each stage waits for one completion; a crash between two stages leaves a state that is safe to open:
//! a longer or shorter log under its old history, or a term without a vote. Traps K1, K5, K6; invariants SK-4, SK-5.

use strata_common::invariants::Invariant;
use strata_common::{Lsn, Term};
use strata_proto::quorum::{Elected, ElectedReply, FromAcceptor, VoteReply, VoteRequest};

use super::acceptor::Acceptor;
use super::divergence::divergence;
use super::types::{Command, ConnId, FetchId, PersistId, Refusal};

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// K1: flush the log, persist term and vote, answer.
    Vote { conn: ConnId, request: VoteRequest, stage: VoteStage },
    /// K6: flush the log, persist the term, cut the log, persist the history, answer.
    Elect { conn: ConnId, elected: Elected, stage: ElectStage },
    /// The peers' log begins above ours: persist where ours begins anew, drop it, go on.
    Restart { at: Lsn, stage: RestartStage },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum VoteStage {
    Sync,
    Persist(PersistId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ElectStage {
    Sync,
    Term { id: PersistId, cut: Lsn },
    Cut { to: Lsn },
    History(PersistId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RestartStage {
    Persist(PersistId),
    Cut,
}

impl Acceptor {
    pub(super) fn vote(&mut self, conn: ConnId, request: VoteRequest, out: &mut Vec<Command>) {
        let known = self.state.membership.generation.0;
        if request.generation.0 != known {
            let why = Refusal::Generation { known, asked: request.generation.0 };
            out.push(Command::Close { conn, why });
            return;
        }
        let same = request.term == self.state.term && self.state.vote == Some(request.candidate);
        if same || !self.is_voter() || request.term <= self.state.term {
            let granted = same && self.is_voter();
            out.push(self.vote_reply(conn, granted));
            return;
        }
        self.session = None;
        self.stop_fetch(out);
        self.op = Some(Op::Vote { conn, request, stage: VoteStage::Sync });
        self.op_synced(out);
    }

    fn vote_reply(&self, conn: ConnId, granted: bool) -> Command {
        let message = FromAcceptor::Vote(VoteReply {
            term: self.state.term,
            granted,
            flush_lsn: self.flush,
            commit_lsn: self.state.commit_lsn,
            history: self.shown_history(),
        });
        Command::Reply { conn, message }
    }

    pub(super) fn elected(&mut self, conn: ConnId, elected: Elected, out: &mut Vec<Command>) {
        if elected.term < self.state.term {
            out.push(self.elected_reply(conn));
            return;
        }
        if let Err(why) = self.check_announcement(&elected) {
            out.push(Command::Close { conn, why });
            return;
        }
        self.session = None;
        self.stop_fetch(out);
        self.op = Some(Op::Elect { conn, elected, stage: ElectStage::Sync });
        self.op_synced(out);
    }

    fn check_announcement(&self, elected: &Elected) -> Result<(), Refusal> {
        let known = self.state.membership.generation.0;
        if elected.generation.0 != known {
            return Err(Refusal::Generation { known, asked: elected.generation.0 });
        }
        if elected.term == Term::ZERO || elected.history.last_term() != elected.term {
            return Err(Refusal::History(format!("it does not end in term {}", elected.term)));
        }
        let entries = &elected.history.0;
        if entries.windows(2).any(|pair| pair[0].term >= pair[1].term || pair[0].lsn > pair[1].lsn) {
            return Err(Refusal::History("it is not in the order of terms".to_owned()));
        }
        let ours = &self.state.history;
        if ours.last_term() > elected.term || (ours.last_term() == elected.term && *ours != elected.history) {
            return Err(Refusal::History(format!("term {} has another one here", elected.term)));
        }
        Ok(())
    }

    fn elected_reply(&self, conn: ConnId) -> Command {
        let message = FromAcceptor::Elected(ElectedReply {
            term: self.state.term,
            flush_lsn: self.flush,
            commit_lsn: self.state.commit_lsn,
        });
        Command::Reply { conn, message }
    }

    /// The log is durable as far as it was written, if it is: operations that wait for that go on.
    pub(super) fn op_synced(&mut self, out: &mut Vec<Command>) {
        if self.synced < self.written {
            return;
        }
        match self.op.clone() {
            Some(Op::Vote { conn, request, stage: VoteStage::Sync }) => {
                self.state.term = request.term;
                self.state.vote = Some(request.candidate);
                #[cfg(feature = "mutants")]
                if self.mutant == Some(super::Mutant::VoteBeforePersist) {
                    out.push(self.vote_reply(conn, true));
                    self.persist(out);
                    self.op = None;
                    return;
                }
                let stage = VoteStage::Persist(self.persist(out));
                self.op = Some(Op::Vote { conn, request, stage });
            }
            Some(Op::Elect { conn, elected, stage: ElectStage::Sync }) => {
                self.elect_flushed(conn, elected, out)
            }
            _ => {}
        }
    }

    fn elect_flushed(&mut self, conn: ConnId, elected: Elected, out: &mut Vec<Command>) {
        let oldest = self.state.oldest_lsn;
        let to = divergence(&self.state.history, self.flush, &elected.history, oldest);
        #[cfg(feature = "mutants")]
        let to = self.mutant_divergence(to, &elected);
        let commit = self.state.commit_lsn;
        if to < commit && !self.ignores_commit() {
            // SK-4: either side is broken; this copy keeps what it has and says so.
            out.push(Command::Close { conn, why: Refusal::BelowCommit { divergence: to, commit } });
            self.op = None;
            return;
        }
        let stage = if self.written > to && elected.term > self.state.term {
            self.state.term = elected.term;
            self.state.vote = None;
            ElectStage::Term { id: self.persist(out), cut: to }
        } else {
            self.elect_cut(&elected, to, out)
        };
        self.op = Some(Op::Elect { conn, elected, stage });
        self.op_settle(out);
    }

    fn elect_cut(&mut self, elected: &Elected, to: Lsn, out: &mut Vec<Command>) -> ElectStage {
        #[cfg(feature = "mutants")]
        if self.mutant == Some(super::Mutant::HistoryBeforeTruncation) && self.written > to {
            self.state.history = elected.history.clone();
            self.persist(out);
        }
        if self.written > to {
            out.push(Command::TruncateWal { to, known: self.state.commit_lsn });
            return ElectStage::Cut { to };
        }
        self.elect_history(elected, out)
    }

    /// Nothing of the old log is left above the divergence point: the new history may take the old one's place.
    fn elect_history(&mut self, elected: &Elected, out: &mut Vec<Command>) -> ElectStage {
        if self.state.history == elected.history && self.state.term == elected.term {
            return ElectStage::History(PersistId(0));
        }
        if self.state.term != elected.term {
            self.state.term = elected.term;
            self.state.vote = None;
        }
        self.state.history = elected.history.clone();
        ElectStage::History(self.persist(out))
    }

    /// Finishes an announcement that changed nothing durable.
    fn op_settle(&mut self, out: &mut Vec<Command>) {
        if let Some(Op::Elect { stage: ElectStage::History(PersistId(0)), .. }) = self.op {
            self.op_persisted(PersistId(0), out);
        }
    }

    pub(super) fn op_persisted(&mut self, done: PersistId, out: &mut Vec<Command>) {
        match self.op.clone() {
            Some(Op::Vote { conn, stage: VoteStage::Persist(id), .. }) if done >= id => {
                self.op = None;
                out.push(self.vote_reply(conn, true));
            }
            Some(Op::Elect { conn, elected, stage: ElectStage::Term { id, cut } }) if done >= id => {
                let stage = self.elect_cut(&elected, cut, out);
                self.op = Some(Op::Elect { conn, elected, stage });
                self.op_settle(out);
            }
            Some(Op::Elect { conn, stage: ElectStage::History(id), .. }) if done >= id => {
                self.op = None;
                self.session = Some(conn);
                self.told_commit = self.state.commit_lsn;
                out.push(self.elected_reply(conn));
            }
            Some(Op::Restart { at, stage: RestartStage::Persist(id) }) if done >= id => {
                out.push(Command::ResetWal { at });
                self.op = Some(Op::Restart { at, stage: RestartStage::Cut });
            }
            _ => {}
        }
    }

    pub(super) fn op_cut(&mut self, out: &mut Vec<Command>) {
        match self.op.clone() {
            Some(Op::Elect { conn, elected, stage: ElectStage::Cut { to } }) => {
                assert!(
                    to >= self.state.commit_lsn || self.ignores_commit(),
                    "{}: cut to {to}",
                    Invariant::Sk4
                );
                (self.written, self.synced, self.flush) = (to, to, to);
                let stage = self.elect_history(&elected, out);
                self.op = Some(Op::Elect { conn, elected, stage });
                self.op_settle(out);
            }
            Some(Op::Restart { at, stage: RestartStage::Cut }) => {
                (self.written, self.synced, self.flush) = (at, at, at);
                self.state.oldest_lsn = at;
                self.state.commit_lsn = self.state.commit_lsn.max(at);
                self.op = None;
                out.push(Command::Flushed { flush: at });
                out.push(Command::Committed { commit: self.state.commit_lsn });
                out.extend(self.session.map(|conn| self.append_reply(conn)));
            }
            _ => {}
        }
    }

    /// Positions in histories are where whole records end (trap K8); a proposer that says otherwise is broken. The log stays whole and
    /// under its old history; a higher term is known by now, as if the proposer had gone away.
    pub(super) fn op_cut_refused(&mut self, out: &mut Vec<Command>) {
        let Some(Op::Elect { conn, stage: ElectStage::Cut { to }, .. }) = self.op.clone() else { return };
        self.op = None;
        let why = Refusal::History(format!("it leaves the log that is here at {to}, inside a record"));
        out.push(Command::Close { conn, why });
    }

    /// Log that all peers have removed is committed and in the object store (trap K14): this copy need not have it either.
    /// Crash between the two steps: `oldest_lsn` lies above the log's end, and the shell drops the log on opening.
    pub(super) fn fetch_gap(&mut self, fetch: FetchId, oldest: Lsn, out: &mut Vec<Command>) {
        let Some(running) = self.fetch.filter(|running| running.id == fetch) else { return };
        if self.op.is_some() || self.synced < self.written || oldest <= self.flush || oldest > running.until {
            self.fetch_failed(fetch, out);
            return;
        }
        self.fetch = None;
        let mut state = self.state.clone();
        (state.oldest_lsn, state.commit_lsn) = (oldest, state.commit_lsn.max(oldest));
        let id = self.persist_as(state, out);
        self.op = Some(Op::Restart { at: oldest, stage: RestartStage::Persist(id) });
    }

    pub(super) fn op_conn(&self) -> Option<ConnId> {
        match &self.op {
            Some(Op::Vote { conn, .. } | Op::Elect { conn, .. }) => Some(*conn),
            _ => None,
        }
    }

    fn ignores_commit(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutant == Some(super::Mutant::TruncateBelowCommit);
        #[cfg(not(feature = "mutants"))]
        false
    }

    #[cfg(feature = "mutants")]
    fn mutant_divergence(&self, to: Lsn, elected: &Elected) -> Lsn {
        if self.mutant != Some(super::Mutant::TruncateBelowCommit) || self.state.history == elected.history {
            return to;
        }
        let shared = self.state.history.0.iter().zip(&elected.history.0).take_while(|(a, b)| a == b).last();
        shared.map_or(to, |(entry, _)| entry.lsn.min(to).max(self.state.oldest_lsn))
    }
}
