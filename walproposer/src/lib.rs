//! The proposer of a timeline's log: wins a term from the safekeepers, ships log to them, says what is committed.
//!
//! `core` decides (pure, also run by the simulator), `driver` does it over gRPC on any tokio runtime, a current-thread one
//! included. Nothing here knows Postgres: log is bytes at positions. Protocol and proofs: `docs/consensus.md`.
//!
//! # The supervisor: win a term, write the first record, hand the term over
//! ```no_run
//! # use strata_walproposer::{Config, Error, Proposer};
//! # async fn supervisor(config: Config, record: bytes::Bytes) -> Result<(), Error> {
//! let proposer = Proposer::elect(config).await?; // retries against other candidates, up to config.timing.elect_max
//! let begin = proposer.append_lsn(); // equals start_lsn(): the end of the log that the term builds on
//! proposer.append(begin, record.clone()).await?;
//! proposer.wait_committed(begin + record.len() as u64).await?;
//! let term = proposer.term();
//! proposer.release().await; // all connections are closed when this returns; the term stays ours
//! # let _ = term; Ok(()) }
//! ```
//! # The extension's worker: resume that term and ship what Postgres writes
//! ```no_run
//! # use std::sync::Arc;
//! # use strata_common::Term;
//! # use strata_walproposer::{Config, Error, Proposer};
//! # async fn worker(mut config: Config, term: Term, wal: bytes::Bytes) -> Result<(), Error> {
//! config.on_commit = Some(Arc::new(|_commit| { /* on the driver's thread, at once: set a flag, wake the main thread */ }));
//! let proposer = Proposer::resume(config, term).await?; // waits for a majority, however long; Fenced if it is too late
//! let mut next = proposer.append_lsn(); // read the local log from here
//! proposer.append(next, wal.clone()).await?; // waits while too much is pending; from a thread: blocking_append
//! next = next + wal.len() as u64;
//! let mut commit = proposer.commit_watch();
//! tokio::select! {
//!     _ = commit.wait_for(|commit| *commit >= next) => { /* release the waiters up to *commit */ }
//!     error = proposer.over() => return Err(error), // Fenced: stop the server
//! }
//! # Ok(()) }
//! ```
//! # The supervisor again, after Postgres has exited: ship the tail
//! `Proposer::resume(config, term)`, `append` the local log from `append_lsn()` to its end, `wait_committed(end)`, `release`.
//!
//! At most one process may use a term at a time, and all of them append the same bytes at the same positions. Log that was
//! appended and is not committed when a proposer is dropped may or may not be found by the next one.
#![forbid(unsafe_code)]

pub mod core;
pub mod driver;

pub use core::{AcceptorAddress, AcceptorState, AcceptorStatus, Limits, Ready};
pub use driver::{Config, Error, Proposer, Status, Timing};
