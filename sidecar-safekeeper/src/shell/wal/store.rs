//! Appends log to segment files and makes it durable; the only writer of a timeline's segments.
//!
//! All bytes go through the decoder of log before they are written, so that `flush` is always the end of a whole, checked
//! record (trap K8); the rest of a record that has not arrived yet is stored and not counted. Next to no work is done
//! between a write and its fdatasync. Errors leave it to the caller to stop for good (trap K12), with two exceptions: a
//! full disk changes nothing here, and the same call may be made again when there is room; bytes that are no log are the
//! sender's fault, and a cut to the end of the last whole record drops them.

use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use strata_common::Lsn;
use strata_pgwal::WalStreamDecoder;

use super::segment::write_zeros;
use super::{LogFolder, StoreError, recovery};
use crate::shell::disk::DiskFile;

/// How far the log is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Synced {
    /// End of the bytes.
    pub written: Lsn,
    /// End of the last whole record among them.
    pub flush: Lsn,
}

/// Whether the next segment is made on a thread of its own while the current one fills.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextSegment {
    Ahead,
    WhenNeeded,
}

struct OpenSegment {
    start: Lsn,
    file: Arc<dyn DiskFile>,
}

pub struct WalStore {
    folder: LogFolder,
    decoder: WalStreamDecoder,
    /// Before the last write: the end of the last whole record, and where that record begins, if known.
    before: (Lsn, Option<Lsn>),
    written: Lsn,
    /// The segment that is being written; its content up to `written` may not be durable.
    current: Option<OpenSegment>,
    /// Segments that are full and not durable yet, with a position in each.
    unsynced: Vec<(Lsn, Arc<dyn DiskFile>)>,
    next: NextSegment,
    ahead: Option<(Lsn, JoinHandle<Result<(), StoreError>>)>,
}

impl WalStore {
    /// Opens the log whose first byte is at `oldest`: finds its end, cuts what lies behind, makes it durable.
    ///
    /// `known` is an end of a record of which is known that the log reached it; `oldest` at least.
    pub fn open(
        folder: LogFolder,
        oldest: Lsn,
        known: Lsn,
        next: NextSegment,
    ) -> Result<WalStore, StoreError> {
        let end = recovery::recover(&folder, oldest, known)?;
        let decoder = WalStreamDecoder::new(end, folder.segment_bytes);
        Ok(WalStore {
            folder,
            decoder,
            before: (end, None),
            written: end,
            current: None,
            unsynced: Vec::new(),
            next,
            ahead: None,
        })
    }

    pub fn folder(&self) -> &LogFolder {
        &self.folder
    }

    /// End of the bytes that were written, durable or not.
    pub fn written(&self) -> Lsn {
        self.written
    }

    /// End of the last whole record that was written, durable or not.
    pub fn records_end(&self) -> Lsn {
        self.decoder.position()
    }

