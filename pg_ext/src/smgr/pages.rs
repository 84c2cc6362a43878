//! Reading and writing pages: spill store, pageserver, local files; and what a written page needs (D6, D7).

use std::ffi::c_void;
use std::ops::Range;

use pgrx::pg_sys::SMgrRelation;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::{PgLogLevel, ereport};
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Guard, RelFork};
use strata_smgr::evict::{self, Surroundings, Verdict};
use strata_smgr::page::Page;
use strata_smgr::slots::{Ask, PAGES_MAX};
use strata_smgr::{Class, ForkSize, RelEntry};

use super::classify::{self, Seen};
use super::settings::{Mode, mode};
use crate::{lfc, prefetch, working_set};

use super::{buffers, ffi, log_position, remote, running, shadow, spill, state};

type PageBytes = [u8; BLOCK_BYTES];

/// Reads `targets.len()` pages from `first` on.
///
/// # Safety
/// `reln` is the server's; each target is a page of memory that is the caller's to fill.
pub unsafe fn read(reln: SMgrRelation, fork: ForkNumber, first: BlockNumber, targets: &mut [*mut c_void]) {
    // SAFETY: the caller's promise.
    let rel = unsafe { ffi::rel_fork(reln, ffi::raw_fork(fork)) };
    let class = if classify::is_remote_init(fork) {
        Class::Permanent
    } else {
        let permanence = buffers::permanence_at(targets[0]);
        let seen = permanence.map_or(Seen::Nothing, |permanent| Seen::SharedBuffer { permanent });
        // SAFETY: as above.
        unsafe { classify::class_of(reln, fork, seen) }
    };
    if class == Class::Unlogged {
        // SAFETY: as above.
        return unsafe {
            ffi::mdreadv(reln, ffi::raw_fork(fork), first.0, targets.as_mut_ptr(), targets.len() as u32)
        };
    }
    working_set::touch(rel, first, targets.len() as u32);
    let entry = state::entry(rel.rel);
    let inside = refuse_beyond_end(rel, entry.as_ref(), first, targets.len());
    for (block, target) in blocks(first).zip(targets.iter()).skip(inside) {
        debug_assert!(block.0 >= first.0);
        // SAFETY: as above. V5: a read past the end of a map gives zeros.
        unsafe { std::ptr::write_bytes(target.cast::<u8>(), 0, BLOCK_BYTES) };
    }
    let stream = prefetch::read_ahead(rel, entry.as_ref(), first, inside);
    let (mut waited, mut taken) = (false, false);
    let mut missing: Vec<Range<usize>> = Vec::new();
    for (index, &target) in targets.iter().enumerate().take(inside) {
        let block = BlockNumber(first.0 + index as u32);
        // SAFETY: as above; nobody else touches a page that is being read.
        let page = unsafe { &mut *target.cast::<PageBytes>() };
        if class == Class::Undecided {
            page.fill(0);
        } else if spill::read(entry.as_ref(), rel, block, page) {
            compare_spilled(reln, rel, block, page);
            shadow::check_spilled(rel, block, page);
        } else if let Some(used) = take_prefetched(rel, block, target, page) {
            (waited, taken) = (waited || used.waited, true);
        } else if mode() == Mode::Remote
            && lfc::read(rel, block, state::last_written().page(rel, block), page)
        {
            compare_cached(rel, block, page);
        } else {
            match missing.last_mut() {
                Some(run) if run.end == index && run.len() < PAGES_MAX => run.end = index + 1,
                _ => missing.push(index..index + 1),
            }
        }
    }
    if waited {
        prefetch::waited(stream);
    }
    let lacks = !missing.is_empty();
    if targets.len() == 1 && (taken || lacks) {
        let read = prefetch::scans::Read { table: rel, block: first, waited: waited || lacks };
        prefetch::scans::read(&read, entry.as_ref());
    }
    read_missing(reln, rel, entry.as_ref(), first, targets, &missing);
}

