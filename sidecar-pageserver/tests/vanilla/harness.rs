//! A pageserver in this process, its object store and its one source of log, with the ways to lose it.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use strata_common::{BLOCK_BYTES, BlockNumber, Generation, Lsn, TenantId, TenantTimelineId, TimelineId};
use strata_objstore::LocalStore;
use strata_pageserver::basebackup::{self, Handoff};
use strata_pageserver::import::datadir::{BLOCKS_PER_FILE, relation_path};
use strata_pageserver::keyspace::{self, KeyName, Kind, values::decode_blocks};
use strata_pageserver::materialize::PageImages;
use strata_pageserver::node::{EngineTimeline, Node, NodeParts};
use strata_pageserver::service;
use strata_pageserver::storage::{FlushPolicy, Storage, StorageConfig};
use strata_pageserver::wal::source::Safekeepers;
use strata_pgwal::WalStreamDecoder;
use strata_regress::postgres::{Cluster, Installation};
use strata_regress::wal_files;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::log_server::{Log, LogServer};

pub const TENANT: TenantId = TenantId([1; 16]);

/// The timeline that vanilla's log goes to.
pub fn id() -> TenantTimelineId {
    TenantTimelineId { tenant: TENANT, timeline: TimelineId([2; 16]) }
}

/// Far more than taking the log in needs; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Harness {
    home: TempDir,
    /// Outlives restarts of the pageserver.
    _outside: Runtime,
    server: LogServer,
    address: String,
    generation: u32,
    /// The pageserver: dropping the runtime ends it as a kill would.
    inside: Option<(Runtime, Arc<Node>)>,
}

impl Harness {
    pub fn new() -> Result<Harness> {
        let outside = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let server = LogServer::default();
        let address = outside.block_on(server.serve())?.to_string();
        let home = tempfile::tempdir()?;
        let mut harness = Harness { home, _outside: outside, server, address, generation: 0, inside: None };
        harness.start()?;
        Ok(harness)
    }

    fn start(&mut self) -> Result<()> {
        self.generation += 1;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (local, remote) = (self.home.path().join("local"), self.home.path().join("store"));
        let generation = Generation(self.generation);
        let node = runtime.block_on(async {
            let store = Arc::new(LocalStore::open(remote).await?);
            let config = StorageConfig {
                // Small, so that the workload makes many layers.
                flush: FlushPolicy {
                    layer_bytes_target: 4 << 20,
                    open_age_ms_max: 60_000,
                    memory_bytes_max: 16 << 20,
                },
                materializer: Some(Arc::new(PageImages)),
                ..StorageConfig::new(local.join("layers"))
            };
            let storage = Storage::open(config, store, generation).await?;
            let parts = NodeParts {
                storage,
                spool: local.join("spool"),
                id: 1,
                safekeepers: Safekeepers::new(std::slice::from_ref(&self.address))?,
                page_cache_bytes: 8 << 20,
                runtime: tokio::runtime::Handle::current(),
            };
            anyhow::Ok(Node::start(parts).await?)
        })?;
        self.inside = Some((runtime, node));
        Ok(())
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.inside.as_ref().expect("it runs between restarts").1
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.inside.as_ref().expect("it runs between restarts").0.block_on(work)
    }

    pub fn timeline(&self, id: TenantTimelineId) -> Result<Arc<EngineTimeline>> {
        self.node().timeline(id).with_context(|| format!("timeline {id} is not in service"))
    }

    /// Imports a stopped cluster; the LSN at which the timeline begins.
    pub fn import(&self, cluster: &Cluster) -> Result<Lsn> {
        self.import_as(cluster, id())
    }

    pub fn import_as(&self, cluster: &Cluster, id: TenantTimelineId) -> Result<Lsn> {
        let mut tar = tar::Builder::new(Vec::new());
        tar.follow_symlinks(false);
        tar.append_dir_all(".", cluster.data())?;
        let tar = tar.into_inner()?;
        Ok(service::import_blocking(self.node(), id, None, Cursor::new(tar))?.start_lsn)
    }

    /// Gives the log of a stopped cluster to the safekeeper; the end of its last record.
    pub fn serve_log_of(&self, cluster: &Cluster) -> Result<Lsn> {
        let files = wal_files::read_log(&cluster.data())?;
        let control = wal_files::control_file(&cluster.data())?;
        let first = files.first_record()?;
        let mut decoder = WalStreamDecoder::new(first, control.segment_bytes());
        let (records, _) = wal_files::records_to_end(&mut decoder, files.from(first))?;
        ensure!(!records.is_empty(), "the cluster wrote no log");
        let end = decoder.position();
        let bytes = files.bytes.slice(..(end - files.start) as usize);
        *self.server.log.lock().expect("no panic while held") = Some(Log { start: files.start, bytes });
        Ok(end)
    }

