//! A disk in memory that behaves as badly as a real one may, and no worse: what was not synced may be lost in a crash, in
//! pieces of a sector; names that were not synced come back as they were before some operation; a failed sync loses what it
//! was to make durable while readers still see it; and there is only so much room.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

#[derive(Default, Clone)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    /// A file, or a folder with all in it.
    Rename(PathBuf, PathBuf),
    UnlinkAll(PathBuf),
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    room: Option<usize>,
    sync_fails: bool,
    sync_dir_fails: Option<PathBuf>,
    syncs: usize,
    /// So many changes of the disk are still done; then the machine is as good as dead.
    fuse: Option<usize>,
}

/// Shares its content with its clones.
#[derive(Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<State>>);

struct FaultyFile {
    disk: FaultyDisk,
    inode: usize,
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
        NameChange::UnlinkAll(dir) => names.retain(|path, _| !path.starts_with(dir)),
        NameChange::Rename(from, to) => {
            let moved: Vec<_> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for path in moved {
                let inode = names.remove(&path).expect("listed just now");
                let rest = path.strip_prefix(from).expect("filtered by prefix");
                let target = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                names.insert(target, inode);
            }
        }
    }
}

impl FaultyDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics inside")
    }

    /// Bytes that all files together may have from now on; `None`: no limit.
    pub fn set_room(&self, bytes: Option<usize>) {
        self.state().room = bytes;
    }

    /// From now on every sync of a file fails, or no longer.
    pub fn set_sync_fails(&self, fails: bool) {
        self.state().sync_fails = fails;
    }

    /// From now on every sync of this folder fails, or no longer.
    pub fn set_sync_dir_fails(&self, path: Option<PathBuf>) {
        self.state().sync_dir_fails = path;
    }

    /// After so many more changes nothing works any more, until `crash`.
    pub fn set_fuse(&self, changes: usize) {
        self.state().fuse = Some(changes);
    }

    /// Whether the fuse has blown.
    pub fn is_dead(&self) -> bool {
        self.state().fuse == Some(0)
    }

    /// The state, for a change of it.
    fn changing(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        match &mut state.fuse {
            Some(0) => return Err(io::Error::other("injected: the machine is dead")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> usize {
        self.state().syncs
    }

    pub fn used_bytes(&self) -> usize {
        used(&self.state())
    }

    /// Overwrites bytes where they lie, as a decaying medium would.
    pub fn corrupt(&self, path: &Path, offset: usize, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.names[path];
        let inode = &mut state.inodes[inode];
        inode.durable[offset..offset + bytes.len()].copy_from_slice(bytes);
        inode.current = inode.durable.clone();
    }

    /// Power goes and comes back. `chance` decides about each sector and about how many name changes lasted:
    /// given `n` it returns a number below `n`.
    pub fn crash(&self, mut chance: impl FnMut(usize) -> usize) {
        let mut state = self.state();
        state.fuse = None;
        let changes = std::mem::take(&mut state.pending_names);
        let lasted = chance(changes.len() + 1);
        for change in &changes[..lasted] {
            apply(&mut state.durable_names, change);
        }
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            for (offset, bytes) in std::mem::take(&mut inode.pending) {
                let mut at = offset;
                while at < offset + bytes.len() {
                    let end = (at - at % SECTOR_BYTES + SECTOR_BYTES).min(offset + bytes.len());
                    if chance(2) == 1 {
                        if inode.durable.len() < end {
                            inode.durable.resize(end, 0);
                        }
                        inode.durable[at..end].copy_from_slice(&bytes[at - offset..end - offset]);
                    }
                    at = end;
                }
            }
            inode.current = inode.durable.clone();
        }
    }
}

fn used(state: &State) -> usize {
    state.names.values().map(|inode| state.inodes[*inode].current.len()).sum()
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.changing()?;
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        let change = NameChange::Link(path.to_owned(), inode);
        apply(&mut state.names, &change);
        state.pending_names.push(change);
        Ok(Arc::new(FaultyFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.state().names.get(path).copied().ok_or_else(|| not_found(path))?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.changing()?;
        if !state.names.keys().any(|path| path.starts_with(from)) {
            return Err(not_found(from));
        }
        if state.names.keys().any(|path| path != to && path.starts_with(to)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        apply(&mut state.names, &change);
        state.pending_names.push(change);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.changing()?;
        state.names.remove(path).ok_or_else(|| not_found(path))?;
        state.pending_names.push(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.changing()?;
        let change = NameChange::UnlinkAll(path.to_owned());
        apply(&mut state.names, &change);
        state.pending_names.push(change);
        Ok(())
    }

    /// Makes all name changes so far durable, as a journal does, not only those of this folder.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.changing()?;
        if state.sync_dir_fails.as_deref() == Some(path) {
            return Err(io::Error::other("injected: the folder's names do not last"));
        }
        state.pending_names.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let below = state.names.keys().filter_map(|name| name.strip_prefix(path).ok());
        let mut names: Vec<String> = below
            .filter_map(|rest| rest.components().next())
            .map(|first| first.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok(names)
    }
}

impl DiskFile for FaultyFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        let from = offset as usize;
        let bytes = state.inodes[self.inode].current.get(from..from + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.changing()?;
        let (from, end) = (offset as usize, offset as usize + bytes.len());
        let grown = end.saturating_sub(state.inodes[self.inode].current.len());
        if state.room.is_some_and(|room| used(&state) + grown > room) && grown > 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = &mut state.inodes[self.inode];
        if inode.current.len() < end {
            inode.current.resize(end, 0);
        }
        inode.current[from..end].copy_from_slice(bytes);
        inode.pending.push((from, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.changing()?;
        state.syncs += 1;
        let fails = state.sync_fails;
        let inode = &mut state.inodes[self.inode];
        inode.pending.clear();
        if fails {
            return Err(io::Error::other("injected: the medium does not take it"));
        }
        inode.durable = inode.current.clone();
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].current.len() as u64)
    }
}
