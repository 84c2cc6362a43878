//! A branch made right after an update load is readable, and independent of its parent; a branch in the past shows the past.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strata_regress::tpcb::{self, Load};
use strata_regress::whole::{Compute, Whole, process_state, processes_in, wait_until};

#[test]
fn a_branch_and_its_parent_do_not_meet() -> Result<()> {
    let whole = Whole::started()?;
    let parent = whole.start_compute("parent", &["--set", "shared_buffers=1MB"])?;
    tpcb::fill(&whole, &parent, 2)?;
    let (acknowledged, unharmed) = Load::start(&whole, &parent, 2, 4, 3, 1)?.finish()?;
    ensure!(unharmed, "the load failed");
    whole.strata(&["branch", "create", "child"])?;
    let child = whole.start_compute("child", &["--branch", "child", "--set", "shared_buffers=1MB"])?;
    tpcb::check(&whole, &child, std::slice::from_ref(&acknowledged))?;

    // Both go on, each for itself.
    let on_parent = Load::start(&whole, &parent, 2, 2, 3, 2)?;
    let on_child = Load::start(&whole, &child, 2, 2, 3, 3)?;
    let (parents, _) = on_parent.finish()?;
    let (childs, _) = on_child.finish()?;
    tpcb::check(&whole, &parent, &[acknowledged.clone(), parents.clone()])?;
    tpcb::check(&whole, &child, &[acknowledged, childs.clone()])?;
    let rounds = "SELECT string_agg(DISTINCT split_part(filler, ' ', 1), ',' ORDER BY split_part(filler, ' ', 1)) FROM pgbench_history";
    ensure!(whole.sql(&parent.connstr, rounds)? == "1,2", "the parent sees the child's rows");
    ensure!(whole.sql(&child.connstr, rounds)? == "1,3", "the child sees the parent's rows");
    whole.amcheck(&child)?;
    whole.amcheck(&parent)
}

/// A load that has committed something.
fn load_under_way(whole: &Whole, compute: &Compute, round: u32) -> Result<Load> {
    const HISTORY: &str = "SELECT count(*) FROM pgbench_history";
    // Rounds before have left theirs.
    let before = whole.number(compute, HISTORY)?;
    let load = Load::start(whole, compute, 2, 8, 60, round)?;
    wait_until("the load is under way", || Ok(whole.number(compute, HISTORY)? > before + 200))?;
    Ok(load)
}

/// What a client was told is committed may stand on safekeepers of which none knows that it is committed (SK-1).
#[test]
fn branches_have_all_that_their_parents_acknowledged() -> Result<()> {
    let whole = Whole::started()?;
    let mut parent = whole.start_compute("parent", &[])?;
    tpcb::fill(&whole, &parent, 2)?;
    let mut told = Vec::new();
    for round in 1..=6 {
        let mut load = load_under_way(&whole, &parent, round)?;
        ensure!(load.is_running()?, "round {round}: the load ended before the blow");
        whole.lose_compute(&parent)?;
        told.push(load.finish()?.0);
        // No compute has told the safekeepers anything since.
        let (branch, child) = (format!("b{round}"), format!("c{round}"));
        whole.strata(&["branch", "create", &branch])?;
        let child = whole.start_compute(&child, &["--branch", &branch])?;
        tpcb::check(&whole, &child, &told)?;
        whole.stop_compute(&child.name)?;
        parent = whole.start_compute("parent", &[])?;
        tpcb::check(&whole, &parent, &told)?;
    }
    Ok(())
}

/// A compute that stands still is alive, and may not have told the safekeepers of its last commits. If it dies while a branch waits
/// for that, an election settles the end.
#[test]
fn a_compute_that_dies_meanwhile_holds_no_branch_up() -> Result<()> {
    let whole = Whole::started()?;
    let mut parent = whole.start_compute("parent", &[])?;
    tpcb::fill(&whole, &parent, 2)?;
    let mut told = Vec::new();
    for round in 1..=10 {
        let load = load_under_way(&whole, &parent, round)?;
        // All of them, or a commit would be acknowledged after the branch was made.
        wait_until("the compute stands still", || {
            let processes = processes_in(&parent.pgdata)?;
            for process in &processes {
                // One may end by itself.
                let _ = kill(Pid::from_raw(*process), Signal::SIGSTOP);
            }
            Ok(processes.into_iter().all(|process| matches!(process_state(process), None | Some('T' | 'Z'))))
        })?;
        let branch = format!("b{round}");
        let mut create = whole.command(&["branch", "create", &branch]).spawn()?;
        // Long enough for a command that has nothing to wait for; for one that has, any moment is as good.
        std::thread::sleep(Duration::from_millis(500));
        let waits = create.try_wait()?.is_none();
        whole.lose_compute(&parent)?;
        told.push(load.finish()?.0);
        ensure!(create.wait()?.success(), "the branch was not made");
        let child = whole.start_compute(&format!("c{round}"), &["--branch", &branch])?;
        tpcb::check(&whole, &child, &told)?;
        if waits {
            return Ok(());
        }
        whole.stop_compute(&child.name)?;
        parent = whole.start_compute("parent", &[])?;
    }
    anyhow::bail!("in ten rounds no command had to wait: the test shows nothing")
}

#[test]
fn a_branch_in_the_past_shows_the_past() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &[])?;
    whole.sql(&compute.connstr, "CREATE TABLE t(n int)")?;
    let mut lsns = Vec::new();
    for n in 1..=5 {
        whole.sql(&compute.connstr, &format!("INSERT INTO t VALUES ({n})"))?;
        lsns.push(whole.sql(&compute.connstr, "SELECT pg_current_wal_flush_lsn()")?);
    }
    for (index, lsn) in lsns.iter().enumerate().skip(1).step_by(2) {
        let name = format!("past{index}");
        whole.strata(&["branch", "create", &name, "--at-lsn", lsn])?;
        let past = whole.start_compute(&name, &["--branch", &name])?;
        let count = whole.sql(&past.connstr, "SELECT count(*) FROM t")?;
        ensure!(count == (index + 1).to_string(), "at {lsn}: {count} rows instead of {}", index + 1);
        whole.sql(&past.connstr, "INSERT INTO t VALUES (100)")?;
    }
    ensure!(whole.sql(&compute.connstr, "SELECT count(*) FROM t")? == "5", "the past's rows came back");
    let last = lsns.last().context("there are some")?;
    let ahead = whole.say(&["branch", "create", "ahead", "--at-lsn", "FFFF/0"])?;
    ensure!(!ahead.ok && ahead.stderr.contains("FFFF/0"), "an LSN beyond {last} was taken: {ahead:?}");
    Ok(())
}
