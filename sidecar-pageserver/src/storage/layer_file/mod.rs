//! Layer files: sorted values in checksummed blocks with an index, a filter and a footer. The bytes are described in `FORMAT.md`.
//!
//! A reader trusts nothing: every block, the index, the filter and the footer are checked before use (PS-5), lengths are bounded before
//! memory is taken, and whatever the bytes are, the answer is a value or [`StorageError::Corrupt`], never a panic.
//!
//! [`StorageError::Corrupt`]: super::StorageError::Corrupt

mod bloom;
mod entry;
mod footer;
mod frame;
mod reader;
mod writer;

#[cfg(test)]
mod layer_file_test;

pub use reader::LayerFile;
pub use writer::{LayerWriter, WriterOptions};

/// A layer file begins with this.
pub const MAGIC: [u8; 8] = *b"STRATALF";
/// Version of the format, in the footer.
pub const VERSION: u32 = 1;
