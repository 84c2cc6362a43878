//! The local file cache: pages below shared buffers that need not be asked for again, in one file that every backend reads and writes
//! itself. What lies where, what may be found and what leaves is decided by `strata_lfc`; here are shared memory, locks and the file.
//!
//! A page enters after it came from the pageserver, to be read or asked for ahead, and when it leaves shared buffers and the log can rebuild
//! it. It is found only if it is as new as a read must be (D7), so nothing has to be told of truncations or drops. Nothing here fails a query:
//! whatever goes wrong with the file ends the cache for this server's life, with one line in its log (C1). What outlives the server: `kept`.

mod desk;
mod file;
mod hot_list;
mod kept;
mod memory;
mod prewarm;
pub mod settings;
pub mod sql;

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Guard, Lsn, RelFork};
use strata_lfc::{PageName, Place};

use crate::smgr::{spill, state};
use crate::workers;
pub use hot_list::Carrier;
pub use memory::{attach, pages_at_most, request};

type PageBytes = [u8; BLOCK_BYTES];

/// Places that one holder of a partition's lock gives back to the disk before others have their turn. Where the disk is told of each, one may
/// take a millisecond.
const PLACES_AT_ONCE: usize = 8;

/// What the cache has done since the server's start.
#[repr(C)]
#[derive(Default)]
pub struct Counters {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub writes: AtomicU64,
    /// Pages that were not what was written, or could not be kept because all places were in use.
    pub damaged: AtomicU64,
    pub skipped: AtomicU64,
    /// Not 0: the cache is off because of an error.
    failed: AtomicU32,
    /// The limit that is in force, MiB.
    limit_mib: AtomicU32,
    prewarming: prewarm::Progress,
    /// What `writes` was when the index was last written.
    remembered: AtomicU64,
    desk: desk::Desk,
}

/// Whether pages may be looked for and kept.
fn is_on() -> bool {
    if !memory::is_attached() {
        return false;
    }
    let failed = memory::counters().failed.load(Ordering::Acquire) != 0;
    if failed {
        // The file is removed; its space is free when nobody has it open.
        file::close();
    }
    !failed
}

/// A pinned place: whatever happens to this process's query, it is unpinned.
struct Pinned(usize, Place);

impl Drop for Pinned {
    fn drop(&mut self) {
        memory::without_lock(self.0, |partition| partition.unpin(self.1));
    }
}

/// Fills `page` if the cache has it, at least as new as `needed`.
pub fn read(rel: RelFork, block: BlockNumber, needed: Lsn, page: &mut PageBytes) -> bool {
    if !is_on() {
        return false;
    }
    let name = PageName { rel, block };
    let number = memory::partition_of(name);
    let Some(hit) = memory::shared(number, |partition| partition.find(name, needed)) else {
        memory::counters().misses.fetch_add(1, Ordering::Relaxed);
        return false;
    };
    let pinned = Pinned(number, hit.place);
    let place = memory::place_in_file(number, hit.place);
    match file::read(place, page) {
        Ok(()) if checksum(name, page) == hit.checksum => {
            memory::counters().hits.fetch_add(1, Ordering::Relaxed);
            true
        }
        Ok(()) => {
            // One page is damaged: it goes, and comes back from the pageserver.
            memory::exclusive(number, |partition| partition.drop_found(hit.place));
            drop(pinned);
            if memory::counters().damaged.fetch_add(1, Ordering::Relaxed) == 0 {
                pgrx::log!(
                    "block {block} of {rel} is damaged in the local file cache; it is read from the pageserver, and further ones are only counted"
                );
            }
            false
        }
        Err(error) => {
            drop(pinned);
            fail("read", &error);
            false
        }
    }
}

