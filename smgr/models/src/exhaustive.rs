//! All interleavings of small scenarios, weak memory included (loom), up to a number of preemptions.

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
    include!(concat!(env!("OUT_DIR"), "/Exhaustive.rs"));
}

/// What the protocol's files are compiled with.
mod sync {
    pub use crate::checker::yield_now as pause;
    pub use crate::mortal::{AtomicU32, AtomicU64, Ordering, fence};
}

/// What the models need of the checker.
mod checker {
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
    pub use loom::sync::{Arc, Condvar, Mutex};
    pub use loom::thread::{spawn, yield_now};
    pub use loom::thread_local;

    /// Something that is used by one at a time: the checker knows what happens before what.
    pub struct Exclusive(loom::cell::UnsafeCell<()>);

    impl Exclusive {
        pub fn new() -> Exclusive {
            Exclusive(loom::cell::UnsafeCell::new(()))
        }

        pub fn use_now(&self, body: impl FnOnce()) {
            self.0.with_mut(|_| body());
        }
    }

    pub fn any_number(_: usize) -> usize {
        unreachable!("an exhaustive scenario leaves nothing to chance")
    }
}

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runner::{Scenario, Size};

/// The longest that the full size looks at one more preemption of a scenario, all variants together: there may be too many of them.
const DEEPER: Duration = Duration::from_secs(150);

fn check(size: Size, scenario: Scenario, variant: usize) -> u64 {
    let executions = look(scenario, variant, 0, None);
    if size == Size::Small {
        return executions;
    }
    executions
        + look(scenario, variant, 1, Some(DEEPER / u32::try_from(scenario.variants).unwrap_or(u32::MAX)))
}

fn look(scenario: Scenario, variant: usize, more: usize, longest: Option<Duration>) -> u64 {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = scenario.preemptions.map(|few| few + more);
    builder.max_branches = 10_000;
    builder.max_duration = longest;
    builder.checkpoint_interval = 1000;
    let executions = Arc::new(AtomicU64::new(0));
    let counted = executions.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        (scenario.run)(variant);
    });
    executions.load(Ordering::Relaxed)
}

fn main() -> std::process::ExitCode {
    runner::run(mutants::Checker::Exhaustive, check, scenarios::ALL, mutated::SCENARIOS)
}
