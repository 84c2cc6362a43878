//! A server that is measured, ours or the peer: how it is reached, and one pgbench run on it. The same programs drive both over
//! loopback TCP.

use anyhow::{Context, Result};
use strata_regress::postgres::{Installation, run as run_program};
use strata_regress::whole::{self, Compute, Whole};

use crate::interrupt;
use crate::report::Pair;

/// A server, by what drives it and how it is reached.
pub struct Server<'a> {
    pub clients: &'a Installation,
    pub connstr: String,
}

impl Server<'_> {
    /// SQL that has to work; rows unaligned.
    pub fn sql(&self, sql: &str) -> Result<String> {
        let mut psql = self.clients.command("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.connstr, "-c", sql]);
        Ok(run_program(&mut psql)?.trim_end().to_owned())
    }

    /// Makes pgbench's tables. A scale is about 15 MB.
    pub fn fill(&self, scale: u32) -> Result<()> {
        run_program(self.clients.command("pgbench").args([
            "-i",
            "-q",
            "-s",
            &scale.to_string(),
            &self.connstr,
        ]))?;
        self.sql("CREATE EXTENSION pg_prewarm")?;
        Ok(())
    }

    /// Reads all of pgbench's tables and indexes.
    pub fn read_all(&self) -> Result<()> {
        self.sql(
            "SELECT pg_prewarm(oid) FROM pg_class WHERE relname LIKE 'pgbench%' AND relkind IN ('r', 'i')",
        )?;
        Ok(())
    }

    /// One pgbench run of prepared statements; transactions a second without the time of connecting.
    pub fn tps(&self, arguments: &[&str], clients: u32, seconds: u32) -> Result<f64> {
        interrupt::check()?;
        let threads = clients.min(2).to_string();
        let (clients, seconds) = (clients.to_string(), seconds.to_string());
        let mut pgbench = self.clients.command("pgbench");
        pgbench.args(["-n", "-M", "prepared", "-c", &clients, "-j", &threads, "-T", &seconds]);
        let text = run_program(pgbench.args(arguments).arg(&self.connstr))?;
        let line = text.lines().find_map(|line| line.strip_prefix("tps = "));
        let number = line.and_then(|line| line.split(' ').next()).context("pgbench printed no tps")?;
        Ok(number.parse()?)
    }
}

/// A Strata with one compute of these settings; `more` are further arguments of its start.
pub fn start_ours(settings: &[(&str, &str)], more: &[&str]) -> Result<(Whole, Compute)> {
    let whole = Whole::started()?;
    let sets: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let sets = whole::sets(sets.iter().map(String::as_str));
    let compute = whole.start_compute("bench", &[&sets, more].concat())?;
    Ok((whole, compute))
}

/// Rounds in alternating order, so that what else the machine does harms both alike.
pub fn alternate(rounds: u32, mut measure: impl FnMut(Side) -> Result<f64>) -> Result<Vec<Pair>> {
    (0..rounds)
        .map(|round| {
            if round % 2 == 0 {
                let ours = measure(Side::Ours)?;
                Ok(Pair { ours, peer: measure(Side::Peer)? })
            } else {
                let peer = measure(Side::Peer)?;
                Ok(Pair { ours: measure(Side::Ours)?, peer })
            }
        })
        .collect()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Ours,
    Peer,
}
