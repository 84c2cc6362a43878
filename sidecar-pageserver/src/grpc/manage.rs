//! `pageserver.v1.Pageserver`: timelines are made, listed and asked about.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use strata_common::{Lsn, SystemId, TenantTimelineId, TimelineId};
use strata_proto::convert::TimelineRefId;
use strata_proto::pageserver::import_timeline_request::Kind as ImportPart;
use strata_proto::pageserver::lsn_at_time_response::Kind as TimeKind;
use strata_proto::pageserver::pageserver_server::Pageserver;
use strata_proto::pageserver::{
    CreateBranchRequest, CreateBranchResponse, DeleteTimelineRequest, DeleteTimelineResponse,
    ImportTimelineRequest, ImportTimelineResponse, ListTimelinesRequest, ListTimelinesResponse,
    LogStateRequest, LogStateResponse, LsnAtTimeRequest, LsnAtTimeResponse, TimelineInfo, TimelineRef,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::getpage;
use crate::import::ImportError;
use crate::node::{EngineTimeline, Node};
use crate::service::{self, BranchPoint, ServiceError, TimeAnswer};
use crate::storage::{ErrorKind, StorageError};
use crate::store::StoreError;
use crate::timeline::WaitError;
use crate::view::ViewError;

/// Pieces of a tar between the network and the disk.
const TAR_PIECES_QUEUED_MAX: usize = 16;

pub(super) struct Manage {
    node: Arc<Node>,
}

impl Manage {
    pub fn new(node: Arc<Node>) -> Manage {
        Manage { node }
    }

    /// Runs `work` on the node's runtime: what storage starts must outlive this connection.
    async fn on_node<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
    ) -> Result<T, Status> {
        let done = self.node.runtime().spawn(work).await;
        done.map_err(|e| Status::internal(e.to_string()))?.map_err(|e| status(&e))
    }
}

pub(super) fn status_of_wait(error: &WaitError) -> Status {
    let text = error.to_string();
    match error {
        WaitError::TimedOut { .. } | WaitError::Fenced { .. } | WaitError::Closed(_) => {
            Status::unavailable(text)
        }
        WaitError::Parked { .. } => Status::failed_precondition(text),
        WaitError::Broken { .. } => Status::data_loss(text),
    }
}

pub(super) fn status_of_view(error: &ViewError) -> Status {
    let text = error.to_string();
    match error {
        ViewError::Store(StoreError::Unavailable(_)) => Status::unavailable(text),
        ViewError::Store(StoreError::Fenced(_)) => Status::failed_precondition(text),
        ViewError::Store(StoreError::BelowHistory { .. }) | ViewError::NoMark(_) => {
            Status::out_of_range(text)
        }
        ViewError::Store(StoreError::Corrupt(_)) | ViewError::Redo(_) | ViewError::Damaged { .. } => {
            Status::data_loss(text)
        }
    }
}

pub(super) fn status_of_storage(error: &StorageError) -> Status {
    let text = error.to_string();
    match error {
        StorageError::NotFound(_) => Status::not_found(text),
        StorageError::AlreadyExists(_) => Status::already_exists(text),
        StorageError::HasBranches { .. } | StorageError::LaterTerm { .. } => {
            Status::failed_precondition(text)
        }
        StorageError::BelowStart { .. } => Status::out_of_range(text),
        other => match other.kind() {
            ErrorKind::Retryable => Status::unavailable(text),
            ErrorKind::Stale => Status::failed_precondition(text),
            ErrorKind::BadInput => Status::invalid_argument(text),
            ErrorKind::Corruption => Status::data_loss(text),
        },
    }
}

