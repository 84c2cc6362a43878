//! The spill store's files: for each fork one with pages at their place, and one with a mark for each block.
//!
//! Whoever calls holds the fork's lock (`state::with_spill`). Files are there as long as the fork has entries; a process may
//! hold descriptors of removed ones, so each carries the generation in which it was opened. A page that is given back gives its
//! space back at once (a hole). Everything is gone with the server's start.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::Path;

use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::{PgLogLevel, ereport};
use strata_common::{BLOCK_BYTES, BlockNumber, Guard, RelFork, RelTag};

const FOLDER: &str = "strata_spill";

/// What the store has of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    Absent = 0,
    Here = 1,
    /// Not even an older state of it is in the log (W2).
    OnlyCopy = 2,
}

impl Mark {
    fn of(byte: u8) -> Mark {
        match byte {
            0 => Mark::Absent,
            1 => Mark::Here,
            _ => Mark::OnlyCopy,
        }
    }
}

/// Open files of one fork.
#[derive(Clone, Copy)]
pub struct Files {
    rel: RelFork,
    pages: pg_sys::File,
    map: pg_sys::File,
}

thread_local! {
    /// With the generation of each.
    static OPEN: RefCell<HashMap<RelFork, (u64, Files)>> = RefCell::new(HashMap::new());
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
        failed("open", path, &std::io::Error::last_os_error());
    }
    file
}

fn failed(verb: &str, path: &str, error: &std::io::Error) -> ! {
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

/// The files of a fork, made if they are not there.
pub fn open(rel: RelFork, generation: u64) -> Files {
    match OPEN.with_borrow(|open| open.get(&rel).copied()) {
        Some((opened_in, files)) if opened_in == generation => return files,
        Some(_) => close(rel),
        None => {}
    }
    let files = Files { rel, pages: open_file(&path(rel)), map: open_file(&map_path(rel)) };
    OPEN.with_borrow_mut(|open| open.insert(rel, (generation, files)));
    files
}

/// Closes what this process has open of a fork. Needs no lock.
pub fn close(rel: RelFork) {
    if let Some((_, files)) = OPEN.with_borrow_mut(|open| open.remove(&rel)) {
        // SAFETY: files that this process opened.
        unsafe {
            pg_sys::FileClose(files.pages);
            pg_sys::FileClose(files.map);
        }
    }
}

/// Removes a fork's files. The caller begins a new generation. Failures are warnings: this runs after commit, too (R6).
pub fn remove(rel: RelFork) {
    close(rel);
    for name in [map_path(rel), path(rel)] {
        if let Err(error) = std::fs::remove_file(Path::new(&name))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            if !Guard::UnlinkWarns.holds() {
                pgrx::error!("could not remove file \"{name}\" of the spill store: {error}");
            }
            pgrx::warning!("could not remove file \"{name}\" of the spill store: {error}");
        }
    }
}

/// Cuts a fork's files; the marks that are left. Plain system calls: this runs in critical sections, where a failure stops the
/// server as it does in `md.c`, for old content must not come back.
pub fn truncate(rel: RelFork, blocks: u32) -> Vec<u8> {
    for (name, bytes) in [(map_path(rel), u64::from(blocks)), (path(rel), page_offset(BlockNumber(blocks)))] {
        let cut = std::fs::OpenOptions::new().write(true).open(&name).and_then(|file| {
            let there = file.metadata()?.len();
            if there > bytes { file.set_len(bytes) } else { Ok(()) }
        });
        match cut {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => failed("truncate", &name, &error),
            _ => {}
        }
    }
    match std::fs::read(map_path(rel)) {
        Ok(marks) => marks,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => failed("read", &map_path(rel), &error),
    }
}

fn page_offset(block: BlockNumber) -> u64 {
    u64::from(block.0) * BLOCK_BYTES as u64
}

impl Files {
    pub fn mark(self, block: BlockNumber) -> Mark {
        let mut byte = [Mark::Absent as u8];
        self.read_at(self.map, u64::from(block.0), &mut byte);
        Mark::of(byte[0])
    }

    pub fn set_mark(self, block: BlockNumber, mark: Mark) {
        self.write_at(self.map, u64::from(block.0), &[mark as u8]);
    }

    pub fn read_page(self, block: BlockNumber, page: &mut [u8; BLOCK_BYTES]) {
        if self.read_at(self.pages, page_offset(block), page) != BLOCK_BYTES {
            pgrx::error!("the spill store has lost block {block} of {}", self.rel);
        }
    }

    pub fn write_page(self, block: BlockNumber, page: &[u8; BLOCK_BYTES]) {
        self.write_at(self.pages, page_offset(block), page);
    }

    /// Gives a page's space back. A file system that cannot keeps it for the next page there.
    pub fn release_page(self, block: BlockNumber) {
        const HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: a system call on a descriptor of this process's table; a closed one is -1, which the call refuses.
        unsafe {
            let descriptor = pg_sys::FileGetRawDesc(self.pages);
            libc::fallocate(descriptor, HOLE, page_offset(block) as libc::off_t, BLOCK_BYTES as libc::off_t);
        }
    }

    /// Blocks with a mark, in order.
    pub fn marked(self) -> Vec<(BlockNumber, Mark)> {
        let mut found = Vec::new();
        let mut chunk = vec![0u8; 1 << 16];
        let mut offset = 0u64;
        loop {
            let count = self.read_at(self.map, offset, &mut chunk);
            let marks = chunk[..count].iter().enumerate().filter(|(_, byte)| **byte != 0);
            found.extend(
                marks.map(|(index, byte)| (BlockNumber(offset as u32 + index as u32), Mark::of(*byte))),
            );
            if count < chunk.len() {
                return found;
            }
            offset += count as u64;
        }
    }

    /// Bytes read at `offset`: fewer than wanted past the end.
    fn read_at(self, file: pg_sys::File, offset: u64, buffer: &mut [u8]) -> usize {
        let vector = pg_sys::iovec { iov_base: buffer.as_mut_ptr().cast::<c_void>(), iov_len: buffer.len() };
        let event = pg_sys::WaitEventIO::WAIT_EVENT_DATA_FILE_READ;
        // SAFETY: the vector names memory that is ours for the call.
        let count = unsafe { pg_sys::FileReadV(file, &vector, 1, offset as pg_sys::off_t, event) };
        usize::try_from(count)
            .unwrap_or_else(|_| failed("read", &path(self.rel), &std::io::Error::last_os_error()))
    }

    fn write_at(self, file: pg_sys::File, offset: u64, buffer: &[u8]) {
        let vector =
            pg_sys::iovec { iov_base: buffer.as_ptr().cast_mut().cast::<c_void>(), iov_len: buffer.len() };
        let event = pg_sys::WaitEventIO::WAIT_EVENT_DATA_FILE_WRITE;
        // SAFETY: as above; the call only reads the memory.
        let count = unsafe { pg_sys::FileWriteV(file, &vector, 1, offset as pg_sys::off_t, event) };
        if usize::try_from(count) != Ok(buffer.len()) {
            failed("write", &path(self.rel), &std::io::Error::last_os_error());
        }
    }
}
