//! Small and read-only file systems for tests of full and unwritable disks. Only root can mount; others skip, and say so.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Name of the file that fills a disk.
const FILLER: &str = "filler";

/// Whether this process may mount. If not, says which test does not run.
pub fn can_mount(test: &str) -> bool {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|facts| facts.uid() == 0);
    if !is_root {
        eprintln!("{test} is skipped: only root can mount a small disk");
    }
    is_root
}

/// A file system on a folder; unmounted when it goes out of scope.
pub struct Mount {
    at: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of letters")
}

impl Mount {
    /// A disk of so many MiB on `folder`, holding what the folder held.
    pub fn small_disk(folder: &Path, mib: u32) -> Result<Mount> {
        let aside = folder.with_extension("aside");
        std::fs::rename(folder, &aside)?;
        std::fs::create_dir(folder)?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m,mode=755"), "strata-test", text(folder)?])?;
        let mount = Mount { at: folder.to_owned() };
        run("cp", &["-a", text(&aside.join("."))?, text(folder)?])?;
        std::fs::remove_dir_all(&aside)?;
        Ok(mount)
    }

    /// The folder itself, but nobody can write to it until [`Mount::writable`].
    pub fn read_only(folder: &Path) -> Result<Mount> {
        run("mount", &["--bind", text(folder)?, text(folder)?])?;
        let mount = Mount { at: folder.to_owned() };
        run("mount", &["-o", "remount,bind,ro", text(folder)?])?;
        Ok(mount)
    }

    pub fn writable(&self) -> Result<()> {
        run("mount", &["-o", "remount,bind,rw", text(&self.at)?])
    }

    /// Takes all the room there is.
    pub fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::options().create(true).append(true).open(self.at.join(FILLER))?;
        for size in [1 << 20, 4096, 1] {
            while std::io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
        }
        Ok(())
    }

    pub fn make_room(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.at.join(FILLER))?)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a daemon may still have files open there; it is stopped after this.
        let _ = run("umount", &["-l", text(&self.at).unwrap_or_default()]);
    }
}
