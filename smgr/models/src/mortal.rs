//! The atomics that the protocol's files get here: the checker's, and a step of a process that may be mortal. A mortal process ends
//! before one of its steps, as a communicator does whose thread is taken away in the middle of anything.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

pub use std::sync::atomic::Ordering;

use crate::checker;

checker::thread_local! {
    static STEPS_LEFT: Cell<Option<usize>> = Cell::new(None);
}

struct Ended;

/// One step of this process.
pub fn step() {
    let left = STEPS_LEFT.with(Cell::get);
    STEPS_LEFT.with(|steps| steps.set(left.map(|left| left.saturating_sub(1))));
    if left == Some(0) {
        STEPS_LEFT.with(|steps| steps.set(None));
        resume_unwind(Box::new(Ended));
    }
}

/// Runs a process that ends after so many steps, or by itself before.
pub fn with_steps(steps: usize, process: impl FnOnce()) {
    STEPS_LEFT.with(|left| left.set(Some(steps)));
    let ended = catch_unwind(AssertUnwindSafe(process));
    STEPS_LEFT.with(|left| left.set(None));
    if let Err(reason) = ended
        && !reason.is::<Ended>()
    {
        resume_unwind(reason);
    }
}

pub fn fence(order: Ordering) {
    checker::fence(order);
}

macro_rules! atomic {
    ($name:ident, $int:ty) => {
        #[derive(Default)]
        pub struct $name(checker::$name);

        impl $name {
            pub fn new(value: $int) -> $name {
                $name(checker::$name::new(value))
            }

            pub fn load(&self, order: Ordering) -> $int {
                step();
                self.0.load(order)
            }

            pub fn store(&self, value: $int, order: Ordering) {
                step();
                self.0.store(value, order);
            }

            pub fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                step();
                self.0.fetch_add(value, order)
            }

            pub fn fetch_or(&self, value: $int, order: Ordering) -> $int {
                step();
                self.0.fetch_or(value, order)
            }

            pub fn fetch_and(&self, value: $int, order: Ordering) -> $int {
                step();
                self.0.fetch_and(value, order)
            }

            pub fn swap(&self, value: $int, order: Ordering) -> $int {
                step();
                self.0.swap(value, order)
            }

            pub fn compare_exchange(
                &self,
                from: $int,
                to: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                step();
                self.0.compare_exchange(from, to, success, failure)
            }
        }
    };
}

#[allow(dead_code, reason = "the same methods for both")]
mod atomics {
    use super::*;
    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);
}
pub use atomics::{AtomicU32, AtomicU64};
