//! The gRPC services, one `.proto` file each, with the types generated from them.
//!
//! Conversions to and from our own types live in `convert`; `quorum` has the typed words of the consensus, `quorum_wire`
//! turns them into messages and back. Nothing else here is written by hand.
#![forbid(unsafe_code)]

pub mod convert;
pub mod quorum;
mod quorum_wire;

/// Safekeeper: log, votes, learners.
pub mod wal {
    #![allow(clippy::all, reason = "generated")]
    tonic::include_proto!("strata.wal.v1");
}

/// Page service: pages, sizes, base backup.
pub mod page {
    #![allow(clippy::all, reason = "generated")]
    tonic::include_proto!("strata.page.v1");
}

/// Pageserver management.
pub mod pageserver {
    #![allow(clippy::all, reason = "generated")]
    tonic::include_proto!("strata.pageserver.v1");
}

/// Largest message that any of our services sends or takes, bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Largest small object of a timeline that the page service takes, bytes; fits into a message with room to spare.
pub const OBJECT_BYTES_MAX: usize = 8 << 20;
