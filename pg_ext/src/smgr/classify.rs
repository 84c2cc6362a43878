//! Which relation is permanent: gathers what is seen here and asks `strata_smgr::class` (trap R13, `docs/traps.md`).

use std::cell::RefCell;
use std::collections::HashSet;

use pgrx::pg_sys::{self, SMgrRelation};
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Guard, Lsn, RelFork, RelTag};
use strata_smgr::class::{self, Observation};
use strata_smgr::page::Page;
use strata_smgr::rel_table::{Full, Room};
use strata_smgr::slots::Ask;
use strata_smgr::{Class, ForkSize, RelEntry, RelPartition};

use super::settings::{Mode, mode};
use super::state::{self, LockMode};
use super::{buffers, ffi, log_position, remote, settle, spill};

thread_local! {
    /// Relations that this process's transaction has made and that are not yet decided.
    static UNDECIDED: RefCell<Vec<RelTag>> = const { RefCell::new(Vec::new()) };
    /// All relations that it has made.
    static MADE: RefCell<Vec<RelTag>> = const { RefCell::new(Vec::new()) };
    /// Relations that it has made longer.
    static GROWN: RefCell<Vec<RelTag>> = const { RefCell::new(Vec::new()) };
}

/// Most relations that are remembered as made longer.
const GROWN_MAX: usize = 64;

/// What the present call shows of the relation.
#[derive(Clone, Copy)]
pub enum Seen<'a> {
    Nothing,
    /// A page whose place in shared buffers is known to be for a permanent relation or not.
    SharedBuffer {
        permanent: bool,
    },
    PrivatePage(&'a [u8; BLOCK_BYTES]),
    /// This block is being added; its buffer is in the mapping already.
    ZeroExtend(BlockNumber),
}

/// The class of a relation whose MAIN, FSM or VM is touched; asks the pageserver if nothing else tells.
///
/// # Safety
/// `reln` is a relation that the server passed to a callback.
pub unsafe fn class_of(reln: SMgrRelation, fork: ForkNumber, seen: Seen<'_>) -> Class {
    // SAFETY: the caller's promise.
    let tag = unsafe { ffi::tag_of((*reln).smgr_rlocator.locator) };
    match state::entry(tag) {
        // SAFETY: as above.
        Some(entry) if entry.class == Class::Undecided => unsafe { decide(reln, &entry, fork, seen) },
        Some(entry) => {
            check(entry.class, tag, fork, seen);
            entry.class
        }
        None => {
            let class = match observation(tag.fork(fork), seen).and_then(class::decide) {
                Some(class) => class,
                None => stored_class(reln, tag),
            };
            met(tag, class);
            class
        }
    }
}

/// An INIT fork is in the log and on the pageserver, whatever its relation is (R11).
pub fn is_remote_init(fork: ForkNumber) -> bool {
    fork == ForkNumber::Init && Guard::InitIsRemote.holds()
}

/// Puts a relation into the table that this server had not met, if there is room: without, it is asked for again.
pub fn met(tag: RelTag, class: Class) {
    let _no_room = state::with_partition(tag, LockMode::Exclusive, |mut table| {
        table.get_or_put(tag, Room::Ordinary, || RelEntry::met(tag, class)).map(|_| ())
    });
}

/// Changes a relation's entry, which is made if there is none: for what must not be forgotten.
pub fn keep(tag: RelTag, class: Class, change: impl Fn(&mut RelEntry)) {
    insert(tag, |table, room| table.get_or_put(tag, room, || RelEntry::met(tag, class)).map(&change));
}

