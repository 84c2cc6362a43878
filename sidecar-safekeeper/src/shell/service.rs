//! The gRPC service of `safekeeper.proto`: turns requests into calls on timelines and streams, and nothing else.

use std::sync::Arc;

use strata_common::{Incarnation, Lsn, SystemId, TenantTimelineId, Term};
use strata_proto::convert::{TimelineRefId, incarnation};
use strata_proto::quorum::{LogFacts, Membership, PageserverProgress, ToAcceptor};
use strata_proto::wal as pb;
use strata_proto::wal::safekeeper_server::Safekeeper;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::node::{Listed, Node};
use super::status;
use super::stream::{self, Wanted};
use super::timeline::{Answer, Registered, Timeline};
use crate::core::{DurableState, Event};

/// Answers that may wait in a proposer's channel; above it the proposer is cut off.
const REPLIES_MAX: usize = 8192;
/// Chunks that are read ahead of a reader.
const CHUNKS_AHEAD: usize = 4;

#[derive(Clone)]
pub struct SafekeeperService {
    node: Arc<Node>,
}

impl SafekeeperService {
    pub fn new(node: Arc<Node>) -> SafekeeperService {
        SafekeeperService { node }
    }

    fn timeline(&self, named: Option<pb::TimelineRef>) -> Result<Arc<Timeline>, Status> {
        self.node.get(id_of(named)?)
    }
}

fn id_of(named: Option<pb::TimelineRef>) -> Result<TenantTimelineId, Status> {
    let TimelineRefId(id) = named.try_into().map_err(Status::from)?;
    Ok(id)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))?
}

#[tonic::async_trait]
impl Safekeeper for SafekeeperService {
    async fn create_timeline(
        &self,
        request: Request<pb::CreateTimelineRequest>,
    ) -> Result<Response<pb::CreateTimelineResponse>, Status> {
        let request = request.into_inner();
        let id = id_of(request.timeline)?;
        let facts = LogFacts {
            system_id: SystemId(request.system_id),
            pg_version_num: request.pg_version_num,
            wal_segment_bytes: request.wal_segment_bytes,
        };
        let incarnation: Incarnation = incarnation(&request.incarnation)?;
        let membership = Membership::try_from(request.membership)?;
        let state = DurableState::new(incarnation, membership, facts, Lsn(request.start_lsn));
        let node = self.node.clone();
        blocking(move || node.create(id, &state)).await?;
        tracing::info!(timeline = %id, start = %Lsn(request.start_lsn), %incarnation, "timeline created");
        Ok(Response::new(pb::CreateTimelineResponse {}))
    }

    type ProposeStream = ReceiverStream<Answer>;

