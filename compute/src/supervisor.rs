//! The life of a compute: start, watch, start anew after a crash, stop.
//!
//! A start never trusts what a former one left on disk: the log's majority and the pageserver are asked each time (CP-4). When
//! Postgres ends by itself its pages are gone (trap S7), so the answer is always a whole new start in a new term, unless
//! another compute was elected meanwhile: then this one ends (SK-2, trap S2).
//!
//! The file that the spec was read from is looked at again and again: when it names another pageserver the server is told, and
//! a start asks there. No start is given up for it: an election whose outcome is not known would look like another's (trap S2).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use strata_common::{Lsn, Term};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::handoff::{self, Started};
use crate::pageserver::{self, Pageserver};
use crate::postmaster::Postmaster;
use crate::spec::{Phase, Spec};
use crate::state_file::StateFile;
use crate::{cache, data_dir, metrics, segments, tail};

/// What Postgres gets for a fast stop before it is stopped at once.
const STOP_MAX: Duration = Duration::from_secs(20);
/// What shipping the tail gets; without it nothing acknowledged is lost (trap S8).
const TAIL_MAX: Duration = Duration::from_secs(20);
/// How long a Postgres whose supervisor was killed may take to end.
const LEAVES_MAX: Duration = Duration::from_secs(5);
/// A Postgres that ran this long counts as well started: its crash begins a new series.
const WELL_STARTED: Duration = Duration::from_secs(60);
/// Crashes in a row after which the supervisor gives up.
const CRASHES_MAX: u32 = 5;

/// Runs the compute to its end. The state file says how it ended. `path`: where the spec was read.
pub async fn run(spec: Spec, path: &Path) -> anyhow::Result<()> {
    // Before anything is said or asked for: the state file and the term are that server's.
    data_dir::refuse_live(&spec.data_dir, LEAVES_MAX).await?;
    let mut state = StateFile::new(&spec);
    let mut stop = Stop::listen()?;
    match metrics::serve(&spec, state.watch()) {
        Ok(address) => state.set_metrics(address),
        // Nobody needs them to run.
        Err(error) => tracing::warn!("no metrics: {error:#}"),
    }
    let ended = life(spec, path, &mut state, &mut stop).await;
    match ended {
        Ok(End::Stopped { end_lsn, problem }) => {
            state.set_end(end_lsn);
            state.phase(Phase::Stopped, problem)
        }
        Ok(End::Fenced(why)) => {
            state.phase(Phase::Fenced, why.clone())?;
            anyhow::bail!("fenced: {why}")
        }
        Err(error) => {
            state.phase(Phase::Failed, format!("{error:#}"))?;
            Err(error)
        }
    }
}

enum End {
    /// `problem` is empty after a clean stop.
    Stopped {
        end_lsn: Option<Lsn>,
        problem: String,
    },
    Fenced(String),
}

enum Watched {
    StopAsked,
    Crashed,
    /// The pageserver is at this address now.
    Moved(String),
}

async fn life(mut spec: Spec, path: &Path, state: &mut StateFile, stop: &mut Stop) -> anyhow::Result<End> {
    let mut crashes = 0;
    let mut had = None;
    // Those of the last start that came to its end, and why the server runs with them again, if it does.
    let (mut proven, mut problem): (Option<BTreeMap<String, String>>, String) = (None, String::new());
    loop {
        state.begin_start()?;
        let started = tokio::select! {
            started = start(&mut spec, path, &mut had, state) => started,
            () = stop.asked() => return Ok(End::Stopped { end_lsn: None, problem: "it was stopped while it started".to_owned() }),
        };
        let (started, mut postmaster) = match started {
            Ok(both) => both,
            Err(error) => {
                if let Some(fence) = handoff::fenced(&error) {
                    return Ok(End::Fenced(fence));
                }
                // A reload takes some values with which no server starts, such as ssl without a certificate.
                let Some(settings) = proven.take().filter(|settings| *settings != spec.settings) else {
                    return Err(error);
                };
                problem = format!(
                    "with the settings that 'strata compute set' has changed it does not start ({error:#}): it runs with the former ones"
                );
                tracing::warn!("{problem}");
                spec.settings = settings;
                continue;
            }
        };
        proven = Some(spec.settings.clone());
        state.phase(Phase::Running, std::mem::take(&mut problem))?;
        tracing::info!(term = %started.term, start_lsn = %started.start_lsn, "running");
        let running_since = tokio::time::Instant::now();
        let watched = loop {
            match watch(&mut postmaster, &spec, path, stop).await? {
                Watched::Moved(address) => follow(&mut spec, address, &postmaster).await,
                other => break other,
            }
        };
        match watched {
            Watched::Moved(_) => unreachable!("followed above"),
            Watched::StopAsked => return end(&spec, state, &started, &mut postmaster).await,
            Watched::Crashed => {
                crashes = if running_since.elapsed() > WELL_STARTED { 1 } else { crashes + 1 };
                anyhow::ensure!(
                    crashes <= CRASHES_MAX,
                    "Postgres crashed {crashes} times in a row: see its log"
                );
                tracing::warn!("Postgres ended by itself; starting anew");
                tokio::time::sleep(Duration::from_millis(100 * u64::from(crashes - 1))).await;
                take_changed_settings(&mut spec, path);
            }
        }
    }
}

