//! Performs what the acceptors in `core` decide: files, threads, network. One writer thread per timeline, one runtime thread
//! for all messages.
//!
//! A message is read from its connection, judged by the acceptor under the timeline's lock, and its disk commands go to
//! the timeline's writer thread; that thread reports what is durable to the acceptor itself and hands the answers
//! to the connections. So a commit costs two changes of thread and one fdatasync.

pub mod control;
pub mod disk;
pub mod fetch;
pub mod node;
pub mod queue;
pub mod readers;
pub mod server;
pub mod service;
pub mod status;
pub mod stream;
pub mod timeline;
pub mod wal;
pub mod writer;

#[cfg(test)]
mod node_test;
