//! A disk that fills up, or dies at a chosen step and forgets what was not made durable, for tests.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskReader, DiskWriter, RealDisk};

#[derive(Debug, Default)]
struct State {
    /// Steps until death; every write, fsync, rename and removal is one.
    steps_left: Option<u64>,
    steps: u64,
    full: bool,
    unsynced: HashSet<PathBuf>,
    /// New names whose folder has not been made durable since.
    unsynced_names: Vec<PathBuf>,
}

/// The real disk with faults. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<State>>);

impl FaultyDisk {
    pub fn new() -> FaultyDisk {
        FaultyDisk::default()
    }

    /// While true, writes fail half-way as on a full disk.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// After `steps` more steps every call fails, as if the process had been killed.
    pub fn die_after(&self, steps: u64) {
        self.state().steps_left = Some(steps);
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// What a power failure leaves: files that were not made durable are cut in half, every other name that was not is gone. The disk is
    /// dead afterwards; open a new one over the same folder.
    pub fn crash(&self) -> io::Result<()> {
        let mut state = self.state();
        state.steps_left = Some(0);
        for path in &state.unsynced {
            if let Ok(file) = std::fs::OpenOptions::new().write(true).open(path) {
                file.set_len(file.metadata()?.len() / 2)?;
            }
        }
        for path in state.unsynced_names.iter().step_by(2) {
            RealDisk.remove(path)?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic under this lock")
    }

    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        match &mut state.steps_left {
            Some(0) => return Err(io::Error::other("injected death of the process")),
            Some(left) => *left -= 1,
            None => {}
        }
        state.steps += 1;
        Ok(state)
    }

    fn alive(&self) -> io::Result<()> {
        match self.state().steps_left {
            Some(0) => Err(io::Error::other("injected death of the process")),
            _ => Ok(()),
        }
    }
}

struct FaultyWriter {
    disk: FaultyDisk,
    path: PathBuf,
    inner: Box<dyn DiskWriter>,
}

impl DiskWriter for FaultyWriter {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let full = match self.disk.step() {
            Ok(state) => state.full,
            Err(e) => {
                // Killed in the middle of the write.
                self.inner.write_all(&bytes[..bytes.len() / 3])?;
                return Err(e);
            }
        };
        if full {
            self.inner.write_all(&bytes[..bytes.len() / 2])?;
            return Err(io::Error::new(io::ErrorKind::StorageFull, "No space left on device"));
        }
        self.inner.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.step()?.unsynced.remove(&self.path);
        self.inner.sync()
    }
}

impl Disk for FaultyDisk {
    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        self.alive()?;
        RealDisk.create_dirs(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskWriter>> {
        self.step()?.unsynced.insert(path.to_owned());
        let inner = RealDisk.create(path)?;
        Ok(Box::new(FaultyWriter { disk: self.clone(), path: path.to_owned(), inner }))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskReader>> {
        self.alive()?;
        RealDisk.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        if state.unsynced.remove(from) {
            state.unsynced.insert(to.to_owned());
        }
        state.unsynced_names.push(to.to_owned());
        RealDisk.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?.unsynced_names.retain(|name| name.parent() != Some(path));
        RealDisk.sync_dir(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        drop(self.step()?);
        RealDisk.remove(path)
    }
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        drop(self.step()?);
        RealDisk.remove_tree(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<(String, u64)>> {
        self.alive()?;
        RealDisk.list(path)
    }
}
