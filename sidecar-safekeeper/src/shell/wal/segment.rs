//! Segment files: their names and places, how one is made, and which ones there are.
//!
//! A segment is made whole before it gets its name (trap K13): zeros to its full length, synced, renamed, folder synced.
//! So a file with a segment's name always has a segment's length, writing into it never changes the file's size, and
//! what was never written reads as zeros, which no record begins with.

use std::path::PathBuf;
use std::sync::Arc;

use strata_common::Lsn;
use strata_pgwal::SegmentBytes;
use strata_pgwal::segment::{parse_segment_file_name, segment_file_name};

use super::StoreError;
use crate::shell::disk::{Disk, DiskFile, TEMPORARY_SUFFIX};

/// Postgres's own timeline number; always this one, because branches are timelines of ours.
const PG_TIMELINE: u32 = 1;

/// How much is zeroed with one write, bytes.
const ZEROS_BYTES: usize = 1 << 20;

/// Where the segments of one timeline lie.
#[derive(Clone)]
pub struct LogFolder {
    pub disk: Arc<dyn Disk>,
    pub path: PathBuf,
    pub segment_bytes: SegmentBytes,
}

impl LogFolder {
    /// Start of the segment that holds `lsn`.
    pub fn segment_start(&self, lsn: Lsn) -> Lsn {
        lsn.segment_start(self.segment_bytes.get())
    }

    pub fn path_of(&self, lsn: Lsn) -> PathBuf {
        self.path.join(segment_file_name(PG_TIMELINE, lsn, self.segment_bytes))
    }

    /// Starts of the segments that exist, ascending.
    pub fn list(&self) -> Result<Vec<Lsn>, StoreError> {
        let names = self.disk.list(&self.path).map_err(|error| self.error_of_folder(error))?;
        let starts = names.iter().filter_map(|name| parse_segment_file_name(name, self.segment_bytes));
        let mut starts: Vec<Lsn> =
            starts.filter(|(number, _)| *number == PG_TIMELINE).map(|(_, lsn)| lsn).collect();
        starts.sort();
        Ok(starts)
    }

    /// Removes what a crash left of files that were being made.
    pub fn remove_temporary(&self) -> Result<(), StoreError> {
        for name in self.disk.list(&self.path).map_err(|error| self.error_of_folder(error))? {
            if name.ends_with(TEMPORARY_SUFFIX) {
                let path = self.path.join(name);
                self.disk.remove_file(&path).map_err(|error| StoreError::Io { path, error })?;
            }
        }
        Ok(())
    }

    /// Opens the segment that holds `lsn`; an absent one is `None`.
    pub fn open(&self, lsn: Lsn) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        let path = self.path_of(lsn);
        let file = match self.disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::Io { path, error }),
        };
        let length = file.size_bytes().map_err(|error| StoreError::Io { path: path.clone(), error })?;
        if length != self.segment_bytes.get() {
            let what = format!("has {length} bytes instead of {}", self.segment_bytes.get());
            return Err(StoreError::Damaged { at: lsn, path, what });
        }
        Ok(Some(file))
    }

    /// Opens the segment that holds `lsn`, which must be there.
    pub fn open_existing(&self, lsn: Lsn) -> Result<Arc<dyn DiskFile>, StoreError> {
        self.open(lsn)?.ok_or_else(|| StoreError::Damaged {
            at: lsn,
            path: self.path_of(lsn),
            what: "is missing".to_owned(),
        })
    }

    /// Makes the segment that holds `lsn`, all zeros, durable with its name.
    pub fn create(&self, lsn: Lsn) -> Result<Arc<dyn DiskFile>, StoreError> {
        let path = self.path_of(lsn);
        let mut temporary = path.clone().into_os_string();
        temporary.push(TEMPORARY_SUFFIX);
        let temporary = PathBuf::from(temporary);
        let made = self.create_as(&temporary, &path);
        if made.is_err() {
            // What was written of it takes room that others could use. That it may not go away changes nothing.
            let _ = self.disk.remove_file(&temporary);
        }
        made.map_err(|error| StoreError::Io { path, error })
    }

    fn create_as(
        &self,
        temporary: &std::path::Path,
        path: &std::path::Path,
    ) -> std::io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(temporary)?;
        write_zeros(&*file, 0, self.segment_bytes.get())?;
        file.sync_all()?;
        self.disk.rename(temporary, path)?;
        self.disk.sync_dir(&self.path)?;
        Ok(file)
    }

    /// Removes segments, the highest first, and makes that durable.
    pub fn remove(&self, starts: &[Lsn]) -> Result<(), StoreError> {
        for start in starts.iter().rev() {
            let path = self.path_of(*start);
            self.disk.remove_file(&path).map_err(|error| StoreError::Io { path, error })?;
        }
        if starts.is_empty() { Ok(()) } else { self.sync_names() }
    }

    pub fn sync_names(&self) -> Result<(), StoreError> {
        self.disk.sync_dir(&self.path).map_err(|error| self.error_of_folder(error))
    }

    pub fn error_at(&self, lsn: Lsn, error: std::io::Error) -> StoreError {
        StoreError::Io { path: self.path_of(lsn), error }
    }

    fn error_of_folder(&self, error: std::io::Error) -> StoreError {
        StoreError::Io { path: self.path.clone(), error }
    }
}

/// Writes zeros over `from..to` of a file.
pub fn write_zeros(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut at = from;
    while at < to {
        let length = (to - at).min(ZEROS_BYTES as u64);
        file.write_all_at(&zeros[..length as usize], at)?;
        at += length;
    }
    Ok(())
}
