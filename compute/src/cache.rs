//! The folder of the local file cache, which outlives the data directory, and the proof that what lies in it is still the newest (trap C7).
//!
//! After a clean stop the supervisor seals the cache: a majority has the log up to `end_lsn`, and the server wrote down which pages were the
//! newest there. What is committed never changes, so if the next log of the same timeline begins at exactly `end_lsn`, these pages are the
//! newest at that start, whoever was elected meanwhile. In all other cases (a loss, another compute's log in between, another branch)
//! nothing is proven, and the cache begins empty. What lies where in the folder, the extension knows.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use strata_common::{Guard, Lsn, SystemId, TenantTimelineId, Term};

use crate::handoff::Started;
use crate::spec::Spec;

/// Part of the disk that the cache may take where nothing is said: one in this many of what is free.
const FREE_SHARE: u64 = 8;
/// Its index takes 16 MiB of shared memory.
const DEFAULT_MIB_MAX: u64 = 2048;
/// Less is not worth its index.
const DEFAULT_MIB_MIN: u64 = 16;

/// The folder: beside the data directory, so that it goes with the compute.
pub fn folder(spec: &Spec) -> PathBuf {
    spec.data_dir.with_file_name("cache")
}

/// The file of pages; its index lies beside it.
pub fn pages(spec: &Spec) -> PathBuf {
    folder(spec).join("pages")
}

fn seal_path(spec: &Spec) -> PathBuf {
    folder(spec).join("sealed.json")
}

/// Makes the folder, Postgres's own.
pub fn make_folder(spec: &Spec) -> anyhow::Result<()> {
    let folder = folder(spec);
    let describe = || format!("cannot make {}", folder.display());
    DirBuilder::new().mode(0o700).recursive(true).create(&folder).with_context(describe)?;
    if nix::unistd::Uid::effective().is_root() {
        lchown(&folder, Some(spec.uid), Some(spec.gid)).with_context(describe)?;
    }
    Ok(())
}

/// Size of the cache where the user gives none, MiB: a share of what the disk has free, the cache's own files counted as free, with one
/// that is being removed.
pub fn default_mib(spec: &Spec) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut place: &Path = &folder(spec);
    while !place.exists() {
        let Some(parent) = place.parent() else { return 0 };
        place = parent;
    }
    let Ok(disk) = nix::sys::statvfs::statvfs(place) else { return 0 };
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    let files = std::fs::read_dir(folder(spec)).into_iter().flatten().flatten();
    let own: u64 = files.filter_map(|file| file.metadata().ok()).map(|file| file.blocks() * 512).sum();
    share_of((free + own) >> 20)
}

fn share_of(free_mib: u64) -> u64 {
    let share = (free_mib / FREE_SHARE).min(DEFAULT_MIB_MAX);
    if share < DEFAULT_MIB_MIN { 0 } else { share }
}

/// What a clean stop says of the cache.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
struct Seal {
    timeline: TenantTimelineId,
    system_id: SystemId,
    /// Of the server that stopped.
    term: Term,
    /// A majority has its log up to here, the end of its shutdown checkpoint.
    end_lsn: Lsn,
}

/// Seals the cache after a clean stop whose log a majority has. What goes wrong costs the next start its cache, no more.
pub fn seal(spec: &Spec, started: &Started, end_lsn: Lsn) {
    let seal = Seal { timeline: spec.timeline, system_id: spec.system_id, term: started.term, end_lsn };
    let write =
        || -> anyhow::Result<()> { Ok(std::fs::write(seal_path(spec), serde_json::to_string(&seal)?)?) };
    if let Err(error) = write() {
        tracing::warn!("the local file cache is not kept: {error:#}");
    }
}

/// The term whose server's cache is the newest at this start, if one is. The seal is broken: it is looked at once.
pub fn proven(spec: &Spec, started: &Started) -> Option<Term> {
    let text = std::fs::read_to_string(seal_path(spec));
    if let Err(error) = std::fs::remove_file(seal_path(spec))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("the local file cache begins empty: its seal cannot be removed: {error}");
        return None;
    }
    if !pages(spec).exists() {
        return None;
    }
    let seal = text.map_err(|_| "its server did not stop cleanly".to_owned()).and_then(|text| {
        serde_json::from_str::<Seal>(&text).map_err(|error| format!("its seal is damaged: {error}"))
    });
    match seal.and_then(|seal| check(seal, spec, started)) {
        Ok(term) => Some(term),
        Err(why) => {
            tracing::info!("the local file cache begins empty: {why}");
            None
        }
    }
}

fn check(seal: Seal, spec: &Spec, started: &Started) -> Result<Term, String> {
    if (seal.timeline, seal.system_id) != (spec.timeline, spec.system_id) {
        return Err("it is another branch's".to_owned());
    }
    if seal.end_lsn != started.start_lsn && Guard::KeptAtTheEnd.holds() {
        return Err(format!(
            "its log ended at {}, and this one begins at {}",
            seal.end_lsn, started.start_lsn
        ));
    }
    Ok(seal.term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_share_of_the_disk_and_never_much() {
        let shares = [0, 100, 127, 128, 8000, 16_384, 1 << 30].map(share_of);
        assert_eq!(shares, [0, 0, 0, 16, 1000, 2048, 2048]);
    }

    /// C7: only the very end of the very log proves anything, and only once.
    #[test]
    fn a_seal_proves_one_start_of_its_own_log() {
        let home = tempfile::tempdir().expect("a folder");
        let mut spec = crate::settings::test_spec();
        spec.data_dir = home.path().join("pgdata");
        make_folder(&spec).expect("makes");
        let at = |lsn, term| Started { term: Term(term), start_lsn: Lsn(lsn) };
        assert_eq!(proven(&spec, &at(100, 1)), None, "there is nothing");
        std::fs::write(pages(&spec), "").expect("writes");
        assert_eq!(proven(&spec, &at(100, 1)), None, "no clean stop");
        seal(&spec, &at(100, 3), Lsn(500));
        assert_eq!(
            proven(&spec, &at(500, 8)),
            Some(Term(3)),
            "others may have been elected and have written nothing"
        );
        assert_eq!(proven(&spec, &at(500, 8)), None, "it was looked at");
        for start in [0, 499, 501] {
            seal(&spec, &at(100, 3), Lsn(500));
            assert_eq!(proven(&spec, &at(start, 8)), None);
        }
        seal(&spec, &at(100, 3), Lsn(500));
        spec.timeline.timeline.0[0] ^= 1;
        assert_eq!(proven(&spec, &at(500, 8)), None, "another branch");
        std::fs::write(seal_path(&spec), "{\"term\":3}").expect("writes");
        assert_eq!(proven(&spec, &at(500, 8)), None, "half a seal");
    }
}
