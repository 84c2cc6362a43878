//! Log that cannot be taken in: a flipped bit, a record with a piece missing, a custom resource manager, a record type and a page of
//! another version. Each parks its own timeline, which says where and whose record it was; what came before stays readable, and the
//! other timelines of the same process go on.

#[path = "../vanilla/log_server.rs"]
mod log_server;
#[path = "../../src/ingest/testkit.rs"]
#[allow(dead_code, reason = "the unit tests of ingest use all of it")]
mod testkit;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use log_server::{Log, LogServer};
use strata_common::{Generation, Lsn, SystemId, TenantId, TenantTimelineId, TimelineId};
use strata_objstore::LocalStore;
use strata_pageserver::node::{EngineTimeline, Node, NodeParts};
use strata_pageserver::storage::{Storage, StorageConfig};
use strata_pageserver::timeline::{Running, WaitError};
use strata_pageserver::wal::source::Safekeepers;
// For `testkit`, which is a part of the library too.
use strata_pageserver::{ingest, keyspace};
use strata_pgwal::write::{LogIdentity, RecordSpec, WalWriter};
use strata_pgwal::{SegmentBytes, rmgr};

const START: Lsn = Lsn(0x1000);

/// Far more than anything here needs; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(120);

fn id(number: u8) -> TenantTimelineId {
    TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([number; 16]) }
}

/// Records of a timeline, with what is bad about them.
struct BadLog {
    name: &'static str,
    bytes: Bytes,
    /// End of the last record that can be taken in.
    good: Lsn,
    /// End of everything.
    end: Lsn,
    /// What the refusal names, beside the timeline.
    named: Vec<String>,
}

fn writer() -> WalWriter {
    let segment_bytes = SegmentBytes::new(16 << 20).expect("a power of two");
    WalWriter::new(START, Lsn(0), LogIdentity { timeline: 1, system_id: SystemId(7), segment_bytes })
}

fn noop(bytes: usize) -> RecordSpec {
    RecordSpec::plain(rmgr::XLOG, rmgr::xlog_info::NOOP, vec![7; bytes].into())
}

/// A good record, then `bad` after `damage`, then good ones that nobody may take in.
fn bad_log(
    name: &'static str,
    bad: &RecordSpec,
    damage: impl FnOnce(&mut Vec<u8>),
    named: &[&str],
) -> BadLog {
    let mut writer = writer();
    let mut all = writer.append(&noop(100)).bytes.to_vec();
    let good = writer.position();
    let encoded = writer.append(bad);
    let mut bytes = encoded.bytes.to_vec();
    damage(&mut bytes);
    all.extend_from_slice(&bytes);
    for _ in 0..4 {
        all.extend_from_slice(&writer.append(&noop(3000)).bytes);
    }
    let mut named: Vec<String> = named.iter().map(|text| (*text).to_owned()).collect();
    named.push(encoded.record_lsn.to_string());
    BadLog { name, bytes: all.into(), good, end: writer.position(), named }
}

/// Position in the log's bytes of the page header after `START`'s page.
const NEXT_PAGE: usize = 0x1000;

fn bad_logs() -> Vec<BadLog> {
    let later = RecordSpec::plain(rmgr::CLOG, 0x20, vec![1; 3].into());
    let custom = RecordSpec::plain(130, 0x10, Bytes::from_static(b"who knows"));
    let mut logs = vec![
        bad_log(
            "a flipped bit",
            &noop(500),
            |bytes| bytes[300] ^= 0x10,
            &["resource manager XLOG", "checksum"],
        ),
        bad_log(
            "a piece missing",
            &noop(500),
            |bytes| drop(bytes.drain(200..240)),
            &["resource manager XLOG", "checksum"],
        ),
        bad_log("a custom resource manager", &custom, |_| {}, &["130"]),
        bad_log("a record type of another version", &later, |_| {}, &["CLOG"]),
    ];
    // A page of another version: the record that crosses into it is whole up to there.
    let crossing = noop(6000);
    let mut other = bad_log("a page of another version", &crossing, |_| {}, &[]);
    let mut bytes = other.bytes.to_vec();
    assert_eq!(&bytes[NEXT_PAGE..NEXT_PAGE + 2], &0xD116u16.to_le_bytes(), "a page begins here");
    bytes[NEXT_PAGE..NEXT_PAGE + 2].copy_from_slice(&0xD113u16.to_le_bytes());
    other.bytes = bytes.into();
    // The header of the page is what is wrong, not a record of a resource manager.
    other.named = vec![Lsn(START.0 + NEXT_PAGE as u64).to_string(), "d113".to_owned()];
    logs.push(other);
    logs
}

struct Server {
    node: Arc<Node>,
    logs: LogServer,
    _home: tempfile::TempDir,
}

impl Server {
    async fn start() -> Server {
        let logs = LogServer::default();
        let address = logs.serve().await.expect("a free port").to_string();
        let home = tempfile::tempdir().expect("a folder");
        let store = Arc::new(LocalStore::open(home.path().join("store")).await.expect("a store"));
        let config = StorageConfig::new(home.path().join("layers"));
        let parts = NodeParts {
            storage: Storage::open(config, store, Generation(1)).await.expect("an empty store"),
            spool: home.path().join("spool"),
            id: 1,
            safekeepers: Safekeepers::new(&[address]).expect("an address"),
            page_cache_bytes: 1 << 20,
            runtime: tokio::runtime::Handle::current(),
        };
        Server { node: Node::start(parts).await.expect("nothing to attach"), logs, _home: home }
    }

    fn give(&self, id: TenantTimelineId, bytes: Bytes) {
        let mut logs = self.logs.logs.lock().expect("no panic while held");
        logs.insert(id.timeline, Log { start: START, bytes });
    }

    async fn timeline(&self, id: TenantTimelineId) -> Arc<EngineTimeline> {
        let control = testkit::control_state(START);
        let import = self.node.storage.begin_import(id, START).expect("a new timeline");
        let engine = import.finish(control.encode().into()).await.expect("stored");
        self.node.adopt(engine).expect("its own state")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_taken_in_parks_its_timeline_only() {
    let server = Server::start().await;
    let mut writer = writer();
    let mut good = Vec::new();
    let mut good_end = |good: &mut Vec<u8>| {
        good.extend_from_slice(&writer.append(&noop(1000)).bytes);
        writer.position()
    };
    let other = server.timeline(id(99)).await;
    for (number, log) in (1..).zip(bad_logs()) {
        let name = log.name;
        server.give(id(number), log.bytes);
        let timeline = server.timeline(id(number)).await;
        let parked = timeline.wait_for(log.end, PATIENCE).await.expect_err(name);
        let WaitError::Parked { reason, .. } = &parked else { panic!("{name}: {parked}") };
        assert!(reason.contains(&id(number).to_string()), "{name}: no timeline in '{reason}'");
        for word in &log.named {
            assert!(reason.contains(word), "{name}: no {word} in '{reason}'");
        }
        assert!(matches!(timeline.running(), Running::Parked(_)), "{name}");
        assert_eq!(timeline.last_record(), log.good, "{name}: what came before stays");
        timeline.wait_for(log.good, Duration::ZERO).await.expect("it can be read");

        let end = good_end(&mut good);
        server.give(other.id, good.clone().into());
        other.wait_for(end, PATIENCE).await.expect("the other timeline goes on");
    }
}