/// Reads runs of pages that nothing here has, all of them at once as far as prefetch has room.
fn read_missing(
    reln: SMgrRelation,
    rel: RelFork,
    entry: Option<&RelEntry>,
    first: BlockNumber,
    targets: &[*mut c_void],
    missing: &[Range<usize>],
) {
    let blocks_of = |run: &Range<usize>| first.0 + run.start as u32..first.0 + run.end as u32;
    prefetch::ask_beside(rel, entry, missing.iter().skip(1).map(blocks_of));
    for run in missing {
        let mut begin = run.start;
        for index in run.clone() {
            let block = BlockNumber(first.0 + index as u32);
            // SAFETY: the caller's page, which nobody else touches while it is being read.
            let page = unsafe { &mut *targets[index].cast::<PageBytes>() };
            if take_prefetched(rel, block, targets[index], page).is_some() {
                read_run(reln, rel, first, &targets[begin..index], begin);
                begin = index + 1;
            }
        }
        read_run(reln, rel, first, &targets[begin..run.end], begin);
    }
}

/// A page that was asked for ahead: as good as one that is asked for now, and treated as one.
fn take_prefetched(
    rel: RelFork,
    block: BlockNumber,
    target: *const c_void,
    page: &mut PageBytes,
) -> Option<prefetch::Used> {
    let used = prefetch::take(rel, block, page)?;
    if buffers::index_of(target).is_some() {
        shadow::check_remote(rel, block, page);
        lfc::count_miss();
        lfc::keep(rel, block, used.as_of, page);
    } else {
        lfc::keep_unlocked(rel, block, used.as_of, page);
    }
    Some(used)
}

fn blocks(first: BlockNumber) -> impl Iterator<Item = BlockNumber> {
    (first.0..).map(BlockNumber)
}

/// How many of the pages lie inside the fork. Past the end of MAIN is an error, as with files.
fn refuse_beyond_end(rel: RelFork, entry: Option<&RelEntry>, first: BlockNumber, count: usize) -> usize {
    let Some(ForkSize::Blocks(size)) = entry.map(|entry| entry.fork(rel.fork).size) else { return count };
    let inside = (size.saturating_sub(first.0) as usize).min(count);
    if inside < count && matches!(rel.fork, ForkNumber::Main | ForkNumber::Init) {
        ereport!(
            PgLogLevel::ERROR,
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            format!("could not read block {} of {rel}: it has only {size} blocks", first.0 as usize + inside)
        );
    }
    inside
}

/// Reads consecutive pages that are not in the spill store; `offset` is the first one's distance from `first`.
fn read_run(reln: SMgrRelation, rel: RelFork, first: BlockNumber, targets: &[*mut c_void], offset: usize) {
    if targets.is_empty() {
        return;
    }
    let first = BlockNumber(first.0 + offset as u32);
    let count = targets.len() as u32;
    let needed = state::last_written().pages(rel, first, count);
    if mode() == Mode::Compare {
        return compare_read(reln, rel, first, targets);
    }
    if targets.iter().all(|target| buffers::index_of(*target).is_some()) {
        let addresses: Vec<u64> = targets.iter().map(|target| *target as u64).collect();
        remote::ask(Ask::Pages { rel, first, count }, needed, &addresses);
        for (block, target) in blocks(first).zip(targets) {
            // SAFETY: the pages that were asked for, in buffers that this process has in I/O.
            let page = unsafe { &*target.cast::<PageBytes>() };
            shadow::check_remote(rel, block, page);
            // The answer reflects what was needed for all pages of the run.
            lfc::keep(rel, block, needed, page);
        }
        return;
    }
    // P9: private memory is not mapped in the communicator; one page at a time through this process's bounce page.
    let bounce = state::bounce_page();
    for (block, target) in blocks(first).zip(targets) {
        remote::ask(Ask::Pages { rel, first: block, count: 1 }, needed, &[bounce as u64]);
        // SAFETY: the bounce page is this process's, the target the caller's.
        unsafe { std::ptr::copy_nonoverlapping(bounce, target.cast::<u8>(), BLOCK_BYTES) };
        // SAFETY: as above.
        lfc::keep_unlocked(rel, block, needed, unsafe { &*bounce.cast::<PageBytes>() });
    }
}

