//! What a former life left is moved aside and removed beside the start: removing log segments takes many times what laying down a new
//! folder does.

use std::path::Path;

use anyhow::Context;
use tokio::task::JoinHandle;

/// What follows the folder's name until it is removed; then a number.
const ENDING: &str = ".gone-";

/// Moves a folder away, if it is there, and begins to remove it, with what earlier removals did not come to.
pub fn remove(folder: &Path) -> anyhow::Result<JoinHandle<()>> {
    let (parent, name) = folder.parent().zip(folder.file_name()).context("a folder has a name")?;
    let (parent, prefix) = (parent.to_owned(), format!("{}{ENDING}", name.to_string_lossy()));
    let is_free = |path: &std::path::PathBuf| path.symlink_metadata().is_err();
    let mut names = (0u32..).map(|number| parent.join(format!("{prefix}{number}")));
    let aside = names.find(is_free).context("no name is free")?;
    match std::fs::rename(folder, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot move {} aside", folder.display()));
        }
        _ => {}
    }
    Ok(tokio::task::spawn_blocking(move || {
        let entries = std::fs::read_dir(&parent).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
            if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                // It costs room until the next start, no more.
                tracing::warn!(folder = %entry.path().display(), %error, "not removed");
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_former_folder_is_out_of_the_way_at_once_and_gone_soon() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("pgdata");
        let left = || std::fs::read_dir(home.path()).expect("reads").count();
        remove(&folder).expect("nothing is there").await.expect("no panic");
        std::fs::create_dir_all(home.path().join("pgdata-of-another")).expect("makes");
        for _ in 0..2 {
            // What supervisors that were killed left.
            for number in [0, 1] {
                let left = home.path().join(format!("pgdata.gone-{number}/pg_wal"));
                std::fs::create_dir_all(left).expect("makes");
            }
            std::fs::create_dir_all(folder.join("pg_wal")).expect("makes");
            let removal = remove(&folder).expect("moved");
            assert!(!folder.exists());
            removal.await.expect("no panic");
            assert_eq!(left(), 1, "the other one stays");
        }
    }
}
