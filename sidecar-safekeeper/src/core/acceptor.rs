//! The acceptor of one timeline: keeps term, vote, history and positions, and decides what to write, cut and answer.
//!
//! Anything that must be durable before an answer (a vote, a new history, a cut) is an operation (`op`): while one runs,
//! later messages wait, so every message is judged against durable state. Appends do not wait for each other: each is
//! written at once, and one sync acknowledges all that it covers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use strata_common::invariants::Invariant;
use strata_common::{Lsn, NodeId, Term};
use strata_proto::quorum::{
    Append, AppendReply, CatchUp, FromAcceptor, GreetingReply, Member, PageserverProgress, ToAcceptor,
};

use super::divergence::covered;
use super::op::Op;
use super::types::{Command, ConnId, DurableState, Event, FetchId, PersistId, ReadLimit, Refusal};

/// Most messages that wait for a running operation; a proposer sends a handful before it needs an answer.
const DEFERRED_MAX: usize = 4096;

/// A fetch from peers that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunningFetch {
    pub id: FetchId,
    pub until: Lsn,
}

#[derive(Debug)]
pub struct Acceptor {
    pub(super) node: NodeId,
    pub(super) state: DurableState,
    /// Bytes handed to the disk, bytes durable, and the end of whole durable records: `flush <= synced <= written`.
    pub(super) written: Lsn,
    pub(super) synced: Lsn,
    pub(super) flush: Lsn,
    /// The highest commit LSN a proposer told; ours follows as far as our log goes.
    pub(super) told_commit: Lsn,
    saved_commit: Lsn,
    /// The connection whose proposer announced the history in force: only it appends.
    pub(super) session: Option<ConnId>,
    pub(super) fetch: Option<RunningFetch>,
    pub(super) op: Option<Op>,
    deferred: VecDeque<(ConnId, ToAcceptor)>,
    last_persist: PersistId,
    last_fetch: FetchId,
    pageservers: BTreeMap<u64, PageserverProgress>,
    /// An earlier trimming horizon: log below it goes once the horizon is `keep_bytes` further.
    trim_mark: Lsn,
    stopped: Option<String>,
    #[cfg(feature = "mutants")]
    pub mutant: Option<super::Mutant>,
}

