//! A term at work: each acceptor is brought to the term's log and kept there; what a majority holds is committed.
//! Traps K3, K4, K7; invariants SK-1, SK-3.

use bytes::Bytes;
use strata_common::{Lsn, NodeId};
use strata_proto::quorum::{Append, AppendReply, CatchUp, ElectedReply, ToAcceptor};

use super::peer::Mode;
use super::proposer::{Phase, Proposer};
use super::types::Command;

impl Proposer {
    pub(super) fn announced(&mut self, node: NodeId, reply: ElectedReply, out: &mut Vec<Command>) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if self.phase != Phase::Leading || peer.mode != Mode::Announced || reply.term != self.term {
            return;
        }
        peer.acked = Some(reply.flush_lsn);
        (peer.synced, peer.commit) = (reply.flush_lsn, reply.commit_lsn);
        peer.told_commit = reply.commit_lsn;
        peer.mode = Mode::Stranded;
        self.count(out);
        self.route_all(out);
    }

    pub(super) fn appended(&mut self, node: NodeId, reply: AppendReply, out: &mut Vec<Command>) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if !peer.is_active() || reply.term != self.term {
            return;
        }
        if let Mode::CatchingUp { moved, .. } = &mut peer.mode {
            *moved |= reply.synced_lsn > peer.synced;
        }
        let news = peer.acked < Some(reply.flush_lsn);
        peer.acked = peer.acked.max(Some(reply.flush_lsn));
        peer.synced = peer.synced.max(reply.synced_lsn);
        peer.commit = peer.commit.max(reply.commit_lsn);
        peer.pageserver = reply.pageserver;
        if let Mode::CatchingUp { until, .. } = peer.mode
            && reply.flush_lsn >= until
        {
            peer.mode = Mode::Stranded;
        }
        if news {
            self.count(out);
            self.route_all(out);
        }
    }

    /// Positions of the members, highest first, that the term's log has reached by `position`; a majority is at the last.
    fn majority_of(&self, position: impl Fn(&super::peer::Peer) -> Option<Lsn>) -> Option<Lsn> {
        let mut reached: Vec<Lsn> =
            self.peers.values().filter(|p| self.counts(p)).filter_map(position).collect();
        reached.sort_by(|a, b| b.cmp(a));
        let needed = self.membership.majority();
        reached.get(needed - 1).copied()
    }

    /// Bytes on a majority, whole records or not; `Lsn::INVALID` before a majority is in the term's log.
    pub(super) fn majority_synced(&self) -> Lsn {
        let synced = self.majority_of(|peer| peer.acked.map(|flush| flush.max(peer.synced)));
        synced.unwrap_or(self.log.base()).max(self.log.base())
    }

    /// The rule of commitment. A member counts once this term's history is durable there (`acked`), and its flush counts only
    /// at or above the term's start: such a copy outranks every copy of an older term, and the history entry is the term's own.
    fn count(&mut self, out: &mut Vec<Command>) {
        let Some(held) = self.majority_of(|peer| peer.acked) else { return };
        if !self.ready {
            self.say_ready(held.max(self.start).max(self.commit), out);
        }
        let own = held >= self.start;
        #[cfg(feature = "mutants")]
        let own = own || self.mutant == Some(super::Mutant::CountBelowTermStart);
        if own && held > self.commit {
            self.commit = held;
            out.push(Command::Committed { commit: held });
        }
    }

    /// Decides for each acceptor that has just come to a halt whether it is streamed to or fetches from a peer.
    fn route_all(&mut self, out: &mut Vec<Command>) {
        if !self.ready {
            return;
        }
        let halted = self.peers.values().filter(|peer| peer.mode == Mode::Stranded);
        for node in halted.map(|peer| peer.node()).collect::<Vec<_>>() {
            self.route(node, out);
        }
    }

    fn route(&mut self, node: NodeId, out: &mut Vec<Command>) {
        let Some(peer) = self.peers.get(&node) else { return };
        let (flush, base) = (peer.flush(), self.log.base());
        // Up to a record's end at or above what is held here. Below the term's start peers have it by their own history.
        let until_lsn = self.commit.max(self.start);
        let mode = if flush >= base {
            Mode::Streaming
        } else {
            let peers = self.sources(node, flush, until_lsn);
            if peers.is_empty() {
                Mode::Stranded
            } else {
                let (term, generation) = (self.term, self.membership.generation);
                let message = ToAcceptor::CatchUp(CatchUp { term, generation, until_lsn, peers });
                out.push(Command::Send { node, message });
                Mode::CatchingUp { until: until_lsn, moved: true }
            }
        };
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.mode = mode;
            peer.sent = flush;
        }
    }

    /// Acceptors of this term's log that are further: first those that have all of it.
    fn sources(&self, node: NodeId, flush: Lsn, until: Lsn) -> Vec<String> {
        let others = self.peers.values().filter(|p| p.node() != node && p.is_active() && p.flush() > flush);
        let mut others: Vec<_> = others.collect();
        others.sort_by_key(|peer| std::cmp::Reverse(peer.flush().min(until)));
        others.into_iter().map(|peer| peer.at.address.clone()).collect()
    }

    /// Sends what there is: log within each acceptor's window, and the commit LSN to those who have not heard it.
    pub fn settle(&mut self, out: &mut Vec<Command>) {
        if self.phase != Phase::Leading || !self.ready {
            return;
        }
        self.log.trim(self.commit, self.limits.retained_bytes_max);
        for node in self.peers.keys().copied().collect::<Vec<_>>() {
            self.pump(node, out);
        }
    }

    fn pump(&mut self, node: NodeId, out: &mut Vec<Command>) {
        let (commit, term, generation) = (self.commit, self.term, self.membership.generation);
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.is_active()) else { return };
        let append = |begin_lsn, wal| {
            let message = ToAcceptor::Append(Append { term, generation, begin_lsn, commit_lsn: commit, wal });
            Command::Send { node, message }
        };
        if peer.mode == Mode::Streaming {
            let limit = peer.synced.max(peer.flush()) + self.limits.in_flight_bytes_max;
            if peer.sent < self.log.base() {
                // It was too slow for the window: the announcement tells where it is, and it fetches from a peer.
                return self.announce(node, out);
            }
            while peer.sent < self.log.end() && peer.sent < limit {
                let wal = self.log.read(peer.sent, self.limits.message_bytes_max);
                let begin = peer.sent;
                peer.sent = begin + wal.len() as u64;
                peer.told_commit = commit;
                out.push(append(begin, wal));
            }
        }
        if peer.told_commit < commit {
            peer.told_commit = commit;
            out.push(append(Lsn::INVALID, Bytes::new()));
        }
    }

    /// Asks everybody for a sign of life, and sends those who stand still to other peers.
    pub(super) fn tick(&mut self, out: &mut Vec<Command>) {
        if self.phase != Phase::Leading {
            return;
        }
        for peer in self.peers.values_mut() {
            if let Mode::CatchingUp { moved, .. } = &mut peer.mode
                && !std::mem::take(moved)
            {
                peer.mode = Mode::Stranded;
            }
        }
        self.route_all(out);
        let (commit_lsn, term, generation) = (self.commit, self.term, self.membership.generation);
        for peer in self.peers.values().filter(|peer| peer.is_active()) {
            let begin_lsn = peer.sent.max(self.start);
            let message =
                ToAcceptor::Append(Append { term, generation, begin_lsn, commit_lsn, wal: Bytes::new() });
            out.push(Command::Send { node: peer.node(), message });
        }
    }
}
