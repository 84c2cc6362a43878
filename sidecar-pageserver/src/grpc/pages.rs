//! `page.v1.PageService`: page requests on long-lived streams, and base backups; small objects are in `objects`.
//!
//! Requests of one message are looked at together and what is ready is answered in one message; a request that waits (for
//! log, for a layer to be fetched) waits alone, and later requests overtake it.
//!
//! A stream of a compute says the compute's term. Once a later term is heard of, from the log or from its own compute, it ends
//! without another answer: the latest pages are then the later compute's, and its LSNs mean other records (SK-2, CP-1).

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::metrics::Histogram;
use futures::future::FutureExt;
use futures::stream::{FuturesUnordered, Stream, StreamExt};
use strata_common::{Guard, Lsn, Term};
use strata_proto::convert::tenant_timeline;
use strata_proto::page::page_request::Kind;
use strata_proto::page::page_response::Kind as Answer;
use strata_proto::page::page_service_server::PageService;
use strata_proto::page::{
    BaseBackupChunk, BaseBackupRequest, GetObjectRequest, GetObjectResponse, Open, PageRequest, PageRequests,
    PageResponse, PageResponses, PutObjectRequest, PutObjectResponse,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::manage::{status_of_view, status_of_wait};
use super::objects;
use crate::basebackup::{self, BackupError, Handoff};
use crate::getpage;
use crate::metrics;
use crate::node::Node;
use crate::store::Store;
use crate::timeline::{Superseded, Timeline};

/// Requests of one stream that are under way; then no more are read from it (P4).
const UNDER_WAY_MAX: usize = 1024;

/// Answers that one message carries; 32 pages each at most must fit into a message.
const ANSWERS_PER_MESSAGE_MAX: usize = 32;

/// A message that carries so many bytes takes no further answer. Larger ones leave the processors' caches on every copy that they go
/// through, and their buffers come from the system and go back to it each time.
const MESSAGE_BYTES_ENOUGH: usize = 96 << 10;

/// Messages that wait for a slow client.
const MESSAGES_QUEUED_MAX: usize = 8;

/// How long a base backup waits for log.
const BACKUP_WAIT_MAX: Duration = Duration::from_secs(30);

pub(super) struct Pages {
    node: Arc<Node>,
    getpage_seconds: Histogram,
    stop: watch::Receiver<bool>,
}

type Answers = mpsc::Sender<Result<PageResponses, Status>>;

impl Pages {
    pub fn new(node: Arc<Node>, stop: watch::Receiver<bool>) -> Pages {
        Pages { node, getpage_seconds: metrics::getpage_seconds(), stop }
    }
}

pub(super) fn not_found(id: strata_common::TenantTimelineId) -> Status {
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
        let seconds = self.getpage_seconds.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = converse(&node, request.into_inner(), &answers, &seconds) => outcome,
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

    async fn put_object(
        &self,
        request: Request<PutObjectRequest>,
    ) -> Result<Response<PutObjectResponse>, Status> {
        objects::put(&self.node, request.into_inner()).await.map(Response::new)
    }

    async fn get_object(
        &self,
        request: Request<GetObjectRequest>,
    ) -> Result<Response<GetObjectResponse>, Status> {
        objects::get(&self.node, request.into_inner()).await.map(Response::new)
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
async fn converse(
    node: &Node,
    mut input: Streaming<PageRequests>,
    answers: &Answers,
    getpage_seconds: &Histogram,
) -> Result<(), Status> {
    let first =
        input.message().await?.ok_or_else(|| Status::invalid_argument("the stream has no first message"))?;
    let open =
        first.open.as_ref().ok_or_else(|| Status::invalid_argument("the first message opens no timeline"))?;
    let id = tenant_timeline(&open.tenant_id, &open.timeline_id)?;
    let timeline = node.timeline(id).ok_or_else(|| not_found(id))?;
    let exchange = Exchange { timeline: &timeline, asker: Asker::of(open), answers, getpage_seconds };
    exchange.run(first.requests, input).await
}

/// Who reads a stream.
#[derive(Clone, Copy, Debug)]
struct Asker {
    /// `None`: a reader that writes no log, which is never beaten.
    term: Option<Term>,
    /// No answer is from before.
    start: Lsn,
}

impl Asker {
    fn of(open: &Open) -> Asker {
        Asker { term: Some(Term(open.term)).filter(|term| *term > Term::ZERO), start: Lsn(open.start_lsn) }
    }
}

/// One stream at work.
struct Exchange<'a, S> {
    timeline: &'a Timeline<S>,
    asker: Asker,
    answers: &'a Answers,
    getpage_seconds: &'a Histogram,
}

impl<S: Store> Exchange<'_, S> {
    async fn run(
        &self,
        first: Vec<PageRequest>,
        mut input: impl Stream<Item = Result<PageRequests, Status>> + Unpin,
    ) -> Result<(), Status> {
        let id = self.timeline.id;
        // A compute of this term exists: nothing of an earlier one may be written any more, so none of them is answered.
        self.timeline.see_term(self.asker.term.unwrap_or(Term::ZERO));
        self.check()?;
        let mut under_way = FuturesUnordered::new();
        let begin = |request| self.answer(request);
        under_way.extend(first.into_iter().map(begin));
        let mut open = true;
        loop {
            self.send_ready(&mut under_way).await?;
            if !open && under_way.is_empty() {
                return Ok(());
            }
            tokio::select! {
                message = input.next(), if open && under_way.len() < UNDER_WAY_MAX => match message.transpose()? {
                    Some(message) if message.open.is_some() => {
                        return Err(Status::invalid_argument("only the first message opens a timeline"));
                    }
                    Some(message) => under_way.extend(message.requests.into_iter().map(begin)),
                    None => open = false,
                },
                Some(answer) = under_way.next(), if !under_way.is_empty() => self.send(vec![answer]).await?,
                over = self.superseded() => return Err(status_of_superseded(&over)),
                () = self.timeline.closed() => return Err(Status::unavailable(format!("timeline {id} is being closed"))),
            }
        }
    }

    async fn answer(&self, request: PageRequest) -> PageResponse {
        let start = if Guard::StreamStart.holds() { self.asker.start } else { Lsn::INVALID };
        let since = request.not_modified_since.max(start.0);
        let begun = matches!(request.kind, Some(Kind::GetPages(_))).then(Instant::now);
        let answer =
            getpage::answer(self.timeline, PageRequest { not_modified_since: since, ..request }).await;
        if let Some(begun) = begun {
            self.getpage_seconds.record(begun.elapsed().as_secs_f64());
        }
        answer
    }

    fn check(&self) -> Result<(), Status> {
        let Some(term) = self.asker.term else { return Ok(()) };
        self.timeline.check_term(term).map_err(|over| status_of_superseded(&over))
    }

    async fn superseded(&self) -> Superseded {
        match self.asker.term {
            Some(term) => self.timeline.superseded(term).await,
            None => std::future::pending().await,
        }
    }

    /// Everything that needs no waiting, in as few messages as fit.
    async fn send_ready<F>(&self, under_way: &mut FuturesUnordered<F>) -> Result<(), Status>
    where
        F: Future<Output = PageResponse>,
    {
        loop {
            let (mut ready, mut bytes) = (Vec::new(), 0);
            while ready.len() < ANSWERS_PER_MESSAGE_MAX && bytes < MESSAGE_BYTES_ENOUGH {
                let Some(Some(answer)) = under_way.next().now_or_never() else { break };
                if let Some(Answer::Pages(pages)) = &answer.kind {
                    bytes += pages.len();
                }
                ready.push(answer);
            }
            if ready.is_empty() {
                return Ok(());
            }
            self.send(ready).await?;
        }
    }

    /// The answers are made: a term that is not over now was not over when they were read (CP-1).
    async fn send(&self, responses: Vec<PageResponse>) -> Result<(), Status> {
        self.check()?;
        let sent = self.answers.send(Ok(PageResponses { responses })).await;
        sent.map_err(|_| Status::cancelled("the client is gone"))
    }
}

pub(super) fn status_of_superseded(over: &Superseded) -> Status {
    Status::failed_precondition(over.to_string())
}

#[cfg(test)]
#[path = "pages_test.rs"]
mod tests;
