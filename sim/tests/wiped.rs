//! Trap K16 step by step: x is committed on safekeepers 1 and 2; 2 loses its disk; 3 and the empty 2 meet without 1.

use strata_common::NodeId;
use strata_sim::{Crash, Faults, Options, Violation, World};

/// Until the new compute has tried to win with 2 and 3 alone; the compute's number.
fn wiped_and_cut_off(options: Options) -> Result<(World, u64), Violation> {
    let mut world = World::new(1, options, Faults::none(3));
    let first = world.start_compute();
    world.block(first, NodeId(3));
    world.run_for(1_000)?;
    assert!(world.committed_end().0 > 0x1000 + 500, "1 and 2 commit without 3");
    world.end_compute(first);
    world.wipe(NodeId(2));
    world.crash(NodeId(1), Crash::Process);
    world.restart(NodeId(2));
    let second = world.start_compute();
    world.run_for(3_000)?;
    Ok((world, second))
}

#[test]
fn an_empty_safekeeper_elects_nobody_and_nothing_is_lost() {
    let (mut world, second) = wiped_and_cut_off(Options::new(0)).expect("no invariant is broken");
    assert_eq!(world.term_of(second), None, "3 and an empty 2 are no majority");
    let committed = world.committed_end();
    world.restart(NodeId(1));
    world.run_for(3_000).expect("no invariant is broken");
    assert!(world.term_of(second).is_some() && world.committed_end() > committed, "with 1 it goes on");
    assert_eq!(world.report().learners_created, 1, "2 is back as a learner");
}

/// If any life of a member voted, the second compute would begin an empty log, and what was committed would be gone.
#[cfg(feature = "mutants")]
#[test]
fn if_the_empty_safekeeper_voted_committed_log_would_be_lost() {
    use strata_common::invariants::Invariant;
    use strata_sim::{Checks, Mutant};

    let options =
        Options { checks: Checks::Loss, mutant: Some(Mutant::WipedVotesAndCounts), ..Options::new(0) };
    // The operator who created the copy anew by hand, with the old membership, is part of this mistake.
    let loss = wiped_and_recreated(options).expect_err("the loss is seen");
    assert_eq!(loss.invariant, Invariant::Sk1);
    assert!(loss.what.contains("another record"), "{loss}");
}

#[cfg(feature = "mutants")]
fn wiped_and_recreated(options: Options) -> Result<(), Violation> {
    let mut world = World::new(1, options, Faults::none(3));
    let first = world.start_compute();
    world.block(first, NodeId(3));
    world.run_for(1_000)?;
    world.end_compute(first);
    world.wipe(NodeId(2));
    world.restart(NodeId(2));
    world.create_empty_copy(NodeId(2));
    world.crash(NodeId(1), Crash::Process);
    let second = world.start_compute();
    world.run_for(3_000)?;
    assert!(world.term_of(second).is_some(), "3 and the empty 2 elect");
    Ok(())
}
