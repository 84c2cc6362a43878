//! Computes: registered by name, each a `strata-compute` supervisor with one Postgres. The supervisor says how far it is in a
//! state file; this module starts it, reads that file and ends it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use strata_common::TenantTimelineId;
use strata_compute::spec::{Endpoint, Phase, Spec, State};

use crate::args::{ComputeAttach, ComputeStart};
use crate::home::{Home, Locked, write_whole};
use crate::init::compute_port;
use crate::output::{Output, table, to_stderr};
use crate::process::{self, Running};
use crate::registry::{self, Compute, Registry};
use crate::users::RunAs;
use crate::{postgres, settings};

/// Start-up waits for safekeepers and the pageserver; when they are away it says so and goes on waiting up to this.
const START_MAX: Duration = Duration::from_secs(120);
/// The supervisor bounds its own stop; this is a little longer.
const STOP_MAX: Duration = Duration::from_secs(90);
/// How long a fenced compute may take to notice.
const FENCE_MAX: Duration = Duration::from_secs(10);
/// How long the port of a compute may still be held by a Postgres that was just killed.
const PORT_MAX: Duration = Duration::from_secs(2);

fn process_name(name: &str) -> String {
    format!("compute-{name}")
}

fn state_path(home: &Home, name: &str) -> std::path::PathBuf {
    home.root.join("run").join(format!("compute-{name}.state.json"))
}

/// The supervisor of a compute, if it is alive.
pub fn alive(home: &Home, name: &str) -> Option<Running> {
    Running::alive(&home.pid_path(&process_name(name)))
}

/// Where a supervisor is told what to run.
pub fn spec_path(home: &Home, name: &str) -> PathBuf {
    home.root.join("run").join(format!("compute-{name}.spec.json"))
}

/// What the supervisor of a live compute says of itself.
pub fn live_phase(home: &Home, name: &str) -> Option<Phase> {
    alive(home, name)?;
    Some(state(home, name).map_or(Phase::Starting, |state| state.phase))
}

fn state(home: &Home, name: &str) -> Option<State> {
    serde_json::from_str(&std::fs::read_to_string(state_path(home, name)).ok()?).ok()
}

/// Names of live computes of a branch.
pub fn alive_on(home: &Home, registry: &Registry, tenant: &str, branch: &str) -> Vec<String> {
    let on_branch = registry.computes.iter().filter(|(_, c)| c.tenant == tenant && c.branch == branch);
    on_branch.map(|(name, _)| name.clone()).filter(|name| alive(home, name).is_some()).collect()
}

pub async fn start(home: &Home, tenant: &str, options: &ComputeStart) -> anyhow::Result<Output> {
    registry::check_name("compute", &options.name)?;
    let settings = settings::parse(&options.settings)?;
    let mut locked = home.lock()?;
    let registry = &locked.registry;
    registry.branch(tenant, &options.branch)?;
    if alive(home, &options.name).is_some() {
        bail!("compute '{}' runs already: 'strata compute show {0}' shows it", options.name);
    }
    let rivals = alive_on(home, registry, tenant, &options.branch);
    if let (Some(rival), false) = (rivals.first(), options.takeover) {
        bail!(
            "compute '{rival}' is alive on branch '{}': stop it, or take over from it with --takeover",
            options.branch
        );
    }
    let programs = Programs::find()?;
    let former = registry.computes.get(&options.name).cloned();
    register(&mut locked, tenant, options, settings)?;
    let begin = std::time::Instant::now();
    wait_port_free(&options.name, locked.registry.compute(&options.name)?.port).await?;
    let log = home.log_path(&process_name(&options.name));
    let log_begin = std::fs::metadata(&log).map_or(0, |log| log.len());
    launch(home, &locked.registry, &options.name, &programs)?;
    // Other verbs may be what this one is waiting for, such as 'safekeeper start'.
    let registry = locked.release();
    let running = wait_running(home, &options.name, log_begin).await;
    if running.is_err() {
        forget_settings(home, &options.name, former)?;
    }
    for rival in &rivals {
        watch_fenced(home, rival).await;
    }
    let mut shown = running.map(|state| shown(&registry, &options.name, Some(&state), true))?;
    shown["timings_ms"]["total"] = json!(u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX));
    let text = format!(
        "compute {} on branch {}: {}",
        options.name,
        options.branch,
        shown["connstr"].as_str().unwrap_or("-")
    );
    Ok(Output::new(shown, text))
}

