//! Redo speed: records per second of every resource manager that changes pages, on one core and on two at once.
//!
//! Records are made by hand in Postgres's layout, of the size that TPC-B-like loads have (`workloads.rs`). What is timed is `apply`, the
//! work of a page read; for images, which ingest restores, and for `heap_insert_effects` it is `effects`. Each measurement repeats its
//! round until `--seconds` (default 0.5) have passed and takes the median round. The result is one JSON object on standard
//! output; the target is a million records per second and core (B6 of the benchmarks). Times are of `std::time`: a
//! benchmark measures the machine that it runs on.
#![expect(clippy::disallowed_methods, reason = "a benchmark asks for the time")]

mod indexes;
mod workloads;

use std::hint::black_box;
use std::time::Instant;

use strata_redo::{Page, apply, apply_slru, effects_into};
use workloads::{PAGE, Work, Workload};

/// Records between two looks at the clock, at least: few, so that most rounds pass without another process's turn on the core.
const ROUND_RECORDS: usize = 3000;

/// Does a workload once and says how many records that were.
fn perform(work: &Work) -> usize {
    match work {
        Work::Relation { page, changes } => {
            let mut page: Page = **black_box(page);
            for (lsn, change) in changes {
                apply(&mut page, PAGE, *lsn, black_box(change)).expect("the change fits");
            }
            black_box(&page);
            changes.len()
        }
        Work::Slru { id, changes } => {
            let mut page: Page = [0; 8192];
            for (lsn, change) in changes {
                apply_slru(&mut page, *id, *lsn, black_box(change)).expect("the change fits");
            }
            black_box(&page);
            changes.len()
        }
        Work::Effects { records } => {
            let mut out = Vec::new();
            for record in records {
                out.clear();
                effects_into(black_box(record), &mut out).expect("a known record");
                black_box(&out);
            }
            records.len()
        }
    }
}

/// Repeats `work` for `seconds` and returns the median of records per second.
fn measure(seconds: f64, work: &Work) -> f64 {
    let repeats = ROUND_RECORDS.div_ceil(perform(work));
    let begin = Instant::now();
    let mut rates = Vec::new();
    while begin.elapsed().as_secs_f64() < seconds || rates.len() < 5 {
        let start = Instant::now();
        let records: usize = (0..repeats).map(|_| perform(work)).sum();
        rates.push(records as f64 / start.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// The sum of what two threads reach at the same time.
fn on_two_threads(work: impl Fn() -> f64 + Sync) -> f64 {
    std::thread::scope(|scope| {
        let other = scope.spawn(&work);
        work() + other.join().expect("the other thread measured")
    })
}

fn main() {
    let seconds = std::env::args().skip_while(|arg| arg != "--seconds").nth(1);
    let seconds: f64 = seconds.map_or(0.5, |text| text.parse().expect("--seconds takes a number"));
    let rows = workloads::all().into_iter().map(|Workload { id, what, work }| {
        let one = measure(seconds, &work);
        let two = on_two_threads(|| measure(seconds, &work));
        format!("{{\"id\":\"{id}\",\"what\":\"{what}\",\"one_core\":{one:.0},\"two_threads\":{two:.0}}}")
    });
    let rows: Vec<String> = rows.collect();
    let report = format!("{{\"unit\":\"records/s\",\"workloads\":[\n{}\n]}}\n", rows.join(",\n"));
    std::io::Write::write_all(&mut std::io::stdout(), report.as_bytes())
        .expect("standard output takes the report");
}
