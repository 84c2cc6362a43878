//! `/metrics` (Prometheus text) and `/status` (JSON) of a compute, served by its supervisor: who scales or watches a compute asks here, and
//! gets an answer also when the server is down or stands still.
//!
//! The numbers come from the server, in a session for each question (`ask`); nothing is kept between two questions, so an idle compute
//! stays idle. `page` makes text of them.

mod ask;
mod page;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use strata_common::TenantTimelineId;
use strata_daemon::{build, http, net};
use tokio::sync::watch;

use self::ask::Asker;
use crate::spec::{Phase, Spec, State};

/// How long a question may wait for the server.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Nobody has to say who he is, so nobody elsewhere may ask.
const ADDRESS: &str = "127.0.0.1:0";

/// Serves both pages on a free port of loopback, for as long as the runtime lives.
pub fn serve(spec: &Spec, state: watch::Receiver<State>) -> anyhow::Result<SocketAddr> {
    let (listener, address) = net::bind("metrics", ADDRESS)?;
    let compute = Compute::of(spec);
    let pages = Arc::new(Pages { asker: Asker::new(&spec.host, spec.port), compute, address, state });
    let (for_metrics, for_status) = (pages.clone(), pages);
    let metrics = move || {
        let pages = for_metrics.clone();
        async move { pages.metrics().await }
    };
    let status = move || {
        let pages = for_status.clone();
        async move { pages.status() }
    };
    let serving = http::serve_pages(listener, http::BOUNDS, metrics, status);
    let serving = serving.context("cannot serve /metrics")?;
    tokio::spawn(async {
        if let Err(error) = serving.await {
            tracing::error!(%error, "/metrics and /status are gone");
        }
    });
    Ok(address)
}

/// Which compute this is. Nothing of its settings: those may hold secrets.
struct Compute {
    name: String,
    branch: String,
    timeline: TenantTimelineId,
    listen: String,
}

impl Compute {
    fn of(spec: &Spec) -> Compute {
        Compute {
            name: spec.name.clone(),
            branch: spec.branch.clone(),
            timeline: spec.timeline,
            listen: format!("{}:{}", spec.host, spec.port),
        }
    }
}

struct Pages {
    asker: Asker,
    compute: Compute,
    address: SocketAddr,
    state: watch::Receiver<State>,
}

impl Pages {
    async fn metrics(&self) -> String {
        let begin = Instant::now();
        let runs = self.state.borrow().phase == Phase::Running;
        let numbers = if runs { self.asker.answer(ANSWER_MAX).await } else { None };
        page::text(&self.compute, numbers.as_deref(), begin.elapsed())
    }

    fn status(&self) -> Value {
        let state = self.state.borrow();
        json!({
            "name": "strata-compute",
            "compute": self.compute.name,
            "branch": self.compute.branch,
            "tenant_id": self.compute.timeline.tenant,
            "timeline_id": self.compute.timeline.timeline,
            "version": build::VERSION,
            "build": build::BUILD,
            "pid": state.pid,
            "state": state.phase,
            "term": state.term,
            "start_lsn": state.start_lsn,
            "problem": state.problem,
            "listen": self.compute.listen,
            "http": self.address.to_string(),
        })
    }
}
