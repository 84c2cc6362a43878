//! A whole Strata with one compute whose local file cache is looked at: few buffers, a cache of 64 MiB and a table of about 20 MB that has
//! been read once. Every page is compared with a local copy (`strata.compare_local`) unless a test says otherwise.

use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::whole::{Compute, Whole, processes_in, sets, wait_until};

pub const ROWS: i64 = 20_000;
pub const BLOCK: u64 = 8192;

pub struct CachedServer {
    pub whole: Whole,
    pub compute: Compute,
}

impl CachedServer {
    /// With further settings, `name=value`; the later one of a name counts.
    pub fn with(settings: &[&str]) -> Result<CachedServer> {
        CachedServer::on(Whole::started()?, settings)
    }

    pub fn on(whole: Whole, settings: &[&str]) -> Result<CachedServer> {
        let compute = start(&whole, settings)?;
        let server = CachedServer { whole, compute };
        server.sql(&format!(
            "CREATE EXTENSION strata; CREATE TABLE t AS SELECT n, repeat('x', 900) AS filler FROM generate_series(1, {ROWS}) n;
             CREATE INDEX ON t(n)"
        ))?;
        server.scan()?;
        Ok(server)
    }

    pub fn sql(&self, sql: &str) -> Result<String> {
        self.whole.sql(&self.compute.connstr, sql)
    }

    pub fn number(&self, sql: &str) -> Result<i64> {
        self.whole.number(&self.compute, sql)
    }

    pub fn stat(&self, column: &str) -> Result<i64> {
        self.number(&format!("SELECT {column} FROM strata_lfc_stats"))
    }

    pub fn asked(&self) -> Result<i64> {
        self.number("SELECT blocks FROM strata_page_requests WHERE kind = 'pages'")
    }

    pub fn scan(&self) -> Result<()> {
        let sums =
            self.sql("SET enable_indexscan = off; SELECT count(*), sum(n), sum(length(filler)) FROM t")?;
        ensure!(
            sums == format!("{ROWS}|{}|{}", ROWS * (ROWS + 1) / 2, ROWS * 900),
            "the table reads as {sums}"
        );
        Ok(())
    }

    /// A scan of the table, which has so many pages, takes them from the cache.
    pub fn scan_asks_for_nothing(&self, pages: i64) -> Result<()> {
        let (asked, misses) = (self.asked()?, self.stat("misses")?);
        self.scan()?;
        let (asked, misses) = (self.asked()? - asked, self.stat("misses")? - misses);
        ensure!(
            asked * 20 < pages && misses * 20 < pages,
            "a scan of {pages} prewarmed pages asked for {asked}, missed {misses}"
        );
        Ok(())
    }

    pub fn file(&self) -> PathBuf {
        self.compute.pgdata.with_file_name("cache").join("pages")
    }

    pub fn set_limit(&self, limit: &str) -> Result<()> {
        set_limit(&self.whole, &self.compute, limit)
    }

    /// The compute again, after a stop or a loss that the caller has seen to.
    pub fn start_again(&mut self, settings: &[&str]) -> Result<()> {
        self.compute = start(&self.whole, settings)?;
        Ok(())
    }

    /// kill -9 of supervisor and postmaster; the compute's folder stays. Waits until no process is left.
    pub fn kill(&self) -> Result<()> {
        killpg(Pid::from_raw(self.compute.pgid), Signal::SIGKILL)?;
        wait_until("its processes are gone", || Ok(processes_in(&self.compute.pgdata)?.is_empty()))
    }

    /// A clean stop and a start.
    pub fn restart(&mut self, settings: &[&str]) -> Result<()> {
        self.whole.stop_compute("a")?.context("a clean stop")?;
        self.start_again(settings)
    }

    /// What the compute's log has said until now.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.whole.dir().join("run/compute-a.log"))?)
    }

    /// Waits until the cache may have so many pages, and has no more.
    pub fn wait_limit(&self, pages: i64) -> Result<()> {
        wait_until("the cache has followed its limit", || {
            Ok(self.stat("limit_pages")? == pages && self.stat("used_pages")? <= pages)
        })
    }
}

fn start(whole: &Whole, settings: &[&str]) -> Result<Compute> {
    let fixed = [
        "shared_buffers=1MB",
        "autovacuum=off",
        "strata.lfc_max_size=64MB",
        "strata.compare_local=on",
        "strata.keeper_interval=500ms",
    ];
    whole.start_compute("a", &sets(fixed.iter().chain(settings).copied()))
}

/// Sets `strata.lfc_size_limit` of a running compute.
pub fn set_limit(whole: &Whole, compute: &Compute, limit: &str) -> Result<()> {
    whole.strata(&["compute", "set", &compute.name, &format!("strata.lfc_size_limit={limit}")])?;
    Ok(())
}

/// The cache has no page, and takes all that come. Its keeper must go round often.
pub fn empty_cache(whole: &Whole, compute: &Compute) -> Result<()> {
    set_limit(whole, compute, "0")?;
    let number = |sql: &str| whole.sql(&compute.connstr, sql);
    wait_until("the cache is empty", || {
        Ok(number("SELECT used_pages + limit_pages FROM strata_lfc_stats")? == "0")
    })?;
    set_limit(whole, compute, "-1")?;
    // Part after part of it follows.
    wait_until("the cache takes pages", || {
        Ok(number("SELECT limit_pages = max_pages FROM strata_lfc_stats")? == "t")
    })
}

/// Does something while the cache gets another limit between nothing and `most_mib` every second; how often it did.
pub fn while_resized<T>(
    whole: &Whole,
    compute: &Compute,
    most_mib: u64,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, u64)> {
    let (end, ends) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let resizer = scope.spawn(move || -> Result<u64> {
            let mut times = 0;
            while ends.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                times += 1;
                let mib = strata_common::hash::mix(times ^ u64::from(compute.port)) % (most_mib + 1);
                set_limit(whole, compute, &format!("{mib}MB"))?;
            }
            Ok(times)
        });
        let done = work();
        drop(end);
        let times = resizer.join().map_err(|_| anyhow::anyhow!("the resizer's thread panicked"))?;
        Ok((done?, times?))
    })
}
