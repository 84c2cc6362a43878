//! The data directory: emptied and laid down from a base backup at every start. Nothing in it is worth keeping.

use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use strata_common::Lsn;
use strata_proto::page::BaseBackupRequest;
use strata_proto::page::page_service_client::PageServiceClient;
use tonic::transport::Channel;

use crate::settings;
use crate::spec::{Phase, Spec};
use crate::state_file::StateFile;

/// Between two questions to a pageserver that is away.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Fetches the base backup at `lsn`, waiting for the pageserver as long as it is away, and lays it down. The stream is read to its true end, so that half a backup is an error
/// and not a start (trap S5). Returns the bytes received.
pub async fn lay_down(
    spec: &Spec,
    channel: Channel,
    lsn: Lsn,
    state: &mut StateFile,
) -> anyhow::Result<usize> {
    let tar = loop {
        let status = match fetch(spec, channel.clone(), lsn).await {
            Ok(tar) => break tar,
            Err(status) => status,
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

fn unpack(spec: &Spec, tar: &[u8]) -> anyhow::Result<()> {
    let folder = &spec.data_dir;
    remove(folder)?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut archive = tar::Archive::new(tar);
    archive.set_preserve_permissions(false);
    archive.set_preserve_mtime(false);
    archive.unpack(folder).context("the base backup cannot be unpacked")?;
    if !folder.join("global/pg_control").is_file() {
        bail!("the base backup is incomplete: it has no pg_control");
    }
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("postgresql.conf", &settings::postgresql_conf(spec))?;
    write("pg_hba.conf", settings::PG_HBA_CONF)?;
    write("pg_ident.conf", "")?;
    give_away(folder, spec)
}

/// Removes the folder of a former life, whatever is in it.
fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot empty {}", folder.display())),
    }
}

/// Owner and modes that Postgres insists on: the server's user, nobody else (miscinit.c, checkDataDir).
fn give_away(path: &Path, spec: &Spec) -> anyhow::Result<()> {
    let describe = || format!("cannot own {}", path.display());
    lchown(path, Some(spec.uid), Some(spec.gid)).with_context(describe)?;
    let facts = std::fs::symlink_metadata(path).with_context(describe)?;
    if facts.is_dir() {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)).with_context(describe)?;
        for entry in std::fs::read_dir(path).with_context(describe)? {
            give_away(&entry.with_context(describe)?.path(), spec)?;
        }
    }
    Ok(())
}
