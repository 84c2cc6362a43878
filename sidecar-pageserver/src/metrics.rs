//! What `/metrics` tells of timelines and reads, by names that end in their units.
//!
//! Gauges of timelines are brought up to date once a second; those of a timeline that is gone say NaN from then on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Histogram, Label, gauge, histogram};
use strata_common::{Lsn, TenantTimelineId};
use tokio::sync::watch;

use crate::node::{EngineTimeline, Node};
use crate::timeline::Running;

const EVERY: Duration = Duration::from_secs(1);

/// How long page requests took, waits for log included; one handle for each thread that serves pages.
pub fn getpage_seconds() -> Histogram {
    histogram!("strata_pageserver_getpage_seconds")
}

/// Until `stop` turns true.
pub async fn run(node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    let mut known = BTreeSet::new();
    loop {
        refresh(&node, &mut known);
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn refresh(node: &Node, known: &mut BTreeSet<TenantTimelineId>) {
    let timelines = node.timelines();
    let now: BTreeSet<TenantTimelineId> = timelines.iter().map(|timeline| timeline.id).collect();
    for gone in known.difference(&now) {
        set(*gone, [f64::NAN; NAMES.len()]);
    }
    *known = now;
    for timeline in &timelines {
        refresh_timeline(timeline);
    }
    let count = |is: fn(&Running) -> bool| timelines.iter().filter(|t| is(&t.running())).count() as f64;
    for (state, number) in [
        ("active", count(|r| matches!(r, Running::Active))),
        ("parked", count(|r| matches!(r, Running::Parked(_)))),
        ("fenced", count(|r| matches!(r, Running::Fenced(_)))),
        ("broken", count(|r| matches!(r, Running::Broken(_)))),
        ("unattached", node.unattached().len() as f64),
    ] {
        gauge!("strata_pageserver_timelines", "state" => state).set(number);
    }
    gauge!("strata_pageserver_page_cache_bytes").set(node.page_cache_bytes() as f64);
}

/// Gauges of one timeline, in the order of `refresh_timeline`.
const NAMES: [&str; 9] = [
    "strata_pageserver_last_record_lsn_bytes",
    "strata_pageserver_disk_consistent_lsn_bytes",
    "strata_pageserver_remote_consistent_lsn_bytes",
    "strata_pageserver_ingest_lag_bytes",
    "strata_pageserver_delta_layers",
    "strata_pageserver_image_layers",
    "strata_pageserver_physical_bytes",
    "strata_pageserver_memory_bytes",
    "strata_pageserver_ingested_records",
];

fn refresh_timeline(timeline: &EngineTimeline) {
    let engine = timeline.store.status();
    let last_record = timeline.last_record();
    // Safekeepers tell how far they have committed with every piece of log and at least once a second.
    let lag = timeline.committed().checked_sub(last_record).unwrap_or(0);
    // Above 2^53 bytes of log a float is off by less than a page of it.
    let lsn = |lsn: Lsn| lsn.0 as f64;
    let image_layers = engine.layers.saturating_sub(engine.delta_layers);
    set(
        timeline.id,
        [
            lsn(last_record),
            lsn(engine.disk_consistent),
            lsn(engine.remote_consistent),
            lag as f64,
            engine.delta_layers as f64,
            image_layers as f64,
            engine.physical_bytes as f64,
            engine.memory_bytes as f64,
            timeline.counts().records as f64,
        ],
    );
}

fn set(id: TenantTimelineId, values: [f64; NAMES.len()]) {
    let labels = vec![
        Label::new("tenant_id", id.tenant.to_string()),
        Label::new("timeline_id", id.timeline.to_string()),
    ];
    for (name, value) in NAMES.into_iter().zip(values) {
        gauge!(name, labels.clone()).set(value);
    }
}
