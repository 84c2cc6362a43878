//! The harness proves itself: each known-bad variant of an engine must be found within a bounded number of seeds, and the same
//! seeds must be clean without it. With `Checks::Loss` only a committed record that is gone or replaced counts.
#![cfg(feature = "mutants")]

use strata_safekeeper::core::Mutant as Acceptor;
use strata_sim::{Checks, Mutant, Options, Weather, run};
use strata_walproposer::core::Mutant as Proposer;

const SEEDS: u64 = 1_000;
const STEPS: u64 = 6_000;

/// The first seed that finds the mutant; that seed without the mutant is clean.
fn find(mutant: Mutant, checks: Checks) -> u64 {
    find_in(mutant, Options { checks, ..Options::new(STEPS) })
}

fn find_in(mutant: Mutant, healthy: Options) -> u64 {
    let checks = healthy.checks;
    let sick = Options { mutant: Some(mutant), ..healthy };
    let (seed, failure) = (0..SEEDS)
        .find_map(|seed| run(seed, sick).err().map(|failure| (seed, failure)))
        .unwrap_or_else(|| panic!("{mutant:?} was not found in {SEEDS} seeds with checks {checks:?}"));
    println!("{mutant:?}, checks {checks:?}: seed {seed}: {}", failure.violation);
    run(seed, healthy).unwrap_or_else(|failure| panic!("found without the mutant too: {failure}"));
    seed
}

#[test]
fn k1_a_vote_before_it_is_durable_is_found() {
    find(Mutant::Acceptor(Acceptor::VoteBeforePersist), Checks::All);
}

#[test]
fn k12_an_acknowledgement_before_the_sync_is_found() {
    find(Mutant::Acceptor(Acceptor::AckBeforeSync), Checks::All);
}

#[test]
fn k5_truncation_below_commit_is_found() {
    find(Mutant::Acceptor(Acceptor::TruncateBelowCommit), Checks::All);
}

#[test]
fn k6_history_before_truncation_is_found() {
    find(Mutant::Acceptor(Acceptor::HistoryBeforeTruncation), Checks::All);
}

#[test]
fn k6_a_history_that_runs_ahead_of_its_log_is_found() {
    find(Mutant::Acceptor(Acceptor::HistoryUncut), Checks::All);
}

#[test]
fn k2_the_longest_log_as_donor_is_found() {
    find(Mutant::Proposer(Proposer::DonorByLength), Checks::All);
}

#[test]
fn k3_committing_older_terms_without_an_own_entry_is_found() {
    find(Mutant::Proposer(Proposer::CommitOldTerms), Checks::All);
}

#[test]
fn k4_counting_flushes_below_the_start_is_found() {
    let weather = Weather::ShortTerms;
    find_in(Mutant::Proposer(Proposer::CountBelowTermStart), Options { weather, ..Options::new(STEPS) });
}

#[test]
fn k16_wiped_voters_are_found() {
    find(Mutant::WipedVotesAndCounts, Checks::All);
}

/// The same bugs, seen only by what a user would see. Those that need a rare crash on top are in the list above only.
#[test]
fn bugs_that_lose_commits_are_found_by_the_loss_alone() {
    for mutant in [
        Mutant::Acceptor(Acceptor::AckBeforeSync),
        Mutant::Acceptor(Acceptor::TruncateBelowCommit),
        Mutant::Acceptor(Acceptor::HistoryBeforeTruncation),
        Mutant::Proposer(Proposer::DonorByLength),
        Mutant::WipedVotesAndCounts,
    ] {
        find(mutant, Checks::Loss);
    }
}
