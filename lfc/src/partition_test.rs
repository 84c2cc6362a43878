//! A partition against a plain map: whatever is found is what was published last and not older than needed, no place has two owners,
//! and the bookkeeping always adds up.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use strata_common::{BlockNumber, ForkNumber, RelTag};

use super::*;

struct Memory {
    head: Head,
    buckets: Vec<AtomicU32>,
    entries: Vec<Entry>,
    ghosts: Vec<AtomicU64>,
}

impl Memory {
    fn new(places: usize) -> Memory {
        Memory {
            head: Head::default(),
            buckets: (0..4).map(|_| AtomicU32::new(0)).collect(),
            entries: (0..places).map(|_| Entry::default()).collect(),
            ghosts: (0..places).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn partition(&self) -> Partition<'_> {
        Partition::new(&self.head, &self.buckets, &self.entries, &self.ghosts)
    }
}

fn page(number: u32) -> PageName {
    let tag = RelTag { tablespace: 1663, database: 5, relation: 16384 + number % 3 };
    PageName { rel: tag.fork(ForkNumber::ALL[number as usize % 4]), block: BlockNumber(number) }
}

#[derive(Clone, Debug)]
enum Op {
    Find { page: u32, needed: u64, keep: bool },
    Unpin,
    Reserve,
    Publish { page: u32, as_of: u64 },
    ReserveFree,
    PublishKnown { page: u32, as_of: u64 },
    Cancel,
    Drop(u32),
    DropFound,
    Limit(u32),
    Shrink,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0u32..40, 0u64..60, any::<bool>()).prop_map(|(page, needed, keep)| Op::Find { page, needed, keep }),
        3 => Just(Op::Unpin),
        6 => Just(Op::Reserve),
        6 => (0u32..40, 0u64..60).prop_map(|(page, as_of)| Op::Publish { page, as_of }),
        2 => Just(Op::ReserveFree),
        2 => (0u32..40, 0u64..60).prop_map(|(page, as_of)| Op::PublishKnown { page, as_of }),
        1 => Just(Op::Cancel),
        2 => (0u32..40).prop_map(Op::Drop),
        1 => Just(Op::DropFound),
        1 => (0u32..20).prop_map(Op::Limit),
        2 => Just(Op::Shrink),
    ]
}

/// What the cache may say of a page: what was published last and not dropped. It may always have forgotten it.
#[derive(Default)]
struct Model {
    newest: HashMap<u32, (u64, u32)>,
    pinned: Vec<Place>,
    writing: Vec<Place>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn agrees_with_a_map(ops in proptest::collection::vec(op(), 1..200), places in 1usize..16) {
        let memory = Memory::new(places);
        let partition = memory.partition();
        partition.set_limit(u32::MAX);
        let mut model = Model::default();
        let mut serial = 0u32;
        for op in ops {
            match op {
                Op::Find { page: number, needed, keep } => {
                    if let Some(hit) = partition.find(page(number), Lsn(needed)) {
                        let (as_of, checksum) = model.newest[&number];
                        prop_assert!(as_of >= needed && hit.checksum == checksum);
                        prop_assert!(!model.writing.contains(&hit.place), "a place is read while it is written");
                        if keep { model.pinned.push(hit.place) } else { partition.unpin(hit.place) }
                    }
                }
                Op::Unpin => if let Some(place) = model.pinned.pop() { partition.unpin(place) },
                Op::Reserve => {
                    if let Some(place) = partition.reserve() {
                        prop_assert!(!model.pinned.contains(&place) && !model.writing.contains(&place), "a place has one owner");
                        model.writing.push(place);
                    }
                }
                Op::Publish { page: number, as_of } => if let Some(place) = model.writing.pop() {
                    serial += 1;
                    let there = partition.pages().iter().any(|seen| seen.name == page(number));
                    let newer_is_there = there && model.newest[&number].0 > as_of;
                    prop_assert_eq!(partition.publish(place, page(number), Lsn(as_of), serial), !newer_is_there);
                    if !newer_is_there {
                        model.newest.insert(number, (as_of, serial));
                    }
                },
                Op::ReserveFree => {
                    let before: HashSet<PageName> = partition.pages().iter().map(|page| page.name).collect();
                    if let Some(place) = partition.reserve_free() {
                        prop_assert!(!model.pinned.contains(&place) && !model.writing.contains(&place), "a place has one owner");
                        model.writing.push(place);
                    }
                    let after: HashSet<PageName> = partition.pages().iter().map(|page| page.name).collect();
                    prop_assert_eq!(before, after, "nobody leaves for it (C8)");
                }
                Op::PublishKnown { page: number, as_of } => if let Some(place) = model.writing.pop() {
                    serial += 1;
                    let there = partition.pages().iter().any(|seen| seen.name == page(number));
                    let as_new_is_there = there && model.newest[&number].0 >= as_of;
                    prop_assert_eq!(partition.has(page(number), Lsn(as_of)), as_new_is_there);
                    let known = Restored { name: page(number), place, checksum: serial, uses: serial % 5, in_main: serial.is_multiple_of(2) };
                    prop_assert_eq!(partition.publish_known(place, known, Lsn(as_of)), !as_new_is_there);
                    if !as_new_is_there {
                        model.newest.insert(number, (as_of, serial));
                    }
                },
                Op::Cancel => if let Some(place) = model.writing.pop() { partition.cancel(place) },
                Op::Drop(number) => {
                    partition.drop_page(page(number));
                    prop_assert!(partition.find(page(number), Lsn(0)).is_none());
                }
                Op::DropFound => if let Some(place) = model.pinned.last() { partition.drop_found(*place) },
                Op::Limit(limit) => partition.set_limit(limit),
                Op::Shrink => { while partition.shrink().is_some() {} }
            }
            check(&partition, &model)?;
        }
        model.pinned.iter().for_each(|place| partition.unpin(*place));
        model.writing.iter().for_each(|place| partition.cancel(*place));
        partition.set_limit(0);
        while partition.shrink().is_some() {}
        prop_assert_eq!(partition.used(), 0, "everything can be given back in the end");
    }
}

