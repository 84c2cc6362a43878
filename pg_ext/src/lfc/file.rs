//! The cache's file: one page at each place, holes where there is none. Every process has a descriptor of its own.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use pgrx::pg_sys;
use strata_common::BLOCK_BYTES;

use super::{PageBytes, settings};

/// What is given back to the disk before anything else may happen in this process.
const BYTES_AT_ONCE: u64 = 16 << 20;

thread_local! {
    static OPEN: RefCell<Option<File>> = const { RefCell::new(None) };
}

/// A new, empty file; in the postmaster. The old one, if any, belongs to a server that is gone. (The supervisor has moved its own away:
/// to remove gigabytes may take a minute.)
pub fn make() -> io::Result<()> {
    remove();
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(settings::path()).map(drop)
}

/// Takes the file away. Whoever has it open goes on reading what it was (C1).
pub fn remove() {
    // A file that is not there, or that cannot be removed, is no one's loss: `make` says what is wrong.
    let _ = std::fs::remove_file(settings::path());
}

/// Closes this process's descriptor.
pub fn close() {
    if OPEN.take().is_some() {
        // SAFETY: gives back what `with` has announced.
        unsafe { pg_sys::ReleaseExternalFD() };
    }
}

fn with<T>(body: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
    OPEN.with_borrow_mut(|open| {
        if open.is_none() {
            *open = Some(OpenOptions::new().read(true).write(true).open(settings::path())?);
            // SAFETY: tells the server's own table of files that a descriptor is taken (fd.c).
            unsafe { pg_sys::ReserveExternalFD() };
        }
        body(open.as_ref().expect("just opened"))
    })
}

fn offset(place: u64) -> u64 {
    place * BLOCK_BYTES as u64
}

/// Bytes of the file, holes included.
pub fn length() -> io::Result<u64> {
    with(|file| Ok(file.metadata()?.len()))
}

/// Takes what lies behind `places` off the file, a part of it at a time; whether there is more.
pub fn shorten(places: u64) -> io::Result<bool> {
    with(|file| {
        let (length, wanted) = (file.metadata()?.len(), offset(places));
        if length <= wanted {
            return Ok(false);
        }
        let next = wanted.max(length.saturating_sub(BYTES_AT_ONCE));
        file.set_len(next)?;
        Ok(next > wanted)
    })
}

/// Reads the page at a place. A file that ends before it is an error: somebody has cut it.
pub fn read(place: u64, page: &mut PageBytes) -> io::Result<()> {
    with(|file| file.read_exact_at(page, offset(place)))
}

pub fn write(place: u64, page: &PageBytes) -> io::Result<()> {
    with(|file| file.write_all_at(page, offset(place)))
}

/// Gives the place's bytes back to the disk. A file system that cannot do this keeps them; they are written over in time.
pub fn punch(place: u64) {
    let _ = with(|file| {
        let (Ok(begin), length) = (i64::try_from(offset(place)), BLOCK_BYTES as i64) else { return Ok(()) };
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: changes a file that is open.
        match unsafe { libc::fallocate(file.as_raw_fd(), mode, begin, length) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    });
}
