//! Serves a node on a listener until told to stop: the gRPC server with its limits, and the timers.

use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use strata_proto::MESSAGE_BYTES_MAX;
use strata_proto::wal::safekeeper_server::SafekeeperServer;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::node::Node;
use super::service::SafekeeperService;
use super::status;
use crate::core::Event;

/// A dead peer is found by pings within this and [`PING_ANSWER_MAX`] (trap P5).
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_ANSWER_MAX: Duration = Duration::from_secs(5);
/// The commit LSN is saved so often; after a crash the search for the log's end starts there.
const COMMIT_SAVE_EVERY: Duration = Duration::from_secs(1);
/// Streams are given this long to end at a stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// How log is removed.
#[derive(Clone, Copy, Debug)]
pub struct Trimming {
    pub every: Duration,
    /// Kept below what every pageserver has in the object store, for copies that lag.
    pub keep_bytes: u64,
}

/// Serves until `stop` is done, then ends all streams, saves what is to be saved and returns.
pub async fn serve(
    node: Arc<Node>,
    listener: TcpListener,
    trimming: Trimming,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).context("cannot take the listener over")?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = SafekeeperServer::new(SafekeeperService::new(node.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_ANSWER_MAX))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(1 << 20)
        .add_service(service);
    let timers = [
        tokio::spawn(every(COMMIT_SAVE_EVERY, node.clone(), |node| {
            node.for_each(|timeline| timeline.step(Event::CommitSaveDue));
        })),
        tokio::spawn(every(trimming.every, node.clone(), move |node| {
            node.for_each(|timeline| timeline.trim(trimming.keep_bytes));
        })),
    ];
    let (stop_sender, stop_receiver) = tokio::sync::oneshot::channel::<()>();
    let serving = server.serve_with_incoming_shutdown(incoming, async {
        // Dropped or sent: both mean stop.
        let _ = stop_receiver.await;
    });
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.context("the gRPC server died"),
        () = stop => {}
    }
    timers.iter().for_each(tokio::task::JoinHandle::abort);
    drop(stop_sender);
    let stopping =
        tokio::task::spawn_blocking(move || node.for_each(|timeline| timeline.stop(&status::stopping())));
    stopping.await.context("stopping the timelines")?;
    match tokio::time::timeout(STOP_TIME_MAX, serving).await {
        Ok(ended) => ended.context("the gRPC server died"),
        Err(_) => {
            tracing::warn!("a client did not let go of its stream in time");
            Ok(())
        }
    }
}

async fn every(period: Duration, node: Arc<Node>, work: impl Fn(&Node)) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        work(&node);
    }
}

/// What `/status` adds: the timelines.
pub fn status_page(node: &Node) -> serde_json::Value {
    use super::node::Listed;
    let timelines = node.list().into_iter().map(|listed| match listed {
        Listed::Refused(id, problem) => {
            serde_json::json!({"tenant_id": id.tenant, "timeline_id": id.timeline, "problem": problem})
        }
        Listed::Open(timeline) => {
            let now = timeline.snapshot();
            serde_json::json!({
                "tenant_id": timeline.id.tenant,
                "timeline_id": timeline.id.timeline,
                "incarnation": now.state.incarnation,
                "membership": now.state.membership,
                "voter": now.is_voter,
                "term": now.state.term,
                "history": now.state.history,
                "start_lsn": now.state.start_lsn,
                "oldest_lsn": now.state.oldest_lsn,
                "flush_lsn": now.flush_lsn,
                "commit_lsn": now.state.commit_lsn,
                "remote_consistent_lsn": now.remote_consistent_lsn,
                "proposers": now.connections,
                "readers": timeline.readers.count(),
                "problem": now.problem,
            })
        }
    });
    serde_json::json!({"timelines": timelines.collect::<Vec<_>>()})
}