/// With `strata.compare_local`: what the cache gave is what was written or read before, or else what the pageserver has.
fn compare_cached(rel: RelFork, block: BlockNumber, page: &PageBytes) {
    if !shadow::knows(rel, block) {
        let bounce = state::bounce_page();
        let needed = state::last_written().page(rel, block);
        remote::ask(Ask::Pages { rel, first: block, count: 1 }, needed, &[bounce as u64]);
        // SAFETY: the bounce page is this process's.
        shadow::check_remote(rel, block, unsafe { &*bounce.cast::<PageBytes>() });
    }
    shadow::check_remote(rel, block, page);
}

/// Compare mode: the page from the file, and CP-1 on what would have been asked.
fn compare_read(reln: SMgrRelation, rel: RelFork, first: BlockNumber, targets: &[*mut c_void]) {
    let mut targets = targets.to_vec();
    // SAFETY: the same memory that the server gave.
    unsafe {
        ffi::mdreadv(reln, ffi::raw_fork(rel.fork), first.0, targets.as_mut_ptr(), targets.len() as u32)
    };
    for (block, target) in blocks(first).zip(&targets) {
        // SAFETY: as above.
        let page = Page::new(unsafe { &*target.cast::<PageBytes>() });
        let needed = state::last_written().page(rel, block);
        if page.lsn() > needed {
            pgrx::PANIC!(
                "block {block} of {rel} has LSN {} but only {needed} would be asked for (CP-1)",
                page.lsn()
            );
        }
    }
}

/// Compare mode: what the spill store gave is what the file has.
fn compare_spilled(reln: SMgrRelation, rel: RelFork, block: BlockNumber, page: &PageBytes) {
    if mode() != Mode::Compare {
        return;
    }
    let mut file = [0u8; BLOCK_BYTES];
    let mut target = file.as_mut_ptr().cast::<c_void>();
    // SAFETY: one page of our own memory.
    unsafe { ffi::mdreadv(reln, ffi::raw_fork(rel.fork), block.0, &mut target, 1) };
    if file != *page {
        pgrx::PANIC!("the spill store has another block {block} of {rel} than the file (CP-3)");
    }
}

/// Whether a write may lie at or past the end of the fork.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Overwrite,
    Extend,
}

/// Takes `sources.len()` pages from `first` on.
///
/// # Safety
/// `reln` is the server's; each source is a page that is readable for the time of the call.
pub unsafe fn write(
    reln: SMgrRelation,
    fork: ForkNumber,
    first: BlockNumber,
    sources: &[*const c_void],
    kind: Kind,
    skip_fsync: bool,
) {
    // SAFETY: the caller's promise. Copies, because hint bits may change under a share lock (W12).
    let pages: Vec<Box<PageBytes>> = sources.iter().map(|source| unsafe { copy_of(*source) }).collect();
    // SAFETY: as above.
    let rel = unsafe { ffi::rel_fork(reln, ffi::raw_fork(fork)) };
    let class = if classify::is_remote_init(fork) {
        Class::Permanent
    } else {
        let seen = match buffers::permanence_at(sources[0]) {
            Some(permanent) => Seen::SharedBuffer { permanent },
            None => Seen::PrivatePage(&pages[0]),
        };
        // SAFETY: as above.
        unsafe { classify::class_of(reln, fork, seen) }
    };
    if class == Class::Unlogged || mode() == Mode::Compare {
        // SAFETY: as above.
        unsafe { write_files(reln, fork, first, &pages, kind, skip_fsync) };
    }
    if class == Class::Unlogged {
        return;
    }
    shadow::written(rel, first, pages.iter().map(|page| &**page));
    let insert_lsn = log_position::insert_lsn();
    let direct = buffers::index_of(sources[0]).is_none();
    if kind == Kind::Extend {
        if !direct || Guard::DirectLsn.holds() {
            raise_added(rel, first, pages.len() as u32);
        }
        if !direct || Guard::DirectSize.holds() {
            lengthen(rel, first, pages.len() as u32);
        }
    }
    if class == Class::Permanent {
        let entry = state::entry(rel.rel);
        let being_built = entry.is_some_and(|entry| entry.maker_pid != 0);
        let around = Surroundings { fork, insert_lsn, being_built, quiet_below: running::quiet_below() };
        // W3, W5: by either way, what was written must be read again.
        let raise = if direct { Guard::DirectLsn } else { Guard::PageLsn };
        for (block, page) in blocks(first).zip(&pages) {
            take(rel, block, page, around, entry.as_ref(), raise);
        }
    } else if pages.iter().any(|page| !Page::new(page).is_all_zero()) {
        pgrx::error!("a page of {rel} has content, but whether the relation is permanent is not known");
    }
}

