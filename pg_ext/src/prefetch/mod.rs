//! Pages that are asked for before they are read: on the server's advice (bitmap scans, ANALYZE, pg_prewarm, VACUUM's truncation),
//! ahead of what a session reads one block after the other, and ahead of index scans. What may be used is decided by `strata_smgr::prefetch`; here are shared
//! memory and the waiting.
//!
//! Everything a session asks for ahead is its own, until it reads it, its transaction ends or it exits (P7). L3: the last-written LSN is
//! taken before the request, and looked at again when the page is read; a page that may have changed is asked for anew. Only MAIN forks of
//! permanent relations take part, and only blocks before the end that is known here. Pages of the spill store, of shared buffers and of
//! the file cache are not asked for; where one gets into the spill store meanwhile, the reader looks there first. What has come and is given up
//! unread goes to the file cache, if there is one.

mod btree;
pub mod memory;
mod plan;
pub mod running;
pub mod scans;
pub mod settings;
pub mod sql;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::atomic::Ordering;

use pgrx::pg_sys;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelFork};
use strata_smgr::prefetch::book::Ended;
use strata_smgr::prefetch::streams::StreamNumber;
use strata_smgr::prefetch::{Book, Run, Streams, is_usable};
use strata_smgr::slots::{Ask, Outcome, Request, Slot};
use strata_smgr::{Class, ForkSize, RelEntry};

use crate::lfc;
use crate::smgr::settings::{Mode, mode};
use crate::smgr::{buffers, log_position, remote, spill, state};

type PageBytes = [u8; BLOCK_BYTES];

/// Blocks of one request: its pages are given back together, and its first ones need not wait for many others.
const RUN_MAX: usize = 16;
/// A page that was not read while its session has read so many times as many as it may ask for ahead is given up.
const PATIENCE: usize = 4;
/// How often the end of an answer that is being written is waited for.
const LOOKS: usize = 1000;

