//! The proposer: elects or resumes a term, brings acceptors to its log, decides what is committed. Event in, commands out; no
//! I/O, clock, random or runtime, and no knowledge of Postgres: log is bytes at positions.
//!
//! The driver (`crate::driver`) feeds [`Proposer::step`], and after each batch of events calls [`Proposer::settle`], which
//! sends what there is to send: one batch of events makes at most one round of messages.
//! Rules and proofs are in `docs/consensus.md`. Invariants: SK-1, SK-2; traps: K2, K3, K4, K7, K16.

mod election;
mod log;
#[cfg(feature = "mutants")]
mod mutants;
mod peer;
mod proposer;
#[cfg(test)]
mod proposer_test;
mod replication;
mod types;

#[cfg(feature = "mutants")]
pub use mutants::Mutant;
pub use proposer::Proposer;
pub use types::{
    AcceptorAddress, AcceptorState, AcceptorStatus, Command, CreateCopy, Event, Limits, Purpose, Ready,
};
