//! What counting one page costs: nanoseconds per touch of the working-set sketch, for one page again and again (a hot register) and
//! for different pages, and microseconds per estimate. One JSON object on standard output.
#![expect(clippy::disallowed_methods, reason = "a benchmark asks for the time")]
#![expect(clippy::disallowed_macros, reason = "a program prints its result")]

use std::hint::black_box;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use strata_common::hash::mix;
use strata_lfc::working_set::{Second, WORDS, Window, WorkingSet};

const TOUCHES: u64 = 20_000_000;
const ESTIMATES: u32 = 200;

fn nanoseconds(sketch: &WorkingSet<'_>, hash: impl Fn(u64) -> u64) -> f64 {
    let begun = Instant::now();
    (0..TOUCHES).for_each(|n| sketch.touch(black_box(hash(n)), Second(1)));
    begun.elapsed().as_nanos() as f64 / TOUCHES as f64
}

fn main() {
    let words: Vec<AtomicU32> = (0..WORDS).map(|_| AtomicU32::new(0)).collect();
    let sketch = WorkingSet::new(&words);
    let same = nanoseconds(&sketch, |_| 7);
    let different = nanoseconds(&sketch, mix);
    let begun = Instant::now();
    (0..ESTIMATES).for_each(|_| _ = black_box(sketch.pages(Window::Last(60), Second(1))));
    let estimate = begun.elapsed().as_micros() as f64 / f64::from(ESTIMATES);
    println!(
        "{{\"touch_same_ns\": {same:.1}, \"touch_different_ns\": {different:.1}, \"estimate_us\": {estimate:.0}}}"
    );
}
