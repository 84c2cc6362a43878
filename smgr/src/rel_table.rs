//! Relations that this server has met: class and sizes (traps R1–R7, R10, R14, W13, W14, W17).
//!
//! An open-addressing table over a slice, one per partition; the caller holds the partition's lock. A size is the truth while
//! it stands here: Postgres extends without telling the log, so a size that this server has changed may be ahead of the log and
//! is never forgotten while the server lives (R1), only settled by proving that the pageserver has caught up with it
//! (`settle`). Sizes only learned from the pageserver may be evicted and asked again.

use strata_common::{ForkNumber, Guard, RelTag};

use crate::class::Class;

/// Whether a fork may have `count` more blocks from `first` on: the last number means "none" (R10).
pub fn may_grow(first: u32, count: u32) -> bool {
    !Guard::BlockLimit.holds() || u64::from(first) + u64::from(count) < u64::from(u32::MAX)
}

/// Size of one fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForkSize {
    /// Ask the pageserver.
    Unknown,
    /// The fork does not exist.
    Absent,
    Blocks(u32),
}

/// One fork of a relation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fork {
    pub size: ForkSize,
    /// Changed by this server, so the pageserver may not know the size yet, or never will.
    pub ours: bool,
    /// No fewer than the pages that the spill store has.
    pub spilled: u32,
    /// No fewer than the spilled pages that exist nowhere else (W2).
    pub only_copies: u32,
}

/// One relation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelEntry {
    pub tag: RelTag,
    pub class: Class,
    /// Process that made it, until its transaction ends; 0 afterwards and for older relations.
    pub maker_pid: i32,
    /// End of the maker's last record when it made the relation.
    pub log_at_create: u64,
    /// Made in this server's life.
    pub made_here: bool,
    pub forks: [Fork; 4],
    in_use: bool,
    recently_used: bool,
}

impl Fork {
    const UNKNOWN: Fork = Fork { size: ForkSize::Unknown, ours: false, spilled: 0, only_copies: 0 };
    const ABSENT: Fork = Fork { size: ForkSize::Absent, ours: true, spilled: 0, only_copies: 0 };
}

impl RelEntry {
    /// What every cell of a new table holds.
    pub const FREE: RelEntry = RelEntry {
        tag: RelTag { tablespace: 0, database: 0, relation: 0 },
        class: Class::Undecided,
        maker_pid: 0,
        log_at_create: 0,
        made_here: false,
        forks: [Fork::UNKNOWN; 4],
        in_use: false,
        recently_used: false,
    };

    /// A relation that existed before this server met it.
    pub fn met(tag: RelTag, class: Class) -> RelEntry {
        RelEntry { tag, class, ..RelEntry::FREE }
    }

    /// A relation that `maker_pid` makes now, MAIN empty and no other fork.
    pub fn made(tag: RelTag, class: Class, maker_pid: i32, log_at_create: u64) -> RelEntry {
        let main = Fork { size: ForkSize::Blocks(0), ..Fork::ABSENT };
        let forks = [main, Fork::ABSENT, Fork::ABSENT, Fork::ABSENT];
        RelEntry { tag, class, maker_pid, log_at_create, made_here: true, forks, ..RelEntry::FREE }
    }

    pub fn fork(&self, fork: ForkNumber) -> &Fork {
        &self.forks[usize::from(fork.raw())]
    }

    pub fn fork_mut(&mut self, fork: ForkNumber) -> &mut Fork {
        &mut self.forks[usize::from(fork.raw())]
    }

    /// The fork is made, empty. A known size stays (R2).
    pub fn create_fork(&mut self, fork: ForkNumber) {
        let fork = self.fork_mut(fork);
        if !matches!(fork.size, ForkSize::Blocks(_)) {
            *fork = Fork { size: ForkSize::Blocks(0), ours: true, ..*fork };
        }
    }

