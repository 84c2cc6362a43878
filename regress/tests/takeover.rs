//! Two computes on one branch: the second is refused while the first lives, or takes over and fences it (SK-2, trap S2). A beaten
//! one that hears nothing of the election reads no page of the other's log (CP-1).

use std::os::unix::process::CommandExt;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strata_regress::tpcb::{self, Load};
use strata_regress::whole::{Compute, Whole, processes_in, programs, sets, wait_until};

#[test]
fn a_second_compute_is_refused_or_takes_over() -> Result<()> {
    let whole = Whole::started()?;
    let first = whole.start_compute("first", &[])?;
    let scale = 2;
    tpcb::fill(&whole, &first, scale)?;

    let refused = whole.say(&["compute", "start", "second"])?;
    ensure!(
        !refused.ok && refused.stderr.contains("'first'"),
        "the refusal does not name the first: {refused:?}"
    );
    ensure!(refused.stderr.trim().lines().count() == 1, "not one sentence: {}", refused.stderr);

    let load = Load::start(&whole, &first, scale, 8, 60, 1)?;
    wait_until("the load has done something", || {
        Ok(whole.sql(&first.connstr, "SELECT count(*) > 100 FROM pgbench_history")? == "t")
    })?;
    let second = whole.start_compute("second", &["--takeover"])?;
    let (acknowledged, unharmed) = load.finish()?;
    ensure!(!unharmed, "the first compute went on as if nothing had happened");
    ensure!(acknowledged.total() > 0, "the load did nothing before the takeover");
    wait_until("the first compute is gone", || Ok(processes_in(&first.pgdata)?.is_empty()))?;
    // No acknowledged row is lost, and none is there twice.
    tpcb::check(&whole, &second, &[acknowledged])?;
    wait_fenced(&whole)
}

#[test]
fn a_dead_compute_never_blocks() -> Result<()> {
    let whole = Whole::started()?;
    let first = whole.start_compute("first", &[])?;
    whole.sql(&first.connstr, "CREATE TABLE t AS SELECT 1 AS n")?;
    whole.lose_compute(&first)?;
    let second = whole.start_compute("second", &[])?;
    ensure!(whole.sql(&second.connstr, "SELECT n FROM t")? == "1", "the row is gone");
    Ok(())
}

/// More than the first compute's buffers hold, so that every count of it asks the pageserver.
const ROWS: u32 = 20_000;

/// What a row shows: 0 from the first compute, 1 from the second.
const QUESTION: &str = "SELECT count(*), min(v), max(v), sum(v) FROM t";

fn filled(whole: &Whole) -> Result<Compute> {
    // Without a file cache: what a beaten compute has in it, it may show, as what is in its buffers.
    let settings = ["shared_buffers=1MB", "autovacuum=off", "strata.lfc_max_size=0"];
    let first = whole.start_compute("first", &sets(settings))?;
    let fill = format!(
        "CREATE TABLE t (n int PRIMARY KEY, v int, filler text);
         INSERT INTO t SELECT n, 0, repeat('x', 200) FROM generate_series(1, {ROWS}) n"
    );
    whole.sql(&first.connstr, &fill)?;
    ensure!(whole.sql(&first.connstr, QUESTION)? == format!("{ROWS}|0|0|0"), "the table is not as filled");
    Ok(first)
}

/// The second compute takes over, changes every row, and has that acknowledged.
fn take_over(whole: &Whole) -> Result<()> {
    let second = whole.start_compute("second", &["--takeover"])?;
    whole.sql(&second.connstr, "UPDATE t SET v = 1")?;
    ensure!(whole.sql(&second.connstr, QUESTION)? == format!("{ROWS}|1|1|{ROWS}"), "the rows did not change");
    Ok(())
}

/// Nothing that needs pages is answered by the first compute any more; it stops and says why.
fn check_beaten(whole: &Whole, first: &Compute) -> Result<()> {
    wait_until("the first compute is gone", || {
        if let Ok(answer) = whole.sql(&first.connstr, QUESTION) {
            anyhow::bail!("the beaten compute answers {answer}");
        }
        Ok(processes_in(&first.pgdata)?.is_empty())
    })?;
    wait_fenced(whole)
}

fn wait_fenced(whole: &Whole) -> Result<()> {
    wait_until("the first supervisor says that it is fenced", || {
        Ok(whole.json(&["compute", "show", "first"])?["state"] == "fenced")
    })
}

/// The process of a Postgres whose title holds `title`.
fn process_titled(compute: &Compute, title: &str) -> Result<Pid> {
    let has_title = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(title)
    };
    let found = processes_in(&compute.pgdata)?.into_iter().find(has_title);
    Ok(Pid::from_raw(found.with_context(|| format!("no process is titled '{title}'"))?))
}

