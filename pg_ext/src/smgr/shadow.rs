//! The test aid `strata.compare_local` with remote storage: a local copy of every page that was written or read, against which
//! every later answer of the pageserver is checked (PS-1, CP-1). A difference stops the server; both pages are left in files.
//!
//! One file per fork below `strata_shadow`, a slot per block: a marker, then the page. Without a marker nothing is known of
//! the block. Only pages in shared buffers are checked: their buffer's I/O lock keeps two processes off one page. Truncation, drop and
//! reuse of a number purge (R5). The files are opened anew each time: simple, and fast enough for tests.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, RelFork, RelTag};
use strata_smgr::page::Page;
use strata_smgr::shadow;

use super::state;

const FOLDER: &str = "strata_shadow";
const MARKER_BYTES: usize = 8;
const SLOT_BYTES: u64 = (MARKER_BYTES + BLOCK_BYTES) as u64;
const KNOWN: u8 = 1;

type PageBytes = [u8; BLOCK_BYTES];

static ON: AtomicBool = AtomicBool::new(false);

/// From `_PG_init` in the postmaster.
pub fn switch_on() {
    ON.store(true, Ordering::Release);
}

fn is_off() -> bool {
    !ON.load(Ordering::Acquire)
}

/// Empties the folder; in the postmaster, before anything is read.
pub fn reset() {
    if is_off() {
        return;
    }
    let emptied = match std::fs::remove_dir_all(FOLDER) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir(FOLDER),
    };
    emptied.unwrap_or_else(|error| failed("empty", FOLDER, &error));
}

fn path(rel: RelFork) -> String {
    let RelTag { tablespace, database, relation } = rel.rel;
    format!("{FOLDER}/{tablespace}_{database}_{relation}_{}", rel.fork.raw())
}

fn failed(verb: &str, path: &str, error: &Error) -> ! {
    pgrx::error!("could not {verb} \"{path}\" of strata.compare_local: {error}")
}

fn slot_offset(block: BlockNumber) -> u64 {
    u64::from(block.0) * SLOT_BYTES
}

/// These pages were written one after the other from `first` on.
pub fn written<'a>(rel: RelFork, first: BlockNumber, pages: impl Iterator<Item = &'a PageBytes>) {
    if is_off() || rel.fork == ForkNumber::FreeSpaceMap {
        return;
    }
    let name = path(rel);
    let store = || -> Result<(), Error> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name)?;
        for (block, page) in (first.0..).map(BlockNumber).zip(pages) {
            put(&file, block, page)?;
        }
        Ok(())
    };
    store().unwrap_or_else(|error| failed("write", &name, &error));
}

fn put(file: &File, block: BlockNumber, page: &PageBytes) -> Result<(), Error> {
    let mut slot = [0; MARKER_BYTES + BLOCK_BYTES];
    slot[0] = KNOWN;
    slot[MARKER_BYTES..].copy_from_slice(page);
    file.write_all_at(&slot, slot_offset(block))
}

/// `count` blocks of zeroes were added.
pub fn extended(rel: RelFork, first: BlockNumber, count: u32) {
    written(rel, first, std::iter::repeat_n(&[0; BLOCK_BYTES], count as usize));
}

fn get(rel: RelFork, block: BlockNumber) -> Option<PageBytes> {
    let name = path(rel);
    let load = || -> Result<Option<PageBytes>, Error> {
        let file = match File::open(&name) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut slot = [0; MARKER_BYTES + BLOCK_BYTES];
        match file.read_exact_at(&mut slot, slot_offset(block)) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let page = slot[MARKER_BYTES..].try_into().expect("a slot ends in a page");
        Ok((slot[0] == KNOWN).then_some(page))
    };
    load().unwrap_or_else(|error| failed("read", &name, &error))
}

/// Whether there is a copy of the page to compare with, or no comparing at all.
pub fn knows(rel: RelFork, block: BlockNumber) -> bool {
    is_off() || rel.fork == ForkNumber::FreeSpaceMap || get(rel, block).is_some()
}

/// The pageserver gave `remote` into a shared buffer: it must tell the same as the copy. The first reading makes the copy.
pub fn check_remote(rel: RelFork, block: BlockNumber, remote: &PageBytes) {
    if is_off() || rel.fork == ForkNumber::FreeSpaceMap {
        return;
    }
    let Some(local) = get(rel, block) else {
        return written(rel, block, std::iter::once(remote));
    };
    if let Some(difference) = shadow::difference(rel.fork, block, &local, remote) {
        wrong(rel, block, &local, remote, &format!("the pageserver's copy is another, {difference}"));
    }
}

/// The spill store gave `spilled`: every byte must be as it was written (CP-3).
pub fn check_spilled(rel: RelFork, block: BlockNumber, spilled: &PageBytes) {
    if is_off() || rel.fork == ForkNumber::FreeSpaceMap {
        return;
    }
    if let Some(local) = get(rel, block).filter(|local| local != spilled) {
        wrong(rel, block, &local, spilled, "the spill store's copy is another");
    }
}

fn wrong(rel: RelFork, block: BlockNumber, local: &PageBytes, other: &PageBytes, what: &str) -> ! {
    let [ours, theirs] = ["local", "remote"].map(|kind| format!("{}_{block}.{kind}", path(rel)));
    for (name, page) in [(&ours, local), (&theirs, other)] {
        if let Err(error) = std::fs::write(name, page) {
            pgrx::warning!("could not write \"{name}\": {error}");
        }
    }
    let needed = state::last_written().page(rel, block);
    pgrx::PANIC!(
        "strata.compare_local: block {block} of {rel}: {what} (LSN here {}, there {}, asked for {needed} at least; pages in \"{ours}\" and \"{theirs}\")",
        Page::new(local).lsn(),
        Page::new(other).lsn(),
    );
}

/// The fork ends at `blocks` now.
pub fn truncated(rel: RelFork, blocks: BlockNumber) {
    if is_off() {
        return;
    }
    let name = path(rel);
    let cut = || -> Result<(), Error> {
        let file = match OpenOptions::new().write(true).open(&name) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let bytes = slot_offset(blocks);
        if file.metadata()?.len() > bytes { file.set_len(bytes) } else { Ok(()) }
    };
    cut().unwrap_or_else(|error| failed("cut", &name, &error));
}

/// The fork is gone, or its number is used anew.
pub fn purge(rel: RelFork) {
    if is_off() {
        return;
    }
    if let Err(error) = std::fs::remove_file(path(rel))
        && error.kind() != ErrorKind::NotFound
    {
        pgrx::warning!("could not remove \"{}\": {error}", path(rel));
    }
}

/// A database is gone, and with it all of its relations.
pub fn purge_database(database: u32) {
    if is_off() {
        return;
    }
    let of_database = |name: &str| name.split('_').nth(1) == Some(&database.to_string());
    for entry in std::fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        if of_database(&entry.file_name().to_string_lossy()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