pub async fn attach(home: &Home, tenant: &str, options: &ComputeAttach) -> anyhow::Result<Output> {
    let options = ComputeStart {
        name: options.name.clone(),
        branch: options.branch.clone(),
        takeover: true,
        settings: options.settings.clone(),
    };
    start(home, tenant, &options).await
}

fn register(
    locked: &mut Locked,
    tenant: &str,
    options: &ComputeStart,
    settings: BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let known = locked.registry.computes.get(&options.name);
    if let Some(known) = known
        && known.tenant != tenant
    {
        bail!("compute '{}' belongs to tenant '{}': choose another name", options.name, known.tenant);
    }
    let port = match known {
        Some(known) => known.port,
        None => compute_port(&locked.registry)?,
    };
    let settings = if settings.is_empty() {
        known.map(|known| known.settings.clone()).unwrap_or_default()
    } else {
        settings
    };
    let compute = Compute { tenant: tenant.to_owned(), branch: options.branch.clone(), port, settings };
    locked.registry.computes.insert(options.name.clone(), compute);
    locked.save()
}

/// Settings of a start that failed are not kept: the next start goes without them.
fn forget_settings(home: &Home, name: &str, former: Option<Compute>) -> anyhow::Result<()> {
    let mut locked = home.lock()?;
    if let Some(known) = locked.registry.computes.get_mut(name) {
        known.settings = former.map(|former| former.settings).unwrap_or_default();
        locked.save()?;
    }
    Ok(())
}

