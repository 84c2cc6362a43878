//! `/metrics` (Prometheus text) and `/status` (JSON) of a daemon. Status is computed when asked for, so it is never older
//! than the question; it always carries name, node, version, build, state and addresses beside what the daemon adds.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};

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

#[derive(Clone)]
struct Pages {
    facts: Facts,
    metrics: PrometheusHandle,
    status: StatusFn,
}

/// Serves both pages on `listener` for ever. `status` gives an object whose keys are added to the facts.
pub async fn serve(
    listener: TcpListener,
    facts: Facts,
    metrics: PrometheusHandle,
    status: impl Fn() -> Value + Send + Sync + 'static,
) -> std::io::Result<()> {
    let pages = Pages { facts, metrics, status: Arc::new(status) };
    let app = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/status", get(status_page))
        .with_state(pages);
    let listener = tokio::net::TcpListener::from_std(listener)?;
    axum::serve(listener, app).await
}

async fn metrics_page(State(pages): State<Pages>) -> String {
    pages.metrics.run_upkeep();
    pages.metrics.render()
}

async fn status_page(State(pages): State<Pages>) -> Json<Value> {
    let facts = &pages.facts;
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
    if let (Value::Object(all), Value::Object(own)) = (&mut status, (pages.status)()) {
        all.extend(own);
    }
    Json(status)
}
