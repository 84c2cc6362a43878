//! The shell that every daemon shares: settings, logs, `/metrics` and `/status`, the data folder's identity, ports, signals.
//!
//! A daemon declares its settings with [`daemon_config!`] and hands [`run`] a function; what comes back is the process's
//! exit code. Whatever prevents a start (a bad setting, a folder of another node, a taken port) is one sentence on
//! stderr and exit code 1, before the daemon's own code runs. This crate must not know what a daemon does.
#![forbid(unsafe_code)]

extern crate self as strata_daemon;

pub mod bounded;
pub mod build;
pub mod config;
pub mod http;
pub mod identity;
pub mod logs;
pub mod net;
pub mod signals;

use std::io::Write;
use std::net::TcpListener;
use std::process::ExitCode;

use metrics_exporter_prometheus::PrometheusHandle;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use crate::config::DaemonConfig;
use crate::http::{Facts, Health, Phase};
use crate::identity::{DataFolder, Identity};

/// For the code that [`daemon_config!`] makes.
pub mod reexport {
    pub use serde;
    pub use strata_common::{ClusterId, NodeId};
}

/// What a daemon is called.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Of the binary, `strata-safekeeper`.
    pub name: &'static str,
    /// Of the kind of node, `safekeeper`; goes into the data folder's marker.
    pub role: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
}

/// What the shell hands a daemon: everything that could be refused before it started is in here and ours.
#[derive(Debug)]
pub struct Shell {
    pub folder: DataFolder,
    /// Bound to `listen`, non-blocking.
    pub listener: TcpListener,
    pub facts: Facts,
    http_listener: TcpListener,
    metrics: PrometheusHandle,
}

impl Shell {
    /// Says on `/status` and in the log that the service answers (`Phase::Ready`), or that it is going.
    pub fn set_phase(&self, phase: Phase) {
        self.facts.health.set(phase);
        tracing::info!(state = self.facts.health.state(), listen = %self.facts.listen, http = %self.facts.http, "phase");
    }

    pub fn health(&self) -> Health {
        self.facts.health.clone()
    }

    /// Serves `/metrics` and `/status` on the current runtime for as long as that lives.
    ///
    /// Errors: the listener cannot be taken over.
    pub fn serve_http(&self, status: impl Fn() -> Value + Send + Sync + 'static) -> std::io::Result<()> {
        let listener = self.http_listener.try_clone()?;
        let serving = http::serve(listener, self.facts.clone(), self.metrics.clone(), status);
        tokio::spawn(async {
            if let Err(error) = serving.await {
                tracing::error!(%error, "/metrics and /status are gone");
            }
        });
        Ok(())
    }
}

/// The `main` of a daemon: reads settings, sets up logs, metrics, folder and ports, and calls `daemon`.
pub fn run<C: DaemonConfig>(
    program: Program,
    daemon: impl FnOnce(C, Shell) -> anyhow::Result<()>,
) -> ExitCode {
    let matches = config::command(program.name, program.about, build::describe(), C::FIELDS).get_matches();
    if matches.get_flag("print-config-schema") {
        let schema = config::schema(program.name, C::ENV_PREFIX, C::FIELDS);
        return match writeln!(std::io::stdout(), "{schema:#}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let outcome = config::load::<C>(&matches, |name| std::env::var(name).ok())
        .map_err(anyhow::Error::from)
        .and_then(|config| {
            let shell = prepare(program, &config.shared())?;
            daemon(config, shell)
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Stderr may be closed; the exit code still tells.
            let _ = writeln!(std::io::stderr(), "{}: {error:#}", program.name);
            ExitCode::FAILURE
        }
    }
}

/// Daemons keep a file open for each piece of data that they serve: as many as the system lets this process have.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(hard) => tracing::debug!(open_files_max = hard, "limit of open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}

fn prepare(program: Program, shared: &config::Shared) -> anyhow::Result<Shell> {
    logs::set_up(&shared.log)?;
    let identity = Identity::new(shared.cluster, program.role, shared.id);
    let folder = DataFolder::open(&shared.dir, &identity)?;
    let (listener, listen) = net::bind("listen", &shared.listen)?;
    let (http_listener, http) = net::bind("http", &shared.http)?;
    raise_open_files();
    let metrics = logs::set_up_metrics(program.name)?;
    let health = Health::default();
    let cluster = shared.cluster.to_string();
    let facts = Facts { name: program.name, node: shared.id.0, cluster, listen, http, health };
    tracing::info!(
        name = program.name, node = %shared.id, version = build::VERSION, build = build::BUILD,
        dir = %shared.dir.display(), fresh = folder.is_fresh, "starting"
    );
    Ok(Shell { folder, listener, facts, http_listener, metrics })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_open_files_as_the_system_allows() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(512), hard).expect("lower is allowed");
        raise_open_files();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("a limit"), (hard, hard));
    }
}
