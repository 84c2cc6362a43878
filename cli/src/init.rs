//! `strata init`: a new installation. Starts nothing that outlives it, but needs the daemons for a moment to make the tenant.

use std::net::TcpListener;

use anyhow::{Context, bail};
use serde_json::json;
use strata_common::{ClusterId, NodeId};

use crate::args::InitOptions;
use crate::home::Home;
use crate::node;
use crate::output::{Output, to_stderr};
use crate::registry::{FORMAT, Node, Registry};
use crate::users::RunAs;
use crate::{postgres, tenant};

pub async fn init(home: &Home, options: &InitOptions) -> anyhow::Result<Output> {
    refuse_used_folder(home)?;
    let run_as = RunAs::current()?;
    run_as.check_reachable(&home.root.join("computes"))?;
    postgres::version(&postgres::tree()?)?;
    let registry = new_registry(options)?;
    make_root(home)?;
    let Some(lock) = home.lock_new()? else {
        bail!("another 'strata init' is at work in {}: wait for it", home.root.display());
    };
    // It may have ended between our look and the lock.
    refuse_used_folder(home)?;
    clear_leftovers(home)?;
    make_folders(home)?;
    run_as.check_reachable(&home.root.join("computes"))?;
    let mut locked = home.locked_new(lock, registry);
    node::write_all_configs(home, &locked.registry)?;
    locked.save()?;
    if let Err(error) = first_tenant(home, &mut locked).await {
        // Nothing of a half-made installation stays: the next init starts from nothing.
        node::stop_all_daemons(home, &locked.registry).await;
        drop(locked);
        let _ = std::fs::remove_file(home.registry_path());
        return Err(error).context("the installation could not be made");
    }
    node::stop_all_daemons(home, &locked.registry).await;
    let root = home.root.display().to_string();
    Ok(Output::new(
        json!({ "dir": root, "cluster_id": locked.registry.cluster_id, "tenant": "default", "branch": "main" }),
        format!(
            "made {root}: tenant default, branch main; next: 'strata start', then 'strata compute start NAME'"
        ),
    ))
}

async fn first_tenant(home: &Home, locked: &mut crate::home::Locked) -> anyhow::Result<()> {
    to_stderr("starting safekeepers and pageserver to make the first tenant");
    node::start_all_daemons(home, locked).await?;
    tenant::make(locked, "default").await
}

fn refuse_used_folder(home: &Home) -> anyhow::Result<()> {
    if home.registry_path().exists() {
        bail!("{} already holds an installation: 'strata start' starts it", home.root.display());
    }
    if home.root.exists() && !home.root.is_dir() {
        bail!("{} is not a folder: choose another place", home.root.display());
    }
    let Ok(mut entries) = std::fs::read_dir(&home.root) else { return Ok(()) };
    // An init that was interrupted leaves no registry; only what it makes itself may lie there.
    let ours = ["lock", "config", "run", "objects", "computes"];
    let stranger = entries.find_map(|entry| {
        let name = entry.ok()?.file_name().to_string_lossy().into_owned();
        let known = ours.contains(&name.as_str())
            || name.starts_with("safekeeper-")
            || name.starts_with("pageserver-");
        (!known).then_some(name)
    });
    match stranger {
        Some(name) => {
            bail!("{} is not empty (it holds '{name}'): choose another folder", home.root.display())
        }
        None => Ok(()),
    }
}

fn clear_leftovers(home: &Home) -> anyhow::Result<()> {
    let entries =
        std::fs::read_dir(&home.root).with_context(|| format!("cannot list {}", home.root.display()))?;
    for entry in entries {
        let path = entry.context("cannot list a folder")?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path).with_context(|| format!("cannot clear {}", path.display()))?;
        }
    }
    Ok(())
}