thread_local! {
    static BOOK: RefCell<Book> = RefCell::default();
    static STREAMS: RefCell<Streams> = RefCell::default();
    static EXIT_IS_WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// The relation's size if its pages may be asked for ahead.
fn size_of(rel: RelFork, entry: Option<&RelEntry>) -> Option<u32> {
    if mode() != Mode::Remote
        || settings::max() == 0
        || !memory::is_attached()
        || rel.fork != ForkNumber::Main
    {
        return None;
    }
    // SAFETY: plain variables of this process. Nothing here is worth an error where none may be raised (P3).
    if unsafe { pg_sys::CritSectionCount > 0 || pg_sys::proc_exit_inprogress } {
        return None;
    }
    match entry {
        Some(entry) if entry.class == Class::Permanent => match entry.fork(rel.fork).size {
            ForkSize::Blocks(size) => Some(size),
            ForkSize::Absent | ForkSize::Unknown => None,
        },
        _ => None,
    }
}

/// The server says that it will read these blocks. Advice beyond what the session may have asked for ahead is ignored, but for one case:
/// where there is a file cache, and nothing was read since the first of it was asked for, it is followed at the speed of answers, and what
/// came first goes there (pg_prewarm's mode `prefetch` reads no page at all). Not with locks held that others wait for.
pub fn advise(rel: RelFork, entry: Option<&RelEntry>, first: BlockNumber, count: u32) {
    let Some(size) = size_of(rel, entry) else { return };
    let end = first.0.saturating_add(count).min(size);
    let mut next = ask(rel, entry, first.0..end);
    while next < end && room() == 0 && is_unread() && lfc::takes_pages() {
        let Some(first) = wait_for_first() else { break };
        settle_run(first);
        next = ask(rel, entry, next..end);
    }
}

/// Whether the session has read nothing since it asked for what it holds, and may wait for it.
fn is_unread() -> bool {
    // SAFETY: a plain variable of this process; who holds an LWLock holds interrupts off (lwlock.c).
    let may_wait = unsafe { pg_sys::InterruptHoldoffCount } == 0;
    may_wait && BOOK.with_borrow(Book::is_unread)
}

/// Blocks that a read lacks beside those that it asks for itself, so that all are under way at once.
pub fn ask_beside(rel: RelFork, entry: Option<&RelEntry>, runs: impl Iterator<Item = Range<u32>>) {
    let Some(size) = size_of(rel, entry) else { return };
    for run in runs {
        ask(rel, entry, run.start..run.end.min(size));
    }
}

/// These blocks are being read; what follows is asked for if they are part of a sequence.
pub fn read_ahead(
    rel: RelFork,
    entry: Option<&RelEntry>,
    first: BlockNumber,
    count: usize,
) -> Option<StreamNumber> {
    let size = size_of(rel, entry)?;
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    BOOK.with_borrow_mut(|book| book.count_reads(u64::from(count)));
    let (number, range) =
        STREAMS.with_borrow_mut(|streams| streams.read(rel, first.0, count, size, window_max()))?;
    if !range.is_empty() {
        let asked = ask(rel, entry, range);
        STREAMS.with_borrow_mut(|streams| streams.asked(number, asked));
    }
    Some(number)
}

/// The reader of the sequence had to wait.
pub fn waited(stream: Option<StreamNumber>) {
    if let Some(number) = stream {
        STREAMS.with_borrow_mut(|streams| streams.waited(number, window_max()));
    }
}

/// A part of what the session may have stays free for the blocks that are read just now.
fn window_max() -> u32 {
    u32::try_from(settings::max() / 8 * 7).unwrap_or(u32::MAX)
}

/// Asks for what is worth it. All before the answer is asked for, or not worth it.
fn ask(rel: RelFork, entry: Option<&RelEntry>, range: Range<u32>) -> u32 {
    if range.is_empty() || room() == 0 {
        return range.start;
    }
    let wanted = |block: u32| block < range.end && is_wanted(rel, entry, BlockNumber(block));
    let (mut block, mut any) = (range.start, false);
    while block < range.end {
        if !wanted(block) {
            block += 1;
            continue;
        }
        let mut count = 1;
        while count < RUN_MAX && wanted(block + count as u32) {
            count += 1;
        }
        let begun = begin(rel, BlockNumber(block), count);
        if begun == 0 {
            break;
        }
        any = true;
        block += begun as u32;
    }
    if any {
        remote::ring();
    }
    block
}

fn is_wanted(rel: RelFork, entry: Option<&RelEntry>, block: BlockNumber) -> bool {
    !BOOK.with_borrow(|book| book.holds(rel, block))
        && !buffers::has(rel, block)
        && !spill::has(entry, rel, block)
        && !lfc::has(rel, block, state::last_written().page(rel, block))
}

/// Submits one request, as far as there is room; for how many blocks.
fn begin(rel: RelFork, first: BlockNumber, count: usize) -> usize {
    let count = count.min(room());
    if count == 0 {
        return 0;
    }
    watch_exit();
    // L3: before the request, and of all its pages: the answer reflects at least that for each of them.
    let asked = state::last_written().pages(rel, first, count as u32);
    log_position::flush_to(asked);
    // SAFETY: set when the process took its entry; any number does.
    let hint = unsafe { pg_sys::MyProcNumber }.unsigned_abs() as usize;
    // From here to the book's entry nothing can fail: what the pool gives is never lost.
    let Some((slot, pages)) = memory::pool().take(count, hint, is_quiet) else { return 0 };
    let count = pages.len();
    let targets: Vec<u64> = pages.iter().map(|page| memory::address_of(*page)).collect();
    let what = Ask::Pages { rel, first, count: count as u32 };
    BOOK.with_borrow_mut(|book| book.add(Run { slot, rel, first, pages, asked }));
    let request = Request { ask: what, not_modified_since: asked };
    state::slots().submit(state::prefetch_slot(slot), &request, &targets);
    memory::counters().requested.fetch_add(count as u64, Ordering::Relaxed);
    count
}

/// Pages that this session may still ask for. What nobody came for makes room.
fn room() -> usize {
    let max = settings::max();
    loop {
        let held = BOOK.with_borrow(Book::pages);
        let forgotten = BOOK.with_borrow(|book| book.forgotten((max * PATIENCE) as u64));
        match forgotten {
            Some(slot) if held >= max => {
                settle_run(slot);
                give_up(slot);
            }
            _ => return max.saturating_sub(held),
        }
    }
}

fn slot_at(number: usize) -> &'static Slot {
    state::slots().get(state::prefetch_slot(number)).expect("a slot of the pool")
}

