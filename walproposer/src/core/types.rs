//! What goes into the proposer and what comes out.

use bytes::Bytes;
use strata_common::{Incarnation, Lsn, NodeId, Term};
use strata_proto::quorum::{Candidate, FromAcceptor, LogFacts, Membership, PageserverProgress, ToAcceptor};

/// Where a safekeeper answers: `host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcceptorAddress {
    pub node: NodeId,
    pub address: String,
}

/// How the proposer comes to its term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Wins a new term by votes.
    Elect,
    /// Goes on in a term that was won before; never asks for votes.
    Resume(Term),
}

/// Bounds, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Sent to one acceptor and not yet durable there.
    pub in_flight_bytes_max: u64,
    /// In one message.
    pub message_bytes_max: usize,
    /// Committed log kept for acceptors that lag; those further behind fetch from a peer.
    pub retained_bytes_max: u64,
    /// Appended log that no majority has on disk yet: more is not taken.
    pub pending_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            in_flight_bytes_max: 16 << 20,
            message_bytes_max: 1 << 20,
            retained_bytes_max: 16 << 20,
            pending_bytes_max: 32 << 20,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Connected {
        node: NodeId,
    },
    Disconnected {
        node: NodeId,
    },
    /// The node does not know the timeline. `fresh` is random, for a learner's copy.
    NotFound {
        node: NodeId,
        fresh: Incarnation,
    },
    Received {
        node: NodeId,
        message: FromAcceptor,
    },
    /// Ask for votes in a new term, as soon as a majority of members is there. `candidate` is random and fresh.
    Campaign {
        candidate: Candidate,
    },
    /// Log at the end of what was appended before; the first at `Ready::append_lsn`.
    Append {
        begin: Lsn,
        wal: Bytes,
    },
    /// About once a second.
    Tick,
}

/// A copy to be created where there is none; a learner, because no membership names its incarnation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateCopy {
    pub incarnation: Incarnation,
    pub membership: Membership,
    pub facts: LogFacts,
    pub start_lsn: Lsn,
}

/// The term is won, or found again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    pub term: Term,
    /// Where the term's own log begins.
    pub start_lsn: Lsn,
    /// Where the next append goes: everything below is on an acceptor that a majority or this term's election vouches for.
    pub append_lsn: Lsn,
    pub facts: LogFacts,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    Send {
        node: NodeId,
        message: ToAcceptor,
    },
    Create {
        node: NodeId,
        copy: CreateCopy,
    },
    Ready(Ready),
    /// Everything below is on a majority, for good.
    Committed {
        commit: Lsn,
    },
    /// The campaign failed; `term` is the highest that was seen. A new `Campaign` may follow.
    Lost {
        term: Term,
    },
    /// Another proposer has a higher term: this one is over.
    Fenced {
        term: Term,
    },
    /// The acceptors contradict each other or the term; not to be repaired by trying again.
    Impossible {
        reason: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcceptorState {
    Down,
    /// Connected; not yet in the term's log.
    Joining,
    /// Fetches from a peer what this proposer no longer has.
    CatchingUp,
    Streaming,
    /// As `CatchingUp` and `Streaming`, but neither votes nor counts (trap K16).
    Learner,
}

impl AcceptorState {
    pub fn name(self) -> &'static str {
        match self {
            AcceptorState::Down => "down",
            AcceptorState::Joining => "joining",
            AcceptorState::CatchingUp => "catching up",
            AcceptorState::Streaming => "streaming",
            AcceptorState::Learner => "learner",
        }
    }
}

/// One acceptor, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcceptorStatus {
    pub node: NodeId,
    pub address: String,
    pub state: AcceptorState,
    /// The highest term it has told.
    pub term: Term,
    pub flush_lsn: Lsn,
    pub commit_lsn: Lsn,
    /// Appended here and not durable there.
    pub lag_bytes: u64,
    pub pageserver: PageserverProgress,
}
