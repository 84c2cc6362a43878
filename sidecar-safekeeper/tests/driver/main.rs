//! The proposer's driver against real safekeeper processes: kill -9 of one and of two, lag and catch-up, a wiped disk, takeover.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, PATIENCE, START, Source, eventually};
use strata_common::{Lsn, NodeId};
use strata_walproposer::{AcceptorState, AcceptorStatus, Error, Proposer};

/// Long enough for a commit that can come, on a busy machine; a wait that must not end is given this long to prove wrong.
const MOMENT: Duration = Duration::from_millis(700);

async fn append(proposer: &Proposer, source: &mut Source, payload: usize) -> Lsn {
    let (begin, wal) = source.record(payload);
    proposer.append(begin, wal).await.expect("the term is ours");
    source.end()
}

async fn append_committed(proposer: &Proposer, source: &mut Source, payload: usize) -> Lsn {
    let end = append(proposer, source, payload).await;
    let committed = tokio::time::timeout(PATIENCE, proposer.wait_committed(end)).await;
    committed.unwrap_or_else(|_| panic!("not committed: {:?}", proposer.status())).expect("the term is ours");
    end
}

fn acceptor(proposer: &Proposer, node: u64) -> AcceptorStatus {
    let status = proposer.status();
    status.acceptors.iter().find(|a| a.node == NodeId(node)).expect("it is configured").clone()
}

#[tokio::test]
async fn one_dead_is_not_noticed_two_dead_stop_commits_and_one_back_lets_them_go_on() {
    let mut cluster = Cluster::start().await;
    let mut source = Source::new(START);
    let proposer = Proposer::elect(cluster.config()).await.expect("all are up");
    assert_eq!((proposer.start_lsn(), proposer.append_lsn()), (START, START));
    for _ in 0..50 {
        append_committed(&proposer, &mut source, 300).await;
    }
    cluster.kill(1);
    for _ in 0..50 {
        append_committed(&proposer, &mut source, 300).await;
    }
    cluster.kill(3);
    let end = append(&proposer, &mut source, 300).await;
    let waited = tokio::time::timeout(MOMENT, proposer.wait_committed(end)).await;
    assert!(waited.is_err(), "one of three is no majority");
    cluster.up(1);
    proposer.wait_committed(end).await.expect("the term is still ours");
    append_committed(&proposer, &mut source, 300).await;
    cluster.up(3);
    let end = append_committed(&proposer, &mut source, 300).await;
    eventually("all have everything", || (1..=3).all(|node| acceptor(&proposer, node).commit_lsn >= end))
        .await;
    for node in 1..=3 {
        assert!(cluster.read(node, START, end).await == source.log, "safekeeper {node} has other log");
    }
}

#[tokio::test]
async fn a_safekeeper_that_lagged_far_fetches_from_a_peer_and_is_streamed_to_again() {
    let mut cluster = Cluster::start().await;
    let mut source = Source::new(START);
    let mut config = cluster.config();
    config.limits.retained_bytes_max = 64 << 10;
    let proposer = Proposer::elect(config).await.expect("all are up");
    append_committed(&proposer, &mut source, 100).await;
    cluster.kill(2);
    // Several segments, records that span pages, and one larger than a message.
    for _ in 0..40 {
        append(&proposer, &mut source, 100_000).await;
    }
    append_committed(&proposer, &mut source, 1_500_000).await;
    cluster.up(2);
    let end = append_committed(&proposer, &mut source, 100).await;
    eventually("it streams again", || {
        let status = acceptor(&proposer, 2);
        status.state == AcceptorState::Streaming && status.commit_lsn >= end
    })
    .await;
    assert!(cluster.read(2, START, end).await == source.log, "what was fetched is what was committed");
    // And it counts again.
    cluster.kill(1);
    append_committed(&proposer, &mut source, 100).await;
}

/// Trap K16.
#[tokio::test]
async fn a_wiped_safekeeper_is_fed_as_a_learner_and_neither_counts_nor_votes() {
    let mut cluster = Cluster::start().await;
    let mut source = Source::new(START);
    let proposer = Proposer::elect(cluster.config()).await.expect("all are up");
    for _ in 0..20 {
        append_committed(&proposer, &mut source, 1000).await;
    }
    cluster.wipe(3);
    let end = append_committed(&proposer, &mut source, 1000).await;
    eventually("it is fed", || {
        let status = acceptor(&proposer, 3);
        status.state == AcceptorState::Learner && status.commit_lsn >= end
    })
    .await;
    assert!(cluster.read(3, START, end).await == source.log);
    cluster.kill(1);
    let end = append(&proposer, &mut source, 1000).await;
    assert!(
        tokio::time::timeout(MOMENT, proposer.wait_committed(end)).await.is_err(),
        "2 and a learner are no majority"
    );
    let mut config = cluster.config();
    config.timing.elect_max = MOMENT;
    let elected = Proposer::elect(config).await;
    assert!(matches!(elected, Err(Error::Timeout { .. })), "2 and a learner elect nobody: {elected:?}");
    cluster.up(1);
    let error = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            committed = proposer.wait_committed(end) => committed.err(),
            error = proposer.over() => Some(error),
        }
    });
    assert_eq!(error.await, Ok(None), "with 1 it is committed; the failed candidate asked nobody for a vote");
}

