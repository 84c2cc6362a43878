//! A large scenario with many processes, interleaved at random and by priorities that change at random (shuttle).

mod mortal;
mod mutants;
#[path = "../../src/prefetch/pool.rs"]
#[allow(dead_code, reason = "the product uses all of it")]
mod pool;
mod runner;
mod scenarios;
#[path = "../../src/slots.rs"]
#[allow(dead_code, reason = "the product uses all of it")]
mod slots;
mod world;

#[allow(unreachable_code, reason = "what a mistake leaves over")]
mod mutated {
    include!(concat!(env!("OUT_DIR"), "/Random.rs"));
}

/// What the protocol's files are compiled with.
mod sync {
    pub use crate::checker::yield_now as pause;
    pub use crate::mortal::{AtomicU32, AtomicU64, Ordering, fence};
}

/// What the models need of the checker.
mod checker {
    pub use shuttle::sync::atomic::{AtomicU32, AtomicU64, fence};
    pub use shuttle::sync::{Arc, Condvar, Mutex};
    pub use shuttle::thread::{spawn, yield_now};
    pub use shuttle::thread_local;

    use shuttle::rand::Rng;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Something that is used by one at a time.
    pub struct Exclusive(AtomicBool);

    impl Exclusive {
        pub fn new() -> Exclusive {
            Exclusive(AtomicBool::new(false))
        }

        pub fn use_now(&self, body: impl FnOnce()) {
            /// Frees it, also when the process ends in the middle; not a step of the checker's, which must not change threads then.
            struct Use<'a>(&'a AtomicBool);
            impl Drop for Use<'_> {
                fn drop(&mut self) {
                    self.0.store(false, Ordering::SeqCst);
                }
            }
            assert!(!self.0.swap(true, Ordering::SeqCst), "a page is used by two at once");
            let _use = Use(&self.0);
            yield_now();
            body();
        }
    }

    pub fn any_number(below: usize) -> usize {
        shuttle::rand::thread_rng().gen_range(0..below)
    }
}

use runner::{Scenario, Size};
use shuttle::scheduler::{PctScheduler, RandomScheduler};

const SEED: u64 = 0x5174;
/// Preemptions by priority in one execution.
const DEPTH: usize = 4;

fn check(size: Size, scenario: Scenario, variant: usize) -> u64 {
    let iterations = if size == Size::Full { 200_000 } else { 3_000 };
    let config = || {
        let mut config = shuttle::Config::new();
        config.silence_warnings = true;
        config.failure_persistence = shuttle::FailurePersistence::None;
        config
    };
    let random = RandomScheduler::new_from_seed(SEED, iterations);
    let ordered = PctScheduler::new_from_seed(SEED, DEPTH, iterations);
    let count = shuttle::Runner::new(random, config()).run(move || (scenario.run)(variant))
        + shuttle::Runner::new(ordered, config()).run(move || (scenario.run)(variant));
    count as u64
}

fn main() -> std::process::ExitCode {
    runner::run(mutants::Checker::Random, check, scenarios::ALL, mutated::SCENARIOS)
}
