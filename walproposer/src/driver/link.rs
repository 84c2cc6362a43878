//! One safekeeper: connects, carries messages both ways, reports its end, and comes back after a pause.

use std::time::Duration;

use rand::Rng;
use strata_common::{NodeId, TenantTimelineId};
use strata_proto::quorum::FromAcceptor;
use strata_proto::{MESSAGE_BYTES_MAX, wal};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::config::Timing;
use crate::core::{AcceptorAddress, CreateCopy};

type Client = wal::safekeeper_client::SafekeeperClient<Channel>;

/// Window of HTTP/2 flow control, bytes: above what is in flight on a fast network.
const WINDOW_BYTES: u32 = 4 << 20;

/// What a link tells the actor. A session is one connection; numbers go up.
#[derive(Debug)]
pub(super) enum LinkEvent {
    Up {
        node: NodeId,
        session: Session,
    },
    Message {
        node: NodeId,
        session: u64,
        message: FromAcceptor,
    },
    /// `is_log_refused`: the safekeeper says that what was sent to it cannot be; a new connection does not cure that.
    Down {
        node: NodeId,
        session: u64,
        reason: String,
        is_log_refused: bool,
    },
    NotFound {
        node: NodeId,
    },
}

/// The actor's end of a connection. Dropping it ends the connection.
#[derive(Debug)]
pub(super) struct Session {
    pub number: u64,
    /// Bounded by the core: at most `Limits::in_flight_bytes_max` of log is in it.
    pub outbound: mpsc::UnboundedSender<wal::ProposerMessage>,
    pub _alive: oneshot::Sender<()>,
}

pub(super) struct Link {
    pub at: AcceptorAddress,
    pub timeline: TenantTimelineId,
    pub timing: Timing,
    pub events: mpsc::Sender<LinkEvent>,
    /// Copies to be created at this safekeeper.
    pub creates: mpsc::Receiver<CreateCopy>,
}

impl Link {
    /// Runs until the actor is gone.
    pub async fn run(mut self) {
        let mut pause = self.timing.reconnect_min;
        for number in 1.. {
            let started = tokio::time::Instant::now();
            let end = self.session(number).await;
            if self.events.is_closed() {
                return;
            }
            let node = self.at.node;
            if end.code() == Code::NotFound && self.events.send(LinkEvent::NotFound { node }).await.is_err() {
                return;
            }
            let reason = describe(&end);
            tracing::debug!(%node, address = self.at.address, reason, "safekeeper connection ended");
            let is_log_refused = end.code() == Code::InvalidArgument;
            let down = LinkEvent::Down { node, session: number, reason, is_log_refused };
            if self.events.send(down).await.is_err() {
                return;
            }
            pause = if started.elapsed() > self.timing.reconnect_max {
                self.timing.reconnect_min
            } else {
                (pause * 2).min(self.timing.reconnect_max)
            };
            let jitter = rand::rng().random_range(0.5..1.0);
            tokio::select! {
                _ = tokio::time::sleep(pause.mul_f64(jitter)) => {}
                Some(copy) = self.creates.recv() => self.create(copy).await,
            }
        }
    }

    async fn connect(&self) -> Result<Client, tonic::Status> {
        let unavailable = |error: &dyn std::error::Error| tonic::Status::unavailable(error.to_string());
        let endpoint = Endpoint::from_shared(format!("http://{}", self.at.address))
            .map_err(|error| unavailable(&error))?
            .connect_timeout(self.timing.connect_max)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.timing.silence_max / 3)
            .keep_alive_timeout(self.timing.silence_max.mul_f64(2.0 / 3.0))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let channel = endpoint.connect().await.map_err(|error| unavailable(&error))?;
        let client = Client::new(channel);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// One connection, from its making to its end; the answer is why it ended.
    async fn session(&mut self, number: u64) -> tonic::Status {
        let mut client = match self.connect().await {
            Ok(client) => client,
            Err(status) => return status,
        };
        let node = self.at.node;
        let (outbound, requests) = mpsc::unbounded_channel();
        let (alive, mut dropped) = oneshot::channel();
        let session = Session { number, outbound, _alive: alive };
        if self.events.send(LinkEvent::Up { node, session }).await.is_err() {
            return tonic::Status::cancelled("released");
        }
        let carry = async {
            let answer = client.propose(UnboundedReceiverStream::new(requests)).await?;
            let mut replies = answer.into_inner();
            while let Some(reply) = replies.message().await? {
                let message = FromAcceptor::try_from(reply)?;
                if self.events.send(LinkEvent::Message { node, session: number, message }).await.is_err() {
                    return Err(tonic::Status::cancelled("released"));
                }
            }
            Err::<(), _>(tonic::Status::unavailable("the safekeeper closed the stream"))
        };
        tokio::select! {
            end = carry => end.err().unwrap_or_else(|| tonic::Status::unavailable("the stream ended")),
            _ = &mut dropped => tonic::Status::cancelled("dropped here"),
        }
    }

    /// Creates a learner's copy. A failure shows when the next connection is refused again.
    async fn create(&self, copy: CreateCopy) {
        let request = wal::CreateTimelineRequest {
            timeline: Some(self.timeline.into()),
            system_id: copy.facts.system_id.0,
            pg_version_num: copy.facts.pg_version_num,
            wal_segment_bytes: copy.facts.wal_segment_bytes,
            start_lsn: copy.start_lsn.0,
            incarnation: copy.incarnation.to_vec().into(),
            membership: Some((&copy.membership).into()),
        };
        let call = async { self.connect().await?.create_timeline(request).await };
        let node = self.at.node;
        match tokio::time::timeout(Duration::from_secs(10), call).await {
            Ok(Ok(_)) => {
                tracing::warn!(%node, "safekeeper had lost the timeline: created there as a learner")
            }
            Ok(Err(status)) => {
                tracing::warn!(%node, error = describe(&status), "could not create the timeline")
            }
            Err(_) => tracing::warn!(%node, "creating the timeline took too long"),
        }
    }
}

fn describe(status: &tonic::Status) -> String {
    if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() }
}
