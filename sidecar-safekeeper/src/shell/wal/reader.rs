//! Reads log that was written, for streams. Keeps the last segment open; any number of readers work beside the writer.
//!
//! What may be read is not decided here: bytes at or above the writer's last durable position mean nothing.

use std::sync::Arc;

use bytes::Bytes;
use strata_common::Lsn;

use super::{LogFolder, StoreError};
use crate::shell::disk::DiskFile;

pub struct WalReader {
    folder: LogFolder,
    open: Option<(Lsn, Arc<dyn DiskFile>)>,
}

impl WalReader {
    pub fn new(folder: LogFolder) -> WalReader {
        WalReader { folder, open: None }
    }

    /// Up to `bytes_max` bytes from `from` on, not beyond `to` nor the end of the segment; at least one if `from < to`.
    pub fn read(&mut self, from: Lsn, to: Lsn, bytes_max: u64) -> Result<Bytes, StoreError> {
        let end = to.min(self.folder.segment_bytes.next_segment(from)).min(from + bytes_max);
        let Some(length) = end.checked_sub(from).filter(|length| *length > 0) else {
            return Ok(Bytes::new());
        };
        let start = self.folder.segment_start(from);
        if self.open.as_ref().is_none_or(|(open, _)| *open != start) {
            self.open = Some((start, self.folder.open_existing(from)?));
        }
        let (_, file) = self.open.as_ref().expect("put there above");
        let mut bytes = vec![0; length as usize];
        let offset = from.segment_offset(self.folder.segment_bytes.get());
        file.read_exact_at(&mut bytes, offset).map_err(|error| self.folder.error_at(from, error))?;
        Ok(Bytes::from(bytes))
    }
}
