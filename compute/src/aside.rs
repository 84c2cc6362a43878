//! What a former life left is moved aside and removed beside the start: removing log segments takes many times what laying down a new
//! folder does, and a disk that is told of each freed block takes a minute for a file of gigabytes.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use tokio::task::JoinHandle;

/// What follows the name until it is removed.
const ENDING: &str = ".gone-";

/// Moves a folder or file away, if it is there, and begins to remove it, with what else lies there so.
pub fn remove(path: &Path) -> anyhow::Result<JoinHandle<()>> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let (parent, name) = path.parent().zip(path.file_name()).context("what is removed has a name")?;
    let (parent, prefix) = (parent.to_owned(), format!("{}{ENDING}", name.to_string_lossy()));
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let aside = parent.join(format!("{prefix}{}-{number}", std::process::id()));
    match std::fs::rename(path, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot move {} aside", path.display()));
        }
        _ => {}
    }
    Ok(tokio::task::spawn_blocking(move || {
        let entries = std::fs::read_dir(&parent).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed =
                if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            if let Err(error) = removed {
                // It costs room until the next start, no more.
                tracing::warn!(path = %path.display(), %error, "not removed");
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_and_folders_go_with_what_an_earlier_removal_left() {
        let home = tempfile::tempdir().expect("a folder");
        let at = |name: &str| home.path().join(name);
        let names = || {
            let entries = std::fs::read_dir(home.path()).expect("lists").flatten();
            let mut names: Vec<_> =
                entries.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
            names.sort();
            names
        };
        std::fs::create_dir_all(at("data/base/5")).expect("makes");
        for name in ["data/base/5/1", "pages", "pages.gone-7-0", "pages.former"] {
            std::fs::write(at(name), "x").expect("writes");
        }
        let removal = remove(&at("pages")).expect("moves");
        assert!(!at("pages").exists(), "at once");
        removal.await.expect("no panic");
        assert_eq!(names(), ["data", "pages.former"]);
        remove(&at("data")).expect("moves").await.expect("no panic");
        remove(&at("nothing")).expect("nothing to do").await.expect("no panic");
        assert_eq!(names(), ["pages.former"]);
    }
}