    /// Writes `wal` at `begin`, where the log ends.
    ///
    /// Errors: `Content` if this cannot be log at this place; then nothing of it was written, and the next call is `truncate` to the
    /// end that the error names, or below. After a full disk (`StoreError::is_full`) the same call goes on where it stopped.
    pub fn write(&mut self, begin: Lsn, wal: &Bytes) -> Result<(), StoreError> {
        if self.decoder.fed_to() < begin + wal.len() as u64 {
            assert_eq!(begin, self.written, "log is written where it ends");
            self.decode(begin, wal)?;
        }
        let mut rest = wal.slice((self.written - begin) as usize..);
        while !rest.is_empty() {
            let at = self.written;
            let offset = at.segment_offset(self.folder.segment_bytes.get());
            let room = self.folder.segment_bytes.get() - offset;
            let piece = rest.split_to(rest.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            self.file_at(at)?
                .write_all_at(&piece, offset)
                .map_err(|error| self.folder.error_at(at, error))?;
            self.written = at + piece.len() as u64;
        }
        self.prepare_next();
        Ok(())
    }

    fn decode(&mut self, begin: Lsn, wal: &Bytes) -> Result<(), StoreError> {
        self.before = (self.decoder.position(), self.decoder.last_record());
        let end = self.before.0;
        self.decoder.feed(wal.clone());
        loop {
            match self.decoder.next() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) => return Err(StoreError::Content { begin, end, error }),
            }
        }
    }

    /// Makes everything that was written durable.
    ///
    /// Errors are final: what is on disk behind the last success is unknown.
    pub fn sync(&mut self) -> Result<Synced, StoreError> {
        self.sync_files()?;
        assert_eq!(self.decoder.fed_to(), self.written, "what was decoded was written");
        Ok(Synced { written: self.written, flush: self.records_end() })
    }

    fn sync_files(&mut self) -> Result<(), StoreError> {
        for (lsn, file) in std::mem::take(&mut self.unsynced) {
            file.sync_data().map_err(|error| self.folder.error_at(lsn, error))?;
        }
        let Some(current) = &self.current else { return Ok(()) };
        current.file.sync_data().map_err(|error| self.folder.error_at(current.start, error))
    }

    /// Whether a record ends at `at`, which is not above the end of the log; `known` is a place at or below it where one does.
    pub fn is_record_end(&self, known: Lsn, at: Lsn) -> Result<bool, StoreError> {
        if at == self.decoder.position() || at == known {
            return Ok(true);
        }
        recovery::is_record_end(&self.folder, known, at)
    }

    /// Cuts the log to `to`, a record's end at or below its end: durable up to there, and nothing behind is ever found again.
    pub fn truncate(&mut self, to: Lsn) -> Result<(), StoreError> {
        assert!(to <= self.written, "a cut at {to} is above the end of the log, {}", self.written);
        self.sync_files()?;
        self.let_go_of_files();
        let start = self.folder.segment_start(to);
        let later: Vec<Lsn> = self.folder.list()?.into_iter().filter(|segment| *segment > start).collect();
        self.folder.remove(&later)?;
        if let Some(file) = self.folder.open(to)? {
            let size = self.folder.segment_bytes;
            let zeroed = write_zeros(&*file, to.segment_offset(size.get()), size.get());
            zeroed.and_then(|()| file.sync_data()).map_err(|error| self.folder.error_at(to, error))?;
        }
        // What was refused once for its link to the record before is refused again.
        let known = [(self.decoder.position(), self.decoder.last_record()), self.before];
        let last_record = known.into_iter().find(|(end, _)| *end == to).and_then(|(_, start)| start);
        let decoder = WalStreamDecoder::new(to, self.folder.segment_bytes);
        self.decoder = match last_record {
            Some(start) => decoder.with_prev(start),
            None => decoder,
        };
        self.written = to;
        Ok(())
    }

    /// Drops the whole log. It begins anew, empty, at `at`.
    pub fn reset(&mut self, at: Lsn) -> Result<(), StoreError> {
        self.let_go_of_files();
        self.folder.remove(&self.folder.list()?)?;
        self.decoder = WalStreamDecoder::new(at, self.folder.segment_bytes);
        self.written = at;
        Ok(())
    }

    /// Removes segments that end at or below `below`. Not made durable: a crash may bring some back.
    ///
    /// Returns how many went.
    pub fn remove_below(&mut self, below: Lsn) -> Result<usize, StoreError> {
        let size = self.folder.segment_bytes.get();
        let current = self.folder.segment_start(self.written);
        let old = self.folder.list()?.into_iter().filter(|start| *start + size <= below && *start < current);
        let old: Vec<Lsn> = old.collect();
        for start in &old {
            let path = self.folder.path_of(*start);
            self.folder.disk.remove_file(&path).map_err(|error| StoreError::Io { path, error })?;
        }
        Ok(old.len())
    }

    fn let_go_of_files(&mut self) {
        // Whether the segment ahead could be made does not matter: it is removed or made again.
        if let Some((_, thread)) = self.ahead.take() {
            let _ = thread.join();
        }
        self.current = None;
        self.unsynced.clear();
    }

    /// The file to write `at` into, made if absent.
    fn file_at(&mut self, at: Lsn) -> Result<&Arc<dyn DiskFile>, StoreError> {
        let start = self.folder.segment_start(at);
        if self.current.as_ref().is_none_or(|open| open.start != start) {
            if let Some((_, thread)) = self.ahead.take() {
                // A failure shows again, and is dealt with, when the segment is made here.
                let _ = thread.join();
            }
            let file = match self.folder.open(at)? {
                Some(file) => file,
                None => self.folder.create(at)?,
            };
            if let Some(full) = self.current.replace(OpenSegment { start, file }) {
                self.unsynced.push((full.start, full.file));
            }
        }
        Ok(&self.current.as_ref().expect("put there above").file)
    }

    /// Half a segment before it is needed, the next one is begun: zeroing it must not stand between a commit and its answer.
    fn prepare_next(&mut self) {
        let size = self.folder.segment_bytes.get();
        let next = self.folder.segment_start(self.written) + size;
        let is_due = self.written.segment_offset(size) >= size / 2;
        let is_begun = self.ahead.as_ref().is_some_and(|(start, _)| *start == next);
        if self.next == NextSegment::WhenNeeded || !is_due || is_begun {
            return;
        }
        if let Some((_, thread)) = self.ahead.take() {
            let _ = thread.join();
        }
        let folder = self.folder.clone();
        let make = move || match folder.open(next)? {
            Some(_) => Ok(()),
            None => folder.create(next).map(drop),
        };
        // No thread: the segment is made when it is needed.
        if let Ok(thread) = std::thread::Builder::new().name("next-segment".to_owned()).spawn(make) {
            self.ahead = Some((next, thread));
        }
    }
}

impl Drop for WalStore {
    fn drop(&mut self) {
        self.let_go_of_files();
    }
}
