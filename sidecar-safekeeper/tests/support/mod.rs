//! Safekeeper processes for tests: started on leased ports in temporary folders, killed with the test.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use strata_common::{
    Incarnation, Lsn, MembershipGeneration, NodeId, SystemId, TenantId, TenantTimelineId, TimelineId,
};
use strata_pgwal::{LogIdentity, RecordSpec, SegmentBytes, WalWriter};
use strata_proto::quorum::{Member, Membership};
use strata_proto::wal as pb;
use strata_proto::wal::safekeeper_client::SafekeeperClient;
use strata_regress::port_lease::PortLease;
use strata_walproposer::core::AcceptorAddress;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

pub const CLUSTER: &str = "00112233445566778899aabbccddeeff";
pub const LOG: LogIdentity =
    LogIdentity { timeline: 1, system_id: SystemId(77), segment_bytes: SegmentBytes::MIN };
pub const START: Lsn = Lsn((1 << 20) + 40);
/// Only what hangs takes so long, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn timeline() -> TenantTimelineId {
    TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) }
}

pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_strata-safekeeper"))
}

/// One safekeeper process; killed when dropped.
pub struct Safekeeper {
    pub id: u64,
    pub dir: PathBuf,
    pub listen: String,
    pub http: String,
    extra: Vec<String>,
    child: Option<Child>,
}

impl Safekeeper {
    /// On its two ports of a lease, which the caller holds for as long as there is the safekeeper: nobody else gets them while it is
    /// down.
    pub fn start(id: u64, dir: &Path, ports: &PortLease, extra: &[&str]) -> Safekeeper {
        let listen = ports.base + 2 * (id as u16 - 1);
        let mut safekeeper = Safekeeper {
            id,
            dir: dir.to_owned(),
            listen: format!("127.0.0.1:{listen}"),
            http: format!("127.0.0.1:{}", listen + 1),
            extra: extra.iter().map(|arg| (*arg).to_owned()).collect(),
            child: None,
        };
        safekeeper.restart();
        safekeeper
    }

    /// Starts it, on the same ports every time.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it is down");
        let mut command = binary();
        command.args(["--id", &self.id.to_string(), "--cluster", CLUSTER, "--listen", &self.listen]);
        command.args(["--http", &self.http, "--dir"]).arg(&self.dir).args(&self.extra);
        let child = self.child.insert(command.stderr(Stdio::piped()).spawn().expect("the binary starts"));
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.contains("state=\"ready\"")) {
            let Some(line) = lines.next() else { panic!("it has ended: {said:#?}") };
            said.push(line.expect("text"));
        }
        // Whatever comes later must not block the process.
        std::thread::spawn(move || lines.for_each(drop));
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// SIGTERM; returns whether it ended well.
    pub fn stop(&mut self) -> bool {
        let mut child = self.child.take().expect("it runs");
        let pid = child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().expect("kill runs").success());
        child.wait().expect("it ends").success()
    }

    pub fn address(&self) -> AcceptorAddress {
        AcceptorAddress { node: NodeId(self.id), address: self.listen.clone() }
    }

    pub async fn client(&self) -> SafekeeperClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.listen)).expect("an address");
        let channel = endpoint.connect().await.expect("it listens");
        SafekeeperClient::new(channel).max_decoding_message_size(16 << 20)
    }

    pub async fn status(&self) -> pb::TimelineStatus {
        let listed = self.client().await.list_timelines(pb::ListTimelinesRequest {}).await.expect("answers");
        let wanted = pb::TimelineRef::from(timeline());
        let mut all = listed.into_inner().timelines.into_iter();
        all.find(|status| status.timeline.as_ref() == Some(&wanted)).expect("it has the timeline")
    }
}

