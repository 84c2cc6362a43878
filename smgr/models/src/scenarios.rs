//! Who does what at once. Small for the exhaustive checker; `everything` is for the random one.

use super::world::{Patience, Shape, World};
use crate::checker::{Arc, any_number, spawn};
use crate::runner::Scenario;

const fn one(name: &'static str, run: fn(usize)) -> Scenario {
    Scenario { name, variants: 1, run, preemptions: Some(2) }
}

/// Steps of a communicator that serves one request, and a few more.
const STEPS: usize = 44;

pub const ALL: &[Scenario] = &[
    one("one request", |_| owners(&[&[(1, Patience::Endless)]], &[], 0)),
    one("given up and asked again", |_| {
        owners(&[&[(1, Patience::Looks(0)), (2, Patience::Endless)]], &[], 0);
    }),
    one("two owners", |_| owners(&[&[(1, Patience::Endless)], &[(3, Patience::Endless)]], &[], 0)),
    one("asked to come again", |_| owners(&[&[(1, Patience::Endless)]], &[], 1)),
    Scenario {
        name: "asked to come again, given up",
        variants: 1,
        run: |_| owners(&[&[(1, Patience::Looks(1)), (2, Patience::Endless)]], &[], 1),
        preemptions: Some(1),
    },
    Scenario {
        name: "a communicator ends, its owner waits",
        variants: STEPS,
        run: |steps| owners_of(&[&[(1, Patience::Endless)]], vec![steps], 0),
        preemptions: Some(2),
    },
    Scenario {
        name: "a communicator ends, its owner gives up",
        variants: STEPS,
        run: |steps| owners_of(&[&[(1, Patience::Looks(1))]], vec![steps], 0),
        preemptions: Some(1),
    },
    one("two take and give back", |_| {
        pool(
            Shape { owners: 0, pool: (2, 2) },
            [|world| world.use_pool(1), |world| world.use_pool(2)],
            false,
        );
    }),
    one("asked ahead, given up, asked by another", |_| {
        let ahead: fn(&World) = |world| world.ask_ahead(1, 1, Patience::Looks(0), 1);
        pool(Shape { owners: 0, pool: (1, 1) }, [ahead, |world| world.use_pool(1)], true);
    }),
    one("left behind, found by two", |_| {
        let left: fn(&World) = |world| {
            world.ask_ahead(1, 1, Patience::Looks(0), 0);
            world.use_pool(1);
        };
        pool(Shape { owners: 0, pool: (1, 1) }, [left, |world| world.use_pool(1)], false);
    }),
    Scenario { name: "everything", variants: 1, run: |_| everything(), preemptions: None },
];

/// Owners that make their requests, the first one on this thread, and communicators one after the other.
fn owners(requests: &'static [&'static [(u64, Patience)]], ends: &'static [usize], retries: usize) {
    owners_of(requests, ends.to_vec(), retries);
}

fn owners_of(requests: &'static [&'static [(u64, Patience)]], ends: Vec<usize>, retries: usize) {
    let world = Arc::new(World::new(Shape { owners: requests.len(), pool: (0, 0) }));
    let shared = world.clone();
    let communicator = spawn(move || shared.communicate(&ends, retries));
    let make = |world: &World, number: usize| {
        for (tag, patience) in requests[number] {
            world.ask(number, *tag, *patience);
        }
    };
    let others: Vec<_> = (1..requests.len())
        .map(|number| {
            let shared = world.clone();
            spawn(move || make(&shared, number))
        })
        .collect();
    make(&world, 0);
    for other in others {
        other.join().expect("it ends");
    }
    world.end();
    communicator.join().expect("it ends");
}

/// Two processes that use the pool at once, the first one on this thread.
fn pool(shape: Shape, [first, second]: [fn(&World); 2], communicate: bool) {
    let world = Arc::new(World::new(shape));
    let shared = world.clone();
    let communicator = communicate.then(|| spawn(move || shared.communicate(&[], 0)));
    let shared = world.clone();
    let other = spawn(move || second(&shared));
    first(&world);
    other.join().expect("it ends");
    world.end();
    if let Some(communicator) = communicator {
        communicator.join().expect("it ends");
    }
    world.assert_nothing_is_lost();
}

/// Three processes with requests of their own and three that ask ahead, all giving up now and then, a pageserver that asks to come again,
/// and communicators that end.
fn everything() {
    const OWNERS: usize = 3;
    let world = Arc::new(World::new(Shape { owners: OWNERS, pool: (2, 3) }));
    let ends: Vec<usize> = (0..any_number(4)).map(|_| any_number(160)).collect();
    let retries = any_number(3);
    let shared = world.clone();
    let communicator = spawn(move || shared.communicate(&ends, retries));
    let patience = || match any_number(3) {
        0 => Patience::Endless,
        1 => Patience::Looks(0),
        _ => Patience::Looks(any_number(6) as u32),
    };
    let processes: Vec<_> = (0..2 * OWNERS)
        .map(|number| {
            let shared = world.clone();
            spawn(move || {
                for round in 0..3 {
                    let tag = (1 + number * 3 + round) as u64;
                    if number < OWNERS {
                        shared.ask(number, tag, patience());
                    } else {
                        shared.ask_ahead(tag, 1 + any_number(2), patience(), any_number(3));
                    }
                }
            })
        })
        .collect();
    for process in processes {
        process.join().expect("it ends");
    }
    world.end();
    communicator.join().expect("it ends");
    world.assert_nothing_is_lost();
}
