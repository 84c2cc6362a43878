//! A safekeeper: keeps the log of timelines, votes for proposers, hands committed log to learners.
//!
//! `core` decides (pure), the rest performs. See `README.md` and `docs/consensus.md`.
#![forbid(unsafe_code)]

pub mod core;
