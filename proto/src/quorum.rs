//! The words of the consensus between a proposer and its acceptors, with our own types instead of plain numbers.
//!
//! Both pure engines (`sidecar-safekeeper/src/core`, `walproposer/src/core`), their shells and the simulator speak these;
//! `quorum_wire` turns them into the messages of `safekeeper.proto` and back. What each means is in `docs/consensus.md`.
//! Positions named `flush` and `commit` are at a record's end (trap K8).

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use strata_common::{Incarnation, Lsn, MembershipGeneration, NodeId, SystemId, Term, TermHistory};

/// Who asks for votes: 16 random bytes, fresh for every campaign. A vote is for one candidate in a term.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate(pub [u8; 16]);

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// One copy of a timeline: a node in one of its lives (trap K16).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    pub incarnation: Incarnation,
}

/// The copies that vote and count. Every other copy is a learner.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Membership {
    pub generation: MembershipGeneration,
    pub members: Vec<Member>,
}

impl Membership {
    pub fn contains(&self, member: Member) -> bool {
        self.members.contains(&member)
    }

    /// How many members are more than half.
    pub fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }
}

/// What a timeline's log is a log of; equal on all its copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogFacts {
    pub system_id: SystemId,
    /// As in `server_version_num`: 170011.
    pub pg_version_num: u32,
    pub wal_segment_bytes: u32,
}

/// Where the pageservers of a timeline are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PageserverProgress {
    pub received: Lsn,
    pub disk_consistent: Lsn,
    pub remote_consistent: Lsn,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToAcceptor {
    Greeting(Greeting),
    Vote(VoteRequest),
    Elected(Elected),
    Append(Append),
    CatchUp(CatchUp),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromAcceptor {
    Greeting(GreetingReply),
    Vote(VoteReply),
    Elected(ElectedReply),
    Append(AppendReply),
}

/// First message of a connection. The connection's timeline is known to the shell, not repeated here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// Of a proposer that resumes; zero before an election.
    pub term: Term,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GreetingReply {
    pub member: Member,
    pub membership: Membership,
    /// The highest term that this acceptor has made durable.
    pub term: Term,
    pub start_lsn: Lsn,
    pub flush_lsn: Lsn,
    pub commit_lsn: Lsn,
    pub oldest_lsn: Lsn,
    /// Cut to what the log covers.
    pub history: TermHistory,
    pub facts: LogFacts,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoteRequest {
    pub term: Term,
    pub candidate: Candidate,
    pub generation: MembershipGeneration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VoteReply {
    /// Highest term this acceptor knows, after the answer.
    pub term: Term,
    pub granted: bool,
    pub flush_lsn: Lsn,
    pub commit_lsn: Lsn,
    /// Cut to what the log covers.
    pub history: TermHistory,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elected {
    pub term: Term,
    pub generation: MembershipGeneration,
    /// Its last entry is (`term`, the term's start).
    pub history: TermHistory,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ElectedReply {
    pub term: Term,
    /// After truncation: where appends go on.
    pub flush_lsn: Lsn,
    pub commit_lsn: Lsn,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Append {
    pub term: Term,
    pub generation: MembershipGeneration,
    /// End of what was appended before. Zero together with an empty `wal`: only `commit_lsn` is told, no answer is wanted.
    pub begin_lsn: Lsn,
    pub commit_lsn: Lsn,
    /// Empty with a non-zero `begin_lsn`: an answer is wanted at once.
    pub wal: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendReply {
    /// Above the proposer's: it is fenced and must stop.
    pub term: Term,
    pub flush_lsn: Lsn,
    /// Bytes durable, maybe inside a record: what flow control goes by. Never counts for a commit.
    pub synced_lsn: Lsn,
    pub commit_lsn: Lsn,
    pub pageserver: PageserverProgress,
}

/// Fetch log up to `until_lsn` from a peer that has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CatchUp {
    pub term: Term,
    pub generation: MembershipGeneration,
    pub until_lsn: Lsn,
    /// `host:port` of acceptors that have it, in the order to try them.
    pub peers: Vec<String>,
}
