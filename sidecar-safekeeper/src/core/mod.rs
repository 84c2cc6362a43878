//! The acceptor: what a safekeeper decides about one timeline. Event in, commands out; no I/O, clock, random or runtime.
//!
//! The shell (`crate::shell`) feeds [`Acceptor::step`] with messages and with completions of what it was told to do, and
//! performs the returned [`Command`]s. Its part of the bargain:
//! - Commands are performed in the order given. Disk commands (`WriteWal`, `SyncWal`, `TruncateWal`, `ResetWal`,
//!   `PersistState`) go through one queue per timeline; neighbouring `SyncWal`s may become one fdatasync, and the last of
//!   several waiting `PersistState`s may stand for all, if nothing else lies between them.
//! - A completion is reported only when the bytes are durable. A failed write or sync is [`Event::DiskFailed`] (trap K12).
//! - On start it finds the end of the last whole record at or above `oldest_lsn`, cuts what follows, makes the log durable
//!   (what a killed process left in the page cache is not on disk yet), and only then calls [`Acceptor::open`].
//! - Replies leave in the order in which they are given.
//!
//! Rules and proofs are in `docs/consensus.md`. Invariants: SK-1 to SK-5; traps: K1, K4 to K8, K12, K14, K16.

mod acceptor;
mod divergence;
#[cfg(feature = "mutants")]
mod mutants;
mod op;
mod types;

#[cfg(test)]
mod acceptor_test;

pub use acceptor::Acceptor;
pub use divergence::{covered, divergence};
#[cfg(feature = "mutants")]
pub use mutants::Mutant;
pub use types::{Command, ConnId, DurableState, Event, FetchId, PersistId, ReadLimit, Refusal};
