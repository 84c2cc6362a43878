//! What surrounds the protocol: a doorbell as an eventfd is one, futexes, pages that notice when two use them at once, and the loops of
//! the communicator and of an owner as `client` and `pg_ext` run them, without a time limit on any sleep. What is never answered
//! or never woken is a deadlock, which both checkers report.
//!
//! A request's number is its tag: it stands in every part of the request, and an answer fills the page with it.

use std::cell::Cell;
use std::collections::VecDeque;

use strata_common::{BlockNumber, ForkNumber, Lsn, RelTag};

use super::pool::{self, Pool};
use super::slots::{Ask, Outcome, Request, Slot, SlotTable, Ticket};
use crate::checker::{Condvar, Exclusive, Mutex, yield_now};
use crate::mortal::{self, AtomicU32, AtomicU64, Ordering};

/// In a page that its owner uses for something else.
const MINE: u64 = u64::MAX;

/// An eventfd, and the end of the scenario.
pub struct Bell {
    rings: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        self.rings.lock().expect("no panic").0 += 1;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.rings.lock().expect("no panic").1 = true;
        self.changed.notify_all();
    }

    /// Whether there was a ring since the last time.
    fn was_rung(&self) -> bool {
        std::mem::take(&mut self.rings.lock().expect("no panic").0) > 0
    }

    /// Sleeps until there was a ring since the last time; false: the scenario is over.
    fn rung(&self) -> bool {
        let mut rings = self.rings.lock().expect("no panic");
        while rings.0 == 0 && !rings.1 {
            rings = self.changed.wait(rings).expect("no panic");
        }
        std::mem::take(&mut rings.0) > 0
    }
}

/// The queue of one futex.
struct Futex {
    lock: Mutex<()>,
    woken: Condvar,
}

/// A page of memory. Using it while another does is noticed by the checker.
struct Page {
    use_: Exclusive,
    content: AtomicU64,
}

impl Page {
    fn write(&self, tag: u64) {
        self.use_.use_now(|| self.content.store(tag, Ordering::Relaxed));
    }

    fn read(&self) -> u64 {
        let tag = Cell::new(0);
        self.use_.use_now(|| tag.set(self.content.load(Ordering::Relaxed)));
        tag.get()
    }
}

/// How many of everything.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Slots of processes, each with a page of its own and one to use instead.
    pub owners: usize,
    /// Slots and pages of the pool.
    pub pool: (usize, usize),
}

pub struct World {
    shape: Shape,
    slots: Vec<Slot>,
    marks: Vec<AtomicU64>,
    futexes: Vec<Futex>,
    pool: Vec<AtomicU64>,
    pages: Vec<Page>,
    pub bell: Bell,
}

/// When an owner does not wait any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    Endless,
    /// It looks so many times.
    Looks(u32),
}

impl World {
    pub fn new(shape: Shape) -> World {
        let Shape { owners, pool: (slots, pages) } = shape;
        let all = owners + slots;
        World {
            shape,
            slots: (0..all).map(|_| Slot::default()).collect(),
            marks: (0..SlotTable::mark_words(all)).map(|_| AtomicU64::new(0)).collect(),
            futexes: (0..all).map(|_| Futex { lock: Mutex::new(()), woken: Condvar::new() }).collect(),
            pool: (0..pool::words(slots, pages)).map(|_| AtomicU64::new(0)).collect(),
            pages: (0..2 * owners + pages)
                .map(|_| Page { use_: Exclusive::new(), content: AtomicU64::new(0) })
                .collect(),
            bell: Bell { rings: Mutex::new((0, false)), changed: Condvar::new() },
        }
    }