fn status(error: &ServiceError) -> Status {
    match error {
        ServiceError::NotFound(_) => Status::not_found(error.to_string()),
        ServiceError::Wait(wait) => status_of_wait(wait),
        ServiceError::View(view) => status_of_view(view),
        ServiceError::Storage(storage) | ServiceError::Import(ImportError::Storage(storage)) => {
            status_of_storage(storage)
        }
        ServiceError::Import(ImportError::Spool(_)) => Status::resource_exhausted(error.to_string()),
        ServiceError::Import(_) | ServiceError::Version(_) => Status::invalid_argument(error.to_string()),
        ServiceError::NotARecordEnd { .. } => Status::failed_precondition(error.to_string()),
        ServiceError::Internal(_) => Status::internal(error.to_string()),
    }
}

fn timeline_id(message: Option<TimelineRef>) -> Result<TenantTimelineId, Status> {
    Ok(TimelineRefId::try_from(message)?.0)
}

/// The tar as it comes over the network, for a reader that blocks. Ends with an error if the network did.
struct TarReader {
    pieces: mpsc::Receiver<Result<Bytes, Status>>,
    piece: Bytes,
}

impl Read for TarReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(status)) => return Err(std::io::Error::other(status.to_string())),
            }
        }
        let count = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

async fn forward(mut input: Streaming<ImportTimelineRequest>, pieces: mpsc::Sender<Result<Bytes, Status>>) {
    loop {
        let piece = match input.message().await {
            Ok(None) => return,
            Ok(Some(ImportTimelineRequest { kind: Some(ImportPart::Tar(piece)) })) => Ok(piece),
            Ok(Some(_)) => Err(Status::invalid_argument("only the first message holds the header")),
            Err(status) => Err(status),
        };
        let failed = piece.is_err();
        if pieces.send(piece).await.is_err() || failed {
            return;
        }
    }
}

/// Never an error: what is wrong with one timeline stands in its `problem`.
async fn info(timeline: &EngineTimeline) -> TimelineInfo {
    let engine = timeline.store.status();
    let running = timeline.running();
    let ancestor = timeline.store.ancestor();
    let problem = timeline.problem().or(engine.problem);
    let counted = getpage::logical_bytes(timeline).await;
    let uncounted = counted.as_ref().err().map(|error| format!("its size is not known: {error}"));
    TimelineInfo {
        timeline: Some(timeline.id.into()),
        ancestor_timeline_id: ancestor.map(|a| Bytes::from(a.timeline.to_vec())).unwrap_or_default(),
        ancestor_lsn: ancestor.map_or(0, |a| a.lsn.0),
        last_record_lsn: timeline.last_record().0,
        disk_consistent_lsn: engine.disk_consistent.0,
        remote_consistent_lsn: engine.remote_consistent.0,
        logical_bytes: counted.unwrap_or(0),
        physical_bytes: engine.physical_bytes,
        state: running.name().to_owned(),
        problem: problem.or(uncounted).unwrap_or_default(),
    }
}

#[tonic::async_trait]
impl Pageserver for Manage {
    async fn import_timeline(
        &self,
        request: Request<Streaming<ImportTimelineRequest>>,
    ) -> Result<Response<ImportTimelineResponse>, Status> {
        let mut input = request.into_inner();
        let Some(ImportTimelineRequest { kind: Some(ImportPart::Header(header)) }) = input.message().await?
        else {
            return Err(Status::invalid_argument("the first message must hold the header"));
        };
        let id = timeline_id(header.timeline)?;
        let pg_version_num = service::version_num(header.pg_version_num).map_err(|e| status(&e))?;
        let system_id = (header.system_id != 0).then_some(SystemId(header.system_id));
        let (sender, pieces) = mpsc::channel(TAR_PIECES_QUEUED_MAX);
        tokio::spawn(forward(input, sender));
        let node = self.node.clone();
        let work = self.node.runtime().spawn_blocking(move || {
            service::import_blocking(&node, id, system_id, TarReader { pieces, piece: Bytes::new() })
        });
        let imported = work.await.map_err(|e| Status::internal(e.to_string()))?.map_err(|e| status(&e))?;
        Ok(Response::new(ImportTimelineResponse {
            start_lsn: imported.start_lsn.0,
            system_id: imported.system_id.0,
            wal_segment_bytes: imported.wal_segment_bytes,
            pg_version_num,
        }))
    }

