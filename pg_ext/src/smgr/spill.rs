//! The spill store: local files for pages that the log cannot rebuild, or not yet (D6, S15, P8). Layout: `FORMAT.md`.
//!
//! An entry serves reads until the page is written again. One page is never read and written at once (its buffer is in I/O, or
//! it is private to its maker), so the files need no locks; the counts in the relation table are changed under its locks.
//! Content is in files, not in a process: a worker's crash loses nothing (P8).

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::Path;

use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::{PgLogLevel, ereport};
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, RelFork, RelTag};
use strata_smgr::RelEntry;

use super::state::{self, LockMode};

const FOLDER: &str = "strata_spill";
const MAP_ABSENT: u8 = 0;
const MAP_HERE: u8 = 1;
const MAP_ONLY_COPY: u8 = 2;

/// Open files of one fork.
#[derive(Clone, Copy)]
struct Files {
    pages: pg_sys::File,
    map: pg_sys::File,
}

thread_local! {
    static OPEN: RefCell<HashMap<RelFork, Files>> = RefCell::new(HashMap::new());
}

/// Empties the store; in the postmaster, before anything is read.
pub fn reset() {
    let problem = match std::fs::remove_dir_all(FOLDER) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Some(error),
        _ => std::fs::create_dir(FOLDER).err(),
    };
    if let Some(error) = problem {
        pgrx::error!("could not empty the folder \"{FOLDER}\" in the data directory: {error}");
    }
}

fn path(rel: RelFork) -> String {
    let RelTag { tablespace, database, relation } = rel.rel;
    format!("{FOLDER}/{tablespace}_{database}_{relation}_{}", rel.fork.raw())
}

fn map_path(rel: RelFork) -> String {
    format!("{}.map", path(rel))
}

fn open_file(path: &str) -> pg_sys::File {
    let name = CString::new(path).expect("no zero byte in digits");
    // SAFETY: opens through the server's table of files, which closes others if there are too many.
    let file = unsafe { pg_sys::PathNameOpenFile(name.as_ptr(), libc::O_RDWR | libc::O_CREAT) };
    if file < 0 {
        failed("open", path);
    }
    file
}

fn failed(verb: &str, path: &str) -> ! {
    let error = std::io::Error::last_os_error();
    let code = if error.raw_os_error() == Some(libc::ENOSPC) {
        PgSqlErrorCode::ERRCODE_DISK_FULL
    } else {
        PgSqlErrorCode::ERRCODE_IO_ERROR
    };
    ereport!(
        PgLogLevel::ERROR,
        code,
        format!("could not {verb} file \"{path}\" of the spill store: {error}")
    );
    unreachable!("an ERROR does not return")
}

fn files(rel: RelFork) -> Files {
    if let Some(files) = OPEN.with_borrow(|open| open.get(&rel).copied()) {
        return files;
    }
    let files = Files { pages: open_file(&path(rel)), map: open_file(&map_path(rel)) };
    OPEN.with_borrow_mut(|open| open.insert(rel, files));
    files
}

/// Closes what this process has open of a fork.
pub fn close(rel: RelFork) {
    if let Some(files) = OPEN.with_borrow_mut(|open| open.remove(&rel)) {
        // SAFETY: files that this process opened.
        unsafe {
            pg_sys::FileClose(files.pages);
            pg_sys::FileClose(files.map);
        }
    }
}

/// Bytes read at `offset`: fewer than wanted past the end.
fn read_at(file: pg_sys::File, offset: u64, buffer: &mut [u8], rel: RelFork) -> usize {
    let vector = pg_sys::iovec { iov_base: buffer.as_mut_ptr().cast::<c_void>(), iov_len: buffer.len() };
    // SAFETY: the vector names memory that is ours for the call.
    let count = unsafe { pg_sys::FileReadV(file, &vector, 1, offset as pg_sys::off_t, event(false)) };
    usize::try_from(count).unwrap_or_else(|_| failed("read", &path(rel)))
}

fn write_at(file: pg_sys::File, offset: u64, buffer: &[u8], rel: RelFork) {
    let vector =
        pg_sys::iovec { iov_base: buffer.as_ptr().cast_mut().cast::<c_void>(), iov_len: buffer.len() };
    // SAFETY: as above; the call only reads the memory.
    let count = unsafe { pg_sys::FileWriteV(file, &vector, 1, offset as pg_sys::off_t, event(true)) };
    if usize::try_from(count) != Ok(buffer.len()) {
        failed("write", &path(rel));
    }
}

fn event(writing: bool) -> u32 {
    if writing {
        pg_sys::WaitEventIO::WAIT_EVENT_DATA_FILE_WRITE
    } else {
        pg_sys::WaitEventIO::WAIT_EVENT_DATA_FILE_READ
    }
}

fn map_byte(files: Files, rel: RelFork, block: BlockNumber) -> u8 {
    let mut byte = [MAP_ABSENT];
    read_at(files.map, u64::from(block.0), &mut byte, rel);
    byte[0]
}

