//! The disk as the safekeeper sees it: the seam behind which tests put a disk that forgets, tears and fills up.
//!
//! Calls block; they are made on a timeline's writer thread or on the runtime's blocking threads, never where messages are
//! served. Nothing here decides what an error means: a caller stops for good after a failed sync (trap K12).

#[cfg(test)]
pub mod faulty;
mod real;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use real::RealDisk;

/// Files and folders. Names become durable with `sync_dir` of their folder, content with a sync of the file.
pub trait Disk: Send + Sync + 'static {
    /// A new empty file, or an existing one emptied; readable and writable.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing file; readable and writable.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Atomic; replaces a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Names in a folder, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
}

/// An open file. Positions and lengths are bytes.
pub trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset` on, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Content and what is needed to read it back (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Content and all attributes (`fsync`).
    fn sync_all(&self) -> io::Result<()>;
    fn size_bytes(&self) -> io::Result<u64>;
}

/// Whether `error` says that there is no room, which passes when there is room again.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads a whole file.
pub fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let length = usize::try_from(file.size_bytes()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces the file `name` in `dir` by one with this content; afterwards the old or the new one is found, never a mixture.
pub fn replace_file(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}{TEMPORARY_SUFFIX}"));
    let file = disk.create(&temporary)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    disk.rename(&temporary, &dir.join(name))?;
    disk.sync_dir(dir)
}

/// Ending of files that are being made; what a crash leaves of them is removed on open.
pub const TEMPORARY_SUFFIX: &str = ".new";
