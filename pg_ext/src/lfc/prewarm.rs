//! Prewarming: pages that another cache held, or this one in its former life, are read from the pageserver before anybody asks for them
//! (trap C8).
//!
//! The list comes from `strata_lfc_state()`, of this compute or any other of the same tenant, or from what this compute's former life left.
//! The session that asks reads page by page, the hottest first, and can be cancelled at any moment. No page leaves the cache for
//! it, and what is already there, gone, spilled or changed while it was read is passed over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pgrx::prelude::*;
use strata_common::{BlockNumber, ForkNumber, RelFork};
use strata_lfc::kept::{self, End, KeptPage};
use strata_lfc::partition::Restored;
use strata_smgr::slots::Ask;
use strata_smgr::{Class, ForkSize};

use super::memory::{self, PARTITIONS};
use super::{PageBytes, checksum, fail, file};
use crate::guc;
use crate::smgr::{remote, state};

/// How far the prewarming that runs, or ran last, has come. One at a time.
#[repr(C)]
#[derive(Default)]
pub struct Progress {
    pid: AtomicU32,
    total: AtomicU64,
    read: AtomicU64,
    present: AtomicU64,
    skipped: AtomicU64,
}

/// Says that this process prewarms, as long as it lives.
struct Turn(&'static Progress);

impl Turn {
    fn take(total: usize) -> Turn {
        let progress = &memory::counters().prewarming;
        let before = progress.pid.load(Ordering::Acquire);
        let mine = std::process::id();
        let taken = !is_alive(before)
            && progress.pid.compare_exchange(before, mine, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !taken {
            pgrx::error!(
                "another session prewarms the local file cache already: see strata_lfc_prewarm_progress"
            );
        }
        for counter in [&progress.read, &progress.present, &progress.skipped] {
            counter.store(0, Ordering::Relaxed);
        }
        progress.total.store(total as u64, Ordering::Relaxed);
        Turn(progress)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.pid.store(0, Ordering::Release);
    }
}

/// A session that was terminated could not say that it ended.
fn is_alive(pid: u32) -> bool {
    // SAFETY: only looks whether a backend has this number.
    pid != 0 && !unsafe { pg_sys::BackendPidGetProc(pid.cast_signed()) }.is_null()
}

/// What the cache holds, for `strata_lfc_prewarm` here or elsewhere.
#[pg_extern]
fn strata_lfc_state() -> Option<Vec<u8>> {
    (memory::is_attached() && super::is_on()).then(|| super::kept::index(End::Running)).flatten()
}

/// Reads pages of a list, by default that of this compute's former life; how many it put into the cache.
#[pg_extern]
fn strata_lfc_prewarm(state: default!(Option<Vec<u8>>, "NULL")) -> i64 {
    require_cache();
    state.or_else(super::kept::former).map_or(0, |bytes| prewarm(&bytes))
}

/// Raises an error if there is no cache.
pub fn require_cache() {
    if !memory::is_attached() || !super::is_on() {
        pgrx::error!("there is no local file cache to prewarm: set strata.lfc_max_size");
    }
}

/// Reads the pages of a list; how many it put into the cache.
pub fn prewarm(state: &[u8]) -> i64 {
    let (owner, pages) = kept::decode(state)
        .unwrap_or_else(|damaged| pgrx::error!("this is no state of a local file cache: {damaged}"));
    let timeline = guc::timeline().unwrap_or_else(|problem| pgrx::error!("{problem}"));
    if owner.timeline.tenant != timeline.tenant {
        pgrx::error!(
            "this is the state of a cache of tenant {}, and here is {}",
            owner.timeline.tenant,
            timeline.tenant
        );
    }
    let turn = Turn::take(pages.len());
    let mut sizes = HashMap::new();
    for page in hottest_first(pages) {
        pgrx::check_for_interrupts!();
        let counter = match fetch(&page, &mut sizes) {
            Fetched::Read => &turn.0.read,
            Fetched::Present => &turn.0.present,
            Fetched::Skipped => &turn.0.skipped,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    turn.0.read.load(Ordering::Relaxed).cast_signed()
}

/// A list has each partition's pages in the order in which they would leave. The hottest of all partitions come first.
fn hottest_first(pages: Vec<KeptPage>) -> Vec<KeptPage> {
    let mut rank_in = vec![0u32; PARTITIONS];
    let ranked = pages.into_iter().rev().map(|page| {
        let rank = &mut rank_in[memory::partition_of(page.name)];
        *rank += 1;
        (*rank, page)
    });
    let mut ranked: Vec<(u32, KeptPage)> = ranked.collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, page)| page).collect()
}

enum Fetched {
    Read,
    Present,
    Skipped,
}

fn fetch(page: &KeptPage, sizes: &mut HashMap<RelFork, Option<u32>>) -> Fetched {
    let name = page.name;
    let (rel, block) = (name.rel, name.block);
    let number = memory::partition_of(name);
    let needed = state::last_written().page(rel, block);
    let (there, room) = memory::shared(number, |partition| {
        (partition.has(name, needed), partition.used() < partition.limit())
    });
    if there {
        return Fetched::Present;
    }
    if !room || !super::is_on() || !is_inside(rel, block, sizes) {
        return Fetched::Skipped;
    }
    let bounce = state::bounce_page();
    remote::ask(Ask::Pages { rel, first: block, count: 1 }, needed, &[bounce as u64]);
    // SAFETY: this process's bounce page; nobody else writes to it when there is an answer.
    let content: &PageBytes = unsafe { &*bounce.cast::<PageBytes>() };
    // Whoever changed it meanwhile has the newer one.
    if state::last_written().page(rel, block) != needed {
        return Fetched::Skipped;
    }
    let Some(place) = memory::exclusive(number, |partition| partition.reserve_free()) else {
        return Fetched::Skipped;
    };
    let written = file::write(memory::place_in_file(number, place), content);
    let known =
        Restored { name, place, checksum: checksum(name, content), uses: page.uses, in_main: page.in_main };
    let kept = memory::exclusive(number, |partition| match written {
        Ok(()) => partition.publish_known(place, known, needed),
        Err(_) => {
            partition.cancel(place);
            false
        }
    });
    if let Err(error) = written {
        fail("written", &error);
    }
    if kept { Fetched::Read } else { Fetched::Skipped }
}

/// Whether the page exists and comes from the pageserver.
fn is_inside(rel: RelFork, block: BlockNumber, sizes: &mut HashMap<RelFork, Option<u32>>) -> bool {
    if rel.fork == ForkNumber::FreeSpaceMap {
        return false;
    }
    let entry = state::entry(rel.rel);
    if let Some(entry) = &entry {
        // What was dropped or made anew since the list was written, or is spilled, is told by the table.
        if (entry.class == Class::Unlogged && rel.fork != ForkNumber::Init)
            || entry.fork(rel.fork).spilled > 0
        {
            return false;
        }
        match entry.fork(rel.fork).size {
            ForkSize::Blocks(blocks) => return block.0 < blocks,
            ForkSize::Absent => return false,
            ForkSize::Unknown => {}
        }
    }
    let size = *sizes.entry(rel).or_insert_with(|| remote_size(rel));
    size.is_some_and(|blocks| block.0 < blocks)
}

fn remote_size(rel: RelFork) -> Option<u32> {
    let needed = state::last_written().size(rel);
    let go_on = || false;
    let exists = remote::ask_unless(go_on, Ask::RelExists(rel), needed)? != 0;
    let blocks = exists.then(|| remote::ask_unless(go_on, Ask::RelSize(rel), needed)).flatten()?;
    u32::try_from(blocks).ok()
}

/// No row without a cache.
#[pg_extern]
fn strata_lfc_prewarm_counters() -> TableIterator<
    'static,
    (name!(pid, Option<i32>), name!(total, i64), name!(read, i64), name!(present, i64), name!(skipped, i64)),
> {
    if !memory::is_attached() {
        return TableIterator::empty();
    }
    let progress = &memory::counters().prewarming;
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed).cast_signed();
    let pid = progress.pid.load(Ordering::Acquire);
    TableIterator::once((
        is_alive(pid).then_some(pid.cast_signed()),
        value(&progress.total),
        value(&progress.read),
        value(&progress.present),
        value(&progress.skipped),
    ))
}
