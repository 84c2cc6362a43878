//! A whole safekeeper in this process, over gRPC, on a disk that fills up, fails or decays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use strata_common::{Incarnation, Lsn, MembershipGeneration, NodeId, TenantId, TenantTimelineId, TimelineId};
use strata_proto::quorum::{Member, Membership};
use strata_proto::wal as pb;
use strata_proto::wal::safekeeper_client::SafekeeperClient;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::disk::Disk;
use super::disk::faulty::FaultyDisk;
use super::node::Node;
use super::server::{self, Trimming};
use super::timeline::Surroundings;
use super::wal::store::NextSegment;
use super::wal::test_log::{LOG, START, TestLog};

type Client = SafekeeperClient<Channel>;

fn id(number: u8) -> TenantTimelineId {
    TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([number; 16]) }
}

fn folder_of(number: u8) -> PathBuf {
    Path::new("/d").join(id(number).tenant.to_string()).join(id(number).timeline.to_string())
}

/// A running safekeeper; stops cleanly when `stop` is sent or dropped.
struct Running {
    client: Client,
    _stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn start(disk: &FaultyDisk) -> Running {
        let around = Surroundings {
            node: NodeId(1),
            disk: Arc::new(disk.clone()),
            runtime: tokio::runtime::Handle::current(),
            next_segment: NextSegment::WhenNeeded,
        };
        let node = Arc::new(Node::open(around, PathBuf::from("/d")).expect("readable"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("works");
        let address = listener.local_addr().expect("bound");
        let trimming = Trimming { every: Duration::from_secs(60), keep_bytes: 0 };
        let (stop, stopped) = oneshot::channel();
        let serving = server::serve(node, listener, trimming, async {
            // Sent or dropped: both mean stop.
            let _ = stopped.await;
        });
        let served = tokio::spawn(serving);
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let client = SafekeeperClient::new(endpoint.connect().await.expect("it listens"));
        Running { client, _stop: stop, served }
    }

    async fn stop(self) {
        drop(self._stop);
        drop(self.client);
        self.served.await.expect("no panic").expect("a clean end");
    }

    async fn create(&self, number: u8) -> Result<(), Status> {
        let member = Member { node: NodeId(1), incarnation: Incarnation([9; 16]) };
        let membership = Membership { generation: MembershipGeneration(1), members: vec![member] };
        let request = pb::CreateTimelineRequest {
            timeline: Some(id(number).into()),
            system_id: LOG.system_id.0,
            pg_version_num: 170_011,
            wal_segment_bytes: LOG.segment_bytes.get() as u32,
            start_lsn: START.0,
            incarnation: member.incarnation.to_vec().into(),
            membership: Some((&membership).into()),
        };
        self.client.clone().create_timeline(request).await.map(drop)
    }

    async fn problem(&self, number: u8) -> String {
        let listed = self.client.clone().list_timelines(pb::ListTimelinesRequest {}).await.expect("answers");
        let wanted = pb::TimelineRef::from(id(number));
        let mut all = listed.into_inner().timelines.into_iter();
        all.find(|status| status.timeline.as_ref() == Some(&wanted)).expect("it is listed").problem
    }
}

/// A proposer of one safekeeper, by hand.
struct Hand {
    messages: mpsc::Sender<pb::ProposerMessage>,
    answers: Streaming<pb::AcceptorMessage>,
    term: u64,
}

impl Hand {
    async fn greet(running: &Running, number: u8) -> Result<(Hand, pb::GreetingReply), Status> {
        let (messages, receiver) = mpsc::channel(64);
        let answers = running.client.clone().propose(ReceiverStream::new(receiver)).await?.into_inner();
        let mut hand = Hand { messages, answers, term: 0 };
        let greeting = pb::Greeting { timeline: Some(id(number).into()), term: 0 };
        hand.send(pb::proposer_message::Kind::Greeting(greeting)).await;
        match hand.answer().await? {
            pb::acceptor_message::Kind::Greeting(reply) => Ok((hand, reply)),
            other => panic!("a greeting is answered by one, not {other:?}"),
        }
    }

    /// Greets, wins the next term and announces it.
    async fn elect(running: &Running, number: u8) -> Result<(Hand, Lsn), Status> {
        Hand::elect_at(running, number, None).await
    }

    /// As `elect`; the term's log begins at `start`, or where the log ends.
    async fn elect_at(running: &Running, number: u8, start: Option<Lsn>) -> Result<(Hand, Lsn), Status> {
        let (mut hand, reply) = Hand::greet(running, number).await?;
        hand.term = reply.term + 1;
        let vote =
            pb::VoteRequest { term: hand.term, candidate: vec![7; 16].into(), membership_generation: 1 };
        hand.send(pb::proposer_message::Kind::Vote(vote)).await;
        let pb::acceptor_message::Kind::Vote(vote) = hand.answer().await? else { panic!("a vote") };
        assert!(vote.granted);
        let mut history = vote.history;
        let lsn = start.map_or(vote.flush_lsn, |start| start.0);
        history.push(pb::TermStart { term: hand.term, lsn });
        let elected = pb::Elected { term: hand.term, membership_generation: 1, history };
        hand.send(pb::proposer_message::Kind::Elected(elected)).await;
        let pb::acceptor_message::Kind::Elected(reply) = hand.answer().await? else {
            panic!("an announcement")
        };
        Ok((hand, Lsn(reply.flush_lsn)))
    }

    async fn send(&self, kind: pb::proposer_message::Kind) {
        self.messages.send(pb::ProposerMessage { kind: Some(kind) }).await.expect("connected");
    }

    async fn answer(&mut self) -> Result<pb::acceptor_message::Kind, Status> {
        let answer = tokio::time::timeout(Duration::from_secs(20), self.answers.message());
        let answer = answer.await.expect("an answer in time")?.ok_or_else(|| Status::unavailable("ended"))?;
        Ok(answer.kind.expect("a kind"))
    }

    async fn append(&self, log: &TestLog, from: Lsn, to: Lsn) {
        self.append_bytes(from, log.slice(from, to)).await;
    }

    async fn append_bytes(&self, from: Lsn, wal: bytes::Bytes) {
        let append =
            pb::Append { term: self.term, membership_generation: 1, begin_lsn: from.0, commit_lsn: 0, wal };
        self.send(pb::proposer_message::Kind::Append(append)).await;
    }

    /// Until so much is acknowledged.
    async fn acknowledged(&mut self, to: Lsn) -> Result<(), Status> {
        loop {
            let pb::acceptor_message::Kind::Append(reply) = self.answer().await? else { panic!("an append") };
            if reply.flush_lsn >= to.0 {
                return Ok(());
            }
        }
    }
}

/// Trap K8: what would be left of that record is no log.
#[tokio::test]
async fn a_term_that_begins_inside_a_record_is_refused_and_nothing_is_cut() {
    let disk = FaultyDisk::default();
    let running = Running::start(&disk).await;
    running.create(1).await.expect("room");
    let (mut hand, start) = Hand::elect(&running, 1).await.expect("room");
    let mut log = TestLog::begin();
    let ends: Vec<Lsn> = [1000, 50_000, 200].map(|bytes| log.add(bytes)).to_vec();
    hand.append(&log, start, ends[2]).await;
    hand.acknowledged(ends[2]).await.expect("room");
    drop(hand);
    for inside in [ends[0] + 8, ends[0] + 8192, ends[1] + 8] {
        let refused = Hand::elect_at(&running, 1, Some(inside)).await.err().expect("it is refused");
        let told = refused.message();
        assert!(told.contains("inside a record") && told.contains(&inside.to_string()), "{refused}");
        let (_, reply) = Hand::greet(&running, 1).await.expect("it goes on");
        assert_eq!(Lsn(reply.flush_lsn), ends[2], "nothing is cut");
    }
    let (mut hand, left) = Hand::elect_at(&running, 1, Some(ends[1])).await.expect("a record ends there");
    assert_eq!(left, ends[1]);
    hand.append(&log, ends[1], ends[2]).await;
    hand.acknowledged(ends[2]).await.expect("the log goes on");
    running.stop().await;
}

#[tokio::test]
async fn a_full_disk_turns_proposers_away_until_there_is_room() {
    let disk = FaultyDisk::default();
    let running = Running::start(&disk).await;
    running.create(1).await.expect("room");
    let (mut hand, start) = Hand::elect(&running, 1).await.expect("room");
    let mut log = TestLog::begin();
    let first = log.add(1000);
    hand.append(&log, start, first).await;
    hand.acknowledged(first).await.expect("room");
    disk.set_room(Some(disk.used_bytes()));
    log.add_many(20, 100_000);
    hand.append(&log, first, log.end()).await;
    let refused = hand.acknowledged(log.end()).await.expect_err("nothing is acknowledged");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(running.problem(1).await.contains("disk is full"));
    let refused = Hand::greet(&running, 1).await.map(drop).expect_err("turned away");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let refused = running.create(2).await.expect_err("no room for another");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    disk.set_room(None);
    // It goes on by itself; what was waiting is written, so the next term finds it.
    let (mut hand, start) = loop {
        match Hand::elect(&running, 1).await {
            Ok(elected) => break elected,
            Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(start, log.end());
    let more = log.add(10);
    hand.append(&log, start, more).await;
    hand.acknowledged(more).await.expect("room");
    assert_eq!(running.problem(1).await, "");
    running.create(2).await.expect("room");
    drop(hand);
    running.stop().await;
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_until_restart() {
    let disk = FaultyDisk::default();
    let running = Running::start(&disk).await;
    running.create(1).await.expect("room");
    let (mut hand, start) = Hand::elect(&running, 1).await.expect("works");
    let mut log = TestLog::begin();
    let first = log.add(1000);
    hand.append(&log, start, first).await;
    hand.acknowledged(first).await.expect("works");
    disk.set_sync_fails(true);
    let second = log.add(1000);
    hand.append(&log, first, second).await;
    let refused = hand.acknowledged(second).await.expect_err("trap K12");
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    // That syncs work again does not matter: what the failed one was to keep may be gone.
    disk.set_sync_fails(false);
    let refused = Hand::greet(&running, 1).await.map(drop).expect_err("for good");
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    assert!(running.problem(1).await.contains("injected"));
    running.stop().await;
    disk.crash(|_| 0);
    let running = Running::start(&disk).await;
    let (_, reply) = Hand::greet(&running, 1).await.expect("it has looked at its disk");
    assert_eq!(Lsn(reply.flush_lsn), first, "what was acknowledged is there, what was not is not");
    running.stop().await;
}

/// A copy of the log's bytes with one bit of the record at its end turned over.
fn spoilt(log: &TestLog, from: Lsn, to: Lsn) -> bytes::Bytes {
    let mut bytes = log.slice(from, to).to_vec();
    let content = bytes.len() - 12;
    bytes[content] ^= 1;
    bytes.into()
}

#[tokio::test]
async fn log_that_is_none_ends_its_senders_connection_and_nothing_else() {
    let disk = FaultyDisk::default();
    let running = Running::start(&disk).await;
    running.create(1).await.expect("room");
    let (mut hand, start) = Hand::elect(&running, 1).await.expect("works");
    let mut log = TestLog::begin();
    let first = log.add(1000);
    hand.append(&log, start, first).await;
    hand.acknowledged(first).await.expect("works");
    // Half a record that cannot be told yet, the half that tells, and good log behind both, all at once; many times, so that
    // what is behind is found in the queue as well as after the cut.
    for round in 0..30 {
        let end = log.end();
        let whole = log.add(1000);
        let more = log.add(10);
        let bad = spoilt(&log, end, whole);
        hand.append_bytes(end, bad.slice(..500)).await;
        hand.append_bytes(end + 500, bad.slice(500..)).await;
        hand.append(&log, whole, more).await;
        let refused = hand.acknowledged(more).await.expect_err("its checksum is wrong");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("is no log of this timeline"), "{refused}");
        assert_eq!(running.problem(1).await, "", "this copy is well");
        let (next, start) = Hand::elect(&running, 1).await.expect("the next proposer is served");
        assert_eq!(start, end, "round {round}: the log ends where it was good");
        hand = next;
        hand.append(&log, end, more).await;
        hand.acknowledged(more).await.expect("good log is taken");
    }
    // An announcement that waits for the bad log to be durable goes on when that is gone.
    let end = log.end();
    let whole = log.add(1000);
    hand.append_bytes(end, spoilt(&log, end, whole)).await;
    let (mut hand, start) = Hand::elect(&running, 1).await.expect("served");
    assert_eq!(start, end);
    hand.append(&log, end, whole).await;
    hand.acknowledged(whole).await.expect("good log is taken");
    running.stop().await;
    disk.crash(|_| 0);
    let running = Running::start(&disk).await;
    let (_, reply) = Hand::greet(&running, 1).await.expect("readable");
    assert_eq!(Lsn(reply.flush_lsn), whole);
    running.stop().await;
}

#[tokio::test]
async fn a_timeline_whose_folder_was_made_is_taken_by_the_next_try() {
    let disk = FaultyDisk::default();
    let running = Running::start(&disk).await;
    let tenant_dir = folder_of(1).parent().expect("a tenant's").to_owned();
    disk.set_sync_dir_fails(Some(tenant_dir));
    running.create(1).await.expect_err("the name is not durable");
    running.create(1).await.expect_err("nor is it now");
    assert_eq!(Hand::greet(&running, 1).await.map(drop).expect_err("unknown").code(), Code::NotFound);
    disk.set_sync_dir_fails(None);
    running.create(1).await.expect("what is there is whole");
    let (hand, _) = Hand::elect(&running, 1).await.expect("works");
    drop(hand);
    running.stop().await;
    disk.crash(|_| 0);
    let running = Running::start(&disk).await;
    Hand::greet(&running, 1).await.expect("it lasted");
    running.stop().await;
}

#[tokio::test]
async fn a_damaged_control_file_refuses_its_timeline_and_no_other() {
    let disk = FaultyDisk::default();
    let running = Running::start(&disk).await;
    running.create(1).await.expect("room");
    running.create(2).await.expect("room");
    running.stop().await;
    disk.corrupt(&folder_of(1).join("control"), 40, &[0xff, 0xff]);
    let running = Running::start(&disk).await;
    let refused = Hand::greet(&running, 1).await.map(drop).expect_err("damaged");
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    assert!(refused.message().contains(&id(1).to_string()), "{refused}");
    assert!(running.problem(1).await.contains("control file is damaged"));
    Hand::greet(&running, 2).await.expect("the other goes on");
    running.stop().await;
}

#[tokio::test]
async fn timelines_are_created_once_and_deleted_for_good() {
    let disk = FaultyDisk::default();
    let running = Running::start(&disk).await;
    assert_eq!(Hand::greet(&running, 1).await.map(drop).expect_err("trap K16").code(), Code::NotFound);
    running.create(1).await.expect("room");
    running.create(1).await.expect("the same again");
    let mut client = running.client.clone();
    let other = pb::CreateTimelineRequest {
        timeline: Some(id(1).into()),
        wal_segment_bytes: 16 << 20,
        start_lsn: START.0,
        incarnation: vec![8; 16].into(),
        membership: Some(pb::Membership::default()),
        ..Default::default()
    };
    assert_eq!(client.create_timeline(other.clone()).await.expect_err("another").code(), Code::AlreadyExists);
    let odd = pb::CreateTimelineRequest { start_lsn: 3, ..other };
    assert_eq!(client.create_timeline(odd).await.expect_err("no place").code(), Code::InvalidArgument);
    let request = pb::DeleteTimelineRequest { timeline: Some(id(1).into()) };
    client.delete_timeline(request.clone()).await.expect("deleted");
    client.delete_timeline(request).await.expect("deleted already");
    assert_eq!(Hand::greet(&running, 1).await.map(drop).expect_err("gone").code(), Code::NotFound);
    assert!(disk.list(&folder_of(1)).expect("works").is_empty());
    drop(client);
    running.stop().await;
    disk.crash(|_| 0);
    let running = Running::start(&disk).await;
    assert_eq!(Hand::greet(&running, 1).await.map(drop).expect_err("still gone").code(), Code::NotFound);
    running.stop().await;
}

#[tokio::test]
async fn appends_that_wait_share_a_sync() {
    let disk = FaultyDisk::default();
    let running = Running::start(&disk).await;
    running.create(1).await.expect("room");
    let (mut hand, start) = Hand::elect(&running, 1).await.expect("works");
    let mut log = TestLog::begin();
    let before = disk.syncs();
    let mut at = start;
    for _ in 0..500 {
        let end = log.add(100);
        hand.append(&log, at, end).await;
        at = end;
    }
    hand.acknowledged(at).await.expect("works");
    assert!(disk.syncs() - before < 500, "{} syncs for 500 appends", disk.syncs() - before);
    drop(hand);
    running.stop().await;
}
