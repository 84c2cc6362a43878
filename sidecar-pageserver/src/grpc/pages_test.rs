//! One stream on the map model: a beaten compute gets no answer, whatever it was asked before and however it waits.

use strata_common::{ForkNumber, RelTag, TenantId, TenantTimelineId, TimelineId};
use strata_proto::page::page_request;

use super::*;
use crate::getpage::cache::{PageCache, TimelineSlot};
use crate::ingest::batch::Counts;
use crate::ingest::control::ControlState;
use crate::ingest::testkit::control_state;
use crate::store::model::MapStore;

const START: Lsn = Lsn(0x1000);

type Input = mpsc::Sender<Result<PageRequests, Status>>;

/// A stream of a compute of `term` (zero: of a reader) under way.
struct Stream {
    input: Input,
    answers: mpsc::Receiver<Result<PageResponses, Status>>,
    outcome: tokio::task::JoinHandle<Result<(), Status>>,
}

fn timeline() -> Arc<Timeline<MapStore>> {
    let id = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
    Timeline::new(id, Arc::default(), control_state(START), Arc::new(PageCache::new(0)), TimelineSlot(0))
}

fn open(timeline: &Arc<Timeline<MapStore>>, term: Term, start: Lsn) -> Stream {
    let (input, requests) = mpsc::channel(8);
    let (answers, received) = mpsc::channel(8);
    let timeline = timeline.clone();
    let asker = Asker::of(&Open { term: term.0, start_lsn: start.0, ..Open::default() });
    let outcome = tokio::spawn(async move {
        let exchange =
            Exchange { timeline: &timeline, asker, answers: &answers, getpage_seconds: &Histogram::noop() };
        exchange.run(Vec::new(), ReceiverStream::new(requests)).await
    });
    Stream { input, answers: received, outcome }
}

impl Stream {
    async fn ask(&self, id: u64, not_modified_since: Lsn) {
        let rel = RelTag { tablespace: 1663, database: 5, relation: 16384 }.fork(ForkNumber::Main);
        let request = PageRequest {
            id,
            request_lsn: u64::MAX,
            not_modified_since: not_modified_since.0,
            kind: Some(page_request::Kind::RelSize(rel.into())),
        };
        let batch = PageRequests { open: None, requests: vec![request] };
        self.input.send(Ok(batch)).await.expect("the stream is open");
    }

    async fn answered(&mut self) -> Vec<u64> {
        let message = self.answers.recv().await.expect("an answer").expect("no error");
        message.responses.iter().map(|response| response.id).collect()
    }

    /// The stream's end, which must be a refusal; nothing was answered before it.
    async fn refused(mut self) -> String {
        let status = self.outcome.await.expect("no panic").expect_err("it is refused");
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert!(self.answers.recv().await.is_none(), "an answer came");
        status.message().to_owned()
    }
}

fn advance(timeline: &Timeline<MapStore>, to: Lsn) {
    let control = ControlState { lsn: to, ..timeline.control() };
    timeline.publish(&control, Counts::default());
}

#[tokio::test]
async fn a_stream_ends_unanswered_when_log_of_a_later_term_comes() {
    let timeline = timeline();
    let mut reader = open(&timeline, Term::ZERO, Lsn::INVALID);
    let mut first = open(&timeline, Term(1), START);
    first.ask(1, START).await;
    assert_eq!(first.answered().await, [1]);
    // It waits for log of its own that no majority has; the later term's log goes past that place.
    first.ask(2, START + 0x100).await;
    timeline.see_term(Term(2));
    advance(&timeline, START + 0x200);
    let why = first.refused().await;
    assert!(why.contains("term 1") && why.contains("term 2"), "{why}");

    let late = open(&timeline, Term(1), START);
    late.refused().await;
    let mut second = open(&timeline, Term(2), START + 0x80);
    for stream in [&mut second, &mut reader] {
        stream.ask(3, START + 0x200).await;
        assert_eq!(stream.answered().await, [3], "who is not beaten is answered");
    }
}

#[tokio::test]
async fn the_next_compute_ends_the_streams_of_the_one_before() {
    let timeline = timeline();
    let mut first = open(&timeline, Term(4), START);
    first.ask(1, START).await;
    assert_eq!(first.answered().await, [1]);
    let mut second = open(&timeline, Term(7), START);
    first.refused().await;
    second.ask(2, START).await;
    assert_eq!(second.answered().await, [2]);
}

#[tokio::test]
async fn no_answer_is_from_before_the_start() {
    let timeline = timeline();
    let mut stream = open(&timeline, Term(1), START + 8);
    stream.ask(1, Lsn(1)).await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), stream.answers.recv()).await;
    assert!(early.is_err(), "answered before the log was there");
    advance(&timeline, START + 8);
    assert_eq!(stream.answered().await, [1]);
}

#[tokio::test]
async fn a_message_carries_no_more_than_stays_in_the_processors_caches() {
    let timeline = timeline();
    let mut stream = open(&timeline, Term(1), START);
    let rel = RelTag { tablespace: 1663, database: 5, relation: 16384 }.fork(ForkNumber::Main);
    let kind = page_request::Kind::GetPages(strata_proto::page::GetPages {
        rel: Some(rel.into()),
        first_block: 0,
        count: 16,
    });
    let request =
        |id| PageRequest { id, request_lsn: u64::MAX, not_modified_since: START.0, kind: Some(kind) };
    let batch = PageRequests { open: None, requests: (1..=40).map(request).collect() };
    stream.input.send(Ok(batch)).await.expect("the stream is open");
    let mut answered = Vec::new();
    while answered.len() < 40 {
        let ids = stream.answered().await;
        assert_eq!(ids.len(), 1, "sixteen pages are enough");
        answered.extend(ids);
    }
    answered.sort_unstable();
    assert_eq!(answered, (1..=40).collect::<Vec<u64>>());
}
