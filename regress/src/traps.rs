//! How a trap of `docs/traps.md` is shown: one scenario that is sound with the guard and does harm without it.
//!
//! With `STRATA_TEST_GUARDS=off` (programs of `setup/build-guards-off.sh`) each scenario runs twice, first as it is, then without the
//! guard that it names, and then it must end in a [`Harm`]: what a user would suffer, not just any failure. Otherwise it runs once.

use std::fmt;
use std::process::Command;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use strata_common::Guard;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::evict::EVICT;
use crate::held_log::{Held, HeldLog};
use crate::postgres::BIN_VARIABLE;
use crate::psql_session::PsqlSession;
use crate::session::Session;
use crate::whole::{CACHE_SIZE_VARIABLE, Compute, Whole, sets};

/// A wrong answer, a lost page, an error that no user should meet.
#[derive(Debug)]
pub struct Harm(pub String);

impl fmt::Display for Harm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Harm {}

/// Ends the scenario with a [`Harm`] unless the condition holds.
#[macro_export]
macro_rules! sound {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(anyhow::Error::new($crate::traps::Harm(format!($($message)+))));
        }
    };
}

/// For what must work, and fails only if the trap has closed.
pub trait OrHarm<T> {
    fn or_harm(self) -> Result<T>;
}

impl<T> OrHarm<T> for Result<T> {
    fn or_harm(self) -> Result<T> {
        self.map_err(|error| {
            let harm = Harm(format!("{error:#}"));
            error.context(harm)
        })
    }
}

/// A whole Strata for a scenario, with a log that can be held back from the pageserver.
pub struct Ground {
    pub whole: Whole,
    log: HeldLog,
}

/// Who waits for a page, and what has been answered until now.
pub const WAITING: &str = "SELECT string_agg(pid::text, ',') FILTER (WHERE wait_event IN ('StrataPageRequest', 'StrataPrefetchedPage')),
    (SELECT sum(requests) FROM strata_page_requests) FROM pg_stat_activity";

/// Every request waits for a moment. One that waits for the held log waits on and on while nothing is answered.
#[derive(Default)]
pub struct Stuck {
    seen: String,
    times: u32,
}

impl Stuck {
    /// Takes what `WAITING` says; true if it has said the same for so long that nothing but the log can help.
    pub fn look(&mut self, waiting: &str) -> bool {
        // More than two seconds: longer than the pause before a lost connection is tried again.
        const ENOUGH: u32 = 100;
        self.times = if waiting == self.seen && !waiting.starts_with('|') { self.times + 1 } else { 0 };
        waiting.clone_into(&mut self.seen);
        self.times >= ENOUGH
    }
}

impl Ground {
    fn new(without: &[Guard]) -> Result<Ground> {
        let mut whole = Whole::initialised(&[])?;
        whole.take_away(without);
        // Scenarios are about pages that come from the pageserver; those of the cache set its size.
        whole.set_environment(CACHE_SIZE_VARIABLE, "0");
        let status = whole.json(&["status"])?;
        let rows = status["safekeepers"].as_array().context("status shows no safekeepers")?;
        let addresses = rows.iter().map(|row| {
            let id = row["id"].as_u64().context("a safekeeper has an id")?;
            let host = row["host"].as_str().context("a safekeeper has a host")?;
            Ok((id, format!("{host}:{}", row["port"])))
        });
        let log = HeldLog::before(&addresses.collect::<Result<Vec<_>>>()?)?;
        whole.set_environment("STRATA_PAGESERVER_SAFEKEEPERS", &log.safekeepers.join(","));
        whole.strata(&["start"])?;
        Ok(Ground { whole, log })
    }

    /// With all guards, for a test that shows no single one.
    pub fn whole() -> Result<Ground> {
        Ground::new(&[])
    }

    /// A compute without background noise, with `evict` in it. `settings` are `name=value`.
    pub fn compute(&self, settings: &[&str]) -> Result<Compute> {
        let compute = self.bare_compute("a", settings)?;
        self.whole.sql(&compute.connstr, &format!("CREATE EXTENSION IF NOT EXISTS strata; {EVICT}"))?;
        Ok(compute)
    }

