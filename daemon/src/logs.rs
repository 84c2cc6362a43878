//! Logs (key=value lines on stderr) and the process's metrics recorder. Both are global to the process and set once.

use std::io::IsTerminal;

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Buckets of every metric whose name ends in `_seconds`: 50 µs to 10 s, because a commit is about one fdatasync.
const SECONDS_BUCKETS: &[f64] = &[
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// Sends what `filter` lets pass to stderr.
pub fn set_up(filter: &str) -> anyhow::Result<()> {
    let parsed =
        EnvFilter::try_new(filter).map_err(|e| anyhow::anyhow!("setting 'log' cannot be '{filter}': {e}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .map_err(|e| anyhow::anyhow!("cannot set up logs: {e}"))
}

/// Installs the recorder behind the `metrics` macros and counts this process's start.
pub fn set_up_metrics(name: &'static str) -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)
        .context("cannot set up metrics")?
        .install_recorder()
        .context("cannot set up metrics")?;
    let labels = [("name", name), ("version", crate::build::VERSION), ("build", crate::build::BUILD)];
    metrics::gauge!("strata_build_info", &labels).set(1.0);
    Ok(handle)
}