/// A page that was asked for ahead and may be used.
pub struct Used {
    /// The page reflects all log up to here at least.
    pub as_of: Lsn,
    pub waited: bool,
}

/// Fills `page` if it was asked for ahead and has not changed since; waits for it if it is under way.
pub fn take(rel: RelFork, block: BlockNumber, page: &mut PageBytes) -> Option<Used> {
    let mut waited = false;
    let mut waiting = Waiting::default();
    loop {
        // Looked for anew each time: an interrupt may run code that reads pages.
        let found = BOOK.with_borrow(|book| book.find(rel, block))?;
        if !is_usable(found.asked, state::last_written().page(rel, block)) {
            memory::counters().expired.fetch_add(1, Ordering::Relaxed);
            strike(rel, block);
            return None;
        }
        if found.answered {
            // SAFETY: the answer is there, so nobody writes to the page, which is this session's.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    memory::address_of(found.page) as *const u8,
                    page.as_mut_ptr(),
                    BLOCK_BYTES,
                );
            }
            strike(rel, block);
            memory::counters().used.fetch_add(1, Ordering::Relaxed);
            memory::counters().waited.fetch_add(u64::from(waited), Ordering::Relaxed);
            return Some(Used { as_of: found.asked, waited });
        }
        waited |= !waiting.look(found.slot);
    }
}

/// A wait for answers of runs that were asked for ahead, mostly of one.
#[derive(Default)]
struct Waiting(Option<(usize, remote::Wait)>);

impl Waiting {
    /// True: the answer is there and in the book. False: some time has passed; look for the run anew, for an interrupt may have run code
    /// that reads pages.
    fn look(&mut self, number: usize) -> bool {
        let slot = slot_at(number);
        match slot.look() {
            Ok(outcome) => {
                if let Some((_, wait)) = self.0.as_ref().filter(|(of, _)| *of == number) {
                    wait.answered(slot);
                }
                enter(number, &outcome);
                true
            }
            Err((word, seen)) => {
                if self.0.as_ref().is_none_or(|(of, _)| *of != number) {
                    self.0 = Some((number, remote::Wait::begin_ahead()));
                }
                if let Some((_, wait)) = &mut self.0 {
                    remote::wait_for_prefetched(wait, word, seen);
                }
                false
            }
        }
    }
}

/// An answer is there. Of one that was refused nothing is left: whoever reads the page asks for it, and says what is wrong if that
/// fails, too.
fn enter(slot: usize, outcome: &Outcome) {
    if let Outcome::Value(_) = outcome {
        return BOOK.with_borrow_mut(|book| book.answered(slot));
    }
    if let Some(ended) = BOOK.with_borrow_mut(|book| book.give_up(slot)) {
        memory::counters().refused.fetch_add(u64::from(ended.unused), Ordering::Relaxed);
        free(&ended);
    }
}

/// Waits until the run that was asked for first has its answer, which may be a refusal; its slot, or none if there is no run.
fn wait_for_first() -> Option<usize> {
    let mut waiting = Waiting::default();
    loop {
        let slot = BOOK.with_borrow(|book| book.slots().first().copied())?;
        if BOOK.with_borrow(|book| book.is_answered(slot)) || waiting.look(slot) {
            return Some(slot);
        }
    }
}

