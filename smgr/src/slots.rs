//! How a backend hands a request to the communicator and gets its answer: one slot per process, in shared memory, and more for
//! pages that are asked for ahead (`prefetch`).
//!
//! The owner fills the slot and submits it; the communicator takes it, asks the pageserver, writes pages straight to where the
//! owner wants them, and says so. The state word holds a generation and a phase:
//!
//! ```text
//!   Idle ──submit──► Submitted ──take──► Taken ──begin_delivery──► Writing ──finish_delivery──► Done ──collect──► Idle
//!                        ▲                 │  │
//!                        └──── put_back ───┘  └── abandon (Submitted too) ──► Idle, next generation
//! ```
//!
//! Everything else in a slot belongs to the owner while it is Idle or Done and to the communicator while it is Writing. What
//! makes a late answer harmless (P7): only `Writing` allows a write to the owner's memory, an abandoned generation never gets
//! there, and an owner cannot abandon while it lasts, which is as long as a copy of 256 KiB. A communicator that starts finds the
//! slots of its predecessor Taken or Writing and asks again (`recover`).
//!
//! All fields are atomics: the two sides are different processes that may die at any point, and no read here is a data race. The order
//! of the steps is checked by the models in `smgr/models`, which compile this file as it is.

use strata_common::{BlockNumber, ForkNumber, Lsn, RelFork, RelTag};

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence, pause};

/// Most pages of one request; what one vectored read of Postgres has at most (`MAX_IO_COMBINE_LIMIT`).
pub const PAGES_MAX: usize = 32;
/// Room for what the pageserver says: timeline, page, LSN and the whole name of a layer file.
const ERROR_BYTES: usize = 512;
/// How often who gives up lets others run before it sleeps; far longer than an answer is written.
const PAUSES: u32 = 1000;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    Pages {
        rel: RelFork,
        first: BlockNumber,
        count: u32,
    },
    RelSize(RelFork),
    RelExists(RelFork),
    DatabaseSize {
        tablespace: u32,
        database: u32,
    },
    /// Whether a relation is in it.
    TablespaceUsed {
        tablespace: u32,
    },
}

impl Ask {
    pub const KINDS: usize = 5;
    pub const KIND_NAMES: [&'static str; Ask::KINDS] =
        ["pages", "rel_size", "rel_exists", "database_size", "tablespace_used"];

    pub fn kind(&self) -> usize {
        match self {
            Ask::Pages { .. } => 0,
            Ask::RelSize(_) => 1,
            Ask::RelExists(_) => 2,
            Ask::DatabaseSize { .. } => 3,
            Ask::TablespaceUsed { .. } => 4,
        }
    }
}

/// A request: what, and how new the answer must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    pub ask: Ask,
    pub not_modified_since: Lsn,
}

