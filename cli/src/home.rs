//! The installation's folder: where each thing lies in it, and the lock that verbs take.
//!
//! `registry.json` and `config/` are the installation's identity; `safekeeper-N/`, `pageserver-N/`, `objects/` and
//! `computes/NAME/` hold data; `run/` holds pid files and logs.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::registry::Registry;

pub struct Home {
    pub root: PathBuf,
}

/// The registry under an exclusive lock; changes are kept by `save`.
pub struct Locked {
    pub registry: Registry,
    path: PathBuf,
    _lock: Flock<File>,
}

impl Home {
    /// The folder need not exist yet.
    pub fn at(root: PathBuf) -> anyhow::Result<Home> {
        let root =
            std::path::absolute(&root).with_context(|| format!("'{}' is no usable path", root.display()))?;
        Ok(Home { root })
    }

    pub fn registry_path(&self) -> PathBuf {
        self.root.join("registry.json")
    }

    pub fn config_path(&self, node: &str) -> PathBuf {
        self.root.join("config").join(format!("{node}.toml"))
    }

    pub fn pid_path(&self, process: &str) -> PathBuf {
        self.root.join("run").join(format!("{process}.pid"))
    }

    pub fn log_path(&self, process: &str) -> PathBuf {
        self.root.join("run").join(format!("{process}.log"))
    }

    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.root.join(node)
    }

    pub fn object_store(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub fn compute_dir(&self, name: &str) -> PathBuf {
        self.root.join("computes").join(name)
    }

    /// Reads the registry without the lock: for verbs that only look.
    pub fn registry(&self) -> anyhow::Result<Registry> {
        read_registry(&self.registry_path())
    }

    /// Takes the lock (waiting for another verb to finish) and reads the registry.
    pub fn lock(&self) -> anyhow::Result<Locked> {
        let path = self.registry_path();
        if !path.is_file() {
            bail!("there is no installation in {}: run 'strata init' first", self.root.display());
        }
        let lock = self.take_lock()?;
        Ok(Locked { registry: read_registry(&path)?, path, _lock: lock })
    }

    /// The lock of a folder that has no registry yet; `None` if another verb has it.
    pub fn lock_new(&self) -> anyhow::Result<Option<Flock<File>>> {
        let path = self.root.join("lock");
        match Flock::lock(open_lock(&path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => bail!("cannot lock {}: {error}", path.display()),
        }
    }

    /// The registry that is to be written under a lock that is held already.
    pub fn locked_new(&self, lock: Flock<File>, registry: Registry) -> Locked {
        Locked { registry, path: self.registry_path(), _lock: lock }
    }

    fn take_lock(&self) -> anyhow::Result<Flock<File>> {
        let path = self.root.join("lock");
        Flock::lock(open_lock(&path)?, FlockArg::LockExclusive)
            .map_err(|(_, error)| anyhow::anyhow!("cannot lock {}: {error}", path.display()))
    }
}

impl Locked {
    /// Lets other verbs go on; what was read stays for this one to look at.
    pub fn release(self) -> Registry {
        self.registry
    }

    /// Writes the registry: whole or not at all.
    pub fn save(&self) -> anyhow::Result<()> {
        let text =
            serde_json::to_string_pretty(&self.registry).context("the registry cannot be written as JSON")?;
        write_whole(&self.path, text.as_bytes())
    }
}

fn open_lock(path: &Path) -> anyhow::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

fn read_registry(path: &Path) -> anyhow::Result<Registry> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(path).display().to_string();
            bail!("there is no installation in {folder}: run 'strata init' first");
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    serde_json::from_str(&text).map_err(|error| {
        anyhow::anyhow!(
            "{} is damaged ({error}): put a good copy in its place; the data beside it is untouched",
            path.display()
        )
    })
}

/// Replaces a file: a reader sees the old content or the new, also after a crash.
pub fn write_whole(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let describe = || format!("cannot write {}", path.display());
    let folder = path.parent().with_context(describe)?;
    std::fs::create_dir_all(folder).with_context(describe)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(describe)?;
    std::io::Write::write_all(&mut file, content).with_context(describe)?;
    file.as_file().sync_all().with_context(describe)?;
    file.persist(path).with_context(describe)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(describe)
}