/// # Safety
/// `source` is a readable page.
unsafe fn copy_of(source: *const c_void) -> Box<PageBytes> {
    let mut page = Box::new([0u8; BLOCK_BYTES]);
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(source.cast::<u8>(), page.as_mut_ptr(), BLOCK_BYTES) };
    page
}

/// # Safety
/// As `write`.
unsafe fn write_files(
    reln: SMgrRelation,
    fork: ForkNumber,
    first: BlockNumber,
    pages: &[Box<PageBytes>],
    kind: Kind,
    skip_fsync: bool,
) {
    let raw = ffi::raw_fork(fork);
    let mut sources: Vec<*const c_void> = pages.iter().map(|page| page.as_ptr().cast::<c_void>()).collect();
    // SAFETY: the pages outlive the calls.
    unsafe {
        match kind {
            Kind::Extend => ffi::mdextend(reln, raw, first.0, sources[0], skip_fsync),
            Kind::Overwrite => {
                ffi::mdwritev(reln, raw, first.0, sources.as_mut_ptr(), sources.len() as u32, skip_fsync);
            }
        }
    }
}

/// Does with one page what it needs. The last-written LSN is raised before the page can leave its buffer.
fn take(
    rel: RelFork,
    block: BlockNumber,
    page: &PageBytes,
    around: Surroundings,
    entry: Option<&RelEntry>,
    raise: Guard,
) {
    match evict::judge(page, around, &mut running::Now::default()) {
        Verdict::Drop { last_written } => {
            if raise.holds() {
                state::last_written().raise_page(rel, block, last_written);
            }
            if Guard::EntryDies.holds() {
                spill::forget(entry, rel, block);
            }
            // V8: a map may have bits here that its log lacks. The cache has what the pageserver has.
            if rel.fork == ForkNumber::VisibilityMap {
                lfc::forget(rel, block);
            } else if mode() == Mode::Remote {
                lfc::keep(rel, block, state::last_written().page(rel, block), page);
            }
        }
        Verdict::Spill { exists_nowhere_else } => {
            if Guard::SpillRaises.holds() {
                state::last_written().raise_page(rel, block, around.insert_lsn);
            }
            // It may have changed with nothing logged since it was read: no older state of it is to outlive the spilled one.
            lfc::forget(rel, block);
            spill::write(rel, block, page, exists_nowhere_else);
        }
        // W1. To go on would lose the page at its next eviction.
        Verdict::NotLogged => pgrx::PANIC!("block {block} of {rel} has content but was never logged (CP-3)"),
        Verdict::BeyondTheLog { page_lsn } => {
            pgrx::error!(
                "block {block} of {rel} has LSN {page_lsn}, which the log has not reached ({})",
                around.insert_lsn
            )
        }
    }
}

/// Blocks were added: sizes, and what a read of them must reflect (R3: not what was there before a truncation).
pub fn extended(rel: RelFork, first: BlockNumber, count: u32) {
    raise_added(rel, first, count);
    lengthen(rel, first, count);
}

fn raise_added(rel: RelFork, first: BlockNumber, count: u32) {
    let insert_lsn = log_position::insert_lsn();
    let table = state::last_written();
    table.raise_size(rel, insert_lsn);
    for block in blocks(first).take(count as usize) {
        table.raise_page(rel, block, insert_lsn);
        // Nothing need have been logged since the block was cut off: what the cache has may be as of this very LSN (CP-2).
        if Guard::AddedForgotten.holds() {
            lfc::forget(rel, block);
        }
    }
}

fn lengthen(rel: RelFork, first: BlockNumber, count: u32) {
    let known = state::update(rel.rel, |entry| entry.extend(rel.fork, first.0 + count));
    if known.is_none() {
        let class = if rel.fork == ForkNumber::Init { Class::Unlogged } else { Class::Permanent };
        classify::keep(rel.rel, class, |entry| entry.extend(rel.fork, first.0 + count));
    }
    classify::grown(rel.rel);
}
