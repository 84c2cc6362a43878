//! Three safekeeper processes and the real proposer: nothing acknowledged is lost whoever is killed, laggards catch up,
//! learners follow, log that nobody needs goes.

mod support;

use std::time::Duration;

use strata_common::{Lsn, NodeId};
use strata_proto::wal as pb;
use strata_walproposer::driver::{Error, Proposer};
use support::{Log, PATIENCE, START, Trio, eventually, read_committed, timeline};
use tonic::Code;

#[tokio::test]
async fn what_was_acknowledged_survives_kills_of_everybody() {
    let mut trio = Trio::start(&[]).await;
    let mut log = Log::begin();
    let mut acknowledged = START;
    for round in 0u32..4 {
        let proposer = Proposer::elect(trio.config()).await.expect("a majority is up");
        let start = proposer.append_lsn();
        assert!(
            start >= acknowledged,
            "round {round}: {start} is below what was acknowledged, {acknowledged}"
        );
        log.cut(start);
        for record in 0..200usize {
            let (begin, wal) = log.add(record * 37 % 9000);
            proposer.append(begin, wal).await.expect("not fenced");
            if record % 10 == 9 && record < 150 {
                proposer.wait_committed(log.end()).await.expect("not fenced");
            }
        }
        // In the middle of the last fifty.
        trio.nodes.iter_mut().for_each(support::Safekeeper::kill);
        acknowledged = acknowledged.max(proposer.commit_lsn());
        drop(proposer);
        trio.nodes.iter_mut().for_each(support::Safekeeper::restart);
    }
    let proposer = Proposer::elect(trio.config()).await.expect("a majority is up");
    let end = proposer.start_lsn();
    assert!(end >= acknowledged);
    for node in &trio.nodes {
        assert_eq!(
            read_committed(node, START, end).await,
            log.slice(START, end),
            "log of safekeeper {}",
            node.id
        );
    }
}

#[tokio::test]
async fn one_may_die_and_catches_up_off_the_commit_path() {
    let mut trio = Trio::start(&[]).await;
    let proposer = Proposer::elect(trio.config()).await.expect("all are up");
    let mut log = Log::begin();
    trio.nodes[2].kill();
    // More than the proposer keeps for a laggard, so that it must fetch from a peer.
    while log.end() < START + (40 << 20) {
        let (begin, wal) = log.add(100_000);
        proposer.append(begin, wal).await.expect("not fenced");
    }
    proposer.wait_committed(log.end()).await.expect("two are a majority");
    trio.nodes[2].restart();
    let end = log.end();
    eventually("the third has everything", || async { trio.nodes[2].status().await.flush_lsn >= end.0 })
        .await;
    let lagged = &trio.nodes[2];
    eventually("and knows that it is committed", || async { lagged.status().await.commit_lsn >= end.0 })
        .await;
    assert_eq!(read_committed(lagged, START, end).await, log.slice(START, end));
    // It counts again: with one of the others gone commits go on.
    trio.nodes[0].kill();
    let (begin, wal) = log.add(10);
    proposer.append(begin, wal).await.expect("not fenced");
    proposer.wait_committed(log.end()).await.expect("two are a majority");
}

#[tokio::test]
async fn a_later_term_fences_an_earlier_one() {
    let trio = Trio::start(&[]).await;
    let first = Proposer::elect(trio.config()).await.expect("all are up");
    let mut log = Log::begin();
    let (begin, wal) = log.add(100);
    first.append(begin, wal).await.expect("not fenced");
    first.wait_committed(log.end()).await.expect("all are up");
    let second = Proposer::elect(trio.config()).await.expect("all are up");
    assert!(second.term() > first.term());
    assert!(second.start_lsn() >= log.end());
    let over = tokio::time::timeout(PATIENCE, first.over()).await.expect("it notices");
    assert!(matches!(over, Error::Fenced { .. }), "{over}");
}

#[tokio::test]
async fn a_learner_follows_what_is_committed() {
    let trio = Trio::start(&[]).await;
    let proposer = Proposer::elect(trio.config()).await.expect("all are up");
    let request =
        pb::ReadWalRequest { timeline: Some(timeline().into()), start_lsn: START.0, end_lsn: 0, term: 0 };
    let mut client = trio.nodes[1].client().await;
    let mut chunks = client.read_wal(request).await.expect("readable").into_inner();
    let quiet = chunks.message().await.expect("no error").expect("says something though there is nothing");
    assert!(quiet.wal.is_empty());
    let mut log = Log::begin();
    let mut received = Vec::new();
    for _ in 0..20 {
        let (begin, wal) = log.add(3000);
        proposer.append(begin, wal).await.expect("not fenced");
        proposer.wait_committed(log.end()).await.expect("all are up");
        while received.len() < (log.end() - START) as usize {
            let chunk = chunks.message().await.expect("no error").expect("goes on");
            assert!(chunk.begin_lsn + chunk.wal.len() as u64 <= chunk.commit_lsn);
            received.extend_from_slice(&chunk.wal);
        }
    }
    assert_eq!(received, log.slice(START, log.end()));
}