    /// The fork now reaches at least `blocks`.
    pub fn extend(&mut self, fork: ForkNumber, blocks: u32) {
        let fork = self.fork_mut(fork);
        let known = if let ForkSize::Blocks(known) = fork.size { known } else { 0 };
        fork.size = ForkSize::Blocks(known.max(blocks));
        fork.ours = true;
    }

    pub fn truncate(&mut self, fork: ForkNumber, blocks: u32) {
        let fork = self.fork_mut(fork);
        fork.size = ForkSize::Blocks(blocks);
        fork.ours = true;
    }

    /// Takes an answer of the pageserver, unless the size has become known meanwhile; returns what holds.
    pub fn learn(&mut self, fork: ForkNumber, answer: ForkSize) -> ForkSize {
        let fork = self.fork_mut(fork);
        if fork.size == ForkSize::Unknown {
            fork.size = answer;
        }
        fork.size
    }

    /// The pageserver was asked about the state `seen` of this entry and agrees: sizes need not be kept for being ours. Nothing
    /// happens if the entry has changed since.
    pub fn settle(&mut self, seen: &RelEntry) -> bool {
        let unchanged = self.forks == seen.forks && self.tag == seen.tag && self.made_here == seen.made_here;
        if unchanged {
            self.forks.iter_mut().for_each(|fork| fork.ours = false);
            self.made_here = false;
        }
        unchanged
    }

    /// Whether the pageserver could give the same answers.
    fn can_be_forgotten(&self) -> bool {
        let ahead = Guard::SizesAheadOfTheLog.holds();
        let plain = |fork: &Fork| !(fork.ours && ahead) && fork.spilled == 0;
        self.class != Class::Undecided
            && self.maker_pid == 0
            && !(self.made_here && ahead)
            && self.forks.iter().all(plain)
    }

    /// Whether asking the pageserver could make it forgettable.
    pub fn can_be_settled(&self) -> bool {
        let no_spill = self.forks.iter().all(|fork| fork.spilled == 0);
        self.class != Class::Undecided && self.maker_pid == 0 && no_spill && !self.can_be_forgotten()
    }

    /// Whether the pageserver has to know the fork's size before the entry may go. Of an unlogged relation only the INIT fork is
    /// there; the others' sizes are those of files.
    pub fn is_stored(&self, fork: ForkNumber) -> bool {
        self.class == Class::Permanent || fork == ForkNumber::Init
    }
}

/// The table has no room and nothing that may be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no room for another relation")]
pub struct Full;

/// One partition of the table; the caller holds its lock.
pub struct RelPartition<'a> {
    cells: &'a mut [RelEntry],
    used: &'a mut usize,
}

/// How full the table may get for an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// So that a search meets a free cell soon.
    Ordinary,
    /// For what cannot be refused or wait: pages that must be spilled, changes inside a critical section.
    Reserve,
}

impl Room {
    fn capacity(self, cells: usize) -> usize {
        match self {
            Room::Ordinary => cells - cells / 8,
            Room::Reserve => cells - (cells / 32).max(1),
        }
    }
}

