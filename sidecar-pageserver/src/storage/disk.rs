//! The seam to the local disk, so that tests can fill it up or kill the process at any step. Plain files by positioned reads.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

pub trait Disk: Send + Sync + Debug + 'static {
    fn create_dirs(&self, path: &Path) -> io::Result<()>;
    /// Makes or empties the file.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskWriter>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskReader>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes a file; an absent one is fine.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all below; an absent one is fine.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;
    /// Names and sizes of the files of a folder, or nothing if it is absent.
    fn list(&self, path: &Path) -> io::Result<Vec<(String, u64)>>;
}

pub trait DiskWriter: Send {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
}

pub trait DiskReader: Send + Sync + Debug {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn bytes(&self) -> io::Result<u64>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskWriter>> {
        Ok(Box::new(OpenOptions::new().create(true).write(true).truncate(true).open(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskReader>> {
        Ok(Arc::new(File::open(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_file(path))
    }
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_dir_all(path))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<(String, u64)>> {
        let entries = match fs::read_dir(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_file() {
                found.push((entry.file_name().to_string_lossy().into_owned(), meta.len()));
            }
        }
        Ok(found)
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl DiskWriter for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

impl DiskReader for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
