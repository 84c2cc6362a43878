//! The words that every part of Strata shares: log positions, ids, terms and relation names.
//!
//! Plain values with no I/O, clock or random; every other crate may use them and this one uses none of ours.
#![forbid(unsafe_code)]

pub mod guard;
pub mod hash;
pub mod ids;
pub mod invariants;
pub mod lsn;
pub mod rel;
pub mod term;

pub use guard::Guard;
pub use ids::{ClusterId, Incarnation, NodeId, SystemId, TenantId, TenantTimelineId, TimelineId};
pub use lsn::Lsn;
pub use rel::{BLOCK_BYTES, BlockNumber, ForkNumber, RelFork, RelTag};
pub use term::{Generation, MembershipGeneration, Term, TermHistory, TermStart};