    /// Gives a timeline a log of its own.
    pub fn serve_log(&self, id: TenantTimelineId, log: Log) {
        self.server.logs.lock().expect("no panic while held").insert(id.timeline, log);
    }

    pub fn wait_for(&self, lsn: Lsn) -> Result<()> {
        self.wait_for_in(id(), lsn)
    }

    pub fn wait_for_in(&self, id: TenantTimelineId, lsn: Lsn) -> Result<()> {
        let timeline = self.timeline(id)?;
        self.block_on(timeline.wait_for(lsn, PATIENCE))?;
        Ok(())
    }

    /// As kill -9: nothing in memory is written.
    pub fn crash_and_restart(&mut self) -> Result<()> {
        let (runtime, node) = self.inside.take().context("it runs")?;
        drop(node);
        runtime.shutdown_timeout(Duration::from_secs(10));
        self.start()
    }

    pub fn flush(&self) -> Result<()> {
        let timeline = self.timeline(id())?;
        self.block_on(timeline.store.checkpoint())?;
        let remote = timeline.store.remote_consistent();
        let deadline = std::time::Instant::now() + PATIENCE;
        // The safekeeper learns of it by itself.
        while !self
            .server
            .progress
            .lock()
            .expect("no panic while held")
            .iter()
            .any(|p| p.remote_consistent_lsn == remote.0)
        {
            ensure!(std::time::Instant::now() < deadline, "progress up to {remote} was never reported");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub fn wipe_and_reattach_without_log(&mut self) -> Result<()> {
        let (runtime, node) = self.inside.take().context("it runs")?;
        drop(node);
        runtime.shutdown_timeout(Duration::from_secs(10));
        std::fs::remove_dir_all(self.home.path().join("local"))?;
        *self.server.log.lock().expect("no panic while held") = None;
        self.start()
    }

    /// A data folder made of a base backup and, for what a remote storage manager would fetch, relation files.
    pub fn stock_postgres(
        &self,
        installation: &Installation,
        id: TenantTimelineId,
        lsn: Lsn,
        handoff: Handoff,
    ) -> Result<Cluster> {
        // Configuration comes from a fresh cluster; everything else of it is replaced.
        let cluster = Cluster::init(installation, &[])?;
        let data = cluster.data();
        for name in
            ["base", "global", "pg_xact", "pg_multixact", "pg_wal", "pg_commit_ts", "pg_twophase", "pg_stat"]
        {
            std::fs::remove_dir_all(data.join(name))?;
        }
        let tar = self.base_backup(id, lsn, handoff)?;
        tar::Archive::new(Cursor::new(tar)).unpack(&data)?;
        self.lay_down_relations(&data, id, lsn)?;
        let mut own = std::process::Command::new("chown");
        let owner = std::fs::metadata(data.join("postgresql.conf"))?;
        let owner = format!(
            "{}:{}",
            std::os::unix::fs::MetadataExt::uid(&owner),
            std::os::unix::fs::MetadataExt::gid(&owner)
        );
        strata_regress::postgres::run(own.arg("-R").arg(owner).arg(&data))?;
        Ok(cluster)
    }

    fn base_backup(&self, id: TenantTimelineId, lsn: Lsn, handoff: Handoff) -> Result<Vec<u8>> {
        let timeline = self.timeline(id)?;
        self.block_on(async {
            let (sink, mut chunks) = tokio::sync::mpsc::channel(8);
            let writing =
                tokio::spawn(async move { basebackup::write(&timeline.view(lsn), handoff, sink).await });
            let mut tar = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                tar.extend_from_slice(&chunk?);
            }
            writing.await??;
            Ok(tar)
        })
    }

    fn lay_down_relations(&self, data: &Path, id: TenantTimelineId, lsn: Lsn) -> Result<()> {
        let timeline = self.timeline(id)?;
        let sizes = self.block_on(timeline.view(lsn).scan_live(keyspace::kind_range(Kind::RelSize)))?;
        for (key, value) in sizes {
            let (Some(KeyName::RelSize(rel)), Some(blocks)) = (KeyName::of(key), decode_blocks(&value)?)
            else {
                continue;
            };
            ensure!(blocks <= BLOCKS_PER_FILE, "tests have small relations");
            let path = data.join(relation_path(rel));
            let mut file = Vec::with_capacity(blocks as usize * BLOCK_BYTES);
            for block in 0..blocks {
                file.extend_from_slice(&self.block_on(timeline.page(
                    rel,
                    BlockNumber(block),
                    blocks,
                    lsn,
                ))?);
            }
            std::fs::write(&path, file).with_context(|| format!("{}", path.display()))?;
        }
        Ok(())
    }
}
