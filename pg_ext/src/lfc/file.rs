//! The cache's file: one page at each place, holes where there is none. Every process has a descriptor of its own.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pgrx::pg_sys;
use strata_common::BLOCK_BYTES;

use super::{PageBytes, settings};
use crate::wait_event::WaitEvent;

/// Files of former servers that wait for their removal.
const ASIDE_MAX: u32 = 8;

/// What is given back to the disk before anything else may happen in this process.
const BYTES_AT_ONCE: u64 = 16 << 20;

static READ: AtomicU32 = AtomicU32::new(pg_sys::PG_WAIT_EXTENSION);
static WRITE: AtomicU32 = AtomicU32::new(pg_sys::PG_WAIT_EXTENSION);
static TRIM: AtomicU32 = AtomicU32::new(pg_sys::PG_WAIT_EXTENSION);

thread_local! {
    static OPEN: RefCell<Option<File>> = const { RefCell::new(None) };
}

/// Names the waits for the file. Call from `shmem_startup_hook`; children inherit the numbers.
pub fn name_waits() {
    let waits =
        [(&READ, c"StrataFileCacheRead"), (&WRITE, c"StrataFileCacheWrite"), (&TRIM, c"StrataFileCacheTrim")];
    for (event, name) in waits {
        // SAFETY: the name is static; the server gives one number to one name (wait_event.c).
        event.store(unsafe { pg_sys::WaitEventExtensionNew(name.as_ptr()) }, Ordering::Relaxed);
    }
}

/// A new, empty file; in the postmaster. The old one, if any, belongs to a server that is gone; it is moved aside, because to remove
/// gigabytes may take a minute where the disk is told of each freed block.
pub fn make() -> io::Result<()> {
    let aside = (0..ASIDE_MAX).map(aside).find(|path| path.symlink_metadata().is_err());
    if aside.is_none_or(|path| std::fs::rename(settings::path(), path).is_err()) {
        remove();
    }
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

/// Takes a part of what lies behind `places` off the file, if there is any.
pub fn shorten(places: u64) -> io::Result<()> {
    with(|file| {
        let _event = WaitEvent::begin(&TRIM);
        shorten_to(offset(places), file)
    })
}

fn shorten_to(wanted: u64, file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length <= wanted { Ok(()) } else { file.set_len(wanted.max(length.saturating_sub(BYTES_AT_ONCE))) }
}

/// Removes a part of a former server's file.
pub fn remove_former() -> io::Result<()> {
    let Some(path) = (0..ASIDE_MAX).map(aside).find(|path| path.is_file()) else { return Ok(()) };
    let _event = WaitEvent::begin(&TRIM);
    let file = OpenOptions::new().write(true).open(&path)?;
    shorten_to(0, &file)?;
    if file.metadata()?.len() == 0 { std::fs::remove_file(&path) } else { Ok(()) }
}

fn aside(number: u32) -> PathBuf {
    let mut name = OsString::from(settings::path());
    name.push(format!(".gone-{number}"));
    name.into()
}

/// Reads the page at a place. A file that ends before it is an error: somebody has cut it.
pub fn read(place: u64, page: &mut PageBytes) -> io::Result<()> {
    with(|file| {
        let _event = WaitEvent::begin(&READ);
        file.read_exact_at(page, offset(place))
    })
}

pub fn write(place: u64, page: &PageBytes) -> io::Result<()> {
    with(|file| {
        let _event = WaitEvent::begin(&WRITE);
        file.write_all_at(page, offset(place))
    })
}

/// Gives the place's bytes back to the disk. A file system that cannot do this keeps them, and the log says so once; they are written over
/// in time.
pub fn punch(place: u64) {
    static SAID: AtomicBool = AtomicBool::new(false);
    let punched = with(|file| {
        let (Ok(begin), length) = (i64::try_from(offset(place)), BLOCK_BYTES as i64) else { return Ok(()) };
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let _event = WaitEvent::begin(&TRIM);
        // SAFETY: changes a file that is open.
        match unsafe { libc::fallocate(file.as_raw_fd(), mode, begin, length) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    });
    // Any other error is met again, and judged, by whoever reads or writes.
    if let Err(error) = punched
        && error.kind() == io::ErrorKind::Unsupported
        && !SAID.swap(true, Ordering::Relaxed)
    {
        pgrx::log!(
            "the local file cache cannot give room back to the disk, which it uses up to strata.lfc_max_size: {error}"
        );
    }
}