    async fn create_branch(
        &self,
        request: Request<CreateBranchRequest>,
    ) -> Result<Response<CreateBranchResponse>, Status> {
        let request = request.into_inner();
        let id = timeline_id(request.timeline)?;
        let ancestor = TimelineId::try_from(&request.ancestor_timeline_id[..])
            .map_err(|e| Status::invalid_argument(format!("ancestor_timeline_id: {e}")))?;
        let point = BranchPoint { ancestor, lsn: Lsn(request.lsn), at_least: Lsn(request.at_least_lsn) };
        let node = self.node.clone();
        let made = self.on_node(async move { service::branch(&node, id, point).await }).await?;
        Ok(Response::new(CreateBranchResponse {
            start_lsn: made.start_lsn.0,
            system_id: made.system_id.0,
            wal_segment_bytes: made.wal_segment_bytes,
        }))
    }

    async fn list_timelines(
        &self,
        _request: Request<ListTimelinesRequest>,
    ) -> Result<Response<ListTimelinesResponse>, Status> {
        let attached = self.node.timelines();
        let listing = async move {
            let mut timelines = Vec::with_capacity(attached.len());
            for timeline in attached {
                timelines.push(info(&timeline).await);
            }
            Ok(timelines)
        };
        let mut timelines = self.on_node(listing).await?;
        timelines.extend(self.node.unattached().into_iter().map(|unattached| TimelineInfo {
            timeline: Some(unattached.id.into()),
            state: "broken".to_owned(),
            problem: unattached.reason,
            ..TimelineInfo::default()
        }));
        Ok(Response::new(ListTimelinesResponse { timelines }))
    }

    async fn log_state(
        &self,
        request: Request<LogStateRequest>,
    ) -> Result<Response<LogStateResponse>, Status> {
        let request = request.into_inner();
        let id = timeline_id(request.timeline)?;
        let timeline = service::find(&self.node, id).map_err(|e| status(&e))?;
        let wait_max = Duration::from_millis(u64::from(request.wait_ms));
        let state =
            service::log_state(&timeline, Lsn(request.lsn), wait_max).await.map_err(|e| status(&e))?;
        Ok(Response::new(LogStateResponse {
            lsn: state.lsn.0,
            prev_record_lsn: state.mark.record_lsn.0,
            ends_in_shutdown_checkpoint: state.mark.shutdown_checkpoint,
            checkpoint: Bytes::copy_from_slice(&state.checkpoint.encode()),
            control_file: state.control_file_bytes(),
        }))
    }

    async fn lsn_at_time(
        &self,
        request: Request<LsnAtTimeRequest>,
    ) -> Result<Response<LsnAtTimeResponse>, Status> {
        let request = request.into_inner();
        let id = timeline_id(request.timeline)?;
        let timeline = service::find(&self.node, id).map_err(|e| status(&e))?;
        let oldest = timeline.store.start_lsn();
        let answer =
            service::lsn_at_time(&timeline, oldest, request.unix_micros).await.map_err(|e| status(&e))?;
        let (kind, lsn) = match answer {
            TimeAnswer::Exact(lsn) => (TimeKind::Exact, lsn),
            TimeAnswer::Past(lsn) => (TimeKind::Past, lsn),
            TimeAnswer::Future(lsn) => (TimeKind::Future, lsn),
        };
        Ok(Response::new(LsnAtTimeResponse { kind: kind.into(), lsn: lsn.0 }))
    }

    async fn delete_timeline(
        &self,
        request: Request<DeleteTimelineRequest>,
    ) -> Result<Response<DeleteTimelineResponse>, Status> {
        let id = timeline_id(request.into_inner().timeline)?;
        let node = self.node.clone();
        self.on_node(async move { Ok(node.delete(id).await?) }).await?;
        Ok(Response::new(DeleteTimelineResponse {}))
    }
}