/// Whether the answer of a run of the book is there; it looks, and does not wait.
fn has_come(slot: usize) -> bool {
    if !BOOK.with_borrow(|book| book.is_answered(slot))
        && let Some(outcome) = slot_at(slot).collect()
    {
        enter(slot, &outcome);
    }
    BOOK.with_borrow(|book| book.is_answered(slot))
}

/// The transaction ends: nobody will read these pages, and those that have come go to the file cache. It has locks, so a signal ends this;
/// what is left then is wasted.
pub fn settle() {
    if BOOK.with_borrow(Book::is_empty) || !lfc::takes_pages() {
        return;
    }
    // SAFETY: a plain flag of this process.
    let goes_on = |_: &usize| unsafe { pg_sys::InterruptPending } == 0;
    BOOK.with_borrow(Book::slots).into_iter().take_while(goes_on).for_each(settle_run);
}

fn settle_run(slot: usize) {
    if has_come(slot) {
        BOOK.with_borrow(|book| book.left(slot))
            .into_iter()
            .for_each(|(rel, block)| settle_block(rel, block));
    }
}

/// A page that has come goes to the file cache, or is wasted.
fn settle_block(rel: RelFork, block: BlockNumber) {
    let Some(found) = BOOK.with_borrow(|book| book.find(rel, block)) else { return };
    // SAFETY: if the answer is there, nobody writes to the page, which is this session's.
    let page = || unsafe { &*(memory::address_of(found.page) as *const PageBytes) };
    let taken = found.answered && lfc::keep_unlocked(rel, block, found.asked, page());
    let counters = memory::counters();
    let counter = if taken { &counters.cached } else { &counters.wasted };
    counter.fetch_add(1, Ordering::Relaxed);
    strike(rel, block);
}

/// The block is used up, one way or the other.
fn strike(rel: RelFork, block: BlockNumber) {
    if let Some(ended) = BOOK.with_borrow_mut(|book| book.strike(rel, block)) {
        free(&ended);
    }
}

fn give_up(slot: usize) {
    if let Some(ended) = BOOK.with_borrow_mut(|book| book.give_up(slot)) {
        memory::counters().wasted.fetch_add(u64::from(ended.unused), Ordering::Relaxed);
        free(&ended);
    }
}

/// Gives slot and pages back to the pool, unless an answer is being written for ever so long: then whoever finds it ended (P7).
fn free(ended: &Ended) {
    let slot = slot_at(ended.run.slot);
    memory::pool().end(ended.run.slot, &ended.run.pages, LOOKS, || slot.abandon());
}

/// The block will not be read after all. Nothing if it was read meanwhile.
fn drop_block(rel: RelFork, block: BlockNumber) {
    if let Some(found) = BOOK.with_borrow(|book| book.find(rel, block)) {
        has_come(found.slot);
        settle_block(rel, block);
    }
}

/// Of a slot that was left behind: its pages, if no answer can come any more.
fn is_quiet(number: usize) -> Option<Vec<usize>> {
    let targets = slot_at(number).abandon_left()?;
    Some(targets.into_iter().map(memory::page_at).collect())
}

/// The transaction is over, and with it whatever its plans wanted to read.
pub fn end_of_transaction() {
    scans::forget_all();
    // Without a look at the file cache: `settle` had its turn, and a transaction that fails has better things to do.
    while let Some(slot) = BOOK.with_borrow(Book::any) {
        give_up(slot);
    }
}

fn watch_exit() {
    if !EXIT_IS_WATCHED.replace(true) {
        // Not among those "before": a command such as CREATE DATABASE takes its own one off that list and insists that it is the last.
        // SAFETY: the function stays where it is.
        unsafe { pg_sys::on_shmem_exit(Some(on_exit), pg_sys::Datum::from(0)) };
    }
}

/// P7: the process exits, perhaps in the middle of anything.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: i32, _argument: pg_sys::Datum) {
    end_of_transaction();
}

/// Requests of all sessions that have no answer yet.
fn unanswered() -> u64 {
    let open = |number: &usize| slot_at(*number).is_open();
    (0..memory::slots()).filter(open).count() as u64
}