impl Acceptor {
    /// `flush` is the end of the last whole record on disk, already durable; what followed it has been cut.
    /// Disks that lost what was synced are told by a log that ends below the commit LSN: such a copy answers nothing.
    pub fn open(node: NodeId, state: DurableState, flush: Lsn) -> Acceptor {
        let lost = flush < state.commit_lsn || flush < state.oldest_lsn;
        let stopped = lost.then(|| {
            format!("the log ends at {flush}, below the commit LSN {} that it once had", state.commit_lsn)
        });
        Acceptor {
            node,
            written: flush,
            synced: flush,
            flush,
            told_commit: state.commit_lsn,
            saved_commit: state.commit_lsn,
            session: None,
            fetch: None,
            op: None,
            deferred: VecDeque::new(),
            last_persist: PersistId(0),
            last_fetch: FetchId(0),
            pageservers: BTreeMap::new(),
            trim_mark: state.oldest_lsn,
            stopped,
            state,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }

    /// One event in, the commands that follow from it out, to be performed in order.
    pub fn step(&mut self, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        if self.stopped.is_some() {
            self.step_stopped(event, &mut out);
            return out;
        }
        match event {
            Event::Message { conn, message } => self.message(conn, message, &mut out),
            Event::Disconnected { conn } => self.disconnected(conn, &mut out),
            Event::StatePersisted(id) => self.op_persisted(id, &mut out),
            Event::WalSynced { written, flush } => self.synced(written, flush, &mut out),
            Event::WalRejected { end, reason } => self.rejected(end, reason, &mut out),
            Event::WalCut => self.op_cut(&mut out),
            Event::CutRefused => self.op_cut_refused(&mut out),
            Event::DiskFailed { reason } => self.stop(reason, &mut out),
            Event::Fetched { fetch, begin, wal } => self.fetched(fetch, begin, wal, &mut out),
            Event::FetchFailed { fetch } => self.fetch_failed(fetch, &mut out),
            Event::FetchGap { fetch, oldest } => self.fetch_gap(fetch, oldest, &mut out),
            Event::Progress { pageserver, progress } => {
                self.pageservers.insert(pageserver, progress);
            }
            Event::PageserverGone { pageserver } => {
                self.pageservers.remove(&pageserver);
            }
            Event::TrimDue { slowest_reader, keep_bytes } => self.trim(slowest_reader, keep_bytes, &mut out),
            Event::CommitSaveDue => {
                if self.op.is_none() && self.saved_commit < self.state.commit_lsn {
                    self.persist(&mut out);
                }
            }
        }
        while self.op.is_none() && self.stopped.is_none() {
            let Some((conn, message)) = self.deferred.pop_front() else { break };
            self.judge(conn, message, &mut out);
        }
        self.check();
        out
    }

    /// May be read from outside at any time.
    pub fn state(&self) -> &DurableState {
        &self.state
    }

    pub fn flush_lsn(&self) -> Lsn {
        self.flush
    }

    pub fn commit_lsn(&self) -> Lsn {
        self.state.commit_lsn
    }

    pub fn pageservers(&self) -> &BTreeMap<u64, PageserverProgress> {
        &self.pageservers
    }

    /// Why this copy acknowledges nothing any more, if so.
    pub fn problem(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    pub fn member(&self) -> Member {
        Member { node: self.node, incarnation: self.state.incarnation }
    }

    /// Whether this copy votes and counts (trap K16).
    pub fn is_voter(&self) -> bool {
        #[cfg(feature = "mutants")]
        if self.mutant == Some(super::Mutant::WipedVotes) {
            return self.state.membership.members.iter().any(|m| m.node == self.node);
        }
        self.state.membership.contains(self.member())
    }

    /// Up to where log may be read: `Term::ZERO` reads what is committed, a term reads what is durable of exactly that term's
    /// log, which is only known once its history is in force here.
    pub fn read_limit(&self, term: Term) -> Result<ReadLimit, Refusal> {
        if let Some(reason) = &self.stopped {
            return Err(Refusal::Stopped(reason.clone()));
        }
        let (oldest, commit) = (self.state.oldest_lsn, self.state.commit_lsn);
        let last_term = self.state.history.term_at(self.flush);
        if term == Term::ZERO {
            return Ok(ReadLimit { oldest, end: commit, commit, last_term });
        }
        if term != self.state.term {
            return Err(Refusal::Term { known: self.state.term, asked: term });
        }
        if self.op.is_some() || self.state.history.last_term() != term {
            return Err(Refusal::NotAnnounced);
        }
        Ok(ReadLimit { oldest, end: self.flush, commit, last_term })
    }

    fn message(&mut self, conn: ConnId, message: ToAcceptor, out: &mut Vec<Command>) {
        if self.op.is_none() {
            self.judge(conn, message, out);
        } else if self.deferred.len() < DEFERRED_MAX {
            self.deferred.push_back((conn, message));
        } else {
            out.push(Command::Close { conn, why: Refusal::Busy });
        }
    }

    fn judge(&mut self, conn: ConnId, message: ToAcceptor, out: &mut Vec<Command>) {
        match message {
            ToAcceptor::Greeting(_) => {
                let message = FromAcceptor::Greeting(self.greeting_reply());
                out.push(Command::Reply { conn, message });
            }
            ToAcceptor::Vote(request) => self.vote(conn, request, out),
            ToAcceptor::Elected(elected) => self.elected(conn, elected, out),
            ToAcceptor::Append(append) => self.append(conn, append, out),
            ToAcceptor::CatchUp(catch_up) => self.catch_up(conn, catch_up, out),
        }
    }

    fn greeting_reply(&self) -> GreetingReply {
        GreetingReply {
            member: self.member(),
            membership: self.state.membership.clone(),
            term: self.state.term,
            start_lsn: self.state.start_lsn,
            flush_lsn: self.flush,
            commit_lsn: self.state.commit_lsn,
            oldest_lsn: self.state.oldest_lsn,
            history: self.shown_history(),
            facts: self.state.facts,
        }
    }

    pub(super) fn shown_history(&self) -> strata_common::TermHistory {
        #[cfg(feature = "mutants")]
        if self.mutant == Some(super::Mutant::HistoryUncut) {
            return self.state.history.clone();
        }
        covered(&self.state.history, self.flush)
    }

    /// Trap K7: exactly the current term and generation, from the connection that announced the term, without a gap.
    fn append(&mut self, conn: ConnId, append: Append, out: &mut Vec<Command>) {
        if append.term < self.state.term {
            out.push(self.append_reply(conn));
            return;
        }
        if let Err(why) = self.check_session(conn, append.term, append.generation.0) {
            out.push(Command::Close { conn, why });
            return;
        }
        if append.wal.is_empty() {
            self.tell_commit(append.commit_lsn, out);
            if append.begin_lsn.is_valid() {
                out.push(self.append_reply(conn));
            }
            return;
        }
        if append.begin_lsn != self.written {
            let why = Refusal::Gap { expected: self.written, got: append.begin_lsn };
            out.push(Command::Close { conn, why });
            return;
        }
        self.stop_fetch(out);
        self.write(append.wal, out);
        self.tell_commit(append.commit_lsn, out);
        #[cfg(feature = "mutants")]
        if self.mutant == Some(super::Mutant::AckBeforeSync) {
            let (flush, synced) = (self.flush, self.written);
            self.flush = synced;
            out.push(self.append_reply(conn));
            self.flush = flush;
        }
    }

    fn check_session(&self, conn: ConnId, term: Term, generation: u32) -> Result<(), Refusal> {
        let known = self.state.membership.generation.0;
        if generation != known {
            return Err(Refusal::Generation { known, asked: generation });
        }
        if term != self.state.term {
            return Err(Refusal::Term { known: self.state.term, asked: term });
        }
        if self.session != Some(conn) {
            return Err(Refusal::NotAnnounced);
        }
        assert_eq!(self.state.history.last_term(), term, "an announced term is the last of the history");
        Ok(())
    }

    /// Every write is followed by a sync, so waiting for `synced >= written` always ends.
    fn write(&mut self, wal: bytes::Bytes, out: &mut Vec<Command>) {
        let begin = self.written;
        self.written = begin + wal.len() as u64;
        out.push(Command::WriteWal { begin, wal });
        out.push(Command::SyncWal);
    }

    fn synced(&mut self, written: Lsn, flush: Lsn, out: &mut Vec<Command>) {
        assert!(written <= self.written, "{}: {written} was never written", Invariant::Sk3);
        if written <= self.synced {
            return;
        }
        assert!(flush >= self.flush && flush <= written, "{}: flush {flush} of {written}", Invariant::Sk3);
        self.synced = written;
        if flush > self.flush {
            self.flush = flush;
            out.push(Command::Flushed { flush });
        }
        if self.fetch.is_some_and(|fetch| flush >= fetch.until) {
            self.fetch = None;
        }
        if self.op.is_some() {
            self.op_synced(out);
            return;
        }
        self.advance_commit(out);
        if let Some(conn) = self.session {
            out.push(self.append_reply(conn));
        }
    }

    /// Log that cannot be is its sender's fault and not the disk's: the sender's connection ends, and nothing else does. What is
    /// dropped was never counted. An operation that waits for the log to be durable goes on with the log as it is now.
    fn rejected(&mut self, end: Lsn, reason: String, out: &mut Vec<Command>) {
        assert!(end >= self.flush && end <= self.written, "{}: log up to {end} is left", Invariant::Sk3);
        (self.written, self.synced) = (end, end);
        if end > self.flush {
            self.flush = end;
            out.push(Command::Flushed { flush: end });
        }
        self.stop_fetch(out);
        if let Some(conn) = self.session.take() {
            out.push(Command::Close { conn, why: Refusal::Content(reason) });
        }
        self.op_synced(out);
    }

    fn tell_commit(&mut self, commit: Lsn, out: &mut Vec<Command>) {
        self.told_commit = self.told_commit.max(commit);
        self.advance_commit(out);
    }

    /// Our log up to `flush` is a prefix of the log of the proposer whose history is in force, so what it says is committed
    /// is committed here as far as we have it.
    pub(super) fn advance_commit(&mut self, out: &mut Vec<Command>) {
        let commit = self.told_commit.min(self.flush);
        if commit > self.state.commit_lsn {
            self.state.commit_lsn = commit;
            out.push(Command::Committed { commit });
        }
    }

    pub(super) fn append_reply(&self, conn: ConnId) -> Command {
        let message = FromAcceptor::Append(AppendReply {
            term: self.state.term,
            flush_lsn: self.flush,
            synced_lsn: self.synced,
            commit_lsn: self.state.commit_lsn,
            pageserver: self.best_pageserver(),
        });
        Command::Reply { conn, message }
    }

    fn best_pageserver(&self) -> PageserverProgress {
        self.pageservers.values().max_by_key(|p| p.received).copied().unwrap_or_default()
    }

    fn catch_up(&mut self, conn: ConnId, request: CatchUp, out: &mut Vec<Command>) {
        if request.term < self.state.term {
            out.push(self.append_reply(conn));
            return;
        }
        if let Err(why) = self.check_session(conn, request.term, request.generation.0) {
            out.push(Command::Close { conn, why });
            return;
        }
        self.stop_fetch(out);
        if request.until_lsn <= self.written {
            out.push(self.append_reply(conn));
            return;
        }
        self.last_fetch = FetchId(self.last_fetch.0 + 1);
        let (fetch, until) = (self.last_fetch, request.until_lsn);
        self.fetch = Some(RunningFetch { id: fetch, until });
        let from = self.written;
        out.push(Command::Fetch { fetch, term: request.term, from, until, peers: request.peers });
    }

    fn fetched(&mut self, fetch: FetchId, begin: Lsn, wal: bytes::Bytes, out: &mut Vec<Command>) {
        let Some(running) = self.fetch.filter(|running| running.id == fetch) else { return };
        if self.op.is_some() || begin != self.written {
            self.stop_fetch(out);
            return;
        }
        let room = running.until.checked_sub(begin).unwrap_or(0).min(wal.len() as u64);
        if room > 0 {
            self.write(wal.slice(..room as usize), out);
        }
    }

    pub(super) fn fetch_failed(&mut self, fetch: FetchId, out: &mut Vec<Command>) {
        if self.fetch.is_some_and(|running| running.id == fetch) {
            self.fetch = None;
            out.extend(self.session.map(|conn| self.append_reply(conn)));
        }
    }

    pub(super) fn stop_fetch(&mut self, out: &mut Vec<Command>) {
        if let Some(running) = self.fetch.take() {
            out.push(Command::StopFetch { fetch: running.id });
        }
    }

    fn disconnected(&mut self, conn: ConnId, out: &mut Vec<Command>) {
        self.deferred.retain(|(from, _)| *from != conn);
        if self.session == Some(conn) {
            self.session = None;
            self.stop_fetch(out);
        }
    }

    /// Trap K14: log goes only when it is committed, every pageserver has it in the object store, and no reader needs it.
    fn trim(&mut self, slowest_reader: Option<Lsn>, keep_bytes: u64, out: &mut Vec<Command>) {
        let Some(remote) = self.pageservers.values().map(|p| p.remote_consistent).min() else { return };
        let horizon = remote.min(self.state.commit_lsn);
        // Only record ends are places to begin, and the horizons are such: an earlier one, passed by enough, is cut to.
        if self.op.is_some() || horizon.checked_sub(self.trim_mark).is_none_or(|passed| passed < keep_bytes) {
            return;
        }
        let below = if keep_bytes == 0 { horizon } else { self.trim_mark };
        if slowest_reader.is_some_and(|reader| reader < below) {
            return;
        }
        self.trim_mark = horizon;
        if below <= self.state.oldest_lsn {
            return;
        }
        self.state.oldest_lsn = below;
        self.persist(out);
        out.push(Command::RemoveWal { below });
    }

    pub(super) fn persist(&mut self, out: &mut Vec<Command>) -> PersistId {
        self.saved_commit = self.state.commit_lsn;
        self.persist_as(self.state.clone(), out)
    }

    pub(super) fn persist_as(&mut self, state: DurableState, out: &mut Vec<Command>) -> PersistId {
        self.last_persist = PersistId(self.last_persist.0 + 1);
        let id = self.last_persist;
        out.push(Command::PersistState { id, state: Box::new(state) });
        id
    }

    /// Trap K12: for good, until the process has restarted and looked at its disk again.
    fn stop(&mut self, reason: String, out: &mut Vec<Command>) {
        self.stop_fetch(out);
        let mut conns: BTreeSet<ConnId> = self.deferred.drain(..).map(|(conn, _)| conn).collect();
        conns.extend(self.session);
        conns.extend(self.op_conn());
        for conn in conns {
            out.push(Command::Close { conn, why: Refusal::Stopped(reason.clone()) });
        }
        self.session = None;
        self.op = None;
        self.stopped = Some(reason);
    }

    fn step_stopped(&self, event: Event, out: &mut Vec<Command>) {
        if let (Event::Message { conn, .. }, Some(reason)) = (event, &self.stopped) {
            out.push(Command::Close { conn, why: Refusal::Stopped(reason.clone()) });
        }
    }

    /// Order of positions, after every step.
    fn check(&self) {
        assert!(
            self.flush <= self.synced && self.synced <= self.written,
            "{}: order of positions",
            Invariant::Sk3
        );
        assert!(self.state.commit_lsn <= self.flush, "{}: commit above flush", Invariant::Sk3);
        assert!(self.state.oldest_lsn <= self.state.commit_lsn, "{}: removed above commit", Invariant::Sk4);
    }
}
