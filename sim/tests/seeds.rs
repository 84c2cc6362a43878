//! Many seeds through both phases. `STRATA_SIM_SEEDS` (how many), `STRATA_SIM_FROM` (first seed) and `STRATA_SIM_STEPS` set the
//! size; `STRATA_TEST_SIZE=full` makes it a long search. A failing seed is printed with the last events before the failure.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use strata_sim::{Options, Report, Weather, run};

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

fn is_full() -> bool {
    std::env::var("STRATA_TEST_SIZE").is_ok_and(|size| size == "full")
}

/// Runs seeds on all cores; the sum of the reports, or the failures.
fn search(from: u64, count: u64, options: Options) -> Result<Report, String> {
    let next = AtomicU64::new(from);
    let outcome = Mutex::new((Report::default(), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let result = run(seed, options);
                    let mut outcome = outcome.lock().expect("no thread panics with the lock");
                    match result {
                        Ok(report) => outcome.0.add(&report),
                        Err(failure) => outcome.1.push(failure.to_string()),
                    }
                    if outcome.1.len() >= 3 {
                        return;
                    }
                }
            });
        }
    });
    let (report, failures) = outcome.into_inner().expect("all threads are done");
    if failures.is_empty() { Ok(report) } else { Err(failures.join("\n")) }
}

#[test]
fn every_seed_keeps_the_invariants_and_recovers() {
    let full = is_full();
    let count = number("STRATA_SIM_SEEDS", if full { 50_000 } else { 300 });
    let steps = number("STRATA_SIM_STEPS", if full { 10_000 } else { 5_000 });
    let from = number("STRATA_SIM_FROM", 0);
    let report = search(from, count, Options::new(steps)).unwrap_or_else(|failures| panic!("{failures}"));
    println!("{count} seeds of {steps} steps: {report:?}");
    // A search in which nothing happened proves nothing.
    if count >= 100 {
        let Report { terms_won, terms_resumed, crashes, wipes, fetches, .. } = report;
        assert!(
            terms_won > count && terms_resumed > 0 && crashes > count && wipes > 0 && fetches > 0,
            "{report:?}"
        );
        let Report { cuts_with_loss, learners_created, log_removed, log_restarts, fenced, .. } = report;
        assert!(cuts_with_loss > 0 && learners_created > 0 && log_removed > 0 && fenced > 0, "{report:?}");
        assert!(log_restarts > 0 && report.committed_bytes > count * 1000, "{report:?}");
    }
}

/// Terms that follow each other faster than logs spread: where the rules of commitment and truncation matter most.
#[test]
fn short_terms_keep_the_invariants_and_recover() {
    let full = is_full();
    let count = number("STRATA_SIM_SEEDS", if full { 20_000 } else { 200 });
    let options = Options { weather: Weather::ShortTerms, ..Options::new(number("STRATA_SIM_STEPS", 5_000)) };
    let report =
        search(number("STRATA_SIM_FROM", 0), count, options).unwrap_or_else(|failures| panic!("{failures}"));
    println!("{count} seeds of short terms: {report:?}");
    assert!(count < 100 || (report.terms_won > 10 * count && report.cuts_with_loss > count), "{report:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let options = Options::new(3_000);
    let trace = |seed| run(seed, options).unwrap_or_else(|failure| panic!("{failure}")).trace;
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
