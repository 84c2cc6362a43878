//! Reads flushed log: from the WAL buffers where it still is (0.3 µs), else from the segment files.

use std::fs::File;
use std::os::unix::fs::FileExt;

use pgrx::pg_sys;
use strata_common::Lsn;

/// Most that one read returns, bytes.
pub const READ_BYTES_MAX: usize = 1 << 20;

pub struct Source {
    segment_bytes: u64,
    /// Segment number and file of the last read.
    open: Option<(u64, File)>,
}

impl Source {
    pub fn new(segment_bytes: u64) -> Source {
        Source { segment_bytes, open: None }
    }

    /// Bytes of the log from `from` on, at most up to `flushed` and the end of the segment. Errors name the segment file.
    pub fn read(&mut self, from: Lsn, flushed: Lsn) -> Result<Vec<u8>, String> {
        let segment_end = from.segment_start(self.segment_bytes) + self.segment_bytes;
        let wanted = (flushed.min(segment_end) - from).min(READ_BYTES_MAX as u64);
        let mut bytes = vec![0; usize::try_from(wanted).map_err(|error| error.to_string())?];
        // SAFETY: the buffer has the size said; what is flushed was inserted. Timeline 1 is the only one there is here.
        let read = unsafe { pg_sys::WALReadFromBuffers(bytes.as_mut_ptr().cast(), from.0, bytes.len(), 1) };
        if read == 0 {
            self.read_file(from, &mut bytes)?;
        } else {
            bytes.truncate(read);
        }
        Ok(bytes)
    }

    fn read_file(&mut self, from: Lsn, bytes: &mut [u8]) -> Result<(), String> {
        let number = from.segment_number(self.segment_bytes);
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            // Name as in xlog_internal.h, XLogFileName; the server's current folder is its data directory.
            let in_id = 0x1_0000_0000 / self.segment_bytes;
            let path = format!("pg_wal/{:08X}{:08X}{:08X}", 1, number / in_id, number % in_id);
            let file = File::open(&path).map_err(|error| format!("cannot open {path}: {error}"))?;
            self.open = Some((number, file));
        }
        let Some((_, file)) = &self.open else { return Err("no segment is open".to_owned()) };
        let offset = from.segment_offset(self.segment_bytes);
        file.read_exact_at(bytes, offset).map_err(|error| format!("cannot read the log at {from}: {error}"))
    }
}
