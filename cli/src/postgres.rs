//! Where the Postgres with the extension lies: an immutable tree in the cache, named by the file `postgres-tree` beside this
//! program (written by `make build`).

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::json;

use crate::output::Output;
use crate::users::RunAs;

/// The major version that everything here is made for.
pub const MAJOR: u32 = 17;

/// Folder of a program that lies beside this one.
pub fn sibling(program: &str) -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe().context("cannot find this program's own file")?;
    let path = me.parent().context("a program lies in a folder")?.join(program);
    if !path.is_file() {
        bail!("{} is missing: run 'make build'", path.display());
    }
    Ok(path)
}

/// The tree of Postgres and extension that new computes run from. `STRATA_PG_TREE` names another.
pub fn tree() -> anyhow::Result<PathBuf> {
    let tree = match std::env::var_os("STRATA_PG_TREE") {
        Some(tree) => PathBuf::from(tree),
        None => {
            let file = sibling("postgres-tree")?;
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            PathBuf::from(text.trim())
        }
    };
    if !tree.join("bin/postgres").is_file() {
        bail!(
            "there is no Postgres in {}: run 'make build', or let STRATA_PG_TREE name another tree",
            tree.display()
        );
    }
    Ok(tree)
}

/// The version of a tree's Postgres, such as "17.11". Another major than ours is refused.
pub fn version(tree: &Path) -> anyhow::Result<String> {
    let program = tree.join("bin/postgres");
    let output = Command::new(&program).arg("--version").output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().nth(2).unwrap_or_default().to_owned();
    let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
    if major != Some(MAJOR) {
        let found =
            if version.is_empty() { "of unknown version".to_owned() } else { format!("version {version}") };
        bail!(
            "{} is {found}, and this is made for Postgres {MAJOR}: run 'make build', or let STRATA_PG_TREE name a tree of {MAJOR}",
            program.display()
        );
    }
    Ok(version)
}

/// The version of a tree's Postgres as `server_version_num` gives it: 170011.
pub fn version_num(tree: &Path) -> anyhow::Result<u32> {
    let version = version(tree)?;
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    let minor = minor.with_context(|| format!("{version} is no released version of Postgres"))?;
    Ok(MAJOR * 10_000 + minor)
}

/// A tar of a freshly made data directory; made once for a Postgres tree and kept in its cache.
pub fn template(tree: &Path, run_as: RunAs) -> anyhow::Result<Vec<u8>> {
    version(tree)?;
    let scratch =
        tempfile::Builder::new().prefix("strata-initdb-").tempdir().context("cannot make a folder")?;
    nix::unistd::chown(scratch.path(), Some(run_as.uid), Some(run_as.gid)).context("cannot own a folder")?;
    let name = tree.file_name().context("a tree has a name")?.to_string_lossy().into_owned();
    let cached = tree.with_file_name(format!("{name}.template.tar"));
    if let Ok(tar) = std::fs::read(&cached) {
        return Ok(tar);
    }
    let data = scratch.path().join("data");
    let mut command = Command::new(tree.join("bin/initdb"));
    command.args(["--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    command.args(["--auth=trust", "--no-instructions"]).arg("-D").arg(&data);
    command.current_dir(scratch.path()).env("HOME", scratch.path()).stdin(Stdio::null());
    if nix::unistd::Uid::effective().is_root() {
        // Setting the uid also drops root's supplementary groups (std::os::unix::process::CommandExt).
        command.uid(run_as.uid.as_raw()).gid(run_as.gid.as_raw());
    }
    let output = command.output().context("cannot run initdb")?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", &data).context("cannot read the new data directory")?;
    let tar = builder.into_inner().context("cannot finish the tar")?;
    // The cache may belong to somebody else; then each tenant pays for its initdb.
    let _ = crate::home::write_whole(&cached, &tar);
    Ok(tar)
}

/// Refuses a configuration file that Postgres itself would refuse: names that it does not know, values that they cannot have. Settings of
/// libraries are taken on trust, for none is loaded.
pub fn check_configuration(tree: &Path, run_as: RunAs, text: &str) -> anyhow::Result<()> {
    let scratch =
        tempfile::Builder::new().prefix("strata-check-").tempdir().context("cannot make a folder")?;
    let file = scratch.path().join("postgresql.conf");
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    // Where ALTER SYSTEM would write: Postgres says so if it is missing.
    let other = scratch.path().join("postgresql.auto.conf");
    std::fs::write(&other, "").with_context(|| format!("cannot write {}", other.display()))?;
    for path in [scratch.path(), &file, &other] {
        nix::unistd::chown(path, Some(run_as.uid), Some(run_as.gid)).context("cannot own a folder")?;
    }
    let mut command = Command::new(tree.join("bin/postgres"));
    // Prints one setting and ends, after it has read the file.
    command.args(["-C", "data_directory", "-D"]).arg(scratch.path());
    command.current_dir(scratch.path()).env("LC_ALL", "C").stdin(Stdio::null());
    if nix::unistd::Uid::effective().is_root() {
        command.uid(run_as.uid.as_raw()).gid(run_as.gid.as_raw());
    }
    let output = command.output().context("cannot run postgres")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let place = format!(" in file \"{}\"", file.display());
    let line = said.lines().find_map(|line| line.split_once("LOG:  ").map(|(_, words)| words.trim()));
    // Without the file that nobody but us will ever see.
    let line = line.unwrap_or_else(|| said.trim());
    bail!("{}", line.split_once(&place).map_or(line, |(before, _)| before))
}

pub fn bindir() -> anyhow::Result<Output> {
    let path = tree()?.join("bin").display().to_string();
    Ok(Output::new(json!({ "path": path }), path))
}

pub fn srcdir() -> anyhow::Result<Output> {
    let tree = tree()?;
    let source = std::fs::canonicalize(tree.join("src"));
    let path =
        source.with_context(|| format!("{} has no source tree", tree.display()))?.display().to_string();
    Ok(Output::new(json!({ "path": path }), path))
}
