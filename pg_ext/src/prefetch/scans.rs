//! The blocks that index scans will read next, asked for ahead. The server gives no advice for them, and they follow no sequence; but
//! the entries of the index page that a scan is on are in this process's memory (`btree`), and the scan is found by the plan that runs
//! (`plan`, `running`). How far ahead is `strata_smgr::prefetch::LeafScan`'s decision.
//!
//! What is kept here of a scan are numbers: its query and node are only compared. Scans of other index types, of CLUSTER and of the
//! catalogs are not seen, because no plan or no btree is there.

use std::cell::RefCell;

use pgrx::pg_sys;
use strata_common::{BlockNumber, ForkNumber, RelFork, RelTag};
use strata_smgr::RelEntry;
use strata_smgr::prefetch::LeafScan;
use strata_smgr::prefetch::leaf::Leaf;

use super::{memory, plan, running, settings};
use crate::smgr::{buffers, state};

/// Scans that are kept in mind; the one that read longest ago makes place.
const SCANS_MAX: usize = 32;

/// Heap blocks of a page of the visibility map: two bits each, behind the page's header (`visibilitymap.c`).
const MAP_BLOCKS: u32 = (8192 - MAP_HEADER as u32) * 4;
const MAP_HEADER: usize = 24;

struct Known {
    query: usize,
    node: usize,
    table: RelFork,
    scan: LeafScan,
    /// An index page that was asked for.
    index_page: Option<(RelFork, BlockNumber)>,
}

thread_local! {
    /// The one that has read last is the last.
    static KNOWN: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
}

/// This block is being read and had to be waited for, or has to.
pub struct Read {
    pub table: RelFork,
    pub block: BlockNumber,
    pub waited: bool,
}

/// If an index scan of the running plan reads this block, asks for the ones that it will read next.
pub fn read(read: &Read, entry: Option<&RelEntry>) {
    if !settings::index_scans() || super::size_of(read.table, entry).is_none() {
        return;
    }
    running::with_innermost(|frame| {
        // SAFETY: the frame's run is under way, and with it its plan and scans, until this returns.
        let (found, scan, position) = unsafe { plan::find(frame, read.table.rel, read.block.0)? };
        let mut known = take(frame.query as usize, found.node as usize, read.table);
        let leaf = Leaf {
            page: position.page(),
            here: position.at(),
            end: position.end(),
            row: |at| position.row(at),
        };
        for block in known.scan.read(&leaf, read.waited, super::window_max()) {
            super::drop_block(read.table, BlockNumber(block));
        }
        // SAFETY: as above.
        let reach = unsafe { found.reach(frame) };
        ask(&mut known, read, entry, &leaf, reach, scan.is_index_only);
        let is_free = reach.is_none() && known.scan.is_near_the_end(&leaf);
        if let Some(next) = position.next_page().filter(|_| is_free) {
            // SAFETY: as above.
            ask_for_index_page(&mut known, unsafe { index_of(&scan) }, BlockNumber(next));
        }
        KNOWN.with_borrow_mut(|all| all.push(known));
        Some(())
    });
}

/// Takes a scan out of the list; it goes back as the last one.
fn take(query: usize, node: usize, table: RelFork) -> Known {
    let (known, old) = KNOWN.with_borrow_mut(|all| {
        let is_same = |known: &Known| (known.query, known.node, known.table) == (query, node, table);
        if let Some(index) = all.iter().rposition(is_same) {
            return (Some(all.remove(index)), None);
        }
        (None, (all.len() >= SCANS_MAX).then(|| all.remove(0)))
    });
    if let Some(old) = old {
        give_up(old);
    }
    known.unwrap_or_else(|| Known { query, node, table, scan: LeafScan::default(), index_page: None })
}

fn ask<F: Fn(i32) -> Option<strata_smgr::prefetch::leaf::Tid>>(
    known: &mut Known,
    read: &Read,
    entry: Option<&RelEntry>,
    leaf: &Leaf<F>,
    reach: Option<u64>,
    is_index_only: bool,
) {
    let Some(size) = super::size_of(read.table, entry) else { return };
    let is_wanted = |block: u32| {
        // The block that is being read is neither in the book nor valid in its buffer yet.
        block < size
            && block != read.block.0
            && (!is_index_only || is_read_for(read.table.rel, block))
            && super::is_wanted(read.table, entry, BlockNumber(block))
    };
    let blocks = known.scan.ahead(leaf, reach, is_wanted);
    let mut rest = blocks.as_slice();
    while let Some((at, first)) = rest.first() {
        let count = rest.iter().zip(*first..).take_while(|((_, block), expected)| block == expected).count();
        let begun = super::begin(read.table, BlockNumber(*first), count.min(super::RUN_MAX));
        for (at, block) in &rest[..begun] {
            known.scan.asked(*at, *block);
        }
        if begun == 0 {
            known.scan.stopped(*at);
            break;
        }
        rest = &rest[begun..];
    }
    let begun = blocks.len() - rest.len();
    if begun > 0 {
        memory::counters().index_scans.fetch_add(begun as u64, std::sync::atomic::Ordering::Relaxed);
        crate::smgr::remote::ring();
    }
}

/// Whether an index-only scan will read this block: not if its rows can be seen by all. If that is not known here, it is left to the
/// scan, which has to read the map's page first.
fn is_read_for(table: RelTag, block: u32) -> bool {
    let map = table.fork(ForkNumber::VisibilityMap);
    let inside = block % MAP_BLOCKS;
    let byte = buffers::byte_of(map, BlockNumber(block / MAP_BLOCKS), MAP_HEADER + inside as usize / 4);
    byte.is_some_and(|byte| byte >> (inside % 4 * 2) & 1 == 0)
}

/// # Safety
/// The scan is open.
unsafe fn index_of(scan: &plan::Scan) -> RelFork {
    // SAFETY: the caller's promise.
    let locator = unsafe { (*(*scan.description).indexRelation).rd_locator };
    let rel = RelTag {
        tablespace: locator.spcOid.to_u32(),
        database: locator.dbOid.to_u32(),
        relation: locator.relNumber.to_u32(),
    };
    rel.fork(ForkNumber::Main)
}

fn ask_for_index_page(known: &mut Known, index: RelFork, page: BlockNumber) {
    if known.index_page == Some((index, page)) {
        return;
    }
    let entry = state::entry(index.rel);
    let is_inside = super::size_of(index, entry.as_ref()).is_some_and(|size| page.0 < size);
    if is_inside && super::is_wanted(index, entry.as_ref(), page) && super::begin(index, page, 1) == 1 {
        if let Some((index, page)) = known.index_page.replace((index, page)) {
            super::drop_block(index, page);
        }
        memory::counters().index_scans.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        crate::smgr::remote::ring();
    }
}

fn give_up(mut known: Known) {
    for block in known.scan.forget() {
        super::drop_block(known.table, BlockNumber(block));
    }
    if let Some((index, page)) = known.index_page {
        super::drop_block(index, page);
    }
}

/// The query begins or ends: nobody reads what was asked for its scans before.
#[pgrx::pg_guard]
pub extern "C-unwind" fn forget(query: *mut pg_sys::QueryDesc) {
    let gone: Vec<Known> = KNOWN.with_borrow_mut(|all| {
        if all.is_empty() {
            return Vec::new();
        }
        all.extract_if(.., |known| known.query == query as usize).collect()
    });
    gone.into_iter().for_each(give_up);
}

/// The transaction is over; what was asked for is given up by the book.
pub fn forget_all() {
    KNOWN.with_borrow_mut(Vec::clear);
}
