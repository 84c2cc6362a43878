//! Three safekeeper processes on leased ports with folders of their own, ended by their process ids; and a source of true log.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use strata_common::{Incarnation, Lsn, NodeId, SystemId, TenantId, TenantTimelineId, TimelineId};
use strata_pgwal::SegmentBytes;
use strata_pgwal::rmgr::{self, xlog_info};
use strata_pgwal::write::{LogIdentity, RecordSpec, WalWriter};
use strata_proto::wal;
use strata_regress::port_lease::PortLease;
use strata_walproposer::{AcceptorAddress, Config};
use tempfile::TempDir;

pub const START: Lsn = Lsn(0x0100_0000);
const SYSTEM: SystemId = SystemId(0x5eed);
const SEGMENT_BYTES: u64 = 1 << 20;
/// Only what hangs takes so long, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Cluster {
    root: TempDir,
    ports: PortLease,
    children: Vec<Option<Child>>,
    pub timeline: TenantTimelineId,
}

impl Cluster {
    /// Starts three safekeepers and creates a timeline on each.
    pub async fn start() -> Cluster {
        let root = tempfile::tempdir().expect("a temporary folder");
        let ports = PortLease::take().expect("free ports");
        let timeline = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
        let mut cluster = Cluster { root, ports, children: vec![None, None, None], timeline };
        for node in 1..=3 {
            cluster.up(node);
        }
        for node in 1..=3 {
            cluster.create_timeline(node).await;
        }
        cluster
    }

    fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports.base + node as u16 - 1)
    }

    pub fn folder(&self, node: usize) -> PathBuf {
        self.root.path().join(format!("sk{node}"))
    }

    fn log_file(&self, node: usize) -> PathBuf {
        self.root.path().join(format!("sk{node}.log"))
    }

    /// What a safekeeper has logged so far.
    pub fn log_of(&self, node: usize) -> String {
        std::fs::read_to_string(self.log_file(node)).expect("a log file")
    }

    /// Starts a safekeeper and waits until this very process says in its log that it serves: that its port answers could be the
    /// word of another.
    pub fn up(&mut self, node: usize) {
        let log_file = self.log_file(node);
        let log = File::options().create(true).append(true).open(&log_file).expect("a log file");
        let said_before = log.metadata().expect("a log file").len() as usize;
        let child = Command::new(env!("CARGO_BIN_EXE_strata-safekeeper"))
            .args(["--id", &node.to_string(), "--cluster", "0123456789abcdef0123456789abcdef"])
            .args(["--listen", &self.address(node), "--log", "warn,strata_daemon=info"])
            .arg("--dir")
            .arg(self.folder(node))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let child = self.children[node - 1].insert(child);
        let begun = Instant::now();
        loop {
            let ended = child.try_wait().expect("our child can be waited for");
            let log = std::fs::read_to_string(&log_file).expect("a log file");
            if log[said_before..].contains("state=\"ready\"") {
                return;
            }
            assert!(ended.is_none(), "safekeeper {node} has ended: {log}");
            assert!(begun.elapsed() < PATIENCE, "safekeeper {node} does not get ready: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// kill -9.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.children[node - 1].take() {
            child.kill().expect("our child can be killed");
            child.wait().expect("our child ends");
        }
    }

    /// kill -9 and an empty disk.
    pub fn wipe(&mut self, node: usize) {
        self.kill(node);
        std::fs::remove_dir_all(self.folder(node)).expect("the folder can be removed");
        self.up(node);
    }

    pub async fn client(
        &self,
        node: usize,
    ) -> wal::safekeeper_client::SafekeeperClient<tonic::transport::Channel> {
        let url = format!("http://{}", self.address(node));
        let endpoint = tonic::transport::Endpoint::from_shared(url).expect("a legal address");
        let channel = endpoint.connect().await.expect("the safekeeper answers");
        wal::safekeeper_client::SafekeeperClient::new(channel)
    }

    async fn create_timeline(&self, node: usize) {
        let incarnation = |node: u64| Bytes::from(Incarnation([node as u8; 16]).to_vec());
        let members = (1..=3).map(|node_id| wal::Member { node_id, incarnation: incarnation(node_id) });
        let request = wal::CreateTimelineRequest {
            timeline: Some(self.timeline.into()),
            system_id: SYSTEM.0,
            pg_version_num: 170011,
            wal_segment_bytes: SEGMENT_BYTES as u32,
            start_lsn: START.0,
            incarnation: incarnation(node as u64),
            membership: Some(wal::Membership { generation: 1, members: members.collect() }),
        };
        self.client(node).await.create_timeline(request).await.expect("the timeline is created");
    }

    pub fn config(&self) -> Config {
        let at = |node: usize| AcceptorAddress { node: NodeId(node as u64), address: self.address(node) };
        let mut config = Config::new(self.timeline, (1..=3).map(at).collect());
        config.timing.elect_max = PATIENCE;
        config
    }

    /// Committed log of one safekeeper, as a learner reads it.
    pub async fn read(&self, node: usize, from: Lsn, to: Lsn) -> Vec<u8> {
        let request = wal::ReadWalRequest {
            timeline: Some(self.timeline.into()),
            start_lsn: from.0,
            end_lsn: to.0,
            term: 0,
        };
        let mut stream = self.client(node).await.read_wal(request).await.expect("log is read").into_inner();
        let mut log = Vec::new();
        while let Some(chunk) = stream.message().await.expect("log is read") {
            log.extend_from_slice(&chunk.wal);
        }
        log
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 1..=3 {
            self.kill(node);
            if std::thread::panicking() {
                // One that was never started has none.
                let log = std::fs::read_to_string(self.log_file(node)).unwrap_or_default();
                eprintln!("log of safekeeper {node}:\n{log}");
            }
        }
    }
}

/// True records, one after the other, and all bytes so far.
pub struct Source {
    writer: WalWriter,
    pub log: Vec<u8>,
}

impl Source {
    pub fn new(start: Lsn) -> Source {
        let segment_bytes = SegmentBytes::new(SEGMENT_BYTES).expect("a legal segment size");
        let identity = LogIdentity { timeline: 1, system_id: SYSTEM, segment_bytes };
        Source { writer: WalWriter::new(start, Lsn::INVALID, identity), log: Vec::new() }
    }

    pub fn end(&self) -> Lsn {
        self.writer.position()
    }

    /// One record with `payload` bytes; where it begins, and its log bytes.
    pub fn record(&mut self, payload: usize) -> (Lsn, Bytes) {
        let fill = (self.log.len() / 7) as u8;
        let spec = RecordSpec::plain(rmgr::XLOG, xlog_info::NOOP, Bytes::from(vec![fill; payload]));
        let encoded = self.writer.append(&spec);
        self.log.extend_from_slice(&encoded.bytes);
        (encoded.begin, encoded.bytes)
    }
}

/// Waits until `holds`, or fails saying `what`.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
