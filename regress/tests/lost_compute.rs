//! A compute is lost in the middle of a load, again and again: its processes killed, its folder gone. The next one has every
//! acknowledged transaction, each once, and sums that agree (SK-1, CP-1, CP-4).

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strata_regress::size;
use strata_regress::tpcb::{self, Load};
use strata_regress::whole::{Whole, processes_in};

/// Rounds and pgbench's scale: what `make test` and what `make soak` runs.
fn size() -> (u32, u32) {
    if size::is_full() { (100, 20) } else { (10, 10) }
}

#[test]
fn every_acknowledged_transaction_survives() -> Result<()> {
    let (rounds, scale) = size();
    let whole = Whole::started()?;
    let mut compute = whole.start_compute("c0", &["--set", "shared_buffers=16MB"])?;
    tpcb::fill(&whole, &compute, scale)?;
    let mut told = Vec::new();
    for round in 1..=rounds {
        let mut load = Load::start(&whole, &compute, scale, 8, 60, round)?;
        // Not a wait for something: the moment of the blow, another one each time.
        let moment =
            Duration::from_millis(300 + u64::from(std::process::id().wrapping_mul(round * 7919) % 1700));
        std::thread::sleep(moment);
        ensure!(load.is_running()?, "round {round}: the load ended before the blow");
        whole.lose_compute(&compute)?;
        let (acknowledged, unharmed) = load.finish()?;
        ensure!(!unharmed, "round {round}: pgbench did not notice");
        compute = whole.start_compute(&format!("c{}", round % 3), &["--set", "shared_buffers=16MB"])?;
        told.push(acknowledged);
        tpcb::check(&whole, &compute, &told)?;
    }
    let total: u64 = told.iter().map(tpcb::Acknowledged::total).sum();
    ensure!(
        total > u64::from(rounds) * 10,
        "only {total} transactions in {rounds} rounds: that shows nothing"
    );
    whole.amcheck(&compute)
}

/// S17: a process that never looks for its postmaster, such as one that waits for a spinlock whose holder was killed. Here every
/// process but the postmaster is stopped, so that only the kernel can end it.
#[test]
fn no_kind_of_process_outlives_the_postmaster() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &[])?;
    whole.sql(&compute.connstr, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")?;
    let postmaster = std::fs::read_to_string(compute.pgdata.join("postmaster.pid"))?;
    let postmaster: i32 = postmaster.lines().next().unwrap_or_default().parse()?;
    let children: Vec<i32> =
        processes_in(&compute.pgdata)?.into_iter().filter(|pid| *pid != postmaster).collect();
    let title = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).trim_matches(['\0', ' ']).to_owned()
    };
    let titles: Vec<String> = children.iter().map(title).collect();
    for kind in ["walwriter", "checkpointer", "background writer", "launcher", "strata"] {
        ensure!(titles.iter().any(|title| title.contains(kind)), "there is no {kind} in {titles:?}");
    }
    for pid in &children {
        // One that has ended by itself is no survivor.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGSTOP);
    }
    let lost = whole.lose_compute(&compute);
    let survivors: Vec<(i32, String)> =
        processes_in(&compute.pgdata)?.into_iter().map(|pid| (pid, title(&pid))).collect();
    for (pid, _) in &survivors {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    ensure!(survivors.is_empty(), "these live on: {survivors:?}");
    lost
}

/// Shared memory of System V that a server made, by the kernel's list.
fn segments_of(postmaster: i32) -> Result<usize> {
    let list = std::fs::read_to_string("/proc/sysvipc/shm")?;
    let creator = |line: &str| line.split_whitespace().nth(4).and_then(|pid| pid.parse::<i32>().ok());
    Ok(list.lines().filter(|line| creator(line) == Some(postmaster)).count())
}

/// The system has numbers for a few thousand segments only, and a killed server cannot remove its own.
#[test]
fn a_killed_servers_shared_memory_goes_at_the_next_start() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &[])?;
    let lock_file = std::fs::read_to_string(compute.pgdata.join("postmaster.pid"))?;
    let postmaster = lock_file.lines().next().unwrap_or_default().parse()?;
    ensure!(segments_of(postmaster)? == 1, "a server has one segment");
    whole.lose_compute(&compute)?;
    // Another compute's start may have removed it already.
    ensure!(segments_of(postmaster)? <= 1);
    let next = whole.start_compute("b", &[])?;
    ensure!(segments_of(postmaster)? == 0, "the killed server's segment is still there");
    whole.sql(&next.connstr, "SELECT 1").map(drop)
}
