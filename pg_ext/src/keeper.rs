//! The keeper: the background worker that does what no backend has a reason to do.
//!
//! - Free space maps are not in the log (V5). The keeper flushes their dirty pages into the spill store, logs an image of each
//!   spilled one and gives its entry back: so a map is known to the pageserver, and is lost with a compute only as far as it
//!   changed in the last round.
//! - Spilled pages whose transactions, or vacuums, have ended can be rebuilt by the log (W6–W8): their entries are given back.
//! - Entries of the relation table are made forgettable before it is full.
//! - The local file cache grows and shrinks to the size that is set, and its pages are listed for prewarming after a loss, beside it and
//!   in the object store.
//! - At a clean stop, when no backend is left, images of sequences that are ahead of their pages' log are logged, so that the next
//!   compute goes on with the very next value (W9). No value can be taken any more, and the shutdown checkpoint that follows
//!   makes the first `nextval` log again (`sequence.c`).
//!
//! - At the very end it logs the statistics (S12).
//!
//! It inserts into the log only while the server runs: never in recovery, and it is gone before the shutdown checkpoint begins.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Guard, Lsn};
use strata_smgr::evict::{self, Surroundings, Verdict};
use strata_smgr::page::{Page, PageKind};
use strata_smgr::quiet::Samples;
use strata_smgr::{Class, RelEntry};

use crate::smgr::images::Layout;
use crate::smgr::spill::{Fate, Part};
use crate::smgr::state::{self, LockMode};
use crate::smgr::{buffers, images, log_position, running, settings, settle, spill};
use crate::workers::{self, Declaration, Worker};
use crate::{lfc, statistics};

/// How often running transactions are looked at.
const TICK_MS: i64 = 500;
/// The same, while an answer of the object store is awaited.
const BUSY_TICK_MS: i64 = 50;
/// Pages that one round saves, and spilled pages that it looks at: what is more waits for the next one.
const PAGES_MAX: usize = 2048;
/// The list of cached pages is written down every so many rounds.
const ROUNDS_TO_REMEMBER: usize = 6;
/// Relations of a partition that one round settles.
const SETTLED_MAX: usize = 256;

/// Declares the worker to the postmaster; call from `_PG_init`.
pub fn register() {
    workers::declare(&Declaration {
        name: c"strata keeper",
        function: c"strata_keeper_main",
        start: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
    });
}

#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn strata_keeper_main(_argument: pg_sys::Datum) {
    workers::set_up(Worker::Keeper);
    workers::reload_on_hangup();
    // SAFETY: pins of buffers need an owner, and this process has no transaction.
    unsafe { pg_sys::CreateAuxProcessResourceOwner() };
    let every = Duration::from_millis(settings::keeper_interval_ms());
    let tick_ms = TICK_MS.min(i64::try_from(every.as_millis()).unwrap_or(TICK_MS));
    let tick = Duration::from_millis(tick_ms.unsigned_abs());
    let mut samples = Samples::default();
    let mut carrier = lfc::Carrier::new();
    let (mut turn, mut next_round, mut next_sample) = (0, Instant::now() + every, Instant::now());
    loop {
        if workers::may_leave(Worker::Keeper) {
            last_round();
            // SAFETY: an orderly exit of this process; 0 means that it is not started again.
            unsafe { pg_sys::proc_exit(0) };
        }
        workers::reload_if_wanted();
        lfc::follow_limit();
        carrier.look();
        if Instant::now() >= next_sample {
            look_at_transactions(&mut samples);
            next_sample = Instant::now() + tick;
        }
        if Instant::now() >= next_round {
            round(turn);
            if turn.is_multiple_of(ROUNDS_TO_REMEMBER) {
                lfc::remember();
            }
            turn += 1;
            next_round = Instant::now() + every;
        }
        workers::nap(if carrier.is_busy() { BUSY_TICK_MS.min(tick_ms) } else { tick_ms });
    }
}

fn look_at_transactions(samples: &mut Samples) {
    let (sample, oldest) = running::sample();
    samples.add(sample);
    let bound = samples.bound(oldest);
    state::keeper().quiet_below.fetch_max(bound.0, Ordering::AcqRel);
}

