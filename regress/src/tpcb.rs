//! pgbench's TPC-B with a mark in each history row, so that what pgbench was told is committed can be looked up afterwards.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::whole::{Compute, Whole};

const SCRIPT: &str = "\
\\set n :n + 1
\\set aid random(1, 100000 * :scale)
\\set bid random(1, 1 * :scale)
\\set tid random(1, 10 * :scale)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime, filler)
  VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP, concat_ws(' ', :round::int, :client_id::int, :n::int));
END;
";

/// A pgbench that runs in the background.
pub struct Load {
    child: Child,
    round: u32,
    log_prefix: PathBuf,
}

/// What a load was told: for each client, how many of its transactions are committed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub round: u32,
    pub by_client: std::collections::BTreeMap<u32, u64>,
}

impl Acknowledged {
    pub fn total(&self) -> u64 {
        self.by_client.values().sum()
    }
}

/// Creates and fills pgbench's tables.
pub fn fill(whole: &Whole, compute: &Compute, scale: u32) -> Result<()> {
    whole.run("pgbench", &["-i", "-q", "-s", &scale.to_string(), &compute.connstr])?;
    Ok(())
}

impl Load {
    /// Starts `clients` clients for at most `seconds`; `round` marks its rows.
    pub fn start(
        whole: &Whole,
        compute: &Compute,
        scale: u32,
        clients: u32,
        seconds: u32,
        round: u32,
    ) -> Result<Load> {
        // Of its own: another load may start while this one reads it.
        let script = whole.scratch().join(format!("tpcb-{round}.pgbench"));
        std::fs::write(&script, SCRIPT)?;
        let log_prefix = whole.scratch().join(format!("round-{round}"));
        let mut pgbench: Command = whole.program("pgbench");
        pgbench.args(["-n", "-M", "prepared", "-j", "1", "-l", "-D", "n=0"]);
        pgbench.arg("-s").arg(scale.to_string()).arg("-D").arg(format!("round={round}"));
        pgbench.arg("-c").arg(clients.to_string()).arg("-T").arg(seconds.to_string());
        pgbench.arg("--log-prefix").arg(&log_prefix).arg("-f").arg(&script).arg(&compute.connstr);
        let errors = std::fs::File::create(whole.scratch().join(format!("round-{round}.err")))?;
        pgbench.stdout(errors.try_clone()?).stderr(errors);
        Ok(Load { child: pgbench.spawn().context("cannot start pgbench")?, round, log_prefix })
    }

    /// Waits for its end; an end by error is fine when the server was killed under it. Says whether it was one.
    pub fn finish(mut self) -> Result<(Acknowledged, bool)> {
        let status = self.child.wait()?;
        let log = PathBuf::from(format!("{}.{}", self.log_prefix.display(), self.child.id()));
        // pgbench makes its log when its first client has connected: one that was struck before has acknowledged nothing.
        if !status.success() && !log.exists() {
            return Ok((Acknowledged { round: self.round, ..Acknowledged::default() }, false));
        }
        Ok((acknowledged(self.round, &log)?, status.success()))
    }

    /// Its time is up: every client comes to the end of its transaction.
    pub fn end(&self) -> Result<()> {
        time_is_up(&self.child)
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends a pgbench that runs for a time (`-T`) now, in the way in which it ends then: its clock is a SIGALRM (`setalarm` of
/// `src/bin/pgbench/pgbench.c`).
pub fn time_is_up(pgbench: &Child) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(pgbench.id())?), Signal::SIGALRM).context("pgbench is not there")
}

/// A line of pgbench's log: client, number of its transaction from 0, and times.
fn acknowledged(round: u32, log: &Path) -> Result<Acknowledged> {
    let text = std::fs::read_to_string(log).with_context(|| format!("pgbench wrote no {}", log.display()))?;
    let mut acknowledged = Acknowledged { round, ..Acknowledged::default() };
    for line in text.lines() {
        let mut fields = line.split(' ');
        let client = fields.next().context("a client number")?.parse::<u32>()?;
        *acknowledged.by_client.entry(client).or_default() += 1;
    }
    Ok(acknowledged)
}

/// The four sums must agree, and every acknowledged transaction must be in the history exactly once.
pub fn check(whole: &Whole, compute: &Compute, rounds: &[Acknowledged]) -> Result<()> {
    let sums = whole.sql(
        &compute.connstr,
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
                (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)",
    )?;
    let parts: Vec<&str> = sums.split('|').collect();
    ensure!(parts.iter().all(|part| *part == parts[0]), "the sums differ: {sums}");
    let twice = whole.sql(
        &compute.connstr,
        "SELECT filler, count(*) FROM pgbench_history GROUP BY filler HAVING count(*) > 1 LIMIT 5",
    )?;
    ensure!(twice.is_empty(), "transactions that are there twice: {twice}");
    for round in rounds {
        for (client, count) in &round.by_client {
            let found = whole.sql(
                &compute.connstr,
                &format!(
                    "SELECT count(*) FROM generate_series(1, {count}) n
                     JOIN pgbench_history ON filler = concat_ws(' ', {}, {client}, n)::char(22)",
                    round.round
                ),
            )?;
            ensure!(
                found == count.to_string(),
                "round {}: client {client} was told of {count} commits, {found} of them are there",
                round.round
            );
        }
    }
    Ok(())
}
