//! What the proposer knows of one acceptor.

use strata_common::{Lsn, NodeId};
use strata_proto::quorum::{GreetingReply, PageserverProgress, VoteReply};

use super::types::AcceptorAddress;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Down,
    /// The greeting is out.
    Greeting,
    /// Greeted; asked for its vote, or waiting for the term.
    Waiting,
    /// The history is out.
    Announced,
    /// In the term's log, fetching from peers up to here; `moved` tells whether it has advanced since the last tick.
    CatchingUp {
        until: Lsn,
        moved: bool,
    },
    /// In the term's log, but nobody who has what it needs is there.
    Stranded,
    Streaming,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub at: AcceptorAddress,
    pub mode: Mode,
    pub greeting: Option<GreetingReply>,
    pub vote: Option<VoteReply>,
    /// Durable there in this term's log, by its own word; stays when the connection goes.
    pub acked: Option<Lsn>,
    pub synced: Lsn,
    pub sent: Lsn,
    pub commit: Lsn,
    pub told_commit: Lsn,
    pub pageserver: PageserverProgress,
}

impl Peer {
    pub fn new(at: AcceptorAddress) -> Peer {
        Peer {
            at,
            mode: Mode::Down,
            greeting: None,
            vote: None,
            acked: None,
            synced: Lsn::INVALID,
            sent: Lsn::INVALID,
            commit: Lsn::INVALID,
            told_commit: Lsn::INVALID,
            pageserver: PageserverProgress::default(),
        }
    }

    pub fn node(&self) -> NodeId {
        self.at.node
    }

    /// In the term's log and connected.
    pub fn is_active(&self) -> bool {
        matches!(self.mode, Mode::CatchingUp { .. } | Mode::Stranded | Mode::Streaming)
    }

    pub fn flush(&self) -> Lsn {
        self.acked.unwrap_or(Lsn::INVALID)
    }
}
