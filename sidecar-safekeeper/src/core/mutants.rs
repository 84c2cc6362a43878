//! Known-bad variants of the acceptor, for proving that the simulation finds such bugs. Never part of a normal build.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// K1: a vote is answered before it is durable.
    VoteBeforePersist,
    /// K12, SK-3: an append is acknowledged when written, not when durable.
    AckBeforeSync,
    /// K5: truncates to the start of the last shared term and does not look at its commit LSN.
    TruncateBelowCommit,
    /// K6: the new history is durable before the old log is cut.
    HistoryBeforeTruncation,
    /// K6: a history is shown without being cut to the log.
    HistoryUncut,
    /// K16: any life of a member votes.
    WipedVotes,
}