fn page_offset(block: BlockNumber) -> u64 {
    u64::from(block.0) * BLOCK_BYTES as u64
}

fn has_any(entry: Option<&RelEntry>, fork: ForkNumber) -> bool {
    entry.is_some_and(|entry| entry.fork(fork).spilled > 0)
}

/// Reads a page if the store has it.
pub fn read(
    entry: Option<&RelEntry>,
    rel: RelFork,
    block: BlockNumber,
    page: &mut [u8; BLOCK_BYTES],
) -> bool {
    if !has_any(entry, rel.fork) {
        return false;
    }
    let files = files(rel);
    if map_byte(files, rel, block) == MAP_ABSENT {
        return false;
    }
    if read_at(files.pages, page_offset(block), page, rel) != BLOCK_BYTES {
        pgrx::error!("the spill store has lost block {block} of {rel}");
    }
    true
}

/// Keeps a page. The relation has an entry in the table.
pub fn write(rel: RelFork, block: BlockNumber, page: &[u8; BLOCK_BYTES], only_copy: bool) {
    let files = files(rel);
    let before = map_byte(files, rel, block);
    // Counted first: whoever sees the page missing from the count would not look for it.
    let counted = state::update(rel.rel, |entry| {
        let fork = entry.fork_mut(rel.fork);
        fork.spilled += u32::from(before == MAP_ABSENT);
        fork.only_copies += u32::from(only_copy && before != MAP_ONLY_COPY);
    });
    if counted.is_none() {
        pgrx::error!("relation {} has no entry to count a spilled page in", rel.rel);
    }
    write_at(files.pages, page_offset(block), page, rel);
    write_at(files.map, u64::from(block.0), &[if only_copy { MAP_ONLY_COPY } else { MAP_HERE }], rel);
    if before == MAP_ONLY_COPY && !only_copy {
        uncount(rel, 0, 1);
    }
    state::spilled_pages().fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// The page was written with content that the log can rebuild: its entry dies.
pub fn forget(entry: Option<&RelEntry>, rel: RelFork, block: BlockNumber) {
    if !has_any(entry, rel.fork) {
        return;
    }
    let files = files(rel);
    let before = map_byte(files, rel, block);
    if before != MAP_ABSENT {
        write_at(files.map, u64::from(block.0), &[MAP_ABSENT], rel);
        uncount(rel, 1, u32::from(before == MAP_ONLY_COPY));
    }
}

fn uncount(rel: RelFork, spilled: u32, only_copies: u32) {
    state::update(rel.rel, |entry| {
        let fork = entry.fork_mut(rel.fork);
        fork.spilled = fork.spilled.saturating_sub(spilled);
        fork.only_copies = fork.only_copies.saturating_sub(only_copies);
    });
}

/// Blocks that exist nowhere else.
pub fn only_copies(rel: RelFork) -> Vec<BlockNumber> {
    let file = files(rel).map;
    let mut found = Vec::new();
    let mut chunk = vec![0u8; 1 << 16];
    let mut offset = 0u64;
    loop {
        let count = read_at(file, offset, &mut chunk, rel);
        let blocks = chunk[..count].iter().enumerate().filter(|(_, byte)| **byte == MAP_ONLY_COPY);
        found.extend(blocks.map(|(index, _)| BlockNumber(offset as u32 + index as u32)));
        if count < chunk.len() {
            return found;
        }
        offset += count as u64;
    }
}

/// The fork ends at `blocks` now. May run in a critical section, where a failure stops the server as it does in `md.c`: old
/// content must not come back.
pub fn truncate(rel: RelFork, blocks: u32) {
    for (name, bytes) in [(map_path(rel), u64::from(blocks)), (path(rel), page_offset(BlockNumber(blocks)))] {
        let file = CString::new(name.as_str()).expect("no zero byte in digits");
        // SAFETY: a system call with a plain name. Growing the file would be harmless, its bytes are zero.
        let result = unsafe { libc::truncate(file.as_ptr(), bytes as libc::off_t) };
        if result != 0 && std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOENT) {
            failed("truncate", &name);
        }
    }
}

/// The fork is gone. Failures are warnings: this runs after commit (R6), and the relation's number is not used again.
pub fn unlink(rel: RelFork) {
    close(rel);
    for name in [map_path(rel), path(rel)] {
        if let Err(error) = std::fs::remove_file(Path::new(&name))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            pgrx::warning!("could not remove file \"{name}\" of the spill store: {error}");
        }
    }
}

/// Removes entries and spilled pages of all relations of a database.
pub fn purge_database(database: u32) {
    for partition in 0..state::PARTITIONS {
        let mut gone = Vec::new();
        state::with_partition_number(partition, LockMode::Exclusive, |mut table| {
            table.remove_if(|entry| entry.tag.database == database, |entry| gone.push(*entry));
        });
        for entry in gone {
            ForkNumber::ALL
                .iter()
                .filter(|fork| entry.fork(**fork).spilled > 0)
                .for_each(|fork| unlink(entry.tag.fork(*fork)));
        }
    }
}
