//! `page.v1.PageService`: page requests on long-lived streams, and base backups.
//!
//! Requests of one message are looked at together and what is ready is answered in one message; a request that waits (for
//! log, for a layer to be fetched) waits alone, and later requests overtake it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use strata_common::Lsn;
use strata_proto::convert::tenant_timeline;
use strata_proto::page::page_service_server::PageService;
use strata_proto::page::{BaseBackupChunk, BaseBackupRequest, PageRequests, PageResponse, PageResponses};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::manage::{status_of_view, status_of_wait};
use crate::basebackup::{self, BackupError, Handoff};
use crate::getpage;
use crate::node::Node;

/// Requests of one stream that are under way; then no more are read from it (P4).
const UNDER_WAY_MAX: usize = 1024;

/// Answers that one message carries; 32 pages each at most must fit into a message.
const ANSWERS_PER_MESSAGE_MAX: usize = 32;

/// Messages that wait for a slow client.
const MESSAGES_QUEUED_MAX: usize = 8;

/// How long a base backup waits for log.
const BACKUP_WAIT_MAX: Duration = Duration::from_secs(30);

pub(super) struct Pages {
    node: Arc<Node>,
    stop: watch::Receiver<bool>,
}

type Answers = mpsc::Sender<Result<PageResponses, Status>>;

impl Pages {
    pub fn new(node: Arc<Node>, stop: watch::Receiver<bool>) -> Pages {
        Pages { node, stop }
    }
}

fn not_found(id: strata_common::TenantTimelineId) -> Status {
    Status::not_found(format!("timeline {id} is not on this pageserver"))
}

#[tonic::async_trait]
impl PageService for Pages {
    type ExchangeStream = ReceiverStream<Result<PageResponses, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<PageRequests>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (answers, stream) = mpsc::channel(MESSAGES_QUEUED_MAX);
        let (node, mut stop) = (self.node.clone(), self.stop.clone());
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = converse(&node, request.into_inner(), &answers) => outcome,
                _ = stop.wait_for(|stop| *stop) => Err(Status::unavailable("the pageserver is stopping")),
            };
            if let Err(status) = outcome {
                // The client may be gone already.
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type BaseBackupStream = ReceiverStream<Result<BaseBackupChunk, Status>>;

    async fn base_backup(
        &self,
        request: Request<BaseBackupRequest>,
    ) -> Result<Response<Self::BaseBackupStream>, Status> {
        let request = request.into_inner();
        let id = tenant_timeline(&request.tenant_id, &request.timeline_id)?;
        let timeline = self.node.timeline(id).ok_or_else(|| not_found(id))?;
        let lsn = Lsn(request.lsn);
        timeline.wait_for(lsn, BACKUP_WAIT_MAX).await.map_err(|e| status_of_wait(&e))?;
        let handoff = if request.handoff { Handoff::Fabricate } else { Handoff::Refuse };
        let (sink, mut chunks) = mpsc::channel(MESSAGES_QUEUED_MAX);
        let failures = sink.clone();
        self.node.runtime().spawn(async move {
            if let Err(error) = basebackup::write(&timeline.view(lsn), handoff, sink).await {
                let _ = failures.send(Err(error)).await;
            }
        });
        let (out, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(chunk) = chunks.recv().await {
                let message = chunk.map(|data| BaseBackupChunk { data }).map_err(|e| status_of_backup(&e));
                if out.send(message).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn status_of_backup(error: &BackupError) -> Status {
    match error {
        BackupError::NotARecordEnd { .. } | BackupError::NotAShutdown(_) => {
            Status::failed_precondition(error.to_string())
        }
        BackupError::View(view) => status_of_view(view),
        BackupError::Gone => Status::cancelled(error.to_string()),
    }
}

/// Serves one stream until the client ends it.
async fn converse(node: &Node, mut input: Streaming<PageRequests>, answers: &Answers) -> Result<(), Status> {
    let first =
        input.message().await?.ok_or_else(|| Status::invalid_argument("the stream has no first message"))?;
    let open =
        first.open.as_ref().ok_or_else(|| Status::invalid_argument("the first message opens no timeline"))?;
    let id = tenant_timeline(&open.tenant_id, &open.timeline_id)?;
    let timeline = node.timeline(id).ok_or_else(|| not_found(id))?;
    let mut under_way = FuturesUnordered::new();
    let begin = |request| getpage::answer::<_>(&*timeline, request);
    under_way.extend(first.requests.into_iter().map(begin));
    let mut open = true;
    loop {
        answer_ready(&mut under_way, answers).await?;
        if !open && under_way.is_empty() {
            return Ok(());
        }
        tokio::select! {
            message = input.message(), if open && under_way.len() < UNDER_WAY_MAX => match message? {
                Some(message) if message.open.is_some() => {
                    return Err(Status::invalid_argument("only the first message opens a timeline"));
                }
                Some(message) => under_way.extend(message.requests.into_iter().map(begin)),
                None => open = false,
            },
            Some(answer) = under_way.next(), if !under_way.is_empty() => send(answers, vec![answer]).await?,
            () = timeline.closed() => return Err(Status::unavailable(format!("timeline {id} is being closed"))),
        }
    }
}

/// Everything that needs no waiting, in as few messages as fit.
async fn answer_ready<F>(under_way: &mut FuturesUnordered<F>, answers: &Answers) -> Result<(), Status>
where
    F: Future<Output = PageResponse>,
{
    loop {
        let mut ready = Vec::new();
        while ready.len() < ANSWERS_PER_MESSAGE_MAX {
            match under_way.next().now_or_never() {
                Some(Some(answer)) => ready.push(answer),
                _ => break,
            }
        }
        if ready.is_empty() {
            return Ok(());
        }
        send(answers, ready).await?;
    }
}

async fn send(answers: &Answers, responses: Vec<PageResponse>) -> Result<(), Status> {
    answers.send(Ok(PageResponses { responses })).await.map_err(|_| Status::cancelled("the client is gone"))
}
