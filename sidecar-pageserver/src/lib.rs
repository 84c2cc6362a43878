//! The page service: takes the log in, keeps every page's history in layers, answers reads of any page as of any LSN.
#![forbid(unsafe_code)]

pub mod core;
pub mod storage;
