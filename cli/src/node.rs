//! Safekeepers and pageservers: their configuration, starting and stopping them, one or all.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use strata_common::NodeId;

use crate::home::{Home, Locked, write_whole};
use crate::output::{Output, to_stderr};
use crate::process::{self, Running};
use crate::registry::{Node, Registry};
use crate::{compute, copies, postgres, probe, settings};

/// A daemon opens its data before it listens; a big one takes its time.
const READY_MAX: Duration = Duration::from_secs(60);
/// What a daemon gets for a graceful end before it is killed: it loses nothing either way.
const STOP_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Safekeeper,
    Pageserver,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Safekeeper => "safekeeper",
            Kind::Pageserver => "pageserver",
        }
    }

    pub fn nodes(self, registry: &Registry) -> &[Node] {
        match self {
            Kind::Safekeeper => &registry.safekeepers,
            Kind::Pageserver => &registry.pageservers,
        }
    }

    pub fn name(self, id: NodeId) -> String {
        format!("{}-{id}", self.word())
    }

    fn find(self, registry: &Registry, id: u64) -> anyhow::Result<Node> {
        let nodes = self.nodes(registry);
        let node = nodes.iter().find(|node| node.id.0 == id).cloned();
        node.with_context(|| {
            format!("there is no {} {id}: they are numbered 1 to {}", self.word(), nodes.len())
        })
    }
}

/// The process of a node, if it is alive.
pub fn alive(home: &Home, kind: Kind, id: NodeId) -> Option<Running> {
    Running::alive(&home.pid_path(&kind.name(id)))
}

pub fn write_all_configs(home: &Home, registry: &Registry) -> anyhow::Result<()> {
    for kind in [Kind::Safekeeper, Kind::Pageserver] {
        for node in kind.nodes(registry) {
            write_config(home, registry, kind, node)?;
        }
    }
    Ok(())
}

fn write_config(home: &Home, registry: &Registry, kind: Kind, node: &Node) -> anyhow::Result<()> {
    let name = kind.name(node.id);
    let mut config = toml::Table::new();
    let mut set = |key: &str, value: toml::Value| config.insert(key.to_owned(), value);
    set("id", toml::Value::Integer(i64::try_from(node.id.0).context("a small number")?));
    set("cluster", registry.cluster_id.to_string().into());
    set("listen", format!("127.0.0.1:{}", node.port).into());
    set("http", format!("127.0.0.1:{}", node.http_port).into());
    set("dir", home.node_dir(&name).display().to_string().into());
    if kind == Kind::Pageserver {
        let safekeepers =
            registry.safekeepers.iter().map(|s| toml::Value::from(format!("127.0.0.1:{}", s.port)));
        set("safekeepers", toml::Value::Array(safekeepers.collect()));
        set("object_store", home.object_store().display().to_string().into());
        set("generation", toml::Value::Integer(i64::from(registry.pageserver_generation)));
    }
    let text = toml::to_string(&config).context("a configuration is plain TOML")?;
    write_whole(&home.config_path(&name), text.as_bytes())
}

/// Starts one daemon and waits until it answers. One that is alive is left alone: false.
async fn start_daemon(home: &Home, locked: &mut Locked, kind: Kind, node: &Node) -> anyhow::Result<bool> {
    if alive(home, kind, node.id).is_some() {
        return Ok(false);
    }
    let name = kind.name(node.id);
    if kind == Kind::Pageserver {
        // Persisted before use: no two lives of the pageserver share a generation (PS-2).
        locked.registry.pageserver_generation += 1;
        locked.save()?;
    }
    write_config(home, &locked.registry, kind, node)?;
    let mut command = Command::new(postgres::sibling(&format!("strata-{}", kind.word()))?);
    command.arg("--config").arg(home.config_path(&name));
    let log = home.log_path(&name);
    let what = format!("{} {}", kind.word(), node.id);
    let running = process::start(&what, command, &home.pid_path(&name), &log)?;
    let port = node.http_port;
    let ready = async || probe::is_ready(port, running).await.then_some(());
    process::wait_ready(&what, running, &log, READY_MAX, ready).await?;
    match kind {
        Kind::Safekeeper => copies::create_missing(locked, node).await?,
        Kind::Pageserver => tell_computes(home, &locked.registry)?,
    }
    Ok(true)
}

pub async fn start_all_daemons(home: &Home, locked: &mut Locked) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for kind in [Kind::Safekeeper, Kind::Pageserver] {
        for node in kind.nodes(&locked.registry).to_vec() {
            // One that cannot start does not keep the others away: a majority serves, and the pageserver answers reads.
            if let Err(error) = start_daemon(home, locked, kind, &node).await {
                problems.push(format!("{error:#}"));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("; ")) }
}

/// Pageservers first, so that they report their last progress to safekeepers that are still there.
pub async fn stop_all_daemons(home: &Home, registry: &Registry) {
    for kind in [Kind::Pageserver, Kind::Safekeeper] {
        for node in kind.nodes(registry) {
            if let Some(running) = alive(home, kind, node.id) {
                end(running).await;
            }
        }
    }
}

/// SIGTERM, then SIGKILL when it takes too long.
async fn end(running: Running) {
    running.signal(Signal::SIGTERM);
    if !running.wait_gone(STOP_MAX).await {
        running.signal(Signal::SIGKILL);
        running.wait_gone(STOP_MAX).await;
    }
}

