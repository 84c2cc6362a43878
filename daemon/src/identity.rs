//! To whom a data folder belongs. On first use of an empty folder a marker with the cluster, the kind of daemon and the
//! node is laid down; later a folder whose marker says otherwise is refused, so that a mistyped path or a disk of
//! another cluster can never be written to. An emptied folder is a fresh one (a safekeeper then knows no timeline, K16).
//!
//! The marker is also what the running daemon locks: two processes never share a folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use strata_common::{ClusterId, NodeId};

/// Name of the marker in a data folder; a TOML file.
pub const MARKER: &str = "strata-identity.toml";

const MARKER_VERSION: u32 = 1;

/// What the marker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    version: u32,
    pub cluster: ClusterId,
    pub role: String,
    pub node: NodeId,
}

impl Identity {
    pub fn new(cluster: ClusterId, role: &str, node: NodeId) -> Identity {
        Identity { version: MARKER_VERSION, cluster, role: role.to_owned(), node }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot use the data folder {dir}: {error}")]
    Io { dir: PathBuf, error: std::io::Error },
    #[error("the data folder {dir} holds files but no {MARKER}: give an empty folder or the right one")]
    Foreign { dir: PathBuf },
    #[error(
        "the data folder {dir} has an unreadable {MARKER} ({message}): give the right folder or empty this one"
    )]
    Unreadable { dir: PathBuf, message: String },
    #[error(
        "the data folder {dir} belongs to {theirs}, not to {ours}: give the right folder or an empty one"
    )]
    Other { dir: PathBuf, theirs: String, ours: String },
    #[error("the data folder {dir} is in use by another process: stop that one first")]
    InUse { dir: PathBuf },
}

/// A data folder that is ours, locked until this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    pub path: PathBuf,
    /// Whether the marker was laid down just now.
    pub is_fresh: bool,
    _lock: File,
}

impl DataFolder {
    /// Opens `dir` (made if absent) for `identity`, or says why not.
    pub fn open(dir: &Path, identity: &Identity) -> Result<DataFolder, IdentityError> {
        let io = |error| IdentityError::Io { dir: dir.to_owned(), error };
        std::fs::create_dir_all(dir).map_err(io)?;
        let marker = dir.join(MARKER);
        let is_fresh = !marker.try_exists().map_err(io)?;
        if is_fresh {
            if has_content(dir).map_err(io)? {
                return Err(IdentityError::Foreign { dir: dir.to_owned() });
            }
            lay_down(dir, identity).map_err(io)?;
        }
        let lock = OpenOptions::new().read(true).write(true).open(&marker).map_err(io)?;
        check(dir, &marker, identity)?;
        match lock.try_lock() {
            Ok(()) => Ok(DataFolder { path: dir.to_owned(), is_fresh, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(IdentityError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }
}

/// Whether the folder holds anything but what file systems put there and a marker whose writing was cut short.
fn has_content(dir: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name != "lost+found" && name != temporary_name().as_str() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn temporary_name() -> String {
    format!("{MARKER}.new")
}

fn lay_down(dir: &Path, identity: &Identity) -> std::io::Result<()> {
    let text = toml::to_string(identity).map_err(std::io::Error::other)?;
    let temporary = dir.join(temporary_name());
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, dir.join(MARKER))?;
    File::open(dir)?.sync_all()
}

fn check(dir: &Path, marker: &Path, ours: &Identity) -> Result<(), IdentityError> {
    let text =
        std::fs::read_to_string(marker).map_err(|error| IdentityError::Io { dir: dir.to_owned(), error })?;
    let theirs: Identity = toml::from_str(&text).map_err(|e: toml::de::Error| IdentityError::Unreadable {
        dir: dir.to_owned(),
        message: e.message().split_whitespace().collect::<Vec<_>>().join(" "),
    })?;
    if theirs == *ours {
        return Ok(());
    }
    let describe = |of: &Identity| format!("{} {} of cluster {}", of.role, of.node, of.cluster);
    Err(IdentityError::Other { dir: dir.to_owned(), theirs: describe(&theirs), ours: describe(ours) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cluster: u8, node: u64) -> Identity {
        Identity::new(ClusterId([cluster; 16]), "safekeeper", NodeId(node))
    }

    #[test]
    fn an_empty_folder_is_taken_and_known_again() {
        let root = tempfile::tempdir().expect("temporary folder");
        let dir = root.path().join("a/b");
        assert!(DataFolder::open(&dir, &identity(1, 1)).expect("fresh").is_fresh);
        assert!(!DataFolder::open(&dir, &identity(1, 1)).expect("ours").is_fresh);
        std::fs::remove_file(dir.join(MARKER)).expect("emptied");
        std::fs::write(dir.join(temporary_name()), "cut sho").expect("written");
        assert!(DataFolder::open(&dir, &identity(1, 1)).expect("emptied: fresh").is_fresh);
    }

    #[test]
    fn folders_of_others_are_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        drop(DataFolder::open(dir.path(), &identity(1, 1)).expect("fresh"));
        for other in
            [identity(2, 1), identity(1, 2), Identity::new(ClusterId([1; 16]), "pageserver", NodeId(1))]
        {
            let error = DataFolder::open(dir.path(), &other).expect_err("refused");
            assert!(matches!(error, IdentityError::Other { .. }), "{error}");
        }
        std::fs::write(dir.path().join(MARKER), "version = 'x").expect("written");
        let error = DataFolder::open(dir.path(), &identity(1, 1)).expect_err("refused");
        assert!(matches!(error, IdentityError::Unreadable { .. }), "{error}");
        std::fs::remove_file(dir.path().join(MARKER)).expect("removed");
        std::fs::write(dir.path().join("holiday.jpg"), "x").expect("written");
        let error = DataFolder::open(dir.path(), &identity(1, 1)).expect_err("refused");
        assert!(matches!(error, IdentityError::Foreign { .. }), "{error}");
    }

    #[test]
    fn a_folder_in_use_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let held = DataFolder::open(dir.path(), &identity(1, 1)).expect("fresh");
        let error = DataFolder::open(dir.path(), &identity(1, 1)).expect_err("refused");
        assert!(matches!(error, IdentityError::InUse { .. }), "{error}");
        drop(held);
        DataFolder::open(dir.path(), &identity(1, 1)).expect("free again");
    }
}
