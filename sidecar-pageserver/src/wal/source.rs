//! Committed log from the safekeepers: one `ReadWal` stream from one of them, another when that one fails or stalls.
//!
//! Only committed log is asked for (term 0), and committed log is the same everywhere, so changing the source needs no
//! agreement with anyone: the next stream begins where whole records end here. Every safekeeper is told how far we are.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use strata_common::{Lsn, TenantTimelineId};
use strata_proto::wal::safekeeper_client::SafekeeperClient;
use strata_proto::wal::{ReadWalRequest, ReportProgressRequest, WalChunk};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// A connection that is not made within this time is not worth waiting for: another safekeeper has the log too.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// A safekeeper speaks at least once a second (`WalChunk`); after this silence it counts as gone (P5).
pub const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A progress report that takes longer is given up; the next one says more.
const REPORT_TIME_MAX: Duration = Duration::from_secs(2);

/// How far a timeline is here, as reported to safekeepers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    pub received: Lsn,
    pub disk_consistent: Lsn,
    pub remote_consistent: Lsn,
}

/// Why a stream ended. All of them mean: try another safekeeper.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("safekeeper address '{address}' is not host:port: {reason}")]
    Address { address: String, reason: String },
    #[error("safekeeper {address}: {status}")]
    Refused { address: String, status: tonic::Status },
    #[error("safekeeper {address} said nothing for {} s", SILENCE_MAX.as_secs())]
    Silent { address: String },
    #[error("safekeeper {address} ended the stream")]
    Ended { address: String },
}

impl SourceError {
    /// The safekeeper does not have the timeline: usual for a branch on which no compute has ever run.
    pub fn is_unknown_timeline(&self) -> bool {
        matches!(self, SourceError::Refused { status, .. } if status.code() == tonic::Code::NotFound)
    }
}

/// The configured safekeepers, each with one shared HTTP/2 connection that is made when first used.
#[derive(Clone)]
pub struct Safekeepers {
    nodes: Vec<(String, Channel)>,
}

impl Safekeepers {
    /// `addresses` are `host:port`, or `id=host:port`. Must be called on the runtime that will drive the connections.
    pub fn new(addresses: &[String]) -> Result<Safekeepers, SourceError> {
        let connect = |address: &String| {
            let address = address.rsplit('=').next().unwrap_or(address).to_owned();
            let endpoint = Endpoint::from_shared(format!("http://{address}"))
                .map_err(|e| SourceError::Address { address: address.clone(), reason: e.to_string() })?
                .connect_timeout(CONNECT_TIME_MAX)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(Duration::from_secs(2))
                .keep_alive_timeout(Duration::from_secs(3))
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(16 << 20);
            Ok((address, endpoint.connect_lazy()))
        };
        Ok(Safekeepers { nodes: addresses.iter().map(connect).collect::<Result<_, SourceError>>()? })
    }

    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    fn client(channel: &Channel) -> SafekeeperClient<Channel> {
        SafekeeperClient::new(channel.clone())
            .max_decoding_message_size(strata_proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(strata_proto::MESSAGE_BYTES_MAX)
    }

    /// Opens a stream of committed log from `start` at safekeeper number `which` (taken modulo their count).
    pub async fn open(
        &self,
        which: usize,
        id: TenantTimelineId,
        start: Lsn,
    ) -> Result<LogStream, SourceError> {
        let (address, channel) = &self.nodes[which % self.nodes.len()];
        let request = ReadWalRequest { timeline: Some(id.into()), start_lsn: start.0, end_lsn: 0, term: 0 };
        let mut client = Safekeepers::client(channel);
        let opening = tokio::time::timeout(SILENCE_MAX, client.read_wal(request));
        let refused = |status| SourceError::Refused { address: address.clone(), status };
        let answer = opening.await.map_err(|_| SourceError::Silent { address: address.clone() })?;
        Ok(LogStream::new(address.clone(), answer.map_err(refused)?.into_inner()))
    }

    /// Tells all safekeepers at once; failures are theirs to bear, as the next report comes within a second.
    pub async fn report(&self, pageserver_id: u64, id: TenantTimelineId, progress: Progress) {
        let reports = self.nodes.iter().map(|(address, channel)| async move {
            let request = ReportProgressRequest {
                timeline: Some(id.into()),
                pageserver_id,
                received_lsn: progress.received.0,
                disk_consistent_lsn: progress.disk_consistent.0,
                remote_consistent_lsn: progress.remote_consistent.0,
            };
            let mut client = Safekeepers::client(channel);
            match tokio::time::timeout(REPORT_TIME_MAX, client.report_progress(request)).await {
                Ok(Ok(_)) => {}
                Ok(Err(status)) => {
                    tracing::debug!(timeline = %id, safekeeper = %address, %status, "progress not taken")
                }
                Err(_) => tracing::debug!(timeline = %id, safekeeper = %address, "progress report timed out"),
            }
        });
        futures::future::join_all(reports).await;
    }
}

/// One open stream.
pub struct LogStream {
    pub address: String,
    stream: BoxStream<'static, Result<WalChunk, Status>>,
}

impl LogStream {
    pub fn new(
        address: String,
        stream: impl Stream<Item = Result<WalChunk, Status>> + Send + 'static,
    ) -> LogStream {
        LogStream { address, stream: Box::pin(stream) }
    }

    /// The next chunk, which may be empty.
    pub async fn next(&mut self) -> Result<WalChunk, SourceError> {
        match tokio::time::timeout(SILENCE_MAX, self.stream.next()).await {
            Err(_) => Err(SourceError::Silent { address: self.address.clone() }),
            Ok(None) => Err(SourceError::Ended { address: self.address.clone() }),
            Ok(Some(Err(status))) => Err(SourceError::Refused { address: self.address.clone(), status }),
            Ok(Some(Ok(chunk))) => Ok(chunk),
        }
    }
}