impl Drop for Safekeeper {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Three safekeepers with the timeline created on all.
pub struct Trio {
    pub nodes: Vec<Safekeeper>,
    pub root: TempDir,
    // The last field, so that it is given back when all have ended.
    _ports: PortLease,
}

impl Trio {
    pub async fn start(extra: &[&str]) -> Trio {
        let root = tempfile::tempdir().expect("temporary folder");
        let ports = PortLease::take().expect("free ports");
        let dir = |id: u64| root.path().join(format!("sk{id}"));
        let nodes: Vec<_> = (1..=3).map(|id| Safekeeper::start(id, &dir(id), &ports, extra)).collect();
        for node in &nodes {
            let request = create_request(node.id);
            node.client().await.create_timeline(request).await.expect("room");
        }
        Trio { nodes, root, _ports: ports }
    }

    pub fn addresses(&self) -> Vec<AcceptorAddress> {
        self.nodes.iter().map(Safekeeper::address).collect()
    }

    pub fn config(&self) -> strata_walproposer::driver::Config {
        let mut config = strata_walproposer::driver::Config::new(timeline(), self.addresses());
        config.timing.elect_max = PATIENCE;
        config
    }
}

pub fn incarnation(id: u64) -> Incarnation {
    Incarnation([id as u8; 16])
}

pub fn create_request(id: u64) -> pb::CreateTimelineRequest {
    let members = (1..=3).map(|id| Member { node: NodeId(id), incarnation: incarnation(id) }).collect();
    let membership = Membership { generation: MembershipGeneration(1), members };
    pb::CreateTimelineRequest {
        timeline: Some(timeline().into()),
        system_id: LOG.system_id.0,
        pg_version_num: 170_011,
        wal_segment_bytes: LOG.segment_bytes.get() as u32,
        start_lsn: START.0,
        incarnation: incarnation(id).to_vec().into(),
        membership: Some((&membership).into()),
    }
}

/// True records one after the other; remembers all bytes from `START` on.
pub struct Log {
    writer: WalWriter,
    ends: Vec<(Lsn, Lsn)>,
    bytes: Vec<u8>,
    flavour: u8,
}

impl Log {
    pub fn begin() -> Log {
        let prev = Lsn(1 << 20);
        Log {
            writer: WalWriter::new(START, prev, LOG),
            ends: vec![(START, prev)],
            bytes: Vec::new(),
            flavour: 1,
        }
    }

    pub fn end(&self) -> Lsn {
        self.writer.position()
    }

    /// Adds a record with so much in it; returns where it begins and its bytes.
    pub fn add(&mut self, content_bytes: usize) -> (Lsn, Bytes) {
        let spec = RecordSpec::plain(0, 0x20, Bytes::from(vec![self.flavour; content_bytes]));
        let encoded = self.writer.append(&spec);
        self.ends.push((encoded.end_lsn, encoded.record_lsn));
        self.bytes.extend_from_slice(&encoded.bytes);
        (encoded.begin, encoded.bytes)
    }

    /// Goes on with other content from `to`, a record's end.
    pub fn cut(&mut self, to: Lsn) {
        let kept = self.ends.iter().rposition(|(end, _)| *end == to).expect("a record's end");
        self.ends.truncate(kept + 1);
        self.bytes.truncate((to - START) as usize);
        self.writer = WalWriter::new(to, self.ends[kept].1, LOG);
        self.flavour = self.flavour.wrapping_add(1).max(1);
    }

    pub fn slice(&self, from: Lsn, to: Lsn) -> &[u8] {
        &self.bytes[(from - START) as usize..(to - START) as usize]
    }
}

/// Committed log from `from` on, until `to`.
pub async fn read_committed(node: &Safekeeper, from: Lsn, to: Lsn) -> Vec<u8> {
    let request =
        pb::ReadWalRequest { timeline: Some(timeline().into()), start_lsn: from.0, end_lsn: to.0, term: 0 };
    let mut chunks = node.client().await.read_wal(request).await.expect("readable").into_inner();
    let mut all = Vec::new();
    while all.len() < (to - from) as usize {
        let chunk = chunks.message().await.expect("readable").expect("goes on until the end");
        assert_eq!(chunk.begin_lsn, from.0 + all.len() as u64);
        all.extend_from_slice(&chunk.wal);
    }
    all
}

/// Awaits a condition; the time only bounds a failure.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
