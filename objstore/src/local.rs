//! An object store in a local directory: one plain file per object, usable by several processes of one machine at once.
//!
//! A put writes a temporary file, fsyncs it, and then, under the lock of its name, links (if absent) or renames it into place and fsyncs
//! the folder: readers see the old object or the new one, never a part. Names share 256 lock files (`flock`, released by the kernel when
//! its process dies), so that check and write of a conditional put are one step between processes. A version is the file's
//! modification time, which every overwrite moves on by at least a nanosecond, with its size and inode. What a crash leaves behind in
//! `.temp` is removed at the next open unless its writer lives (each temporary file is locked by its writer).

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::{
    Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, StoreError, StoreFuture, Version, probe,
};

const TEMP_DIR: &str = ".temp";
const LOCK_DIR: &str = ".locks";
/// Names are spread over this many lock files; more means less waiting for strangers.
const LOCK_STRIPES: u64 = 256;
/// Tries when a folder vanishes between making it and using it (another process cleans up).
const RACE_TRIES_MAX: usize = 8;

static TEMP_COUNTER: AtomicU64 = AtomicU64::new(0);

/// Object store in a directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalStore {
    root: Arc<PathBuf>,
}

impl LocalStore {
    /// Opens (and makes, if its parent exists) the directory, and probes that it does what the seam promises. The error is one sentence
    /// for the operator.
    pub async fn open(root: impl Into<PathBuf>) -> Result<LocalStore, StoreError> {
        let root: PathBuf = root.into();
        let store = LocalStore { root: Arc::new(root) };
        let prepared = store.clone();
        let unusable = |reason: String| StoreError::Unusable { store: store.describe(), reason };
        tokio::task::spawn_blocking(move || prepared.prepare())
            .await
            .map_err(|e| unusable(e.to_string()))?
            .map_err(|e| unusable(e.to_string()))?;
        probe(&store).await?;
        Ok(store)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn prepare(&self) -> io::Result<()> {
        match fs::create_dir(&*self.root) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        if !fs::metadata(&*self.root)?.is_dir() {
            return Err(io::Error::new(ErrorKind::NotADirectory, "it is not a folder"));
        }
        for own in [TEMP_DIR, LOCK_DIR] {
            fs::create_dir_all(self.root.join(own))?;
        }
        self.remove_dead_temporaries()?;
        sync_dir(&self.root)
    }

    fn remove_dead_temporaries(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join(TEMP_DIR))? {
            let path = entry?.path();
            match File::open(&path) {
                // Whoever writes it holds the lock; if nobody does, its process is gone.
                Ok(file) if file.try_lock().is_ok() => ignore_absent(fs::remove_file(&path))?,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Takes the lock of `key`'s stripe; it goes with the file.
    fn lock(&self, key: &ObjectKey) -> io::Result<File> {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for byte in key.as_str().bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let name = self.root.join(LOCK_DIR).join(format!("{:02x}", hash % LOCK_STRIPES));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(name)?;
        file.lock()?;
        Ok(file)
    }

    fn put_blocking(
        &self,
        key: &ObjectKey,
        body: &[u8],
        condition: &PutCondition,
    ) -> Result<Version, PutFailure> {
        let (temp, mut file) = self.temporary()?;
        let result = self.put_through(&mut file, &temp, key, body, condition);
        match ignore_absent(fs::remove_file(&temp)) {
            Err(e) if result.is_ok() => Err(PutFailure::Io(e)),
            _ => result,
        }
    }

    /// A new file in `.temp`, locked. Process ids are no names: two machines or containers on one folder may have the same.
    fn temporary(&self) -> io::Result<(PathBuf, File)> {
        for _ in 0..RACE_TRIES_MAX {
            let number = TEMP_COUNTER.fetch_add(1, Ordering::Relaxed);
            // Every `RandomState` has keys of its own, which begin as random bytes of the system.
            let random = RandomState::new().hash_one(number);
            let temp =
                self.root.join(TEMP_DIR).join(format!("{}-{number}-{random:016x}", std::process::id()));
            match OpenOptions::new().create_new(true).write(true).open(&temp) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
                Ok(file) => {
                    file.lock()?;
                    // Between making and locking, an open elsewhere may have taken it for a leftover and removed it.
                    if file.metadata()?.nlink() > 0 {
                        return Ok((temp, file));
                    }
                }
            }
        }
        Err(io::Error::other("every name for a temporary file is taken"))
    }

    fn put_through(
        &self,
        file: &mut File,
        temp: &Path,
        key: &ObjectKey,
        body: &[u8],
        condition: &PutCondition,
    ) -> Result<Version, PutFailure> {
        file.write_all(body)?;
        file.sync_all()?;
        let target = self.path(key);
        let parent = target.parent().unwrap_or(&self.root);
        let _lock = self.lock(key)?;
        let current = match fs::metadata(&target) {
            Ok(meta) if meta.is_dir() => {
                return Err(PutFailure::Io(io::Error::new(ErrorKind::IsADirectory, "the name is a folder")));
            }
            Ok(meta) => Some(meta),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e.into()),
        };
        let holds = match condition {
            PutCondition::Always => true,
            PutCondition::IfAbsent => current.is_none(),
            PutCondition::IfVersion(version) => {
                current.as_ref().is_some_and(|meta| version_of(meta) == *version)
            }
        };
        if !holds {
            return Err(PutFailure::Conflict);
        }
        let mut modified = SystemTime::now();
        if let Some(current) = &current {
            modified = modified.max(current.modified()? + Duration::from_nanos(1));
        }
        file.set_modified(modified)?;
        for _ in 0..RACE_TRIES_MAX {
            make_dirs(&self.root, parent)?;
            let placed = match condition {
                // The link is atomic even against a process that does not take the lock.
                PutCondition::IfAbsent => fs::hard_link(temp, &target),
                _ => fs::rename(temp, &target),
            };
            match placed {
                Ok(()) => {
                    sync_dir(parent)?;
                    return Ok(version_of(&file.metadata()?));
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(PutFailure::Conflict),
                Err(e) if e.kind() == ErrorKind::NotFound && temp.exists() => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(PutFailure::Io(io::Error::other("its folder keeps vanishing")))
    }

    fn list_blocking(&self, prefix: &str) -> io::Result<Vec<ObjectInfo>> {
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        if !folder.is_empty() && ObjectKey::new(folder).is_err() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(self.root.join(&folder)) {
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let file_name = entry.file_name();
                let Some(name) = file_name.to_str() else { continue };
                let full = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                // Own folders start with a dot and are not names of objects.
                let Ok(key) = ObjectKey::new(full) else { continue };
                let meta = match entry.metadata() {
                    Err(e) if e.kind() == ErrorKind::NotFound => continue,
                    meta => meta?,
                };
                if meta.is_dir() {
                    let below = format!("{key}/");
                    if below.starts_with(prefix) || prefix.starts_with(&below) {
                        folders.push(key.as_str().to_owned());
                    }
                } else if key.as_str().starts_with(prefix) {
                    found.push(ObjectInfo { bytes: meta.len(), version: version_of(&meta), key });
                }
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn delete_blocking(&self, key: &ObjectKey) -> io::Result<()> {
        let path = self.path(key);
        let _lock = self.lock(key)?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => sync_dir(path.parent().unwrap_or(&self.root)),
        }
    }

    /// Runs file work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        what: String,
        work: impl FnOnce(&LocalStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result,
            Err(e) => Err(StoreError::Unavailable { operation, what, reason: e.to_string() }),
        }
    }
}

enum PutFailure {
    Conflict,
    Io(io::Error),
}

impl From<io::Error> for PutFailure {
    fn from(e: io::Error) -> PutFailure {
        PutFailure::Io(e)
    }
}

fn io_error(operation: &'static str, key: &ObjectKey, e: io::Error) -> StoreError {
    if e.kind() == ErrorKind::NotFound {
        return StoreError::NotFound { key: key.clone() };
    }
    StoreError::Unavailable { operation, what: key.to_string(), reason: e.to_string() }
}

fn version_of(meta: &fs::Metadata) -> Version {
    Version(format!("{:x}.{:09}-{:x}-{:x}", meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino()))
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the folders from `root` down to `folder` and fsyncs the parent of each one made, or they could vanish with their objects.
fn make_dirs(root: &Path, folder: &Path) -> io::Result<()> {
    if folder == root || folder.is_dir() {
        return Ok(());
    }
    let Some(parent) = folder.parent() else { return Ok(()) };
    make_dirs(root, parent)?;
    match fs::create_dir(folder) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(e) => Err(e),
        Ok(()) => sync_dir(parent),
    }
}

fn open_object(path: &Path) -> io::Result<(File, fs::Metadata)> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(ErrorKind::NotFound.into());
    }
    Ok((file, meta))
}

impl ObjectStore for LocalStore {
    fn put<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Bytes,
        condition: PutCondition,
    ) -> StoreFuture<'a, Version> {
        let owned = key.clone();
        Box::pin(self.blocking("put", key.to_string(), move |store| {
            store.put_blocking(&owned, &body, &condition).map_err(|failure| match failure {
                PutFailure::Conflict => StoreError::Conflict { key: owned.clone() },
                // An absent folder or temporary file is no absent object: the put may be tried again.
                PutFailure::Io(e) => StoreError::Unavailable {
                    operation: "put",
                    what: owned.to_string(),
                    reason: e.to_string(),
                },
            })
        }))
    }

