//! The estimate against exact counts and against another implementation of HyperLogLog, over loads and windows.

use std::collections::HashMap;

use hyperloglogplus::{HyperLogLog, HyperLogLogPF};
use strata_common::hash::{mix, page_hash};
use strata_common::{BlockNumber, ForkNumber, RelTag};

use super::*;

/// Three standard errors.
const ERROR_MAX: f64 = 0.05;

fn memory() -> Vec<AtomicU32> {
    (0..WORDS).map(|_| AtomicU32::new(0)).collect()
}

fn hash(page: u64) -> u64 {
    let tag = RelTag { tablespace: 1663, database: 5, relation: 16384 + (page >> 20) as u32 };
    page_hash(tag.fork(ForkNumber::Main), BlockNumber(page as u32 & 0xf_ffff))
}

fn is_near(estimate: u64, exact: u64) -> bool {
    (estimate as f64 - exact as f64).abs() <= (exact as f64 * ERROR_MAX).max(1.0)
}

/// Which page the n-th request of a load is for.
type Load = fn(u64) -> u64;

fn uniform(n: u64) -> u64 {
    mix(n) % 200_000
}

/// Page k about as often as 1/k.
fn zipfian(n: u64) -> u64 {
    let unit = (mix(n) >> 11) as f64 / (1u64 << 53) as f64;
    (unit * 1_000_000f64.ln()).exp() as u64
}

fn scan(n: u64) -> u64 {
    n % 700_000
}

const LOADS: [(&str, Load); 3] = [("uniform", uniform), ("zipfian", zipfian), ("scan", scan)];
const WINDOWS: [u32; 6] = [60, 300, 600, 900, 1800, 3600];

/// Prints what README.md shows: `cargo test --release -p strata-lfc windows_of_every_load -- --nocapture`.
#[test]
#[expect(clippy::disallowed_macros, reason = "a table for people")]
fn windows_of_every_load_are_near_the_exact_count() {
    println!("| load | window | exactly | estimate | error |\n|---|--:|--:|--:|--:|");
    for (name, load) in LOADS {
        let memory = memory();
        let sketch = WorkingSet::new(&memory);
        let mut last_seen: HashMap<u64, u32> = HashMap::new();
        // An hour and a half, 500 requests a second.
        for second in 1..=5400u32 {
            for n in 0..500 {
                let page = load(u64::from(second) * 500 + n);
                sketch.touch(hash(page), Second(second));
                last_seen.insert(page, second);
            }
        }
        for seconds in WINDOWS {
            let exact = last_seen.values().filter(|seen| **seen > 5400 - seconds).count() as u64;
            let estimate = sketch.pages(Window::Last(seconds), Second(5400));
            let error = 100.0 * (estimate as f64 / exact as f64 - 1.0);
            println!("| {name} | {seconds} s | {exact} | {estimate} | {error:+.1} % |");
            assert!(is_near(estimate, exact), "{name}, {seconds} s: {estimate}, exactly {exact}");
        }
        let exact = last_seen.len() as u64;
        assert!(is_near(sketch.pages(Window::Ever, Second(5400)), exact), "{name}, ever");
    }
}

/// From nothing through the range in which plain HyperLogLog is biased to many millions.
#[test]
fn every_size_is_near_and_as_near_as_another_implementation() {
    let memory = memory();
    let sketch = WorkingSet::new(&memory);
    let mut other: HyperLogLogPF<u64, std::hash::BuildHasherDefault<std::hash::DefaultHasher>> =
        HyperLogLogPF::new(12, Default::default()).expect("12 bits are allowed");
    assert_eq!(sketch.pages(Window::Ever, Second(1)), 0);
    let mut next = 1u64;
    for page in 1..=5_000_000u64 {
        sketch.touch(hash(page), Second(1));
        other.insert(&page);
        if page == next {
            let estimate = sketch.pages(Window::Ever, Second(1));
            assert!(is_near(estimate, page), "{estimate} for {page}");
            assert!(
                (estimate as f64 - other.count()).abs() <= page as f64 * 2.0 * ERROR_MAX,
                "{estimate} here, {} there, for {page}",
                other.count()
            );
            next = next * 5 / 4 + 1;
        }
    }
}

#[test]
fn what_left_the_window_does_not_count_and_a_reset_forgets_all() {
    let memory = memory();
    let sketch = WorkingSet::new(&memory);
    (0..10_000).for_each(|page| sketch.touch(hash(page), Second(100)));
    (0..100).for_each(|page| sketch.touch(hash(page), Second(160)));
    assert!(is_near(sketch.pages(Window::Last(61), Second(160)), 10_000));
    assert!(is_near(sketch.pages(Window::Last(60), Second(160)), 100));
    assert_eq!(sketch.pages(Window::Last(10), Second(1000)), 0);
    sketch.reset();
    assert_eq!(sketch.pages(Window::Ever, Second(1000)), 0);
}

/// The same pages again and again: each is one.
#[test]
fn repetition_does_not_count() {
    let memory = memory();
    let sketch = WorkingSet::new(&memory);
    for second in 1..=100 {
        (0..50).for_each(|page| sketch.touch(hash(page), Second(second)));
    }
    assert_eq!(sketch.pages(Window::Ever, Second(100)), 50);
}
