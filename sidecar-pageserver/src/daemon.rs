//! The process: runtimes, start, status, metrics, clean stop.
//!
//! Two kinds of runtimes: one that storage, ingest and management live on, and a current-thread one for each page thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use strata_common::Generation;
use strata_daemon::http::Phase;
use strata_daemon::signals::StopSignals;
use strata_daemon::{Program, Shell};
use strata_objstore::LocalStore;
use tokio::sync::watch;

use crate::config::Config;
use crate::grpc;
use crate::materialize::PageImages;
use crate::metrics;
use crate::node::{Node, NodeParts};
use crate::storage::{FlushPolicy, Storage, StorageConfig};
use crate::view::MAP_PAGES_ZEROED;
use crate::wal::source::Safekeepers;

pub const PROGRAM: Program = Program {
    name: "strata-pageserver",
    role: "pageserver",
    about: "Keeps pages as of any LSN, fed by safekeepers, stored in an object store",
};

/// Threads for ingest, storage and management.
const NODE_THREADS: usize = 2;

/// A clean stop writes memory to the object store for at most this long; what is left is read from the log again.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(5);

/// Runs until a signal comes.
///
/// Errors: the object store or the safekeepers' addresses are unusable, or a thread cannot be made.
pub fn run(config: Config, shell: Shell) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(NODE_THREADS).enable_all().build()?;
    runtime.block_on(serve(config, shell))
}

fn storage_config(config: &Config) -> StorageConfig {
    let layer_bytes = config.layer_mib << 20;
    StorageConfig {
        flush: FlushPolicy {
            layer_bytes_target: layer_bytes,
            open_age_ms_max: config.layer_age_s_max * 1000,
            memory_bytes_max: layer_bytes * 3,
        },
        block_cache_bytes_max: config.block_cache_mib << 20,
        materializer: Some(Arc::new(PageImages)),
        ..StorageConfig::new(config.dir.join("layers"))
    }
}

async fn serve(config: Config, shell: Shell) -> anyhow::Result<()> {
    let mut signals = StopSignals::listen()?;
    let store = LocalStore::open(&config.object_store)
        .await
        .with_context(|| format!("object store {}", config.object_store))?;
    let storage =
        Storage::open(storage_config(&config), Arc::new(store), Generation(config.generation)).await?;
    let node = Node::start(NodeParts {
        storage,
        spool: config.dir.join("spool"),
        id: config.id.0,
        safekeepers: Safekeepers::new(&config.safekeepers)?,
        page_cache_bytes: config.page_cache_mib << 20,
        runtime: tokio::runtime::Handle::current(),
    })
    .await?;
    let (stop, stopping) = watch::channel(false);
    let threads = match config.page_threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let serving = grpc::serve(&node, shell.listener.try_clone()?, threads, stopping.clone())?;
    tokio::spawn(metrics::run(node.clone(), stopping));
    let reported = node.clone();
    shell.serve_http(move || status(&reported))?;
    shell.set_phase(Phase::Ready);
    let signal = signals.wait().await;
    tracing::info!(signal, "stopping");
    shell.set_phase(Phase::Stopping);
    tokio::spawn(signals.exit_on_next());
    stop.send_replace(true);
    node.shut_down(FLUSH_WAIT_MAX).await;
    tokio::task::spawn_blocking(move || serving.join()).await?;
    Ok(())
}

/// The timelines with what `/status` tells of each.
fn status(node: &Node) -> Value {
    let timelines: Vec<Value> = node
        .timelines()
        .iter()
        .map(|timeline| {
            let (running, engine, counts) = (timeline.running(), timeline.store.status(), timeline.counts());
            json!({
                "tenant_id": timeline.id.tenant,
                "timeline_id": timeline.id.timeline,
                "state": running.name(),
                "problem": timeline.problem().or(engine.problem),
                "last_record_lsn": timeline.last_record(),
                "disk_consistent_lsn": engine.disk_consistent,
                "remote_consistent_lsn": engine.remote_consistent,
                "layers": engine.layers,
                "physical_bytes": engine.physical_bytes,
                "resident_bytes": engine.resident_bytes,
                "memory_bytes": engine.memory_bytes,
                "records": counts.records,
                "values": counts.values,
                "vm_clears_skipped": counts.vm_clears_skipped,
                "references_beyond_end": counts.references_beyond_end,
                "images_of_dropped_maps": counts.images_of_dropped_maps,
                "effects_not_kept": counts.effects_not_kept,
            })
        })
        .collect();
    let unattached: Vec<Value> = node
        .unattached()
        .iter()
        .map(|timeline| {
            json!({
                "tenant_id": timeline.id.tenant,
                "timeline_id": timeline.id.timeline,
                "problem": timeline.reason,
            })
        })
        .collect();
    let (hits, misses) = node.storage.cache_counts();
    json!({
        "generation": node.storage.generation().0,
        "timelines": timelines,
        "unattached": unattached,
        "page_cache_bytes": node.page_cache_bytes(),
        "block_cache": { "hits": hits, "misses": misses },
        "map_pages_zeroed": MAP_PAGES_ZEROED.load(Ordering::Relaxed),
    })
}
