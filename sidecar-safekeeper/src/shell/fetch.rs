//! Pulls log that this copy lacks from peers, on behalf of the acceptor and off the commit path.
//!
//! Peers are read with the proposer's own term, so each answers only if that term's history is in force there: then its log
//! is a prefix of the proposer's, as ours is.

use std::sync::Arc;
use std::time::Duration;

use strata_common::{Lsn, Term};
use strata_proto::MESSAGE_BYTES_MAX;
use strata_proto::wal::ReadWalRequest;
use strata_proto::wal::safekeeper_client::SafekeeperClient;
use tonic::Status;
use tonic::transport::Endpoint;

use super::status;
use super::timeline::Timeline;
use crate::core::{Event, FetchId};

/// A peer that cannot be reached in this time is passed over.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// A peer says something at least once a second; one that is silent for so long is passed over.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// What to fetch; fields as in `core::Command::Fetch`.
pub struct Order {
    pub fetch: FetchId,
    pub term: Term,
    pub from: Lsn,
    pub until: Lsn,
    pub peers: Vec<String>,
}

/// Tries the peers in order, each from where the one before stopped, and reports the end to the acceptor.
pub async fn run(timeline: Arc<Timeline>, order: Order) {
    let mut position = order.from;
    let mut oldest: Option<Lsn> = None;
    for peer in &order.peers {
        match pull(&timeline, &order, peer, &mut position).await {
            Ok(()) => {
                timeline.fetch_ended(order.fetch);
                return;
            }
            Err(error) => {
                tracing::warn!(timeline = %timeline.id, peer, at = %position, %error, "cannot fetch log");
                oldest = match (oldest, status::oldest_of(&error)) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
        }
    }
    timeline.fetch_ended(order.fetch);
    let fetch = order.fetch;
    // Nobody had more to give: a gap counts only if nothing came, or the acceptor would forget what did.
    match oldest.filter(|_| position == order.from) {
        Some(oldest) => timeline.step(Event::FetchGap { fetch, oldest }),
        None => timeline.step(Event::FetchFailed { fetch }),
    }
}

async fn pull(timeline: &Timeline, order: &Order, peer: &str, position: &mut Lsn) -> Result<(), Status> {
    let endpoint = Endpoint::from_shared(format!("http://{peer}"))
        .map_err(|error| Status::invalid_argument(format!("{peer} is no address: {error}")))?
        .connect_timeout(CONNECT_TIME_MAX)
        .initial_stream_window_size(4 << 20)
        .tcp_nodelay(true);
    let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut client = SafekeeperClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let request = ReadWalRequest {
        timeline: Some(timeline.id.into()),
        start_lsn: position.0,
        end_lsn: order.until.0,
        term: order.term.0,
    };
    let mut chunks = client.read_wal(request).await?.into_inner();
    while *position < order.until {
        let next = tokio::time::timeout(SILENCE_MAX, chunks.message());
        let next = next.await.map_err(|_| Status::deadline_exceeded("the peer is silent"))?;
        let chunk = next?.ok_or_else(|| Status::unavailable("the peer ended the stream"))?;
        if chunk.wal.is_empty() {
            continue;
        }
        if chunk.begin_lsn != position.0 {
            return Err(Status::internal(format!("the peer sent log of {}", Lsn(chunk.begin_lsn))));
        }
        timeline.queue.wait_for_room().await;
        let end = *position + chunk.wal.len() as u64;
        timeline.fetched(order.fetch, *position, chunk.wal);
        *position = end;
    }
    Ok(())
}