fn make_root(home: &Home) -> anyhow::Result<()> {
    let describe = || format!("cannot make {}", home.root.display());
    std::fs::create_dir_all(&home.root).with_context(describe)?;
    // Postgres, another user when we are root, walks through to its own folder.
    std::fs::set_permissions(&home.root, std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .with_context(describe)
}

fn make_folders(home: &Home) -> anyhow::Result<()> {
    let describe = || format!("cannot make folders in {}", home.root.display());
    std::fs::create_dir_all(home.root.join("computes")).with_context(describe)?;
    std::fs::create_dir_all(home.object_store()).with_context(describe)
}

fn new_registry(options: &InitOptions) -> anyhow::Result<Registry> {
    let mut ports = Ports::from_base(options.port_base);
    let mut node = |id| -> anyhow::Result<Node> {
        Ok(Node { id: NodeId(id), port: ports.next()?, http_port: ports.next()? })
    };
    let safekeepers = (1..=options.safekeepers).map(&mut node).collect::<anyhow::Result<_>>()?;
    let pageservers = vec![node(1)?];
    Ok(Registry {
        format: FORMAT,
        cluster_id: ClusterId(tenant::random()),
        safekeepers,
        pageservers,
        port_base: options.port_base,
        pageserver_generation: 0,
        tenants: Default::default(),
        computes: Default::default(),
    })
}

/// Where free ports are looked for: below those that the system lends to outgoing connections (32768 and up on Linux), because any
/// of them may be lent out again before its daemon is started.
const FREE_PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Ports tried before it is said that none is free.
const FREE_PORT_TRIES: usize = 1_000;

/// A port for one more compute: nobody listens there now, and nothing of this installation does when it runs.
pub fn compute_port(registry: &Registry) -> anyhow::Result<u16> {
    let known: Vec<u16> = registry.ports().collect();
    let is_free = |port: &u16| !known.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let found = match registry.port_base {
        Some(base) => (base..=u16::MAX).find(is_free),
        None => (0..FREE_PORT_TRIES).map(|_| rand::random_range(FREE_PORTS)).find(is_free),
    };
    found.context("this machine gives no port to a compute")
}

/// Gives out ports of nodes: one after another from a base, or free ones. A port that is taken is refused.
struct Ports {
    next: Option<u16>,
    /// Held until all are given out, so that no port is given twice.
    held: Vec<TcpListener>,
}

impl Ports {
    fn from_base(base: Option<u16>) -> Ports {
        Ports { next: base, held: Vec::new() }
    }

    fn next(&mut self) -> anyhow::Result<u16> {
        let Some(wanted) = self.next else { return self.free() };
        let listener = TcpListener::bind(("127.0.0.1", wanted)).map_err(|error| {
            anyhow::anyhow!("port {wanted} cannot be used ({error}): choose another --port-base")
        })?;
        self.held.push(listener);
        let Some(next) = wanted.checked_add(1) else {
            bail!("there are not enough ports above it: choose a lower --port-base");
        };
        self.next = Some(next);
        Ok(wanted)
    }

    fn free(&mut self) -> anyhow::Result<u16> {
        for _ in 0..FREE_PORT_TRIES {
            let port = rand::random_range(FREE_PORTS);
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
                self.held.push(listener);
                return Ok(port);
            }
        }
        bail!(
            "no free port was found between {} and {}: choose with --port-base",
            FREE_PORTS.start,
            FREE_PORTS.end
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::registry::Compute;

    #[test]
    fn a_computes_port_is_free_and_nobody_elses_who_does_not_run() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let base = taken.local_addr().expect("an address").port();
        let compute = |port| Compute {
            tenant: "default".to_owned(),
            branch: "main".to_owned(),
            port,
            settings: BTreeMap::new(),
        };
        let node = Node { id: NodeId(1), port: base + 1, http_port: base + 2 };
        let mut registry = Registry {
            format: FORMAT,
            cluster_id: ClusterId([1; 16]),
            safekeepers: vec![node],
            pageservers: Vec::new(),
            port_base: Some(base),
            pageserver_generation: 0,
            tenants: BTreeMap::new(),
            computes: BTreeMap::from([("a".to_owned(), compute(base + 3))]),
        };
        assert!(compute_port(&registry).expect("there are free ports") > base + 3);
        registry.port_base = None;
        assert!(FREE_PORTS.contains(&compute_port(&registry).expect("there are free ports")));
    }
}