impl<'a> RelPartition<'a> {
    /// `cells.len()` is a power of two; `used` counts the cells in use.
    pub fn new(cells: &'a mut [RelEntry], used: &'a mut usize) -> RelPartition<'a> {
        debug_assert!(cells.len().is_power_of_two() && cells.len() >= 8);
        RelPartition { cells, used }
    }

    pub fn len(&self) -> usize {
        *self.used
    }

    pub fn is_empty(&self) -> bool {
        *self.used == 0
    }

    fn home(&self, tag: RelTag) -> usize {
        // The partition was picked by the low bits of the same hash.
        (crate::last_written::relation_hash(tag) >> 32) as usize & (self.cells.len() - 1)
    }

    fn find(&self, tag: RelTag) -> Option<usize> {
        let mut at = self.home(tag);
        while self.cells[at].in_use {
            if self.cells[at].tag == tag {
                return Some(at);
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
        None
    }

    pub fn get(&self, tag: RelTag) -> Option<&RelEntry> {
        self.find(tag).map(|at| &self.cells[at])
    }

    pub fn get_mut(&mut self, tag: RelTag) -> Option<&mut RelEntry> {
        let at = self.find(tag)?;
        self.cells[at].recently_used = true;
        Some(&mut self.cells[at])
    }

    /// Whether entries should be made forgettable before the table is full.
    pub fn is_crowded(&self) -> bool {
        *self.used >= Room::Ordinary.capacity(self.cells.len()) * 3 / 4
    }

    /// Puts `entry` in, in place of one with its tag. If there is no room, others that may be forgotten go.
    pub fn put(&mut self, entry: RelEntry, room: Room) -> Result<&mut RelEntry, Full> {
        let entry = RelEntry { in_use: true, recently_used: true, ..entry };
        if let Some(at) = self.find(entry.tag) {
            self.cells[at] = entry;
            return Ok(&mut self.cells[at]);
        }
        while *self.used >= Room::Ordinary.capacity(self.cells.len()) && self.forget_one(entry.tag).is_ok() {}
        if *self.used >= room.capacity(self.cells.len()) {
            return Err(Full);
        }
        let mut at = self.home(entry.tag);
        while self.cells[at].in_use {
            at = (at + 1) & (self.cells.len() - 1);
        }
        self.cells[at] = entry;
        *self.used += 1;
        Ok(&mut self.cells[at])
    }

    /// The entry of `tag`, made by `new` if there is none.
    pub fn get_or_put(
        &mut self,
        tag: RelTag,
        room: Room,
        new: impl FnOnce() -> RelEntry,
    ) -> Result<&mut RelEntry, Full> {
        match self.find(tag) {
            Some(at) => {
                self.cells[at].recently_used = true;
                Ok(&mut self.cells[at])
            }
            None => self.put(new(), room),
        }
    }

    pub fn remove(&mut self, tag: RelTag) -> Option<RelEntry> {
        let at = self.find(tag)?;
        let entry = self.cells[at];
        self.remove_at(at);
        Some(entry)
    }

    /// Removes what `goes` says, calling `gone` for each.
    pub fn remove_if(&mut self, goes: impl Fn(&RelEntry) -> bool, mut gone: impl FnMut(&RelEntry)) {
        let tags: Vec<RelTag> = self.entries().filter(|entry| goes(entry)).map(|entry| entry.tag).collect();
        for tag in tags {
            if let Some(entry) = self.remove(tag) {
                gone(&entry);
            }
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = &RelEntry> {
        self.cells.iter().filter(|cell| cell.in_use)
    }

    /// Closes the gap that a removed cell leaves, so that searches need no marks for it.
    fn remove_at(&mut self, at: usize) {
        let mask = self.cells.len() - 1;
        let (mut gap, mut next) = (at, (at + 1) & mask);
        while self.cells[next].in_use {
            let home = self.home(self.cells[next].tag);
            let distance_from_home = next.wrapping_sub(home) & mask;
            if distance_from_home >= (next.wrapping_sub(gap) & mask) {
                self.cells[gap] = self.cells[next];
                gap = next;
            }
            next = (next + 1) & mask;
        }
        self.cells[gap] = RelEntry::FREE;
        *self.used -= 1;
    }

    /// Second chance from the newcomer's home on; two rounds see every cell without its mark.
    fn forget_one(&mut self, newcomer: RelTag) -> Result<(), Full> {
        let (start, mask) = (self.home(newcomer), self.cells.len() - 1);
        for step in 0..2 * self.cells.len() {
            let at = (start + step) & mask;
            let cell = &mut self.cells[at];
            if !cell.in_use || !cell.can_be_forgotten() {
                continue;
            }
            if !std::mem::take(&mut cell.recently_used) {
                self.remove_at(at);
                return Ok(());
            }
        }
        Err(Full)
    }
}

#[cfg(test)]
#[path = "rel_table_test.rs"]
mod tests;