#[tokio::test]
async fn a_second_proposer_fences_the_first_and_keeps_all_that_was_committed() {
    let cluster = Cluster::start().await;
    let mut source = Source::new(START);
    let first = Proposer::elect(cluster.config()).await.expect("all are up");
    let committed = append_committed(&first, &mut source, 500).await;
    let second = Proposer::elect(cluster.config()).await.expect("all are up");
    assert!(second.term() > first.term() && second.start_lsn() >= committed);
    let fenced = tokio::time::timeout(PATIENCE, first.over()).await.expect("it hears of it");
    assert_eq!(fenced, Error::Fenced { ours: first.term(), seen: second.term() });
    let (begin, wal) = source.record(100);
    assert_eq!(first.append(begin, wal.clone()).await, Err(fenced.clone()));
    assert_eq!(first.wait_committed(source.end()).await, Err(fenced.clone()));
    assert_eq!(Proposer::resume(cluster.config(), first.term()).await.err(), Some(fenced));
    second.append(begin, wal).await.expect("the term is ours");
    second.wait_committed(source.end()).await.expect("the term is ours");
    assert!(cluster.read(1, START, source.end()).await == source.log);
}

#[tokio::test]
async fn a_term_is_handed_on_and_survives_all_safekeepers_being_killed() {
    let mut cluster = Cluster::start().await;
    let mut source = Source::new(START);
    let supervisor = Proposer::elect(cluster.config()).await.expect("all are up");
    let handoff = append_committed(&supervisor, &mut source, 114).await;
    let term = supervisor.term();
    supervisor.release().await;

    let worker = Proposer::resume(cluster.config(), term).await.expect("the term is still the highest");
    assert_eq!((worker.term(), worker.start_lsn(), worker.append_lsn()), (term, START, handoff));
    assert!(worker.commit_lsn() >= handoff);
    append_committed(&worker, &mut source, 2000).await;
    for node in 1..=3 {
        cluster.kill(node);
    }
    let end = append(&worker, &mut source, 2000).await;
    for node in 1..=3 {
        cluster.up(node);
    }
    worker.wait_committed(end).await.expect("the term is still ours");
    worker.release().await;

    let next = Proposer::elect(cluster.config()).await.expect("all are up");
    assert_eq!(next.start_lsn(), end, "the next term begins where the last one ended");
    eventually("log of the older term is committed by the new one", || next.commit_lsn() >= end).await;
    assert!(next.term() > term);
}

/// The safekeepers stay well, the proposer does not wear them out, and whoever comes next goes on.
#[tokio::test]
async fn log_that_is_none_is_refused_by_all_named_and_not_committed() {
    let cluster = Cluster::start().await;
    let mut source = Source::new(START);
    let first = Proposer::elect(cluster.config()).await.expect("all are up");
    let good = append_committed(&first, &mut source, 500).await;
    let before = source.log.len();
    let (begin, wal) = source.record(300);
    let mut spoilt = wal.to_vec();
    spoilt[200] ^= 1;
    first.append(begin, spoilt.into()).await.expect("taken: whether it is log is for the safekeepers to say");
    let refusals = |node| cluster.log_of(node).matches("is no log of this timeline").count();
    eventually("all refuse", || (1..=3).all(|node| refusals(node) > 0)).await;
    eventually("the status names it", || {
        let problems = first.status().problems.clone();
        problems.iter().filter(|problem| problem.contains("is no log of this timeline")).count() == 3
    })
    .await;
    assert!(tokio::time::timeout(3 * MOMENT, first.wait_committed(good + 1)).await.is_err());
    assert_eq!(first.commit_lsn(), good);
    for node in 1..=3 {
        assert!(refusals(node) < 40, "tried again {} times in seconds", refusals(node));
    }
    let second = Proposer::elect(cluster.config()).await.expect("no safekeeper has stopped");
    assert_eq!(second.start_lsn(), good);
    source.log.truncate(before);
    second.append(begin, wal.clone()).await.expect("the term is ours");
    second.wait_committed(source.end()).await.expect("the term is ours");
    source.log.extend_from_slice(&wal);
    eventually("all have it", || (1..=3).all(|node| acceptor(&second, node).commit_lsn == source.end()))
        .await;
    for node in 1..=3 {
        assert!(cluster.read(node, START, source.end()).await == source.log, "safekeeper {node}");
    }
    assert_eq!(second.status().problems, Vec::<String>::new());
}

/// Only bytes that make whole records are committed, whatever the pieces they come in.
#[tokio::test]
async fn half_a_record_is_not_committed_and_is_cut_by_the_next_term() {
    let cluster = Cluster::start().await;
    let mut source = Source::new(START);
    let first = Proposer::elect(cluster.config()).await.expect("all are up");
    let whole = append_committed(&first, &mut source, 500).await;
    let before = source.log.len();
    let (begin, wal) = source.record(20_000);
    first.append(begin, wal.slice(..9_000)).await.expect("the term is ours");
    assert!(tokio::time::timeout(MOMENT, first.wait_committed(whole + 1)).await.is_err());
    let second = Proposer::elect(cluster.config()).await.expect("all are up");
    assert_eq!(second.start_lsn(), whole, "K8: a term begins at a record's end");
    source.log.truncate(before);
    let mut other = Source::new(START);
    other.record(500);
    append_committed(&second, &mut other, 40).await;
    assert!(cluster.read(2, START, other.end()).await == other.log);
}
