//! The data directory: emptied and laid down from a base backup at every start. Nothing in it is worth keeping.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::unistd::Pid;
use strata_common::Lsn;
use strata_proto::page::BaseBackupRequest;
use strata_proto::page::page_service_client::PageServiceClient;
use tonic::transport::Channel;

use crate::aside;
use crate::pageserver::Pageserver;
use crate::settings;
use crate::spec::{Phase, Spec};
use crate::state_file::StateFile;

/// Between two questions to a pageserver that is away.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Between two looks whether a Postgres is gone.
const LEAVES_PAUSE: Duration = Duration::from_millis(20);

/// Refuses a folder in which a Postgres runs; one that is about to end gets `leaves_max` for it.
pub async fn refuse_live(folder: &Path, leaves_max: Duration) -> anyhow::Result<()> {
    let begin = Instant::now();
    while let Some(pid) = live_postmaster(folder) {
        if begin.elapsed() >= leaves_max {
            bail!("a Postgres (process {pid}) runs in {}: stop it first", folder.display());
        }
        tokio::time::sleep(LEAVES_PAUSE).await;
    }
    Ok(())
}

/// The process that `postmaster.pid` names, if it lives and works in that very folder, as every postmaster does (miscinit.c,
/// ChangeToDataDir): the number alone may be somebody else's by now.
fn live_postmaster(folder: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(folder.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 0)?;
    let place = std::fs::read_link(format!("/proc/{pid}/cwd"));
    let lives = match place {
        Ok(place) => folder.canonicalize().is_ok_and(|folder| folder == place),
        // Somebody else's process, into which we may not look: better safe.
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    };
    lives.then(|| Pid::from_raw(pid))
}

/// Fetches the base backup at `lsn`, waiting for the pageserver as long as it is away, and lays it down. The stream is read to its true end, so that half a backup is an error
/// and not a start (trap S5). Returns the bytes received.
pub async fn lay_down(
    spec: &mut Spec,
    pageserver: &mut Pageserver,
    lsn: Lsn,
    state: &mut StateFile,
) -> anyhow::Result<usize> {
    let tar = loop {
        let fetched = fetch(spec, pageserver.channel(), lsn);
        let status = match pageserver.ask(fetched).await {
            Some(Ok(tar)) => break tar,
            Some(Err(status)) => status,
            None => continue,
        };
        use tonic::Code::{DeadlineExceeded, Unavailable, Unknown};
        let problem = format!("the pageserver gave no base backup at {lsn}: {}", status.message());
        if !matches!(status.code(), DeadlineExceeded | Unavailable | Unknown) {
            bail!("{problem}");
        }
        tracing::warn!("{problem}");
        state.phase(Phase::Starting, problem)?;
        tokio::time::sleep(RETRY_PAUSE).await;
    };
    // The server is told where this came from.
    pageserver.address().clone_into(&mut spec.pageserver);
    // Nobody waits for what is removed.
    drop(aside::remove(&spec.data_dir)?);
    let spec = spec.clone();
    let bytes = tar.len();
    let unpacked = tokio::task::spawn_blocking(move || unpack(&spec, &tar)).await;
    unpacked.context("unpacking the base backup was cut off")??;
    Ok(bytes)
}

async fn fetch(spec: &Spec, channel: Channel, lsn: Lsn) -> Result<Vec<u8>, tonic::Status> {
    let mut client =
        PageServiceClient::new(channel).max_decoding_message_size(strata_proto::MESSAGE_BYTES_MAX);
    let request = BaseBackupRequest {
        tenant_id: spec.timeline.tenant.to_vec().into(),
        timeline_id: spec.timeline.timeline.to_vec().into(),
        lsn: lsn.0,
        handoff: false,
    };
    let mut stream = client.base_backup(request).await?.into_inner();
    let mut tar = Vec::new();
    while let Some(chunk) = stream.message().await? {
        tar.extend_from_slice(&chunk.data);
    }
    Ok(tar)
}

/// Lays every entry down with the owner and mode that Postgres insists on (miscinit.c, checkDataDir), in one pass.
fn unpack(spec: &Spec, tar: &[u8]) -> anyhow::Result<()> {
    let place = Place { folder: &spec.data_dir, owner: (spec.uid, spec.gid) };
    if let Some(parent) = place.folder.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    place.make_folder(place.folder)?;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().context("the base backup is no tar")? {
        place.lay_down(entry.context("the base backup is cut off")?)?;
    }
    if !place.folder.join("global/pg_control").is_file() {
        bail!("the base backup is incomplete: it has no pg_control");
    }
    place.write("postgresql.conf", &settings::postgresql_conf(spec))?;
    place.write(settings::USER_CONF, &settings::user_conf(&spec.settings))?;
    place.write(settings::PAGESERVER_CONF, &settings::pageserver_conf(spec))?;
    place.write("pg_hba.conf", settings::PG_HBA_CONF)?;
    place.write("pg_ident.conf", "")
}

/// Replaces the file with the user's settings in the folder of a running server, which reads the old ones or the new.
pub fn replace_user_conf(spec: &Spec, text: &str) -> anyhow::Result<()> {
    replace(spec, settings::USER_CONF, text)
}

/// The same for the file with the pageserver's address.
pub fn replace_pageserver_conf(spec: &Spec) -> anyhow::Result<()> {
    replace(spec, settings::PAGESERVER_CONF, &settings::pageserver_conf(spec))
}

