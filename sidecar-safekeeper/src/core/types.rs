//! What goes into the acceptor and what comes out: durable state, events, commands, refusals.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use strata_common::{Incarnation, Lsn, Term, TermHistory};
use strata_proto::quorum::{Candidate, FromAcceptor, LogFacts, Membership, ToAcceptor};

/// A connection of a proposer, numbered by the shell; never reused in the life of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// A fetch of log from peers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchId(pub u64);

/// Number of a `PersistState` command; they go up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PersistId(pub u64);

/// What the control file of a timeline holds. Replaced as a whole, atomically, by `PersistState`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DurableState {
    /// Of this copy; lost with its disk (trap K16).
    pub incarnation: Incarnation,
    pub membership: Membership,
    pub facts: LogFacts,
    /// The timeline's log begins here.
    pub start_lsn: Lsn,
    /// This copy's log begins here; at a record's end. What was below has been removed or was never here.
    pub oldest_lsn: Lsn,
    pub term: Term,
    /// Whom this copy voted for in `term`.
    pub vote: Option<Candidate>,
    /// May run ahead of the log (trap K6): readers cut it with `covered`.
    pub history: TermHistory,
    /// A lower bound: the commit LSN moves without a write to disk.
    pub commit_lsn: Lsn,
}

impl DurableState {
    /// State of a timeline that has just been created: no term, no vote, no log.
    pub fn new(
        incarnation: Incarnation,
        membership: Membership,
        facts: LogFacts,
        start_lsn: Lsn,
    ) -> DurableState {
        DurableState {
            incarnation,
            membership,
            facts,
            start_lsn,
            oldest_lsn: start_lsn,
            term: Term::ZERO,
            vote: None,
            history: TermHistory::default(),
            commit_lsn: start_lsn,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Message {
        conn: ConnId,
        message: ToAcceptor,
    },
    Disconnected {
        conn: ConnId,
    },
    /// Every `PersistState` up to this one is durable.
    StatePersisted(PersistId),
    /// The log is durable up to `written` bytes, of which whole records end at `flush`.
    WalSynced {
        written: Lsn,
        flush: Lsn,
    },
    /// What was to be written is no log of this timeline. It is dropped, with all that was to be written behind it before this
    /// event, and the log ends, durably, at `end`: the end of the last whole record before it.
    WalRejected {
        end: Lsn,
        reason: String,
    },
    /// The last `TruncateWal` or `ResetWal` is durable.
    WalCut,
    /// The last `TruncateWal` would have cut inside a record: nothing was cut.
    CutRefused,
    /// A write, sync, truncation or state write failed: this copy acknowledges nothing any more (trap K12).
    DiskFailed {
        reason: String,
    },
    /// Log from a peer for a running fetch, contiguous.
    Fetched {
        fetch: FetchId,
        begin: Lsn,
        wal: Bytes,
    },
    /// No peer could go on with it; the proposer asks again.
    FetchFailed {
        fetch: FetchId,
    },
    /// The peers answered that their log begins only at `oldest`.
    FetchGap {
        fetch: FetchId,
        oldest: Lsn,
    },
    /// A pageserver told where it is.
    Progress {
        pageserver: u64,
        progress: strata_proto::quorum::PageserverProgress,
    },
    /// A pageserver that has not reported for long is no longer waited for.
    PageserverGone {
        pageserver: u64,
    },
    /// Time to see what log may go. `slowest_reader` is the lowest position that any stream still needs; `keep_bytes` is
    /// kept below the horizon for copies that lag.
    TrimDue {
        slowest_reader: Option<Lsn>,
        keep_bytes: u64,
    },
    /// Time to make the commit LSN durable, if it has moved (about once a second, and at a clean stop).
    CommitSaveDue,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    Reply {
        conn: ConnId,
        message: FromAcceptor,
    },
    /// End the connection with an error.
    Close {
        conn: ConnId,
        why: Refusal,
    },
    /// Write at exactly `begin`, the end of what was written before.
    WriteWal {
        begin: Lsn,
        wal: Bytes,
    },
    /// Make what was written durable, then report `WalSynced`.
    SyncWal,
    /// Cut the log to `to`: nothing at or above it is ever found again; then report `WalCut`. If that is no record's end (read from
    /// `known`, which is one, at or below it) cut nothing and report `CutRefused`.
    TruncateWal {
        to: Lsn,
        known: Lsn,
    },
    /// Drop the whole log; it begins anew, empty, at `at`. Then report `WalCut`.
    ResetWal {
        at: Lsn,
    },
    PersistState {
        id: PersistId,
        state: Box<DurableState>,
    },
    /// Read log of `term` from one of `peers` (`ReadWal` with that term), `from` up to `until`.
    Fetch {
        fetch: FetchId,
        term: Term,
        from: Lsn,
        until: Lsn,
        peers: Vec<String>,
    },
    StopFetch {
        fetch: FetchId,
    },
    /// Whole segments below may be removed; in the disk queue, because the `oldest_lsn` persisted before it must be durable.
    RemoveWal {
        below: Lsn,
    },
    /// Readers of committed log may go on up to here.
    Committed {
        commit: Lsn,
    },
    /// Readers of exactly this term may go on up to here.
    Flushed {
        flush: Lsn,
    },
}

/// Up to where a reader may read, at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimit {
    pub oldest: Lsn,
    pub end: Lsn,
    pub commit: Lsn,
    /// The last term whose start the log covers: nothing that may be read is of a later one.
    pub last_term: Term,
}

/// Why a message was not served. Not a vote against a candidate or a stale term: these have their replies.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("this copy knows membership generation {known}, the request names {asked}")]
    Generation { known: u32, asked: u32 },
    #[error("this copy is at term {known}, the request is of term {asked}")]
    Term { known: Term, asked: Term },
    #[error("log is expected at {expected}, not at {got}")]
    Gap { expected: Lsn, got: Lsn },
    #[error("the connection has not announced its term's history")]
    NotAnnounced,
    #[error("the announced history is impossible here: {0}")]
    History(String),
    #[error("the announced history diverges at {divergence}, below the commit LSN {commit}")]
    BelowCommit { divergence: Lsn, commit: Lsn },
    #[error("{0}")]
    Content(String),
    #[error("this copy acknowledges nothing any more: {0}")]
    Stopped(String),
    #[error("too many messages wait")]
    Busy,
}

impl Refusal {
    /// The proposer or its peer is out of date, rather than wrong or unlucky.
    pub fn is_fencing(&self) -> bool {
        matches!(self, Refusal::Generation { .. } | Refusal::Term { .. })
    }
}
