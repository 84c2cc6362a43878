//! Decisions of the timeline storage, pure: which layers can hold a key, when to freeze and wait, what an index says, who may write it,
//! which files and objects stay,
//! what a small object says. No I/O, no clock, no runtime; `storage` performs what is decided here.

pub mod attach;
pub mod collect;
pub mod flush;
pub mod index;
pub mod key;
pub mod layer;
pub mod layer_map;
pub mod object;