/// A page was read that the cache did not have when it was asked for ahead.
pub fn count_miss() {
    if is_on() {
        memory::counters().misses.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether `read` would answer, as far as can be told without reading.
pub fn has(rel: RelFork, block: BlockNumber, needed: Lsn) -> bool {
    let name = PageName { rel, block };
    is_on() && memory::shared(memory::partition_of(name), |partition| partition.has(name, needed))
}

/// Keeps a page whose content reflects the log up to `as_of` at least, and is the newest there is. Whether it is there now: there may be
/// no room, or a newer one.
pub fn keep(rel: RelFork, block: BlockNumber, as_of: Lsn, page: &PageBytes) -> bool {
    if !takes_pages() {
        return false;
    }
    let name = PageName { rel, block };
    let number = memory::partition_of(name);
    let Some(place) = memory::exclusive(number, |partition| partition.reserve()) else {
        memory::counters().skipped.fetch_add(1, Ordering::Relaxed);
        return false;
    };
    let written = file::write(memory::place_in_file(number, place), page);
    let published = memory::exclusive(number, |partition| {
        if written.is_ok() {
            return partition.publish(place, name, as_of, checksum(name, page));
        }
        partition.cancel(place);
        false
    });
    match written {
        Ok(()) => _ = memory::counters().writes.fetch_add(1, Ordering::Relaxed),
        Err(error) => fail("written", &error),
    }
    published
}

/// Whether a page that is worth keeping is taken.
pub fn takes_pages() -> bool {
    is_on() && settings::limit_mib() > 0
}

/// As `keep`, for a page of MAIN that came from the pageserver and was read without its buffer's lock; whether the cache has it now. Whoever
/// changed it meanwhile has the newer one (C8), and has raised what a read of it needs above `as_of`, so that no race here makes a wrong page
/// be found; so has whoever spilled it, and readers look into the spill store first.
pub fn keep_unlocked(rel: RelFork, block: BlockNumber, as_of: Lsn, page: &PageBytes) -> bool {
    let needed = state::last_written().page(rel, block);
    let as_of = if Guard::KeptAsOfAsked.holds() { as_of } else { as_of.max(needed) };
    if rel.fork != ForkNumber::Main || needed > as_of || !takes_pages() {
        return false;
    }
    let entry = state::entry(rel.rel);
    if entry.is_none() || spill::has(entry.as_ref(), rel, block) {
        return false;
    }
    has(rel, block, needed) || keep(rel, block, as_of, page)
}

/// The page, if it is there, is not what a read is to find.
pub fn forget(rel: RelFork, block: BlockNumber) {
    if is_on() {
        let name = PageName { rel, block };
        memory::exclusive(memory::partition_of(name), |partition| partition.drop_page(name));
    }
}

/// Over name and content: a page at the wrong place is as wrong as a changed one.
fn checksum(name: PageName, page: &PageBytes) -> u32 {
    crc32c::crc32c_append(name.hash() as u32, page)
}

/// C1: the cache is off for the rest of this server's life. One line in the log, whoever meets the error first.
fn fail(verb: &str, error: &std::io::Error) {
    if memory::counters().failed.swap(1, Ordering::AcqRel) == 0 {
        file::remove();
        pgrx::log!(
            "the local file cache is off until the next start, because file \"{}\" could not be {verb}: {error}",
            settings::path().display()
        );
    }
    file::close();
}

thread_local! {
    static FORMER_STAYS: Cell<bool> = const { Cell::new(false) };
}

/// Brings the cache to the limit that is set; the keeper calls it again and again. C5: the setting's own hook could not.
pub fn follow_limit() {
    if !is_on() {
        return;
    }
    // It costs room, no more. Every look tries again, and the first one says so.
    if let Err(error) = file::remove_former()
        && !FORMER_STAYS.replace(true)
    {
        pgrx::log!("a former file of the local file cache could not be removed and takes room: {error}");
    }
    // Nobody has a place behind the last one.
    if let Err(error) = file::shorten(memory::places_in_file()) {
        return fail("shortened", &error);
    }
    let wanted = settings::limit_mib();
    let before = memory::counters().limit_mib.swap(wanted, Ordering::AcqRel);
    let places = memory::places_for(wanted);
    for number in 0..memory::PARTITIONS {
        // Readers and writers may have held places when the limit fell: there is always another look.
        if before == wanted && memory::shared(number, |partition| partition.used()) <= places {
            continue;
        }
        memory::exclusive(number, |partition| partition.set_limit(places));
        while !workers::stop_is_wanted()
            && memory::exclusive(number, |partition| free_some(number, partition))
        {}
        if wanted < before {
            punch_free(number);
        }
    }
}

/// Frees some of the places that are too many; whether there may be more.
fn free_some(number: usize, partition: strata_lfc::Partition<'_>) -> bool {
    let mut freed = 0;
    while freed < PLACES_AT_ONCE
        && let Some(place) = partition.shrink()
    {
        file::punch(memory::place_in_file(number, place));
        freed += 1;
    }
    freed == PLACES_AT_ONCE
}

/// Places that were free before may hold bytes of pages that were dropped.
fn punch_free(number: usize) {
    let free = memory::shared(number, |partition| partition.free_places());
    // A stop does not wait: the next server gives back what is above its limit.
    for some in free.chunks(PLACES_AT_ONCE).take_while(|_| !workers::stop_is_wanted()) {
        memory::exclusive(number, |partition| {
            let still = some.iter().filter(|place| partition.is_free(**place));
            still.for_each(|place| file::punch(memory::place_in_file(number, *place)));
        });
    }
}

/// Writes down which pages there are, if there are others than last time: a list for prewarming after a loss. The keeper calls it.
pub fn remember() {
    if !is_on() {
        return;
    }
    let writes = memory::counters().writes.load(Ordering::Relaxed);
    if memory::counters().remembered.swap(writes, Ordering::Relaxed) != writes {
        kept::write(strata_lfc::kept::End::Running);
    }
}
