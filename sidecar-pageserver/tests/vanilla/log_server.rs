//! A safekeeper as far as a pageserver needs one: hands out the log that it is given, notes the progress that it is told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use strata_common::{Lsn, TimelineId};
use strata_proto::wal::safekeeper_server::{Safekeeper, SafekeeperServer};
use strata_proto::wal::{
    AcceptorMessage, CreateTimelineRequest, CreateTimelineResponse, DeleteTimelineRequest,
    DeleteTimelineResponse, ListTimelinesRequest, ListTimelinesResponse, ProposerMessage, ReadWalRequest,
    ReportProgressRequest, ReportProgressResponse, WalChunk,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Not a divisor of any record or page, so that pieces end anywhere.
const PIECE_BYTES: usize = 100_003;

/// Contiguous log.
#[derive(Clone)]
pub struct Log {
    pub start: Lsn,
    pub bytes: Bytes,
}

#[derive(Clone, Default)]
pub struct LogServer {
    /// Of every timeline that has none of its own.
    pub log: Arc<Mutex<Option<Log>>>,
    pub logs: Arc<Mutex<HashMap<TimelineId, Log>>>,
    pub progress: Arc<Mutex<Vec<ReportProgressRequest>>>,
}

impl LogServer {
    /// What there is of a timeline's log at this moment.
    fn log_of(&self, request: &ReadWalRequest) -> Option<Log> {
        let id = request.timeline.as_ref().and_then(|t| TimelineId::try_from(&t.timeline_id[..]).ok());
        let logs = self.logs.lock().expect("no test panics while holding it");
        let own = id.and_then(|id| logs.get(&id).cloned());
        own.or_else(|| self.log.lock().expect("no test panics while holding it").clone())
    }

    /// Serves on a free port for as long as the current runtime lives.
    pub async fn serve(&self) -> Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let service = SafekeeperServer::new(self.clone());
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        Ok(address)
    }
}

#[tonic::async_trait]
impl Safekeeper for LogServer {
    async fn create_timeline(
        &self,
        _: Request<CreateTimelineRequest>,
    ) -> Result<Response<CreateTimelineResponse>, Status> {
        Err(Status::unimplemented("not asked for by pageservers"))
    }

    type ProposeStream = ReceiverStream<Result<AcceptorMessage, Status>>;

    async fn propose(
        &self,
        _: Request<Streaming<ProposerMessage>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        Err(Status::unimplemented("not asked for by pageservers"))
    }

    type ReadWalStream = ReceiverStream<Result<WalChunk, Status>>;

    async fn read_wal(
        &self,
        request: Request<ReadWalRequest>,
    ) -> Result<Response<Self::ReadWalStream>, Status> {
        let request = request.into_inner();
        let start = Lsn(request.start_lsn);
        let log = self.log_of(&request).ok_or_else(|| Status::not_found("no log here yet"))?;
        let end = log.start + log.bytes.len() as u64;
        if start < log.start || start > end {
            return Err(Status::out_of_range(format!("log is from {} to {end}, not at {start}", log.start)));
        }
        let (sender, stream) = mpsc::channel(4);
        let server = self.clone();
        tokio::spawn(async move {
            let mut at = start;
            while let Some(log) = server.log_of(&request) {
                let end = log.start + log.bytes.len() as u64;
                let left = log.bytes.slice((at - log.start) as usize..);
                let wal = left.slice(..left.len().min(PIECE_BYTES));
                let (begin_lsn, idle) = (at.0, wal.is_empty());
                at = at + wal.len() as u64;
                if sender.send(Ok(WalChunk { begin_lsn, wal, commit_lsn: end.0, term: 1 })).await.is_err() {
                    return;
                }
                if idle {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn report_progress(
        &self,
        request: Request<ReportProgressRequest>,
    ) -> Result<Response<ReportProgressResponse>, Status> {
        self.progress.lock().expect("no test panics while holding it").push(request.into_inner());
        Ok(Response::new(ReportProgressResponse {}))
    }

    async fn list_timelines(
        &self,
        _: Request<ListTimelinesRequest>,
    ) -> Result<Response<ListTimelinesResponse>, Status> {
        Err(Status::unimplemented("not asked for by pageservers"))
    }

    async fn delete_timeline(
        &self,
        _: Request<DeleteTimelineRequest>,
    ) -> Result<Response<DeleteTimelineResponse>, Status> {
        Err(Status::unimplemented("not asked for by pageservers"))
    }
}