    /// A compute as `compute` starts it, with nothing made in it.
    pub fn bare_compute(&self, name: &str, settings: &[&str]) -> Result<Compute> {
        let quiet = ["autovacuum=off", "bgwriter_lru_maxpages=0", "checkpoint_timeout=1d"];
        self.whole.start_compute(name, &sets(quiet.iter().chain(settings).copied()))
    }

    /// Builds `tests/traps/NAME.c` against the server's headers; the library's path, for `LANGUAGE C AS`.
    pub fn library(&self, name: &str) -> Result<String> {
        let bin = std::env::var(BIN_VARIABLE).with_context(|| format!("{BIN_VARIABLE} is not set"))?;
        let library = self.whole.scratch().join(format!("{name}.so"));
        let source = format!("{}/tests/traps/{name}.c", env!("CARGO_MANIFEST_DIR"));
        let compiler = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-I", &format!("{bin}/../include/server"), &source, "-o"])
            .arg(&library)
            .output()
            .context("cannot run cc")?;
        ensure!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
        Ok(library.display().to_string())
    }

    /// The compute is killed and its folder deleted; another one on the same branch.
    pub fn next_compute(&self, lost: &Compute, settings: &[&str]) -> Result<Compute> {
        self.whole.lose_compute(lost)?;
        self.bare_compute(&lost.name, settings)
    }

    /// SQL that has to work; rows as psql prints them, unaligned.
    pub fn sql(&self, compute: &Compute, sql: &str) -> Result<String> {
        self.whole.sql(&compute.connstr, sql)
    }

    /// The pageserver gets no more log until the answer is dropped. What it has then it goes on serving.
    pub fn hold_log(&self) -> Held<'_> {
        self.log.hold()
    }

    /// Runs SQL while the pageserver gets no log. If it comes to wait for a page, which only the held log can bring, the log goes on.
    pub fn sql_while_held(&self, compute: &Compute, held: Held<'_>, sql: &str) -> Result<String> {
        std::thread::scope(|scope| {
            let statement = scope.spawn(|| self.sql(compute, sql));
            let mut stuck = Stuck::default();
            crate::whole::wait_until("the statement has ended or waits", || {
                Ok(statement.is_finished() || stuck.look(&self.sql(compute, WAITING)?))
            })?;
            drop(held);
            statement.join().map_err(|_| anyhow::anyhow!("the statement's thread panicked"))?
        })
    }

    /// Does something while the pageserver gets no log. If anybody comes to wait for a page, the log goes on.
    pub fn do_while_held<T: Send>(
        &self,
        watcher: &mut Session,
        held: Held<'_>,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        std::thread::scope(|scope| {
            let work = scope.spawn(work);
            let mut stuck = Stuck::default();
            crate::whole::wait_until("the work is done or waits", || {
                Ok(work.is_finished() || stuck.look(&watcher.sql(WAITING)?))
            })?;
            drop(held);
            work.join().map_err(|_| anyhow::anyhow!("the thread of the work panicked"))?
        })
    }

    /// A client that stays.
    pub fn session<'a>(&'a self, compute: &'a Compute) -> Result<PsqlSession<'a>> {
        PsqlSession::open(&self.whole, compute)
    }

    /// Stops a process of the server, such as "walwriter", until the answer is dropped.
    pub fn stop_process(&self, compute: &Compute, kind: &str) -> Result<Stopped> {
        let pid =
            self.sql(compute, &format!("SELECT pid FROM pg_stat_activity WHERE backend_type = '{kind}'"))?;
        let pid = Pid::from_raw(pid.parse().with_context(|| format!("there is no {kind}"))?);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Stopped(pid))
    }

    /// Waits until the pageserver has all log up to now.
    pub fn caught_up(&self, compute: &Compute) -> Result<()> {
        let behind = "SELECT coalesce(bool_or(pageserver_received_lsn < flush_lsn), true) FROM strata_lsns()";
        crate::whole::wait_until("the pageserver has caught up", || Ok(self.sql(compute, behind)? == "f"))
    }
}