/// A Postgres that was killed a moment ago may still hold its port; anybody else keeps it.
async fn wait_port_free(name: &str, port: u16) -> anyhow::Result<()> {
    let begin = std::time::Instant::now();
    while let Err(error) = std::net::TcpListener::bind(("127.0.0.1", port)) {
        if begin.elapsed() > PORT_MAX {
            bail!(
                "port {port} of compute '{name}' cannot be used ({error}): stop what listens there, or start a compute of another name"
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What a compute runs; looked for before anything is changed.
struct Programs {
    supervisor: PathBuf,
    tree: PathBuf,
}

impl Programs {
    fn find() -> anyhow::Result<Programs> {
        let tree = postgres::tree()?;
        postgres::version(&tree)?;
        Ok(Programs { supervisor: postgres::sibling("strata-compute")?, tree })
    }
}

/// Where nodes answer: all listen on loopback.
fn endpoint(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Where computes find their pages, `host:port`.
pub fn pageserver_address(registry: &Registry) -> anyhow::Result<String> {
    let node = registry.pageservers.first().context("there is no pageserver")?;
    Ok(endpoint(node.port))
}

fn launch(home: &Home, registry: &Registry, name: &str, programs: &Programs) -> anyhow::Result<()> {
    let compute = registry.compute(name)?;
    let tenant = registry.tenant(&compute.tenant)?;
    let branch = registry.branch(&compute.tenant, &compute.branch)?;
    let major = tenant.pg_version_num / 10_000;
    if major != postgres::MAJOR {
        bail!(
            "tenant '{}' is of Postgres {major}, and this is made for Postgres {}",
            compute.tenant,
            postgres::MAJOR
        );
    }
    let run_as = RunAs::current()?;
    run_as.own_folder(&home.compute_dir(name))?;
    let spec = Spec {
        name: name.to_owned(),
        branch: compute.branch.clone(),
        timeline: TenantTimelineId { tenant: tenant.id, timeline: branch.timeline_id },
        system_id: tenant.system_id,
        wal_segment_bytes: tenant.wal_segment_bytes,
        safekeepers: registry
            .safekeepers
            .iter()
            .map(|node| Endpoint { id: node.id, address: endpoint(node.port) })
            .collect(),
        pageserver: pageserver_address(registry)?,
        bin_dir: programs.tree.join("bin"),
        data_dir: home.compute_dir(name).join("pgdata"),
        host: "127.0.0.1".to_owned(),
        port: compute.port,
        uid: run_as.uid.as_raw(),
        gid: run_as.gid.as_raw(),
        settings: with_cache_size(&compute.settings),
        state_file: state_path(home, name),
    };
    let spec_path = spec_path(home, name);
    write_whole(&spec_path, serde_json::to_string_pretty(&spec).context("a spec is plain JSON")?.as_bytes())?;
    // What a former life said must not be taken for this one's word.
    let _ = std::fs::remove_file(state_path(home, name));
    let mut command = Command::new(&programs.supervisor);
    command.arg("--spec").arg(&spec_path);
    let what = format!("compute '{name}'");
    process::start(&what, command, &home.pid_path(&process_name(name)), &home.log_path(&process_name(name)))?;
    Ok(())
}

/// Names the size of the local file cache of computes for which none is given; without it the supervisor takes a share of the disk.
const CACHE_SIZE_VARIABLE: &str = "STRATA_LFC_MAX_SIZE";

fn with_cache_size(settings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut settings = settings.clone();
    if let Ok(size) = std::env::var(CACHE_SIZE_VARIABLE) {
        settings.entry("strata.lfc_max_size".to_owned()).or_insert(size);
    }
    settings
}

/// Follows the supervisor's state until Postgres accepts connections, showing what it waits for.
///
/// `log_begin`: length of the log before this start.
async fn wait_running(home: &Home, name: &str, log_begin: u64) -> anyhow::Result<State> {
    let log = home.log_path(&process_name(name));
    let begin = std::time::Instant::now();
    let mut said = String::new();
    loop {
        let process = alive(home, name);
        let state = state(home, name);
        if let Some(state) = &state {
            match state.phase {
                Phase::Running => return Ok(state.clone()),
                Phase::Failed | Phase::Fenced | Phase::Stopped => {
                    // It has said its last word and is about to end; the next start must not find it.
                    if let Some(process) = process {
                        process.wait_gone(FENCE_MAX).await;
                    }
                    let why = postgres_said(&log, log_begin).unwrap_or_else(|| state.problem.clone());
                    bail!("compute '{name}' did not start: {why}")
                }
                Phase::Starting | Phase::Stopping => {}
            }
            if !state.problem.is_empty() && state.problem != said {
                said = state.problem.clone();
                to_stderr(&said);
            }
        }
        if process.is_none() {
            bail!("compute '{name}' did not start: {}", process::last_words(&log));
        }
        if begin.elapsed() > START_MAX {
            kill_running(home, name).await;
            bail!("compute '{name}' did not start within {} s: {said}", START_MAX.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Why Postgres itself gave up, if it did: its FATAL, and for a bad setting the line that names it.
fn postgres_said(log: &Path, from: u64) -> Option<String> {
    let bytes = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(bytes.get(usize::try_from(from).ok()?..)?).into_owned();
    let said = |level: &str| -> Option<String> {
        let line = text.lines().rev().find_map(|line| line.split_once(level));
        line.map(|(_, words)| words.trim().to_owned())
    };
    let fatal = said("FATAL:  ")?;
    let is_setting = fatal.starts_with("configuration file");
    Some(if is_setting { said("LOG:  ").unwrap_or(fatal) } else { fatal })
}

/// A compute that was taken over ends by itself; this only waits for it, so that the verb's return means that it is gone.
async fn watch_fenced(home: &Home, name: &str) {
    let Some(process) = alive(home, name) else { return };
    if !process.wait_gone(FENCE_MAX).await {
        to_stderr(&format!("compute '{name}' is fenced (it can commit nothing) but has not ended yet"));
    }
}

pub async fn stop(home: &Home, name: &str) -> anyhow::Result<Output> {
    let registry = home.lock()?.release();
    registry.compute(name)?;
    if alive(home, name).is_none() {
        bail!("compute '{name}' does not run");
    }
    let state = stop_running(home, name).await?;
    let end = state.end_lsn.map_or_else(|| "not known".to_owned(), |lsn| lsn.to_string());
    let text = if state.problem.is_empty() {
        format!("compute {name} is stopped; its log ends at {end}")
    } else {
        format!(
            "compute {name} is stopped, but not cleanly ({}); nothing acknowledged is lost",
            state.problem
        )
    };
    Ok(Output::new(shown(&registry, name, Some(&state), false), text))
}

/// Asks the supervisor to stop its Postgres and waits until both are gone.
pub async fn stop_running(home: &Home, name: &str) -> anyhow::Result<State> {
    let Some(process) = alive(home, name) else { bail!("compute '{name}' does not run") };
    process.signal(Signal::SIGTERM);
    if !process.wait_gone(STOP_MAX).await {
        bail!(
            "compute '{name}' did not stop within {} s: see 'strata compute logs {name}'",
            STOP_MAX.as_secs()
        );
    }
    state(home, name).with_context(|| format!("compute '{name}' ended without a word on its state"))
}

/// SIGKILL to the process group of supervisor and postmaster.
pub async fn kill_running(home: &Home, name: &str) {
    let Some(process) = alive(home, name) else { return };
    // The group is the supervisor's own since its start; gone already is what was wanted.
    let _ = killpg(Pid::from_raw(process.pid), Signal::SIGKILL);
    process.wait_gone(STOP_MAX).await;
}

pub fn describe(home: &Home, registry: &Registry, name: &str) -> anyhow::Result<Value> {
    registry.compute(name)?;
    let process = alive(home, name);
    Ok(shown(registry, name, state(home, name).as_ref(), process.is_some()))
}

/// A compute as `compute show --json` prints it. A state file that outlived its process counts for its last words only.
fn shown(registry: &Registry, name: &str, state: Option<&State>, alive: bool) -> Value {
    let compute = registry.computes.get(name);
    let phase = match (state, alive) {
        (Some(state), true) => state.phase,
        (Some(state), false) if matches!(state.phase, Phase::Fenced | Phase::Failed) => state.phase,
        (None, true) => Phase::Starting,
        (_, false) => Phase::Stopped,
    };
    let live = state.filter(|_| alive);
    json!({
        "name": name,
        "tenant": compute.map(|compute| &compute.tenant),
        "branch": compute.map(|compute| &compute.branch),
        "state": phase,
        "host": "127.0.0.1",
        "port": compute.map(|compute| compute.port),
        "connstr": live.map(|state| &state.connstr),
        "start_lsn": state.and_then(|state| state.start_lsn),
        "end_lsn": state.and_then(|state| state.end_lsn),
        "term": state.and_then(|state| state.term),
        "pid": live.map(|state| state.pid),
        "pgid": live.map(|state| state.pgid),
        "pgdata": state.map(|state| &state.data_dir),
        "timings_ms": state.map(|state| &state.timings_ms).map_or_else(|| json!({}), |timings| json!(timings)),
        "problem": state.map_or("", |state| state.problem.as_str()),
        "metrics": live.and_then(|state| state.metrics.as_ref()),
    })
}

pub fn list(home: &Home) -> anyhow::Result<Output> {
    let registry = home.registry()?;
    let names = registry.computes.keys();
    let rows: Vec<Value> =
        names.map(|name| describe(home, &registry, name)).collect::<anyhow::Result<_>>()?;
    let plain =
        |value: &Value| value.as_str().map_or_else(|| value.to_string().replace("null", "-"), str::to_owned);
    let columns = ["name", "tenant", "branch", "state", "port", "pid", "start_lsn"];
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|c| plain(&row[*c])).collect()).collect();
    Ok(Output::new(json!(rows), table(&columns, &cells)))
}

pub fn show(home: &Home, name: &str) -> anyhow::Result<Output> {
    let shown = describe(home, &home.registry()?, name)?;
    let text = format!("{shown:#}");
    Ok(Output::new(shown, text))
}

pub fn logs(home: &Home, name: &str, lines: usize) -> anyhow::Result<Output> {
    home.registry()?.compute(name)?;
    let path = home.log_path(&process_name(name));
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let all: Vec<&str> = text.lines().collect();
    let last = &all[all.len().saturating_sub(lines)..];
    Ok(Output::new(json!({ "path": path.display().to_string(), "lines": last }), last.join("\n")))
}