    fn get<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, Object> {
        let key = key.clone();
        Box::pin(self.blocking("get", key.to_string(), move |store| {
            let read = || {
                let (mut file, meta) = open_object(&store.path(&key))?;
                let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
                file.read_to_end(&mut bytes)?;
                Ok(Object { bytes: bytes.into(), version: version_of(&meta) })
            };
            read().map_err(|e| io_error("get", &key, e))
        }))
    }

    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        let key = key.clone();
        Box::pin(self.blocking("get", key.to_string(), move |store| {
            let fail = |e| io_error("get", &key, e);
            let (file, meta) = open_object(&store.path(&key)).map_err(fail)?;
            if range.start > range.end || range.end > meta.len() {
                let (start, end) = (range.start, range.end);
                return Err(StoreError::BadRange { key: key.clone(), bytes: meta.len(), start, end });
            }
            let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, range.start).map_err(fail)?;
            Ok(bytes.into())
        }))
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectInfo> {
        let key = key.clone();
        Box::pin(self.blocking("head", key.to_string(), move |store| {
            let (_, meta) = open_object(&store.path(&key)).map_err(|e| io_error("head", &key, e))?;
            Ok(ObjectInfo { bytes: meta.len(), version: version_of(&meta), key })
        }))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Vec<ObjectInfo>> {
        let prefix = prefix.to_owned();
        Box::pin(self.blocking("list", prefix.clone(), move |store| {
            store.list_blocking(&prefix).map_err(|e| StoreError::Unavailable {
                operation: "list",
                what: prefix.clone(),
                reason: e.to_string(),
            })
        }))
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        let key = key.clone();
        Box::pin(self.blocking("delete", key.to_string(), move |store| {
            store.delete_blocking(&key).map_err(|e| io_error("delete", &key, e))
        }))
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}