    async fn propose(
        &self,
        request: Request<Streaming<pb::ProposerMessage>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        let (replies, answers) = mpsc::channel(REPLIES_MAX);
        let service = self.clone();
        // The answer's head must not wait for the first message: a client may send that only after it.
        tokio::spawn(async move {
            if let Err(status) = service.converse(request.into_inner(), &replies).await {
                // The proposer may be gone already.
                let _ = replies.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    type ReadWalStream = ReceiverStream<Result<pb::WalChunk, Status>>;

    async fn read_wal(
        &self,
        request: Request<pb::ReadWalRequest>,
    ) -> Result<Response<Self::ReadWalStream>, Status> {
        let request = request.into_inner();
        let timeline = self.timeline(request.timeline)?;
        let (from, term) = (Lsn(request.start_lsn), Term(request.term));
        let until = Some(Lsn(request.end_lsn)).filter(|lsn| lsn.is_valid());
        let limit = timeline.read_limit(term)?;
        if from < limit.oldest {
            return Err(status::removed(from, limit.oldest));
        }
        let (sink, chunks) = mpsc::channel(CHUNKS_AHEAD);
        tokio::spawn(stream::run(timeline, Wanted { from, until, term }, sink));
        Ok(Response::new(ReceiverStream::new(chunks)))
    }

    async fn report_progress(
        &self,
        request: Request<pb::ReportProgressRequest>,
    ) -> Result<Response<pb::ReportProgressResponse>, Status> {
        let request = request.into_inner();
        let timeline = self.timeline(request.timeline)?;
        let progress = PageserverProgress {
            received: Lsn(request.received_lsn),
            disk_consistent: Lsn(request.disk_consistent_lsn),
            remote_consistent: Lsn(request.remote_consistent_lsn),
        };
        timeline.step(Event::Progress { pageserver: request.pageserver_id, progress });
        Ok(Response::new(pb::ReportProgressResponse {}))
    }

    async fn list_timelines(
        &self,
        _request: Request<pb::ListTimelinesRequest>,
    ) -> Result<Response<pb::ListTimelinesResponse>, Status> {
        let timelines = self.node.list().iter().map(describe).collect();
        Ok(Response::new(pb::ListTimelinesResponse { timelines }))
    }

    async fn delete_timeline(
        &self,
        request: Request<pb::DeleteTimelineRequest>,
    ) -> Result<Response<pb::DeleteTimelineResponse>, Status> {
        let id = id_of(request.into_inner().timeline)?;
        let node = self.node.clone();
        blocking(move || node.delete(id)).await?;
        tracing::info!(timeline = %id, "timeline deleted");
        Ok(Response::new(pb::DeleteTimelineResponse {}))
    }
}

impl SafekeeperService {
    /// Reads a proposer's messages until either side ends the connection.
    async fn converse(
        &self,
        mut messages: Streaming<pb::ProposerMessage>,
        replies: &mpsc::Sender<Answer>,
    ) -> Result<(), Status> {
        let Some(first) = messages.message().await? else { return Ok(()) };
        let Some(pb::proposer_message::Kind::Greeting(greeting)) = &first.kind else {
            return Err(Status::invalid_argument("the first message is a greeting"));
        };
        let timeline = self.timeline(greeting.timeline.clone())?;
        let Registered { conn, mut gone } = timeline.register(replies.clone())?;
        let _disconnect = Disconnect { timeline: &timeline, conn };
        let mut message = first;
        loop {
            let message_typed = ToAcceptor::try_from(message).map_err(Status::from)?;
            timeline.queue.wait_for_room().await;
            timeline.message(conn, message_typed);
            message = tokio::select! {
                next = messages.message() => match next? {
                    Some(next) => next,
                    None => return Ok(()),
                },
                // Closed from this side; the reason is in the proposer's stream already.
                _ = &mut gone => return Ok(()),
            };
        }
    }
}

/// Tells the timeline at whatever end of a conversation.
struct Disconnect<'a> {
    timeline: &'a Timeline,
    conn: crate::core::ConnId,
}

impl Drop for Disconnect<'_> {
    fn drop(&mut self) {
        self.timeline.disconnect(self.conn);
    }
}

fn describe(listed: &Listed) -> pb::TimelineStatus {
    match listed {
        Listed::Refused(id, problem) => pb::TimelineStatus {
            timeline: Some((*id).into()),
            problem: problem.clone(),
            ..Default::default()
        },
        Listed::Open(timeline) => {
            let now = timeline.snapshot();
            pb::TimelineStatus {
                timeline: Some(timeline.id.into()),
                incarnation: now.state.incarnation.to_vec().into(),
                membership: Some((&now.state.membership).into()),
                voter: now.is_voter,
                term: now.state.term.0,
                start_lsn: now.state.start_lsn.0,
                oldest_lsn: now.state.oldest_lsn.0,
                flush_lsn: now.flush_lsn.0,
                commit_lsn: now.state.commit_lsn.0,
                remote_consistent_lsn: now.remote_consistent_lsn.0,
                problem: now.problem.unwrap_or_default(),
            }
        }
    }
}
