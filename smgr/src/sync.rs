//! The atomics of the slot protocol (`slots`, `prefetch::pool`), under a name of our own.
//!
//! The models in `smgr/models` compile the same source files with the atomics of a checker in this place; nothing else differs. What
//! those files need of `std::sync::atomic` is named here.

pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
pub use std::thread::yield_now as pause;
