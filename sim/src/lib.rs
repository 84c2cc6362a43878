//! Deterministic simulation of the consensus: real acceptor and proposer cores, simulated network, disks, processes and time.
//!
//! One thread, one seed, one trace: the same seed gives the same run. A run has a safety phase, in which everything that may
//! go wrong does (messages late, lost, doubled or out of order; connections cut; partitions; safekeepers crashing between any
//! two disk commands, with what was not synced torn or lost; a minority of disks wiped; proposers dying, resuming and being
//! taken over), with the invariants SK-1 to SK-5 checked after every step, and then a liveness phase (LV-1): faults stop, and
//! a new record must be committed in bounded time. With the feature `mutants` known bugs are built in, and must be found.
#![forbid(unsafe_code)]

mod chaos;
mod checker;
mod computes;
mod disk;
mod net;
mod readers;
mod records;
mod rng;
mod safekeepers;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use strata_common::invariants::Invariant;

pub use checker::{Checks, Violation};
pub use disk::Crash;
pub use world::{Faults, World};

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Events of the safety phase.
    pub steps: u64,
    pub checks: Checks,
    pub weather: Weather,
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
}

impl Options {
    pub fn new(steps: u64) -> Options {
        Options {
            steps,
            checks: Checks::All,
            weather: Weather::BySeed,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

/// Which faults a run has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weather {
    /// Each seed its own.
    BySeed,
    ShortTerms,
}

#[cfg(feature = "mutants")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    Acceptor(strata_safekeeper::core::Mutant),
    Proposer(strata_walproposer::core::Mutant),
    /// K16: both sides take any life of a member for the member.
    WipedVotesAndCounts,
}

/// What a clean run did; that the interesting things happened is part of the test.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    pub trace: u64,
    pub committed_bytes: u64,
    pub terms_won: u64,
    pub terms_resumed: u64,
    pub crashes: u64,
    pub wipes: u64,
    pub fetches: u64,
    pub cuts_with_loss: u64,
    pub learners_created: u64,
    pub log_removed: u64,
    pub log_restarts: u64,
    pub fenced: u64,
}

impl Report {
    pub fn add(&mut self, other: &Report) {
        self.trace ^= other.trace;
        self.committed_bytes += other.committed_bytes;
        self.terms_won += other.terms_won;
        self.terms_resumed += other.terms_resumed;
        self.crashes += other.crashes;
        self.wipes += other.wipes;
        self.fetches += other.fetches;
        self.cuts_with_loss += other.cuts_with_loss;
        self.learners_created += other.learners_created;
        self.log_removed += other.log_removed;
        self.log_restarts += other.log_restarts;
        self.fenced += other.fenced;
    }
}

/// A run that broke an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub violation: Violation,
    /// The last events before it.
    pub tail: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.violation)?;
        self.tail.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Runs one seed through both phases. A failed assertion of an engine counts as a violation.
pub fn run(seed: u64, options: Options) -> Result<Report, Box<Failure>> {
    let faults = match options.weather {
        Weather::BySeed => Faults::from_seed(seed),
        Weather::ShortTerms => Faults::short_terms(seed),
    };
    let mut world = World::new(seed, options, faults);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        world.safety_phase(options.steps)?;
        world.liveness_phase()
    }));
    let violation = match outcome {
        Ok(Ok(())) => return Ok(world.report()),
        Ok(Err(violation)) => violation,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Violation {
                invariant: Invariant::Sk1,
                what: format!("assertion failed: {}", text.unwrap_or_default()),
            }
        }
    };
    Err(Box::new(Failure { seed, violation, tail: world.tail() }))
}
