//! `/metrics` (Prometheus text) and `/status` (JSON) of a daemon. Status is computed when asked for, so it is never older
//! than the question; it always carries name, node, version, build, state and addresses beside what the daemon adds.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};

use crate::bounded::{Bounded, Bounds};

/// Enough for all who watch one process; an answer takes seconds at most, even if it has to be waited for.
pub const BOUNDS: Bounds = Bounds { connections_max: 32, connection_max: Duration::from_secs(10) };

/// Where a daemon is in its life, as `/status` tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    Starting = 0,
    Ready = 1,
    Stopping = 2,
}

/// The daemon's phase, shared with its HTTP page.
#[derive(Clone, Default, Debug)]
pub struct Health(Arc<AtomicU8>);

impl Health {
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    pub fn state(&self) -> &'static str {
        match self.0.load(Ordering::Acquire) {
            0 => "starting",
            1 => "ready",
            _ => "stopping",
        }
    }
}

/// What every daemon's status begins with.
#[derive(Clone, Debug)]
pub struct Facts {
    pub name: &'static str,
    pub node: u64,
    pub cluster: String,
    pub listen: SocketAddr,
    pub http: SocketAddr,
    pub health: Health,
}

type StatusFn = Arc<dyn Fn() -> Value + Send + Sync>;

/// Serves both pages on `listener` for ever. `status` gives an object whose keys are added to the facts.
pub async fn serve(
    listener: TcpListener,
    facts: Facts,
    metrics: PrometheusHandle,
    status: impl Fn() -> Value + Send + Sync + 'static,
) -> std::io::Result<()> {
    let status: StatusFn = Arc::new(status);
    let metrics = move || {
        metrics.run_upkeep();
        std::future::ready(metrics.render())
    };
    serve_pages(listener, BOUNDS, metrics, move || std::future::ready(status_page(&facts, &status)))?.await
}

/// Serves what `metrics` and `status` say at the time on `listener`, for ever, one question on a connection.
///
/// Errors: the listener cannot be taken over.
pub fn serve_pages<M, S>(
    listener: TcpListener,
    bounds: Bounds,
    metrics: impl Fn() -> M + Clone + Send + Sync + 'static,
    status: impl Fn() -> S + Clone + Send + Sync + 'static,
) -> std::io::Result<impl Future<Output = std::io::Result<()>>>
where
    M: Future<Output = String> + Send + 'static,
    S: Future<Output = Value> + Send + 'static,
{
    let metrics_page = move || {
        let text = metrics();
        async { ([(CONTENT_TYPE, METRICS_TYPE), (CONNECTION, "close")], text.await) }
    };
    let status_page = move || {
        let status = status();
        async { ([(CONNECTION, "close")], Json(status.await)) }
    };
    let app = Router::new().route("/metrics", get(metrics_page)).route("/status", get(status_page));
    let listener = Bounded::new(tokio::net::TcpListener::from_std(listener)?, bounds);
    Ok(async move { axum::serve(listener, app).await })
}

/// Prometheus's text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

fn status_page(facts: &Facts, own: &StatusFn) -> Value {
    let mut status = json!({
        "name": facts.name,
        "id": facts.node,
        "cluster": facts.cluster,
        "version": crate::build::VERSION,
        "build": crate::build::BUILD,
        "pid": std::process::id(),
        "state": facts.health.state(),
        "listen": facts.listen.to_string(),
        "http": facts.http.to_string(),
    });
    if let (Value::Object(all), Value::Object(own)) = (&mut status, own()) {
        all.extend(own);
    }
    status
}