pub async fn start_all(home: &Home) -> anyhow::Result<Output> {
    let mut locked = home.lock()?;
    to_stderr("starting safekeepers and pageserver");
    start_all_daemons(home, &mut locked).await?;
    let nodes = listing(home, &locked.registry).await;
    Ok(Output::new(nodes, "safekeepers and pageserver are ready; next: 'strata compute start NAME'"))
}

pub async fn stop_all(home: &Home) -> anyhow::Result<Output> {
    let locked = home.lock()?;
    let mut stopped = Vec::new();
    for name in locked.registry.computes.keys() {
        if compute::alive(home, name).is_some() {
            to_stderr(&format!("stopping compute {name}"));
            // One that cannot stop cleanly is killed: nothing acknowledged is lost, and the others still get their turn.
            if let Err(error) = compute::stop_running(home, name).await {
                to_stderr(&format!("compute {name}: {error:#}"));
                compute::kill_running(home, name).await;
            }
            stopped.push(name.clone());
        }
    }
    to_stderr("stopping pageserver and safekeepers");
    stop_all_daemons(home, &locked.registry).await;
    Ok(Output::new(json!({ "stopped_computes": stopped }), "all processes are gone"))
}

pub async fn start_one(home: &Home, kind: Kind, id: u64) -> anyhow::Result<Output> {
    let mut locked = home.lock()?;
    let node = kind.find(&locked.registry, id)?;
    if !start_daemon(home, &mut locked, kind, &node).await? {
        bail!("{} {id} runs already", kind.word());
    }
    Ok(Output::new(describe(home, kind, &node).await, format!("{} {id} is ready", kind.word())))
}

/// Starts a pageserver at another port, where computes find it from now on.
pub async fn start_pageserver_at(home: &Home, id: u64, port: u16) -> anyhow::Result<Output> {
    let kind = Kind::Pageserver;
    let mut locked = home.lock()?;
    let former = kind.find(&locked.registry, id)?;
    if alive(home, kind, former.id).is_some() {
        bail!("pageserver {id} runs already: 'strata pageserver stop {id}' first");
    }
    let node = Node { port, ..former.clone() };
    if port != former.port && locked.registry.ports().any(|taken| taken == port) {
        bail!("port {port} is another process's of this installation: name a free one");
    }
    replace(&mut locked, &node);
    if let Err(error) = start_daemon(home, &mut locked, kind, &node).await {
        // It may still be on its way there.
        if let Some(running) = alive(home, kind, node.id) {
            end(running).await;
        }
        replace(&mut locked, &former);
        locked.save()?;
        return Err(error);
    }
    Ok(Output::new(describe(home, kind, &node).await, format!("pageserver {id} is ready at port {port}")))
}

fn replace(locked: &mut Locked, node: &Node) {
    let nodes = locked.registry.pageservers.iter_mut();
    nodes.filter(|known| known.id == node.id).for_each(|known| known.clone_from(node));
}

/// Computes that live ask the pageserver where the registry has it.
fn tell_computes(home: &Home, registry: &Registry) -> anyhow::Result<()> {
    let address = compute::pageserver_address(registry)?;
    let live = registry.computes.keys().filter(|name| compute::alive(home, name).is_some());
    let told = live.map(|name| {
        settings::move_pageserver(home, name, &address)
            .with_context(|| format!("compute '{name}' was not told where the pageserver is"))
    });
    let problems: Vec<String> =
        told.filter_map(|told| told.err()).map(|error| format!("{error:#}")).collect();
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("; ")) }
}

pub async fn stop_one(home: &Home, kind: Kind, id: u64) -> anyhow::Result<Output> {
    let locked = home.lock()?;
    let node = kind.find(&locked.registry, id)?;
    let Some(running) = alive(home, kind, node.id) else { bail!("{} {id} does not run", kind.word()) };
    end(running).await;
    Ok(Output::new(describe(home, kind, &node).await, format!("{} {id} is stopped", kind.word())))
}

/// A node as `status --json` shows it.
pub async fn describe(home: &Home, kind: Kind, node: &Node) -> Value {
    let running = alive(home, kind, node.id);
    let problem = if running.is_some() { probe::problem(node.http_port).await } else { String::new() };
    json!({
        "id": node.id,
        "pid": running.map(|process| process.pid),
        "dir": home.node_dir(&kind.name(node.id)).display().to_string(),
        "host": "127.0.0.1",
        "port": node.port,
        "http_port": node.http_port,
        "state": if running.is_some() { "running" } else { "stopped" },
        "problem": problem,
    })
}

/// All nodes of a kind, as `status --json` shows them.
pub async fn describe_all(home: &Home, registry: &Registry, kind: Kind) -> Vec<Value> {
    let mut rows = Vec::new();
    for node in kind.nodes(registry) {
        rows.push(describe(home, kind, node).await);
    }
    rows
}

async fn listing(home: &Home, registry: &Registry) -> Value {
    json!({
        "safekeepers": describe_all(home, registry, Kind::Safekeeper).await,
        "pageservers": describe_all(home, registry, Kind::Pageserver).await,
    })
}