fn check(partition: &Partition<'_>, model: &Model) -> Result<(), TestCaseError> {
    let pages = partition.pages();
    let free = partition.free_places();
    let names: HashSet<PageName> = pages.iter().map(|page| page.name).collect();
    prop_assert_eq!(names.len(), pages.len(), "a page lies in one place");
    let places: HashSet<Place> = pages.iter().map(|page| page.place).chain(free.iter().copied()).collect();
    prop_assert_eq!(places.len(), pages.len() + free.len(), "a place has one owner");
    prop_assert!(model.writing.iter().all(|place| !places.contains(place)));
    // A doomed place is neither free nor found.
    let found: HashSet<Place> = pages.iter().map(|page| page.place).collect();
    prop_assert!(model.pinned.iter().all(|place| !free.contains(place) || found.contains(place)));
    prop_assert!(partition.used() as usize >= pages.len() + model.writing.len());
    Ok(())
}

/// C2: all places are being read, so nothing is cached, and nothing waits.
#[test]
fn with_all_places_pinned_there_is_none() {
    let memory = Memory::new(4);
    let partition = memory.partition();
    partition.set_limit(4);
    for number in 0..4 {
        let place = partition.reserve().expect("a free place");
        partition.publish(place, page(number), Lsn(1), number);
        partition.find(page(number), Lsn(1)).expect("was published");
    }
    assert_eq!(partition.reserve(), None);
    partition.set_limit(0);
    assert_eq!(partition.shrink(), None);
}

/// C4: what is used stays when the cache becomes smaller.
#[test]
fn shrinking_keeps_the_pages_in_use() {
    let memory = Memory::new(1000);
    let partition = memory.partition();
    partition.set_limit(1000);
    for number in 0..1000 {
        let place = partition.reserve().expect("a free place");
        partition.publish(place, page(number), Lsn(1), number);
    }
    for _ in 0..2 {
        for number in 0..200 {
            let hit = partition.find(page(number * 5), Lsn(1)).expect("all fit");
            partition.unpin(hit.place);
        }
    }
    partition.set_limit(200);
    let mut freed = 0;
    while partition.shrink().is_some() {
        freed += 1;
    }
    assert_eq!((freed, partition.used()), (800, 200));
    assert!((0..200).all(|number| partition.find(page(number * 5), Lsn(1)).is_some()));
}

/// C7: what is restored is found as it was, in its place; the rest of the file is free, and nothing is there twice.
#[test]
fn restored_pages_are_where_they_were() {
    let restored = |number: u32, place: u32| Restored {
        name: page(number),
        place: Place(place),
        checksum: number,
        uses: number % 4,
        in_main: number.is_multiple_of(2),
    };
    let memory = Memory::new(10);
    let partition = memory.partition();
    partition.set_limit(7);
    // Too many: the first one would leave first. A place that is not there, a place that is taken, a page that is there.
    let pages = [(1, 0), (2, 3), (3, 10), (4, 7), (5, 7), (2, 1), (6, 5), (7, 9), (8, 8)]
        .map(|(n, p)| restored(n, p));
    assert_eq!(partition.restore(&pages, Lsn(50)), 5);
    let found = |number| partition.find(page(number), Lsn(50));
    for (number, place) in [(2, 3), (4, 7), (6, 5), (7, 9), (8, 8)] {
        let hit = found(number).expect("it was restored");
        assert_eq!((hit.place, hit.checksum), (Place(place), number));
        partition.unpin(hit.place);
    }
    assert!([1, 3, 5].into_iter().all(|number| found(number).is_none()));
    assert!(partition.find(page(2), Lsn(51)).is_none(), "it is as of 50, no more");
    let mut free: Vec<u32> = partition.free_places().iter().map(|place| place.0).collect();
    free.sort_unstable();
    assert_eq!(free, [0, 1, 2, 4, 6]);
    // It goes on as any other: full, and then pages leave.
    for number in 20..40 {
        let place = partition.reserve().expect("something leaves");
        partition.publish(place, page(number), Lsn(60), number);
    }
    assert_eq!(partition.used(), 7);
    let order: Vec<PageName> = partition.pages().iter().map(|page| page.name).collect();
    assert_eq!(order.iter().collect::<HashSet<_>>().len(), 7);
}