#[tokio::test]
async fn log_that_is_in_the_object_store_is_removed() {
    let mut trio = Trio::start(&["--wal-keep-bytes", "0", "--trim-interval-ms", "50"]).await;
    let proposer = Proposer::elect(trio.config()).await.expect("all are up");
    let mut log = Log::begin();
    while log.end() < START + (5 << 20) {
        let (begin, wal) = log.add(60_000);
        proposer.append(begin, wal).await.expect("not fenced");
    }
    proposer.wait_committed(log.end()).await.expect("all are up");
    let node = &trio.nodes[0];
    eventually("it knows what is committed", || async { node.status().await.commit_lsn >= log.end().0 })
        .await;
    let report = pb::ReportProgressRequest {
        timeline: Some(timeline().into()),
        pageserver_id: 1,
        received_lsn: log.end().0,
        disk_consistent_lsn: log.end().0,
        remote_consistent_lsn: log.end().0,
    };
    node.client().await.report_progress(report).await.expect("known");
    let folder = node.dir.join(timeline().tenant.to_string()).join(timeline().timeline.to_string());
    let segments = || std::fs::read_dir(&folder).expect("there").count();
    eventually("only the end is left", || async { segments() <= 3 }).await;
    let request =
        pb::ReadWalRequest { timeline: Some(timeline().into()), start_lsn: START.0, end_lsn: 0, term: 0 };
    let gone = node.client().await.read_wal(request).await.expect_err("removed");
    assert_eq!(gone.code(), Code::OutOfRange);
    drop(proposer);
    trio.nodes[0].kill();
    trio.nodes[0].restart();
    assert_eq!(trio.nodes[0].status().await.flush_lsn, log.end().0);
}

#[tokio::test]
async fn a_wiped_safekeeper_knows_nothing_and_comes_back_as_a_learner() {
    let mut trio = Trio::start(&[]).await;
    let mut log = Log::begin();
    let proposer = Proposer::elect(trio.config()).await.expect("all are up");
    let (begin, wal) = log.add(5000);
    proposer.append(begin, wal).await.expect("not fenced");
    proposer.wait_committed(log.end()).await.expect("all are up");
    proposer.release().await;
    trio.nodes[0].kill();
    std::fs::remove_dir_all(&trio.nodes[0].dir).expect("wiped");
    trio.nodes[0].restart();
    // Trap K16: asked without anyone having created it.
    let greeting = pb::Greeting { timeline: Some(timeline().into()), term: 0 };
    let message = pb::ProposerMessage { kind: Some(pb::proposer_message::Kind::Greeting(greeting)) };
    let mut answers = trio.nodes[0]
        .client()
        .await
        .propose(tokio_stream::iter([message]))
        .await
        .expect("connects")
        .into_inner();
    assert_eq!(answers.message().await.expect_err("unknown").code(), Code::NotFound);
    // The others elect; the proposer makes a copy there that does not count.
    let proposer = Proposer::elect(trio.config()).await.expect("two are a majority");
    log.cut(proposer.append_lsn());
    let (begin, wal) = log.add(5000);
    proposer.append(begin, wal).await.expect("not fenced");
    proposer.wait_committed(log.end()).await.expect("two are a majority");
    let end = log.end();
    eventually("the learner has the log", || async {
        let listed = trio.nodes[0].client().await.list_timelines(pb::ListTimelinesRequest {}).await;
        listed.expect("answers").into_inner().timelines.iter().any(|status| status.commit_lsn >= end.0)
    })
    .await;
    assert!(!trio.nodes[0].status().await.voter);
    assert_eq!(read_committed(&trio.nodes[0], START, end).await, log.slice(START, end));
    // With one voter left nothing is committed, though the learner has everything.
    trio.nodes[1].kill();
    let (begin, wal) = log.add(100);
    proposer.append(begin, wal).await.expect("queued");
    let waiting = tokio::time::timeout(Duration::from_secs(2), proposer.wait_committed(log.end())).await;
    assert!(waiting.is_err(), "one voter is no majority");
    trio.nodes[1].restart();
    proposer.wait_committed(log.end()).await.expect("two voters are");
    assert_eq!(trio.addresses()[0].node, NodeId(1));
    assert!(proposer.commit_lsn() >= Lsn(end.0));
}
