//! What of the cache outlives its server (trap C7): the index goes into a file beside the pages when nothing can change any more, and a
//! later server begins with it if the supervisor proves that the log ends where that server's ended.
//!
//! A page is kept if the cache would still answer with it after the shutdown checkpoint: nothing has changed it up to the log's end.
//! If the next server's log begins exactly there, on the same timeline, nothing can have changed it since, so it is as of that start.
//! Whether a majority has that log only the supervisor knows: it says so by naming the term whose index may be believed
//! (`strata.lfc_kept_term`). In all other cases the pages go, and the index is left as a list of names. Free space maps are never kept:
//! they change without log.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use pgrx::pg_sys;
use strata_common::{BLOCK_BYTES, ForkNumber, Lsn, Term};
use strata_lfc::kept::{self, End, KeptPage, Owner};
use strata_lfc::partition::Restored;

use super::memory::{self, PARTITIONS};
use super::{file, settings};
use crate::guc;
use crate::smgr::state;

fn beside(ending: &str) -> PathBuf {
    let mut name = OsString::from(settings::path());
    name.push(ending);
    name.into()
}

fn index_path() -> PathBuf {
    beside(".index")
}

/// The index that the former server left, proven or not.
fn former_path() -> PathBuf {
    beside(".former")
}

/// Has the index written when the postmaster ends; call in it, once.
pub fn write_at_exit() {
    // SAFETY: a function of the right type; children of the postmaster drop its list (on_exit_reset).
    unsafe { pg_sys::on_shmem_exit(Some(at_exit), pg_sys::Datum::from(0)) };
}

/// The postmaster's last steps: all others are gone, the shutdown checkpoint among them, and the shared memory is still there.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_exit(code: i32, _argument: pg_sys::Datum) {
    // SAFETY: plain variables of this process.
    let is_postmaster = unsafe { pg_sys::MyProcPid == pg_sys::PostmasterPid };
    if code == 0 && is_postmaster && super::is_on() {
        write(End::Clean);
    }
}

/// The index as bytes; made without locks if `end` says that nobody else is there.
pub fn index(end: End) -> Option<Vec<u8>> {
    let (timeline, (term, _)) = (guc::timeline().ok()?, guc::writer().ok()??);
    Some(kept::encode(Owner { timeline, term, end }, &pages(end, usize::MAX)))
}

/// Which pages the cache holds, for the object store.
pub struct HotList {
    pub bytes: Vec<u8>,
    pub pages: usize,
    /// What the cache's count of writes was before.
    pub writes: u64,
}

/// An index of the hottest pages that takes so many bytes at most.
pub fn hot_list(bytes_max: usize) -> Option<HotList> {
    let (timeline, (term, _)) = (guc::timeline().ok()?, guc::writer().ok()??);
    let writes = memory::counters().writes.load(Ordering::Relaxed);
    let pages = pages(End::Running, kept::pages_in(bytes_max) / PARTITIONS);
    let bytes = kept::encode(Owner { timeline, term, end: End::Running }, &pages);
    Some(HotList { bytes, pages: pages.len(), writes })
}

/// Lays down a list that came from the object store.
pub fn write_fetched(bytes: &[u8]) -> std::io::Result<()> {
    let new = beside(".fetched.new");
    std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, beside(".fetched")))
}

/// The list that came last.
pub fn fetched() -> std::io::Result<Vec<u8>> {
    std::fs::read(beside(".fetched"))
}

/// The index that the former server left, if it left one.
pub fn former() -> Option<Vec<u8>> {
    std::fs::read(former_path()).ok()
}

/// Writes the index. What goes wrong costs the next server its pages, no more.
pub fn write(end: End) {
    let Some(bytes) = index(end) else { return };
    let new = beside(".index.new");
    let written = std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, index_path()));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&new);
        pgrx::log!(
            "the local file cache is not kept, because \"{}\" could not be written: {error}",
            new.display()
        );
    }
}

/// Pages that a read would find now, but for free space maps: the hottest so many of each partition.
fn pages(end: End, most: usize) -> Vec<KeptPage> {
    let mut kept = Vec::new();
    for number in 0..PARTITIONS {
        let pages = match end {
            End::Clean => memory::without_lock(number, |partition| partition.pages()),
            End::Running => memory::shared(number, |partition| partition.pages()),
        };
        let newest = pages.into_iter().filter(|page| {
            let rel = page.name.rel;
            rel.fork != ForkNumber::FreeSpaceMap
                && page.as_of >= state::last_written().page(rel, page.name.block)
        });
        let newest: Vec<_> = newest.collect();
        let colder = newest.len().saturating_sub(most);
        kept.extend(newest.into_iter().skip(colder).map(|page| KeptPage {
            name: page.name,
            place: memory::place_in_file(number, page.place),
            checksum: page.checksum,
            uses: page.uses,
            in_main: page.in_main,
        }));
    }
    kept
}

/// Fills the cache, which nobody uses yet, with what the former server left, if that is proven; whether the file is to stay.
pub fn restore() -> bool {
    let index = std::fs::read(index_path());
    // Whatever comes of it, it is believed once. As a list of names it stays.
    let _ = std::fs::rename(index_path(), former_path());
    let term = guc::value(&guc::LFC_KEPT_TERM);
    if term.is_empty() {
        return false;
    }
    let restored = match index {
        Ok(bytes) => fill(&bytes, &term),
        Err(error) if error.kind() == ErrorKind::NotFound => Err("it left no index".to_owned()),
        Err(error) => Err(format!("its index could not be read: {error}")),
    };
    match restored {
        Ok(pages) => {
            pgrx::log!("the local file cache begins with {pages} pages of its former life");
            true
        }
        Err(why) => {
            pgrx::log!("the local file cache begins empty: of its former life, {why}");
            false
        }
    }
}

fn fill(index: &[u8], term: &str) -> Result<u32, String> {
    let (owner, pages) = kept::decode(index).map_err(|damaged| format!("the index is damaged: {damaged}"))?;
    let (_, start_lsn) = guc::writer()?.ok_or("nothing says where the log begins")?;
    let expected = Owner {
        timeline: guc::timeline()?,
        term: Term(term.parse().map_err(|_| format!("strata.lfc_kept_term is '{term}'"))?),
        end: End::Clean,
    };
    if owner != expected {
        return Err("the index is of another one".to_owned());
    }
    let there = file::length().map_err(|error| format!("the file could not be opened: {error}"))?
        / BLOCK_BYTES as u64;
    let mut parts: Vec<Vec<Restored>> = vec![Vec::new(); PARTITIONS];
    for page in pages.iter().filter(|page| page.place < there) {
        let (number, place) = memory::place_of(page.place);
        if number == memory::partition_of(page.name) {
            let KeptPage { name, checksum, uses, in_main, .. } = *page;
            parts[number].push(Restored { name, place, checksum, uses, in_main });
        }
    }
    Ok((0..PARTITIONS).map(|number| fill_partition(number, &parts[number], start_lsn)).sum())
}

fn fill_partition(number: usize, pages: &[Restored], as_of: Lsn) -> u32 {
    memory::without_lock(number, |partition| partition.restore(pages, as_of))
}
