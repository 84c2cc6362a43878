//! Facts about what Postgres 17 keeps on disk: log pages and records, checkpoint, control file, relation map, page header.
//!
//! Everything here is pure: bytes in, values out, and back. There is no I/O, clock or random, and nothing knows where
//! the bytes come from. What a record *does* to pages is `strata-redo`'s business.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod control_file;
pub mod fields;
pub mod fullxid;
pub mod handoff;
pub mod page;
pub mod page_header;
pub mod record;
pub mod record_header;
pub mod relmap;
pub mod rmgr;
pub mod segment;
pub mod stream;
pub mod twophase;
pub mod write;

#[cfg(test)]
mod arbitrary;

pub use checkpoint::CheckPoint;
pub use control_file::ControlFile;
pub use fullxid::FullTransactionId;
pub use record::{BlockImage, DecodeError, DecodedBlock, DecodedRecord, ImageCompression, RawRecord};
pub use segment::SegmentBytes;
pub use stream::{StreamError, WalStreamDecoder};
pub use write::{BlockSpec, EncodedWal, LogIdentity, RecordSpec, WalWriter};