/// Its worker that talks to safekeepers is halted, so that it cannot learn of the election from them.
#[test]
fn a_beaten_compute_cut_off_from_safekeepers_reads_no_page_of_the_other() -> Result<()> {
    let whole = Whole::started()?;
    let first = filled(&whole)?;
    kill(process_titled(&first, "strata proposer")?, Signal::SIGSTOP)?;
    take_over(&whole)?;
    check_beaten(&whole, &first)
}

/// A backend or autovacuum worker of the list may have ended by itself meanwhile.
fn signal_if_alive(process: Pid, signal: Signal) -> Result<()> {
    match kill(process, signal) {
        Err(Errno::ESRCH) => Ok(()),
        other => Ok(other?),
    }
}

/// The whole machine stands still, also while the pageserver is lost and comes back, and then goes on.
#[test]
fn a_beaten_compute_that_stood_still_reads_no_page_of_the_other() -> Result<()> {
    let whole = Whole::started()?;
    let first = filled(&whole)?;
    let mut halted: Vec<Pid> = processes_in(&first.pgdata)?.into_iter().map(Pid::from_raw).collect();
    halted.push(Pid::from_raw(first.pgid));
    for process in &halted {
        signal_if_alive(*process, Signal::SIGSTOP)?;
    }
    take_over(&whole)?;
    whole.kill_node("pageservers", 1)?;
    whole.strata(&["pageserver", "start", "1"])?;
    let proposer = process_titled(&first, "strata proposer")?;
    for process in halted.iter().filter(|process| **process != proposer) {
        signal_if_alive(*process, Signal::SIGCONT)?;
    }
    check_beaten(&whole, &first)
}

/// Starts `first` and halts its postmaster before it is ready; the starting command and the halted process.
fn halted_start(whole: &Whole) -> Result<(std::process::Child, Pid)> {
    let pgdata = whole.dir().join("computes/first/pgdata");
    for _ in 0..10 {
        let mut command = whole.command(&["compute", "start", "first"]);
        let mut start = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut found = None;
        wait_until("the postmaster is there", || {
            found = processes_in(&pgdata)?.first().copied().map(Pid::from_raw);
            Ok(found.is_some())
        })?;
        let postmaster = found.context("it was just there")?;
        kill(postmaster, Signal::SIGSTOP)?;
        if whole.json(&["compute", "show", "first"])?["state"] == "starting" {
            return Ok((start, postmaster));
        }
        kill(postmaster, Signal::SIGCONT)?;
        start.wait()?;
        whole.stop_compute("first")?;
    }
    bail!("it was always ready before it could be halted")
}

#[test]
fn a_compute_that_is_beaten_while_its_postgres_starts_is_fenced() -> Result<()> {
    let whole = Whole::started()?;
    let (start, postmaster) = halted_start(&whole)?;
    let second = whole.start_compute("second", &["--takeover"])?;
    kill(postmaster, Signal::SIGCONT)?;
    let started = start.wait_with_output()?;
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    // Whoever looks first, the supervisor at its server or the server's proposer at the quorum: it is never just "failed".
    wait_until("the first compute is fenced", || {
        let shown = whole.json(&["compute", "show", "first"])?;
        ensure!(
            shown["state"] == "fenced" || shown["state"] == "starting" || shown["state"] == "running",
            "the first compute says: {shown}, {said}"
        );
        Ok(shown["state"] == "fenced")
    })?;
    ensure!(started.status.success() || said.contains("another compute"), "the start says: {said}");
    ensure!(whole.sql(&second.connstr, "SELECT 1")? == "1", "the second goes on");
    Ok(())
}

/// Two supervisors of one folder: the second one would lay a base backup over a running server.
#[test]
fn a_folder_with_a_running_server_is_not_laid_down_again() -> Result<()> {
    let whole = Whole::started()?;
    let first = whole.start_compute("first", &[])?;
    whole.sql(&first.connstr, "CREATE TABLE t AS SELECT 1 AS n")?;
    let spec = whole.dir().join("run/compute-first.spec.json");
    let mut command = std::process::Command::new(programs().join("strata-compute"));
    // A group of its own, as 'strata' gives it: it says so in its state file, and what is killed is a group.
    command.arg("--spec").arg(spec).stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut second = command.spawn()?;
    let ended = wait_until("the second supervisor has ended", || Ok(second.try_wait()?.is_some()));
    // If it did not end by itself, it goes now.
    let _ = second.kill();
    let refused = second.wait_with_output()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ended?;
    ensure!(!refused.status.success(), "it ran: {said}");
    ensure!(said.trim().lines().count() == 1 && said.contains("stop it first"), "not one sentence: {said}");
    ensure!(whole.sql(&first.connstr, "SELECT n FROM t")? == "1", "the first goes on");
    ensure!(whole.json(&["compute", "show", "first"])?["state"] == "running", "the first is disturbed");
    ensure!(whole.stop_compute("first")?.is_some(), "it stops cleanly");
    Ok(())
}