/// `turn` counts rounds: where there is too much for one, each begins elsewhere.
fn round(turn: usize) {
    buffers::flush_dirty(PAGES_MAX, |rel, _, _| rel.fork == ForkNumber::FreeSpaceMap);
    let spilled = entries(|entry| entry.forks.iter().any(|fork| fork.spilled > 0));
    let (mut saved, mut reviewed) = (0, 0);
    for index in 0..spilled.len() {
        let entry = &spilled[(index + turn) % spilled.len()];
        saved += save_free_space(entry, PAGES_MAX - saved);
        reviewed += give_back(entry, Part { turn, most: PAGES_MAX - reviewed });
    }
    if saved > 0 {
        // Only flushed log is sent: whoever waits for such a page would wait for somebody else's commit.
        log_position::flush_to(log_position::insert_lsn());
    }
    make_room();
    // SAFETY: nothing of this process points at the server's relations.
    unsafe { pg_sys::smgrdestroyall() };
    state::keeper().rounds.fetch_add(1, Ordering::AcqRel);
}

/// No backend is left. What is dirty goes into the spill store, and from there into the log.
fn last_round() {
    let wanted = |rel: strata_common::RelFork, block: BlockNumber, page: Page<'_>| {
        rel.fork == ForkNumber::FreeSpaceMap || (block.0 == 0 && is_ahead(page))
    };
    buffers::flush_dirty(usize::MAX, wanted);
    for entry in entries(|entry| entry.forks.iter().any(|fork| fork.spilled > 0)) {
        save_free_space(&entry, usize::MAX);
        save_sequence(&entry);
    }
    // Nothing may be logged after this.
    statistics::save();
}

/// Permanent relations that no running transaction has made and that `wanted` names. One that is being made may be rolled back,
/// and an image of it in the log after that would make it anew.
fn entries(wanted: impl Fn(&RelEntry) -> bool) -> Vec<RelEntry> {
    let of = |number| {
        state::with_partition_number(number, LockMode::Shared, |table| {
            let mine = |entry: &&RelEntry| entry.class == Class::Permanent && entry.maker_pid == 0;
            table.entries().filter(mine).filter(|entry| wanted(entry)).copied().collect::<Vec<RelEntry>>()
        })
    };
    (0..state::PARTITIONS).flat_map(of).collect()
}

/// Logs at most `most` spilled pages of the free space map; how many.
fn save_free_space(entry: &RelEntry, most: usize) -> usize {
    let rel = entry.tag.fork(ForkNumber::FreeSpaceMap);
    if entry.fork(rel.fork).spilled == 0 || !Guard::FreeSpaceImages.holds() {
        return 0;
    }
    spill::review(rel, Part { turn: 0, most }, |block, page| {
        images::log(rel, block, page, Layout::Whole);
        state::keeper().saved_pages.fetch_add(1, Ordering::AcqRel);
        Fate::GiveBack
    })
}

/// Gives back pages that the log can rebuild by now; how many it has looked at. Their last-written LSN was raised when they were
/// spilled.
fn give_back(entry: &RelEntry, part: Part) -> usize {
    let rel = entry.tag.fork(ForkNumber::Main);
    if entry.fork(rel.fork).spilled == entry.fork(rel.fork).only_copies {
        return 0;
    }
    spill::review(rel, part, |_, page| {
        let around = Surroundings {
            fork: rel.fork,
            insert_lsn: log_position::insert_lsn(),
            being_built: false,
            quiet_below: Lsn::INVALID,
        };
        // Asked anew for each page: the next one may be spilled only now, with the mark of a vacuum that has just begun.
        match evict::judge(page, around, &mut running::Now::default()) {
            Verdict::Drop { .. } => {
                state::keeper().returned_pages.fetch_add(1, Ordering::AcqRel);
                Fate::GiveBack
            }
            _ => Fate::Keep,
        }
    })
}

fn is_ahead(page: Page<'_>) -> bool {
    matches!(page.kind(), PageKind::Sequence { log_count } if log_count != 0)
}

fn save_sequence(entry: &RelEntry) {
    let rel = entry.tag.fork(ForkNumber::Main);
    if entry.fork(rel.fork).spilled == 0 || !Guard::SequenceImages.holds() {
        return;
    }
    spill::review(rel, Part { turn: 0, most: 1 }, |block, page: &mut [u8; BLOCK_BYTES]| {
        if block.0 == 0 && is_ahead(Page::new(page)) {
            images::log(rel, block, page, Layout::Standard);
            state::keeper().saved_pages.fetch_add(1, Ordering::AcqRel);
        }
        Fate::Keep
    });
}

/// Where a partition of the relation table is nearly full, entries are made forgettable.
fn make_room() {
    if settings::mode() != settings::Mode::Remote {
        return;
    }
    for number in 0..state::PARTITIONS {
        if state::with_partition_number(number, LockMode::Shared, |table| table.is_crowded()) {
            settle::some(number, SETTLED_MAX, workers::stop_is_wanted);
        }
    }
}