/// Runs an insertion that cannot be left out. If the table is full, relations that the pageserver knows as well are made
/// forgettable; where nobody may wait for the pageserver the reserve is taken, which the keeper makes free again.
pub fn insert(tag: RelTag, attempt: impl Fn(&mut RelPartition<'_>, Room) -> Result<(), Full>) {
    let run = |room| state::with_partition(tag, LockMode::Exclusive, |mut table| attempt(&mut table, room));
    if run(Room::Ordinary).is_ok() {
        return;
    }
    if remote::may_ask() {
        settle::some(state::partition_of(tag), settle::AT_ONCE, || false);
    }
    if run(Room::Ordinary).is_err() && run(Room::Reserve).is_err() {
        pgrx::error!(
            "too many relations were changed since the server's start: raise strata.relation_slots and restart"
        );
    }
}

/// Rule 10: what the pageserver has (in compare mode: which files there are).
fn stored_class(reln: SMgrRelation, tag: RelTag) -> Class {
    let stored = |fork: ForkNumber| match mode() {
        // SAFETY: `reln` came from the server.
        Mode::Compare => unsafe { ffi::mdexists(reln, ffi::raw_fork(fork)) },
        _ => {
            remote::ask(Ask::RelExists(tag.fork(fork)), state::last_written().size(tag.fork(fork)), &[]) != 0
        }
    };
    let observation = Observation::Stored { init: stored(ForkNumber::Init), main: stored(ForkNumber::Main) };
    class::decide(observation).expect("what is stored always decides")
}

fn observation(rel: RelFork, seen: Seen<'_>) -> Option<Observation> {
    // An INIT fork's buffers are permanent whatever the relation is.
    if rel.fork == ForkNumber::Init {
        return None;
    }
    match seen {
        Seen::Nothing => None,
        Seen::SharedBuffer { permanent } => Some(Observation::SharedBuffer { permanent }),
        Seen::ZeroExtend(block) => {
            buffers::permanence_of(rel, block).map(|permanent| Observation::SharedBuffer { permanent })
        }
        Seen::PrivatePage(bytes) => {
            let page = Page::new(bytes);
            let log_now = log_position::my_last_record_end();
            Some(Observation::PrivatePage { all_zero: page.is_all_zero(), page_lsn: page.lsn(), log_now })
        }
    }
}

/// # Safety
/// As `class_of`.
unsafe fn decide(reln: SMgrRelation, entry: &RelEntry, fork: ForkNumber, seen: Seen<'_>) -> Class {
    // SAFETY: plain variables of this process.
    let (me, my_database) = unsafe { (pg_sys::MyProcPid, pg_sys::MyDatabaseId.to_u32()) };
    let maker_returns = (entry.maker_pid == me).then(|| Observation::MakerReturns {
        log_at_create: Lsn(entry.log_at_create),
        log_now: log_position::my_last_record_end(),
        in_other_database: entry.tag.database != my_database,
    });
    let class = [maker_returns, observation(entry.tag.fork(fork), seen)]
        .into_iter()
        .flatten()
        .fold(Class::Undecided, class::after);
    if class != Class::Undecided {
        // SAFETY: the caller's promise.
        unsafe { settle_class(reln, class) };
    }
    class
}

/// Writes a decision down. An unlogged relation gets the local files that it went without until now.
///
/// # Safety
/// `reln` is a relation of the server's.
pub unsafe fn settle_class(reln: SMgrRelation, class: Class) {
    // SAFETY: the caller's promise.
    let tag = unsafe { ffi::tag_of((*reln).smgr_rlocator.locator) };
    let entry = state::entry(tag);
    // Once decided its files are there and hold content: a REINDEX of an unlogged index makes the INIT fork after the build.
    let decided = entry.is_some_and(|entry| entry.class != Class::Undecided) && Guard::InitAfterMain.holds();
    if class == Class::Unlogged && mode() == Mode::Remote && !decided {
        for fork in [ForkNumber::Main, ForkNumber::FreeSpaceMap, ForkNumber::VisibilityMap] {
            let Some(ForkSize::Blocks(blocks)) = entry.map(|entry| entry.fork(fork).size) else { continue };
            // SAFETY: as above. "Redo" takes a file that is there already.
            unsafe {
                ffi::mdcreate(reln, ffi::raw_fork(fork), true);
                if blocks > 0 {
                    ffi::mdzeroextend(reln, ffi::raw_fork(fork), 0, blocks as i32, true);
                }
            }
        }
    }
    state::update(tag, |entry| {
        if entry.class == Class::Undecided {
            entry.class = class;
        }
    });
    UNDECIDED.with_borrow_mut(|tags| tags.retain(|other| *other != tag));
}

/// The relation cache or the catalog says what a relation is (rules 6 and 9).
pub fn catalog_says(locator: pg_sys::RelFileLocator, permanent: bool) {
    let tag = ffi::tag_of(locator);
    match state::entry(tag) {
        Some(entry) if entry.class == Class::Undecided => {
            let class =
                class::decide(Observation::Catalog { permanent }).expect("the catalog always decides");
            // SAFETY: makes or finds the server's own relation; ours are never temporary.
            unsafe { settle_class(pg_sys::smgropen(locator, pg_sys::INVALID_PROC_NUMBER), class) };
        }
        Some(entry) if class::contradicts(entry.class, Observation::Catalog { permanent }) => {
            wrong(tag, entry.class)
        }
        _ => {}
    }
}

fn check(class: Class, tag: RelTag, fork: ForkNumber, seen: Seen<'_>) {
    if let (Seen::SharedBuffer { permanent }, true) = (seen, fork != ForkNumber::Init)
        && class::contradicts(class, Observation::SharedBuffer { permanent })
    {
        wrong(tag, class);
    }
}

/// Data would be lost if the server went on.
fn wrong(tag: RelTag, class: Class) -> ! {
    pgrx::PANIC!("relation {tag} was taken for {class:?}, and is not");
}

/// Rule 5, for relations that their maker does not touch again: an empty one that CREATE DATABASE makes in the new database. Called
/// when the maker makes another relation, before anything is logged for that, and before it commits: records since then are
/// those of the relation's own creation.
pub fn decide_others() {
    // SAFETY: a plain variable of this process.
    let my_database = unsafe { pg_sys::MyDatabaseId.to_u32() };
    for tag in undecided().into_iter().filter(|tag| ![0, my_database].contains(&tag.database)) {
        let Some(entry) = state::entry(tag) else { continue };
        let observation = Observation::MakerReturns {
            log_at_create: Lsn(entry.log_at_create),
            log_now: log_position::my_last_record_end(),
            in_other_database: true,
        };
        if let Some(class) = class::decide(observation) {
            // SAFETY: makes or finds the server's own relation; ours are never temporary.
            unsafe {
                settle_class(pg_sys::smgropen(ffi::locator_of(tag), pg_sys::INVALID_PROC_NUMBER), class)
            };
        }
    }
}

/// A relation was made by this process.
pub fn made(tag: RelTag) {
    UNDECIDED.with_borrow_mut(|tags| tags.push(tag));
    MADE.with_borrow_mut(|tags| tags.push(tag));
}

pub fn undecided() -> Vec<RelTag> {
    UNDECIDED.with_borrow(Clone::clone)
}

pub fn all_made() -> Vec<RelTag> {
    MADE.with_borrow(Clone::clone)
}

/// A relation got longer by this process's doing.
pub fn grown(tag: RelTag) {
    GROWN.with_borrow_mut(|tags| {
        if tags.last() != Some(&tag) && !tags.contains(&tag) {
            // Forgetting one of very many only forgoes a check.
            if tags.len() == GROWN_MAX {
                tags.remove(0);
            }
            tags.push(tag);
        }
    });
}

/// Relations that this transaction may have filled: those that it made, and those that it made longer. CREATE INDEX CONCURRENTLY
/// fills in one transaction what another made.
pub fn maybe_filled() -> Vec<RelTag> {
    let mut tags = all_made();
    for tag in GROWN.with_borrow(Clone::clone) {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Commit,
    Abort,
}

/// This process's transaction has ended: its relations are like any others.
pub fn end_of_transaction(end: End) {
    UNDECIDED.with_borrow_mut(Vec::clear);
    GROWN.with_borrow_mut(Vec::clear);
    let made = MADE.with_borrow_mut(std::mem::take);
    // SAFETY: a plain variable of this process.
    let my_database = unsafe { pg_sys::MyDatabaseId.to_u32() };
    let elsewhere = |tag: &RelTag| ![0, my_database].contains(&tag.database);
    if end == End::Abort && made.iter().any(elsewhere) {
        // A CREATE DATABASE that failed: the server removes the folder and nothing says so to us relation by relation.
        let gone: HashSet<RelTag> = made.iter().filter(|tag| elsewhere(tag)).copied().collect();
        spill::purge(|entry| gone.contains(&entry.tag));
        state::raise_floor(log_position::insert_lsn());
    }
    for tag in made {
        state::update(tag, |entry| entry.maker_pid = 0);
    }
}
