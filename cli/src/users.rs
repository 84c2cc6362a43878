//! Who Postgres runs as. Never root: as root it is the system user `strata` (or `$STRATA_RUN_AS`), else the caller.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, bail};
use nix::unistd::{Gid, Group, Uid, User};

/// The user that Postgres and its helpers run as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunAs {
    pub uid: Uid,
    pub gid: Gid,
}

impl RunAs {
    pub fn current() -> anyhow::Result<RunAs> {
        let me = Uid::effective();
        if !me.is_root() {
            return Ok(RunAs { uid: me, gid: Gid::effective() });
        }
        let name = std::env::var("STRATA_RUN_AS").unwrap_or_else(|_| "strata".to_owned());
        let user = User::from_name(&name).with_context(|| format!("cannot look up the user '{name}'"))?;
        let user = user.with_context(|| {
            format!(
                "there is no user '{name}' for Postgres to run as: run 'make setup', or set STRATA_RUN_AS"
            )
        })?;
        if user.uid.is_root() {
            bail!("STRATA_RUN_AS names root, and Postgres never runs as root: name another user");
        }
        Ok(RunAs { uid: user.uid, gid: user.gid })
    }

    /// Makes a folder (with its parents) that this user owns and nobody else may read.
    pub fn own_folder(self, folder: &Path) -> anyhow::Result<()> {
        let describe = || format!("cannot make {}", folder.display());
        std::fs::create_dir_all(folder).with_context(describe)?;
        nix::unistd::chown(folder, Some(self.uid), Some(self.gid)).with_context(describe)?;
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .with_context(describe)
    }

    /// Refuses a folder that this user could not reach, naming the parent that is in the way.
    pub fn check_reachable(self, folder: &Path) -> anyhow::Result<()> {
        let mut parents: Vec<&Path> = folder.ancestors().skip(1).collect();
        parents.reverse();
        for parent in parents.into_iter().filter(|parent| parent.exists()) {
            let facts =
                std::fs::metadata(parent).with_context(|| format!("cannot look at {}", parent.display()))?;
            if !self.may_enter(&facts) {
                bail!(
                    "the user that Postgres runs as (uid {}) cannot enter {}: choose another folder with --dir or STRATA_DIR",
                    self.uid,
                    parent.display()
                );
            }
        }
        Ok(())
    }

    fn may_enter(self, facts: &std::fs::Metadata) -> bool {
        let group = Group::from_gid(Gid::from_raw(facts.gid())).ok().flatten();
        let user = User::from_uid(self.uid).ok().flatten();
        let listed = group.zip(user).is_some_and(|(group, user)| group.mem.contains(&user.name));
        if facts.uid() == self.uid.as_raw() {
            facts.mode() & 0o100 != 0
        } else if facts.gid() == self.gid.as_raw() || listed {
            facts.mode() & 0o010 != 0
        } else {
            facts.mode() & 0o001 != 0
        }
    }
}