    fn table(&self) -> SlotTable<'_> {
        SlotTable::new(&self.slots, &self.marks)
    }

    pub fn pool(&self) -> Pool<'_> {
        let (slots, pages) = self.shape.pool;
        Pool::new(&self.pool, slots, pages)
    }

    /// No request comes any more.
    pub fn end(&self) {
        self.bell.end();
    }

    fn sleep(&self, number: usize, word: &AtomicU32, seen: u32) {
        let futex = &self.futexes[number];
        let guard = futex.lock.lock().expect("no panic");
        if word.load(Ordering::Relaxed) == seen {
            drop(futex.woken.wait(guard).expect("no panic"));
        }
    }

    /// Wakes who sleeps on a slot's word, as the system finds it: by the address.
    fn wake(&self, word: &AtomicU32) {
        mortal::step();
        let address = std::ptr::from_ref(word).addr();
        let slots = std::ptr::from_ref(&self.slots[0]).addr();
        let futex = &self.futexes[(address - slots) / size_of::<Slot>()];
        drop(futex.lock.lock().expect("no panic"));
        futex.woken.notify_all();
    }

    // The communicator.

    /// Runs communicators one after the other; all but the last one end after so many steps.
    pub fn communicate(&self, ends: &[usize], retries: usize) {
        let retries = Cell::new(retries);
        for steps in ends {
            mortal::with_steps(*steps, || self.serve(&retries));
        }
        self.serve(&retries);
    }

    /// As `client::run`: answers come one after the other, and what is submitted meanwhile is taken in between. The pageserver asks so many
    /// times to come again.
    fn serve(&self, retries: &Cell<usize>) {
        let table = self.table();
        table.recover_all(|word| self.wake(word));
        let mut asked = VecDeque::new();
        loop {
            table.take_submitted(|ticket, request| asked.push_back((ticket, tag_of(&request))));
            let mut again = false;
            while !self.bell.was_rung() {
                if let Some((ticket, tag)) = asked.pop_front() {
                    again |= self.answer(table, ticket, tag, retries);
                } else if again || self.bell.rung() {
                    break;
                } else {
                    return;
                }
            }
        }
    }

    /// As `client::deliver`.
    fn answer(&self, table: SlotTable<'_>, ticket: Ticket, tag: u64, retries: &Cell<usize>) -> bool {
        if retries.get() > 0 {
            retries.set(retries.get() - 1);
            table.put_back(ticket);
            return true;
        }
        let write = |slot: &Slot| {
            for index in 0..slot.pages_expected() {
                self.pages[usize::try_from(slot.target(index)).expect("a page")].write(tag);
            }
            Outcome::Value(tag)
        };
        table.deliver(ticket, write, |slot| self.wake(slot.word()));
        false
    }

    // Owners.

    /// As `remote::submit_and_wait`: asks for a page and gets it, or gives up and uses the page for something else.
    pub fn ask(&self, number: usize, tag: u64, patience: Patience) {
        let page = 2 * number + (tag as usize) % 2;
        self.pages[page].write(MINE);
        self.table().submit(number, &request(tag, 1), &[page as u64]);
        self.bell.ring();
        if !self.wait(number, tag, &[page], patience) {
            while !self.slots[number].abandon() {
                yield_now();
            }
            self.pages[page].write(MINE);
        }
        // Nothing comes late.
        let content = self.pages[page].read();
        assert!(content == tag || (content == MINE && patience != Patience::Endless), "{content} for {tag}");
    }

    /// Whether the answer came.
    fn wait(&self, number: usize, tag: u64, pages: &[usize], patience: Patience) -> bool {
        let mut looks = 0;
        while patience != Patience::Looks(looks) {
            looks += 1;
            match self.slots[number].look() {
                Ok(outcome) => {
                    assert_eq!(outcome, Outcome::Value(tag), "the answer of another request");
                    assert!(
                        pages.iter().all(|page| self.pages[*page].read() == tag),
                        "an answer without pages"
                    );
                    return true;
                }
                Err((word, seen)) if patience == Patience::Endless => self.sleep(number, word, seen),
                Err(_) => yield_now(),
            }
        }
        false
    }

    /// As `prefetch::begin`, `take` and `free`: asks for up to so many pages ahead if there is room, waits or not, and gives all back.
    pub fn ask_ahead(&self, tag: u64, count: usize, patience: Patience, looks: usize) {
        let Some((number, pages)) = self.take(count) else { return };
        let slot = self.shape.owners + number;
        let places: Vec<usize> = pages.iter().map(|page| 2 * self.shape.owners + page).collect();
        places.iter().for_each(|page| self.pages[*page].write(MINE));
        let targets: Vec<u64> = places.iter().map(|page| *page as u64).collect();
        self.table().submit(slot, &request(tag, targets.len()), &targets);
        self.bell.ring();
        self.wait(slot, tag, &places, patience);
        self.pool().end(number, &pages, looks, || self.slots[slot].abandon());
    }

    /// Takes from the pool, uses the pages and gives them back.
    pub fn use_pool(&self, count: usize) {
        let Some((number, pages)) = self.take(count) else { return };
        pages.iter().for_each(|page| self.pages[2 * self.shape.owners + page].write(MINE));
        self.pool().end(number, &pages, 1, || self.slots[self.shape.owners + number].abandon());
    }

    fn take(&self, count: usize) -> Option<(usize, Vec<usize>)> {
        let first = 2 * self.shape.owners;
        self.pool().take(count, 0, |left| {
            let pages = self.slots[self.shape.owners + left].abandon_left()?;
            Some(pages.into_iter().map(|page| usize::try_from(page).expect("a page") - first).collect())
        })
    }

    /// When all is quiet everything is there again.
    pub fn assert_nothing_is_lost(&self) {
        let (slots, pages) = self.shape.pool;
        self.use_pool(pages);
        assert_eq!(self.pool().in_use(), (0, 0), "of {slots} slots and {pages} pages");
    }
}

fn request(tag: u64, count: usize) -> Request {
    let number = u32::try_from(tag).expect("small");
    let rel = RelTag { tablespace: number, database: number, relation: number }.fork(ForkNumber::Main);
    let ask = Ask::Pages { rel, first: BlockNumber(number), count: u32::try_from(count).expect("few") };
    Request { ask, not_modified_since: Lsn(tag) }
}

fn tag_of(taken: &Request) -> u64 {
    let Ask::Pages { count, .. } = taken.ask else { panic!("pages were asked for") };
    let tag = taken.not_modified_since.0;
    assert_eq!(*taken, request(tag, count as usize), "a mixture of two requests");
    tag
}