/// The process stands still as long as this lives.
pub struct Stopped(Pid);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Shows one trap.
pub fn show(guard: Guard, scenario: impl Fn(&Ground) -> Result<()>) -> Result<()> {
    scenario(&Ground::new(&[])?).with_context(|| format!("with the guard {} in place", guard.id()))?;
    if !guards_can_be_off() {
        return Ok(());
    }
    harmed(&[guard], ended(&Ground::new(&[guard])?, &scenario))
}

/// Shows a trap that two guards keep shut, each of which is enough.
pub fn show_double(guards: [Guard; 2], scenario: impl Fn(&Ground) -> Result<()>) -> Result<()> {
    scenario(&Ground::new(&[])?).context("with both guards in place")?;
    if !guards_can_be_off() {
        return Ok(());
    }
    for guard in guards {
        let alone = scenario(&Ground::new(&[guard])?);
        alone.with_context(|| format!("without {} only, which the other makes good", guard.id()))?;
    }
    harmed(&guards, ended(&Ground::new(&guards)?, &scenario))
}

/// Shows several traps by one scenario, of guards that only computes have: the daemons stay.
pub fn show_each(guards: &[Guard], scenario: impl Fn(&Ground) -> Result<()>) -> Result<()> {
    let mut ground = Ground::new(&[])?;
    scenario(&ground).context("with all guards in place")?;
    if !guards_can_be_off() {
        return Ok(());
    }
    for guard in guards {
        ground.whole.take_away(&[*guard]);
        harmed(&[*guard], ended(&ground, &scenario))?;
    }
    Ok(())
}

/// What comes of a scenario without a guard. Harm may be a statement that never ends, that even a cancel does not reach: then the
/// computes are killed, and the statement fails.
fn ended<T>(ground: &Ground, scenario: impl Fn(&Ground) -> Result<T>) -> Result<T> {
    const ENDLESS: Duration = Duration::from_secs(60);
    std::thread::scope(|scope| {
        let (end, ends) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            if ends.recv_timeout(ENDLESS) == Err(RecvTimeoutError::Timeout) {
                ground.whole.kill_computes();
            }
        });
        let outcome = scenario(ground);
        drop(end);
        outcome
    })
}

/// Whether a scenario ended as it has to without these guards.
fn harmed(guards: &[Guard], outcome: Result<()>) -> Result<()> {
    let ids = guards.iter().map(|guard| guard.id()).collect::<Vec<_>>().join(" and ");
    match outcome {
        Ok(()) => bail!("without {ids} nothing went wrong: the test shows nothing"),
        Err(error) => match error.downcast_ref::<Harm>() {
            Some(harm) => {
                let text = harm.0.lines().next().unwrap_or_default();
                eprintln!("without {ids}: {text}");
                Ok(())
            }
            None => Err(error.context(format!("without {ids} the scenario broke"))),
        },
    }
}

/// What came of the parts of a scenario.
pub type Outcomes<'a> = Vec<(&'a str, Result<()>)>;

/// Shows traps that one scenario of several parts meets: without their guards every part does harm. A part must not depend on the
/// guard of another.
pub fn show_all<'a>(guards: &[Guard], scenario: impl Fn(&Ground) -> Result<Outcomes<'a>>) -> Result<()> {
    for (part, outcome) in scenario(&Ground::new(&[])?).context("with all guards in place")? {
        outcome.with_context(|| format!("{part}, with all guards in place"))?;
    }
    if !guards_can_be_off() {
        return Ok(());
    }
    for (part, outcome) in ended(&Ground::new(guards)?, &scenario).context("without guards")? {
        harmed(guards, outcome).with_context(|| part.to_owned())?;
    }
    Ok(())
}

fn guards_can_be_off() -> bool {
    std::env::var("STRATA_TEST_GUARDS").is_ok_and(|guards| guards == "off")
}