fn replace(spec: &Spec, name: &str, text: &str) -> anyhow::Result<()> {
    let place = Place { folder: &spec.data_dir, owner: (spec.uid, spec.gid) };
    let new = format!("{name}.new");
    place.write(&new, text)?;
    let path = spec.data_dir.join(name);
    std::fs::rename(spec.data_dir.join(new), &path)
        .with_context(|| format!("cannot replace {}", path.display()))
}

/// Where a base backup goes, and whose it becomes.
struct Place<'a> {
    folder: &'a Path,
    owner: (u32, u32),
}

impl Place<'_> {
    fn lay_down<R: Read>(&self, mut entry: tar::Entry<'_, R>) -> anyhow::Result<()> {
        let name = entry.path().context("a name in the base backup")?.into_owned();
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            bail!("the base backup names {}, which is not in it", name.display());
        }
        let path = self.folder.join(name);
        let describe = || format!("cannot lay down {}", path.display());
        match entry.header().entry_type() {
            tar::EntryType::Directory => return self.make_folder(&path),
            tar::EntryType::Regular => {
                let mut file = create(&path).with_context(describe)?;
                let bytes = entry.size();
                let copied = std::io::copy(&mut entry, &mut file).with_context(describe)?;
                ensure!(copied == bytes, "the base backup is cut off in {}", path.display());
            }
            // The holes of a log segment stay holes.
            tar::EntryType::GNUSparse => {
                entry.unpack(&path).with_context(describe)?;
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).with_context(describe)?;
            }
            other => bail!("the base backup has an entry of kind {other:?}: {}", path.display()),
        }
        self.own(&path)
    }

    /// One that is there already, named twice, is fine.
    fn make_folder(&self, path: &Path) -> anyhow::Result<()> {
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("cannot make {}", path.display()))
            }
            _ => self.own(path),
        }
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        let written = create(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        self.own(&path)
    }

    /// Nobody but root can give away, and needs to.
    fn own(&self, path: &Path) -> anyhow::Result<()> {
        if !nix::unistd::Uid::effective().is_root() {
            return Ok(());
        }
        let (uid, gid) = self.owner;
        lchown(path, Some(uid), Some(gid)).with_context(|| format!("cannot give away {}", path.display()))
    }
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn a_folder_with_a_live_server_is_refused_and_others_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused =
            async |limit| refuse_live(folder.path(), limit).await.err().map(|error| error.to_string());
        assert_eq!(refused(Duration::ZERO).await, None, "no server was ever here");
        let write = |pid: u32| std::fs::write(folder.path().join("postmaster.pid"), format!("{pid}\n/x\n"));
        write(std::process::id()).expect("writes");
        assert_eq!(refused(Duration::ZERO).await, None, "a process that works elsewhere has the number now");
        let mut server = Command::new("sleep").arg("600").current_dir(folder.path()).spawn().expect("sleep");
        write(server.id()).expect("writes");
        let why = refused(Duration::from_millis(30)).await.expect("it is refused");
        assert!(why.contains(&server.id().to_string()) && why.contains("runs in"), "{why}");
        // One that ends while it is looked at is no reason.
        let ends = tokio::task::spawn_blocking(move || server.kill().and_then(|()| server.wait()));
        assert_eq!(refused(Duration::from_secs(60)).await, None);
        ends.await.expect("no panic").expect("it was killed");
    }

    #[test]
    fn entries_are_laid_down_with_owner_and_mode_and_none_outside() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("pgdata");
        let place = Place { folder: &folder, owner: (12_345, 12_346) };
        place.make_folder(&folder).expect("makes");
        let lay_down = |kind, name: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(0o777);
            header.set_size(content.len() as u64);
            header.set_cksum();
            let mut tar = header.as_bytes().to_vec();
            tar.extend_from_slice(content);
            tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
            let mut archive = tar::Archive::new(&tar[..]);
            let entry = archive.entries().expect("a tar").next().expect("one entry").expect("whole");
            place.lay_down(entry).map_err(|error| format!("{error:#}"))
        };
        lay_down(tar::EntryType::Directory, "base/", b"").expect("a folder");
        lay_down(tar::EntryType::Directory, "base/", b"").expect("again");
        lay_down(tar::EntryType::Regular, "base/PG_VERSION", b"17\n").expect("a file");
        let facts = |name: &str| {
            use std::os::unix::fs::MetadataExt;
            let facts = std::fs::metadata(folder.join(name)).expect("it is there");
            (facts.mode() & 0o777, facts.uid())
        };
        let owner = if nix::unistd::Uid::effective().is_root() { 12_345 } else { facts("").1 };
        assert_eq!((facts("base"), facts("base/PG_VERSION")), ((0o700, owner), (0o600, owner)));
        assert_eq!(std::fs::read(folder.join("base/PG_VERSION")).expect("reads"), b"17\n");
        for outside in ["../out", "/out"] {
            let why = lay_down(tar::EntryType::Regular, outside, b"x").expect_err("it is refused");
            assert!(why.contains("not in it"), "{why}");
        }
        let link = lay_down(tar::EntryType::Symlink, "link", b"").expect_err("no links");
        assert!(link.contains("Symlink"), "{link}");
        assert!(!home.path().join("out").exists());
    }
}