/// What was changed by a reload since the start is kept in the spec.
fn take_changed_settings(spec: &mut Spec, path: &Path) {
    match Spec::read(path) {
        Ok(now) => (spec.settings, spec.pageserver) = (now.settings, now.pageserver),
        Err(error) => tracing::warn!("settings that were changed since the start are lost: {error:#}"),
    }
}

/// Election, handoff record, base backup, Postgres. `had`: the last term that was this compute's.
async fn start(
    spec: &mut Spec,
    path: &Path,
    had: &mut Option<Term>,
    state: &mut StateFile,
) -> anyhow::Result<(Started, Postmaster)> {
    let mut pageserver = Pageserver::new(spec, path)?;
    let started = handoff::run(spec, *had, &mut pageserver, state).await?;
    *had = Some(started.term);
    state.set_term(started.term, started.start_lsn);
    let bytes = data_dir::lay_down(spec, &mut pageserver, started.start_lsn, state).await?;
    tracing::info!(bytes, "base backup laid down");
    state.step("base_backup");
    cache::make_folder(spec)?;
    let kept = cache::proven(spec, &started);
    segments::remove_abandoned(spec.uid);
    match Postmaster::start(spec, &started, kept).await {
        Ok(postmaster) => {
            state.step("postgres");
            Ok((started, postmaster))
        }
        // It stops itself when it hears that it was beaten, at its start too.
        Err(error) => Err(handoff::find_fence(spec, &started).await.map_or(error, Into::into)),
    }
}

async fn watch(
    postmaster: &mut Postmaster,
    spec: &Spec,
    path: &Path,
    stop: &mut Stop,
) -> anyhow::Result<Watched> {
    tokio::select! {
        ended = postmaster.wait() => ended.map(|_| Watched::Crashed),
        () = stop.asked() => Ok(Watched::StopAsked),
        address = pageserver::elsewhere(path, &spec.pageserver) => Ok(Watched::Moved(address)),
    }
}

/// The server asks there from now on, also for what it is waiting for.
async fn follow(spec: &mut Spec, address: String, postmaster: &Postmaster) {
    let former = std::mem::replace(&mut spec.pageserver, address);
    match data_dir::replace_pageserver_conf(spec) {
        Ok(()) => {
            tracing::info!("the pageserver is at {} now", spec.pageserver);
            postmaster.reload();
        }
        Err(error) => {
            tracing::warn!(
                "the server cannot be told that the pageserver is at {}, which is tried again: {error:#}",
                spec.pageserver
            );
            spec.pageserver = former;
            tokio::time::sleep(pageserver::LOOK).await;
        }
    }
}

/// A clean stop: Postgres first, then the tail of its log that no worker inside it could send (trap S8).
async fn end(
    spec: &Spec,
    state: &mut StateFile,
    started: &Started,
    postmaster: &mut Postmaster,
) -> anyhow::Result<End> {
    state.phase(Phase::Stopping, "")?;
    if !postmaster.stop(STOP_MAX).await? {
        if let Some(why) = handoff::find_fence(spec, started).await {
            return Ok(End::Fenced(why.to_string()));
        }
        return Ok(End::Stopped {
            end_lsn: None,
            problem: "Postgres did not stop cleanly in time".to_owned(),
        });
    }
    let shipped = tokio::time::timeout(TAIL_MAX, tail::ship(spec, started)).await;
    Ok(match shipped {
        Ok(Ok(end_lsn)) => {
            cache::seal(spec, started, end_lsn);
            End::Stopped { end_lsn: Some(end_lsn), problem: String::new() }
        }
        Ok(Err(error)) => match handoff::fenced(&error) {
            Some(why) => End::Fenced(why),
            None => End::Stopped {
                end_lsn: None,
                problem: format!("the end of the log was not shipped: {error:#}"),
            },
        },
        Err(_) => {
            let problem = format!("no majority took the end of the log within {} s", TAIL_MAX.as_secs());
            End::Stopped { end_lsn: None, problem }
        }
    })
}

/// SIGTERM or SIGINT: once asked, asked for good.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    came: bool,
}

impl Stop {
    fn listen() -> anyhow::Result<Stop> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Stop {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            came: false,
        })
    }

    async fn asked(&mut self) {
        if !self.came {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            self.came = true;
        }
    }
}
