//! A safekeeper: keeps the log of timelines, votes for proposers, hands committed log to learners.
//!
//! `core` decides (pure), `shell` performs. See `README.md`, `FORMAT.md` and `docs/consensus.md`.
#![forbid(unsafe_code)]

pub mod core;
pub mod shell;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use strata_daemon::http::Phase;
use strata_daemon::signals::StopSignals;
use strata_daemon::{Program, Shell};

use crate::shell::disk::RealDisk;
use crate::shell::node::Node;
use crate::shell::server::{self, Trimming};
use crate::shell::timeline::Surroundings;
use crate::shell::wal::store::NextSegment;

pub const PROGRAM: Program = Program {
    name: "strata-safekeeper",
    role: "safekeeper",
    about: "Keeps the log of timelines: votes for proposers, acknowledges what is on disk, streams what is committed",
};

strata_daemon::daemon_config! {
    /// Settings of a safekeeper.
    pub struct Config, env "STRATA_SAFEKEEPER" {
        /// Log kept below what every pageserver has in the object store, for copies that lag, bytes.
        wal_keep_bytes: u64, Integer = "67108864";
        /// How often log that nobody needs is looked for, milliseconds.
        trim_interval_ms: u64, Integer = "5000";
    }
}

/// The daemon: opens all timelines, serves them until SIGTERM or SIGINT, stops cleanly.
pub fn run(config: Config, shell: Shell) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.trim_interval_ms > 0,
        "setting 'trim_interval_ms' cannot be 0: give a positive number"
    );
    fail_stop();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut signals = StopSignals::listen().context("cannot listen for signals")?;
        let around = Surroundings {
            node: config.id,
            disk: Arc::new(RealDisk),
            runtime: tokio::runtime::Handle::current(),
            next_segment: NextSegment::Ahead,
        };
        let dir = shell.folder.path.clone();
        let node =
            Node::open(around, dir.clone()).with_context(|| format!("cannot open {}", dir.display()))?;
        let node = Arc::new(node);
        let for_status = node.clone();
        shell.serve_http(move || server::status_page(&for_status)).context("cannot serve /status")?;
        shell.set_phase(Phase::Ready);
        let trimming = Trimming {
            every: Duration::from_millis(config.trim_interval_ms),
            keep_bytes: config.wal_keep_bytes,
        };
        let listener = shell.listener.try_clone().context("cannot take the listener over")?;
        let stop = async {
            let signal = signals.wait().await;
            tracing::info!(signal, "stopping");
            shell.set_phase(Phase::Stopping);
            tokio::spawn(signals.exit_on_next());
        };
        server::serve(node, listener, trimming, stop).await
    })
}

/// A broken invariant ends the process: a restart looks at what is on disk, going on would trust memory that is wrong.
fn fail_stop() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}
