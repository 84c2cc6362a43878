//! The page service: takes the log in, keeps every page's history in layers, answers reads of any page as of any LSN.
//!
//! From below to above: `core` decides and `storage` performs how values by (key, LSN) are kept; `keyspace` says what keys
//! mean; `ingest` turns log records into values, `view` turns values back into pages; `timeline` joins the two for one
//! branch, `node` for all of them; `wal` fetches log from safekeepers; `import`, `basebackup` and `getpage` are the ways in
//! and out; `grpc` speaks to the world. Nothing here knows SQL.
#![forbid(unsafe_code)]

pub mod basebackup;
pub mod config;
pub mod core;
pub mod daemon;
pub mod getpage;
pub mod grpc;
pub mod import;
pub mod ingest;
pub mod keyspace;
pub mod materialize;
mod metrics;
pub mod node;
pub mod service;
pub mod sizes;
pub mod storage;
pub mod store;
pub mod timeline;
pub mod view;
pub mod wal;