/// A request that the communicator has taken; names the generation, so that it can tell whether it still matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    pub slot: usize,
    pub generation: u64,
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Pages: delivered, the value is 0. Otherwise blocks, 0 or 1, or bytes.
    Value(u64),
    /// The pageserver cannot answer; its words.
    Refused(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Phase {
    Idle = 0,
    Submitted = 1,
    Taken = 2,
    Writing = 3,
    Done = 4,
}

impl Phase {
    fn of(word: u64) -> Phase {
        match word & 0xff {
            0 => Phase::Idle,
            1 => Phase::Submitted,
            2 => Phase::Taken,
            3 => Phase::Writing,
            4 => Phase::Done,
            other => panic!("a slot's state word is damaged: phase {other}"),
        }
    }
}

fn word(generation: u64, phase: Phase) -> u64 {
    (generation << 8) | phase as u64
}

/// One slot. Zeroed memory is an idle slot.
#[derive(Default)]
pub struct Slot {
    state: AtomicU64,
    /// Counts answers; the owner sleeps on it.
    answers: AtomicU32,
    kind: AtomicU32,
    tablespace: AtomicU32,
    database: AtomicU32,
    relation: AtomicU32,
    fork: AtomicU32,
    first: AtomicU32,
    count: AtomicU32,
    not_modified_since: AtomicU64,
    /// Addresses of the pages to fill, the same in every process.
    targets: [AtomicU64; PAGES_MAX],
    failed: AtomicU32,
    value: AtomicU64,
    error: [[AtomicU64; 32]; ERROR_BYTES / 256],
    /// Of the last answer whose owner was woken: its generation, and when, in nanoseconds of the monotonic clock.
    woken_for: AtomicU64,
    woken_at: AtomicU64,
}

impl Slot {
    /// Owner: hands over a request. `targets` has an address per page asked for.
    pub fn submit(&self, request: &Request, targets: &[u64]) {
        let state = self.state.load(Ordering::Acquire);
        assert_eq!(Phase::of(state), Phase::Idle, "a slot serves one request at a time");
        // Whoever sees something of this request sees that the one before is over (`take`).
        fence(Ordering::Release);
        self.store_request(request);
        if let Ask::Pages { count, .. } = request.ask {
            assert!(count as usize == targets.len() && targets.len() <= PAGES_MAX, "one target per page");
        }
        for (cell, target) in self.targets.iter().zip(targets) {
            cell.store(*target, Ordering::Relaxed);
        }
        self.state.store(word((state >> 8) + 1, Phase::Submitted), Ordering::Release);
    }

    /// Owner: the outcome, or the word to sleep on and the value that it must still have. The value is read before the state: an answer
    /// that comes in between changes it, and the sleep ends before it begins.
    pub fn look(&self) -> Result<Outcome, (&AtomicU32, u32)> {
        let seen = self.answers.load(Ordering::Acquire);
        self.collect().ok_or((&self.answers, seen))
    }

    /// The word that the owner sleeps on.
    pub fn word(&self) -> &AtomicU32 {
        &self.answers
    }

    /// Communicator: the owner has been woken for the answer of this generation; `nanos` of the monotonic clock, read after that.
    pub fn note_woken(&self, generation: u64, nanos: u64) {
        self.woken_at.store(nanos, Ordering::Relaxed);
        self.woken_for.store(generation, Ordering::Release);
    }

    /// Owner, who has just got an answer after a sleep that nobody ended until `nanos`: had it been woken before that? Then a wake-up was
    /// lost, which cannot be (P7).
    pub fn was_woken_before(&self, nanos: u64) -> bool {
        let generation = self.state.load(Ordering::Relaxed) >> 8;
        self.woken_for.load(Ordering::Acquire) == generation && self.woken_at.load(Ordering::Relaxed) < nanos
    }

    /// Whether a request waits for its answer, for statistics.
    pub fn is_open(&self) -> bool {
        matches!(
            Phase::of(self.state.load(Ordering::Relaxed)),
            Phase::Submitted | Phase::Taken | Phase::Writing
        )
    }

    /// Owner: the outcome if there is one; the slot is idle then.
    pub fn collect(&self) -> Option<Outcome> {
        let state = self.state.load(Ordering::Acquire);
        if Phase::of(state) != Phase::Done {
            return None;
        }
        let value = self.value.load(Ordering::Relaxed);
        let failed = self.failed.load(Ordering::Relaxed) != 0;
        let outcome = if failed { Outcome::Refused(self.load_error(value)) } else { Outcome::Value(value) };
        self.state.store(word(state >> 8, Phase::Idle), Ordering::Release);
        Some(outcome)
    }

    /// Owner: gives the request up. False: an answer is being written just now; ask again in a moment.
    #[must_use]
    pub fn abandon(&self) -> bool {
        loop {
            let state = self.state.load(Ordering::Acquire);
            match Phase::of(state) {
                Phase::Idle => return true,
                Phase::Writing => return false,
                Phase::Submitted | Phase::Taken | Phase::Done => {
                    let idle = word((state >> 8) + 1, Phase::Idle);
                    if self.swap(state, idle) {
                        return true;
                    }
                }
            }
        }
    }

    /// Owner: gives the request up. An answer that is being written just now is waited for, however long that takes: the memory is still
    /// the owner's, and is written to (P7). If it takes longer than a copy can, the communicator does not run just now, or has ended in
    /// the middle; then its successor puts the request back (`recover`), and it can be given up. That wakes nobody, so `sleep`, which
    /// sleeps on the word while it has the value, must end after a moment by itself.
    pub fn abandon_at_last(&self, mut sleep: impl FnMut(&AtomicU32, u32)) {
        for _ in 0..PAUSES {
            if self.abandon() {
                return;
            }
            pause();
        }
        loop {
            // Before the state, as in `look`.
            let seen = self.answers.load(Ordering::Acquire);
            if self.abandon() {
                return;
            }
            sleep(&self.answers, seen);
        }
    }

    /// Communicator: takes a submitted request.
    pub fn take(&self) -> Option<(u64, Request)> {
        let state = self.state.load(Ordering::Acquire);
        let generation = state >> 8;
        if Phase::of(state) != Phase::Submitted || !self.swap(state, word(generation, Phase::Taken)) {
            return None;
        }
        let request = self.load_request();
        // If the owner gave up meanwhile, what was read may be a mixture of two requests.
        fence(Ordering::Acquire);
        (self.state.load(Ordering::Acquire) == word(generation, Phase::Taken)).then_some(())?;
        Some((generation, request.expect("a request that its owner wrote in full")))
    }

    /// Communicator: wants to write the answer; false if nobody waits for it any more.
    #[must_use]
    pub fn begin_delivery(&self, generation: u64) -> bool {
        self.swap(word(generation, Phase::Taken), word(generation, Phase::Writing))
    }

    /// Communicator, between begin and finish: where page `index` goes.
    pub fn target(&self, index: usize) -> u64 {
        self.targets[index].load(Ordering::Relaxed)
    }

    /// Communicator, between begin and finish: how many pages were asked for; 0 if something else was.
    pub fn pages_expected(&self) -> usize {
        match self.load_request().map(|request| request.ask) {
            Some(Ask::Pages { count, .. }) => (count as usize).min(PAGES_MAX),
            _ => 0,
        }
    }

    /// Communicator: the answer is written. Returns the word to wake the owner by.
    pub fn finish_delivery(&self, generation: u64, outcome: &Outcome) -> &AtomicU32 {
        match outcome {
            Outcome::Value(value) => {
                self.failed.store(0, Ordering::Relaxed);
                self.value.store(*value, Ordering::Relaxed);
            }
            Outcome::Refused(text) => {
                self.failed.store(1, Ordering::Relaxed);
                self.store_error(text);
            }
        }
        let done = self.swap(word(generation, Phase::Writing), word(generation, Phase::Done));
        assert!(done, "nobody else ends a delivery");
        self.answers.fetch_add(1, Ordering::Release);
        &self.answers
    }

    /// Communicator: asks again later.
    pub fn put_back(&self, generation: u64) {
        // If this fails, the owner has given up.
        self.swap(word(generation, Phase::Taken), word(generation, Phase::Submitted));
    }

    /// A communicator that starts: what its predecessor left half done is asked again. The word to wake the owner by, if there is an
    /// answer: the predecessor may have ended before it woke it.
    pub fn recover(&self) -> Option<&AtomicU32> {
        let state = self.state.load(Ordering::Acquire);
        match Phase::of(state) {
            Phase::Taken | Phase::Writing => {
                // If this fails, the owner has given up.
                self.swap(state, word(state >> 8, Phase::Submitted));
                None
            }
            Phase::Done => {
                self.answers.fetch_add(1, Ordering::Release);
                Some(&self.answers)
            }
            Phase::Idle | Phase::Submitted => None,
        }
    }

    /// Whoever finds a slot that was left behind: gives its request up and says where its pages lie. `None`: not yet.
    pub fn abandon_left(&self) -> Option<Vec<u64>> {
        let targets = || (0..self.pages_expected()).map(|index| self.target(index)).collect();
        self.abandon().then(targets)
    }

    fn swap(&self, from: u64, to: u64) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn store_request(&self, request: &Request) {
        let put = |cell: &AtomicU32, value: u32| cell.store(value, Ordering::Relaxed);
        put(&self.kind, u32::try_from(request.ask.kind()).expect("few kinds"));
        self.not_modified_since.store(request.not_modified_since.0, Ordering::Relaxed);
        match request.ask {
            Ask::Pages { rel, first, count } => {
                self.store_rel(rel);
                put(&self.first, first.0);
                put(&self.count, count);
            }
            Ask::RelSize(rel) | Ask::RelExists(rel) => self.store_rel(rel),
            Ask::DatabaseSize { tablespace, database } => {
                put(&self.tablespace, tablespace);
                put(&self.database, database);
            }
            Ask::TablespaceUsed { tablespace } => put(&self.tablespace, tablespace),
        }
    }

    fn store_rel(&self, rel: RelFork) {
        self.tablespace.store(rel.rel.tablespace, Ordering::Relaxed);
        self.database.store(rel.rel.database, Ordering::Relaxed);
        self.relation.store(rel.rel.relation, Ordering::Relaxed);
        self.fork.store(u32::from(rel.fork.raw()), Ordering::Relaxed);
    }

    fn load_request(&self) -> Option<Request> {
        let get = |cell: &AtomicU32| cell.load(Ordering::Relaxed);
        let (tablespace, database) = (get(&self.tablespace), get(&self.database));
        let rel = || {
            let tag = RelTag { tablespace, database, relation: get(&self.relation) };
            let fork = u8::try_from(get(&self.fork)).ok().and_then(ForkNumber::from_raw)?;
            Some(tag.fork(fork))
        };
        let ask = match get(&self.kind) {
            0 => Ask::Pages { rel: rel()?, first: BlockNumber(get(&self.first)), count: get(&self.count) },
            1 => Ask::RelSize(rel()?),
            2 => Ask::RelExists(rel()?),
            3 => Ask::DatabaseSize { tablespace, database },
            4 => Ask::TablespaceUsed { tablespace },
            _ => return None,
        };
        Some(Request { ask, not_modified_since: Lsn(self.not_modified_since.load(Ordering::Relaxed)) })
    }

    fn store_error(&self, text: &str) {
        let bytes = &text.as_bytes()[..text.floor_char_boundary(ERROR_BYTES)];
        self.value.store(bytes.len() as u64, Ordering::Relaxed);
        for (cell, chunk) in self.error.iter().flatten().zip(bytes.chunks(8)) {
            let mut eight = [0u8; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            cell.store(u64::from_le_bytes(eight), Ordering::Relaxed);
        }
    }

    fn load_error(&self, length: u64) -> String {
        let bytes: Vec<u8> =
            self.error.iter().flatten().flat_map(|cell| cell.load(Ordering::Relaxed).to_le_bytes()).collect();
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }
}

/// All slots, and a bit for each that may hold a submitted request: the communicator looks at those only.
#[derive(Clone, Copy)]
pub struct SlotTable<'a> {
    slots: &'a [Slot],
    marks: &'a [AtomicU64],
}

impl<'a> SlotTable<'a> {
    /// Words of bits for so many slots.
    pub const fn mark_words(slots: usize) -> usize {
        slots.div_ceil(64)
    }

    /// # Panics
    /// Unless there is a bit for each slot.
    pub fn new(slots: &'a [Slot], marks: &'a [AtomicU64]) -> SlotTable<'a> {
        assert_eq!(marks.len(), SlotTable::mark_words(slots.len()), "a bit for each slot");
        SlotTable { slots, marks }
    }

    /// The slot with this number, if there is one.
    pub fn get(&self, number: usize) -> Option<&'a Slot> {
        self.slots.get(number)
    }

    /// Owner: hands over a request. The communicator has to be rung afterwards.
    pub fn submit(&self, number: usize, request: &Request, targets: &[u64]) {
        self.slots[number].submit(request, targets);
        self.mark(number);
    }

    fn mark(&self, number: usize) {
        self.marks[number / 64].fetch_or(1 << (number % 64), Ordering::Release);
    }

    /// Communicator: takes everything that was submitted since it last did.
    pub fn take_submitted(&self, mut taken: impl FnMut(Ticket, Request)) {
        for (index, cell) in self.marks.iter().enumerate() {
            if cell.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = cell.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let slot = index * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if let Some((generation, request)) = self.slots.get(slot).and_then(Slot::take) {
                    taken(Ticket { slot, generation }, request);
                }
            }
        }
    }

    /// Communicator: hands an answer to whom it is for, if somebody still waits for it. `write` writes the pages and says what came of
    /// it, `wake` wakes whoever sleeps on the slot's word.
    pub fn deliver(&self, ticket: Ticket, write: impl FnOnce(&Slot) -> Outcome, wake: impl FnOnce(&Slot)) {
        let Some(slot) = self.get(ticket.slot) else { return };
        if slot.begin_delivery(ticket.generation) {
            let outcome = write(slot);
            slot.finish_delivery(ticket.generation, &outcome);
            wake(slot);
        }
    }

    /// Communicator: asks again later.
    pub fn put_back(&self, ticket: Ticket) {
        if let Some(slot) = self.slots.get(ticket.slot) {
            slot.put_back(ticket.generation);
            self.mark(ticket.slot);
        }
    }

    /// A communicator that starts, or connects: everything that is open is asked again, and whoever has an answer is woken. A mark may be
    /// lost with a predecessor, so all slots are looked at.
    pub fn recover_all(&self, wake: impl Fn(&AtomicU32)) {
        for (number, slot) in self.slots.iter().enumerate() {
            let answered = slot.recover();
            self.mark(number);
            if let Some(word) = answered {
                wake(word);
            }
        }
    }
}

#[cfg(test)]
#[path = "slots_test.rs"]
mod tests;
