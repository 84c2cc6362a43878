//! The client against a page service of the test: batches, errors, retries, and a service that goes and comes back.

use super::*;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use strata_common::{ForkNumber, Lsn, RelTag, TenantId, TimelineId};
use strata_proto::page::page_service_server::{PageService, PageServiceServer};
use tokio::sync::Notify;
use tokio_stream::{Stream, StreamExt};
use tonic::{Response, Status, Streaming};

#[test]
fn trap_l2_a_primary_wants_the_latest() {
    strata_common::guard::prove(Guard::LatestWanted, || {
        let rel = RelTag { tablespace: 1663, database: 5, relation: 16384 }.fork(ForkNumber::Main);
        let pages = Ask::Pages { rel, first: BlockNumber(3), count: 2 };
        for ask in [pages, Ask::RelSize(rel), Ask::RelExists(rel), Ask::TablespaceUsed { tablespace: 7 }] {
            let request = Request { ask, not_modified_since: Lsn(0x100) };
            let asked = to_wire(Ticket { slot: 1, generation: 1 }, request);
            assert_eq!((asked.request_lsn, asked.not_modified_since), (u64::MAX, 0x100));
        }
    });
}

/// Answers pages filled with their block number; block 13 needs a second try, block 66 is corrupt.
#[derive(Clone, Default)]
struct TestService {
    retried: Arc<AtomicU64>,
    /// Who opened streams: term and start.
    opened: Arc<Mutex<Vec<(u64, u64)>>>,
    /// The second message finds that the term is over.
    is_over: bool,
    /// Takes requests and answers none.
    is_silent: bool,
    taken: Arc<AtomicU64>,
}

fn answer(service: &TestService, request: &page::PageRequest) -> page_response::Kind {
    let error = |kind: page_error::Kind, message: &str| {
        page_response::Kind::Error(page::PageError { kind: kind.into(), message: message.to_owned() })
    };
    match request.kind.as_ref().expect("a kind") {
        page_request::Kind::GetPages(get) if get.first_block == 66 => {
            error(page_error::Kind::Corruption, "bad checksum")
        }
        page_request::Kind::GetPages(get)
            if get.first_block == 13 && service.retried.fetch_add(1, Ordering::Relaxed) == 0 =>
        {
            error(page_error::Kind::Retryable, "wait")
        }
        page_request::Kind::GetPages(get) => {
            let blocks = get.first_block..get.first_block + get.count;
            page_response::Kind::Pages(
                blocks.flat_map(|b| vec![b as u8; BLOCK_BYTES]).collect::<Vec<u8>>().into(),
            )
        }
        page_request::Kind::RelSize(_) => {
            page_response::Kind::BlockCount(u32::try_from(request.not_modified_since).expect("small"))
        }
        page_request::Kind::RelExists(rel) => page_response::Kind::Exists(rel.fork == 0),
        page_request::Kind::TablespaceUsed(tablespace) => page_response::Kind::Exists(*tablespace == 7),
        page_request::Kind::DatabaseSize(_) => page_response::Kind::Bytes(1 << 40),
        page_request::Kind::SlruSegment(_) => page_response::Kind::SlruSegment(Vec::new().into()),
    }
}

#[tonic::async_trait]
impl PageService for TestService {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<page::PageResponses, Status>> + Send>>;
    type BaseBackupStream = Pin<Box<dyn Stream<Item = Result<page::BaseBackupChunk, Status>> + Send>>;

    async fn exchange(
        &self,
        requests: tonic::Request<Streaming<page::PageRequests>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let service = self.clone();
        let answers = requests.into_inner().map(move |batch| {
            let batch = batch?;
            match &batch.open {
                Some(open) => service.opened.lock().expect("not poisoned").push((open.term, open.start_lsn)),
                None if service.is_over => return Err(Status::failed_precondition("term 3 is over")),
                None => {}
            }
            service.taken.fetch_add(batch.requests.len() as u64, Ordering::Relaxed);
            let answered = if service.is_silent { &[] } else { batch.requests.as_slice() };
            let responses = answered
                .iter()
                .map(|request| page::PageResponse { id: request.id, kind: Some(answer(&service, request)) });
            Ok(page::PageResponses { responses: responses.collect() })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn base_backup(
        &self,
        _: tonic::Request<page::BaseBackupRequest>,
    ) -> Result<Response<Self::BaseBackupStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn put_object(
        &self,
        _: tonic::Request<page::PutObjectRequest>,
    ) -> Result<Response<page::PutObjectResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_object(
        &self,
        _: tonic::Request<page::GetObjectRequest>,
    ) -> Result<Response<page::GetObjectResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

struct TestDelivery<'a> {
    pages: &'a Mutex<Vec<(u64, u8)>>,
    woken: &'a Notify,
}

impl Delivery for TestDelivery<'_> {
    fn write_page(&self, target: u64, page: &[u8]) {
        assert!(page.len() == BLOCK_BYTES && page.iter().all(|b| *b == page[0]));
        self.pages.lock().expect("not poisoned").push((target, page[0]));
    }
    fn wake(&self, _: &AtomicU32) -> u64 {
        self.woken.notify_one();
        0
    }
}

struct TestDoorbell<'a>(&'a Notify);

impl Doorbell for TestDoorbell<'_> {
    async fn rung(&self) {
        self.0.notified().await;
    }
}

fn rel() -> RelFork {
    RelTag { tablespace: 1663, database: 5, relation: 16384 }.fork(ForkNumber::Main)
}

/// Serves from a runtime of its own, so that all its connections die with it.
fn serve(listener: std::net::TcpListener, service: TestService) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.spawn(async move {
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(PageServiceServer::new(service));
        server.serve_with_incoming(incoming).await
    });
    runtime
}

struct Bench {
    slots: Vec<Slot>,
    marks: Vec<AtomicU64>,
    bell: Notify,
    woken: Notify,
    pages: Mutex<Vec<(u64, u8)>>,
    events: Mutex<Vec<Event>>,
}

impl Bench {
    fn table(&self) -> SlotTable<'_> {
        SlotTable::new(&self.slots, &self.marks)
    }

    async fn ask(&self, slot: usize, ask: Ask, targets: &[u64]) -> Outcome {
        self.table().submit(slot, &Request { ask, not_modified_since: Lsn(7) }, targets);
        self.bell.notify_one();
        loop {
            if let Some(outcome) = self.slots[slot].collect() {
                return outcome;
            }
            // Another slot's answer may have taken the notification.
            let _ = tokio::time::timeout(Duration::from_millis(20), self.woken.notified()).await;
        }
    }

    async fn story(&self, listener: std::net::TcpListener, move_to: &watch::Sender<String>) {
        let address = listener.local_addr().expect("bound");
        let service = TestService::default();
        let running = serve(listener, service.clone());
        let pages = |first, count| Ask::Pages { rel: rel(), first: BlockNumber(first), count };
        assert_eq!(self.ask(0, pages(3, 2), &[100, 200]).await, Outcome::Value(0));
        assert_eq!(*self.pages.lock().expect("not poisoned"), [(100, 3), (200, 4)]);
        assert_eq!(self.ask(1, Ask::RelSize(rel()), &[]).await, Outcome::Value(7));
        assert_eq!(self.ask(0, Ask::RelExists(rel()), &[]).await, Outcome::Value(1));
        assert_eq!(
            self.ask(0, Ask::DatabaseSize { tablespace: 0, database: 5 }, &[]).await,
            Outcome::Value(1 << 40)
        );
        assert_eq!(
            self.ask(0, pages(66, 1), &[1]).await,
            Outcome::Refused("Corruption: bad checksum".to_owned())
        );
        assert_eq!(self.ask(2, pages(13, 1), &[300]).await, Outcome::Value(0), "asked again");
        assert_eq!(service.retried.load(Ordering::Relaxed), 2);

        // The service goes away: a request waits, and is answered by the next one.
        running.shutdown_background();
        let back = async {
            while self.events.lock().expect("not poisoned").len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            loop {
                match std::net::TcpListener::bind(address) {
                    Ok(listener) => break serve(listener, service.clone()),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let (outcome, running) = tokio::join!(self.ask(1, pages(9, 1), &[900]), back);
        assert_eq!(outcome, Outcome::Value(0));

        // It moves to where requests are taken and nothing is said, and on: what was taken there is answered elsewhere.
        let new = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("bound").to_string();
            (listener, address)
        };
        let ((listener, address), (elsewhere, last)) = (new(), new());
        let silent = TestService { is_silent: true, ..TestService::default() };
        let at_silent = serve(listener, silent.clone());
        move_to.send(address).expect("the client listens");
        let moves = async {
            while silent.taken.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            move_to.send(last.clone()).expect("the client listens");
            serve(elsewhere, service.clone())
        };
        let (outcome, at_last) = tokio::join!(self.ask(2, pages(5, 1), &[500]), moves);
        assert_eq!(outcome, Outcome::Value(0));
        for runtime in [running, at_silent, at_last] {
            runtime.shutdown_background();
        }
        let events = self.events.lock().expect("not poisoned").clone();
        assert!(events.iter().filter(|e| **e == Event::Connected).count() >= 3, "{events:?}");
        assert!(events.contains(&Event::Moved(last)), "{events:?}");
    }
}

#[tokio::test]
async fn asks_retries_and_reconnects() {
    let bench = Bench {
        slots: (0..3).map(|_| Slot::default()).collect(),
        marks: vec![AtomicU64::new(0)],
        bell: Notify::new(),
        woken: Notify::new(),
        pages: Mutex::default(),
        events: Mutex::default(),
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let config = ClientConfig {
        address: listener.local_addr().expect("bound").to_string(),
        timeline: TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) },
        writer: None,
    };
    let delivery = TestDelivery { pages: &bench.pages, woken: &bench.woken };
    let report = |event| bench.events.lock().expect("not poisoned").push(event);
    let (move_to, address) = watch::channel(config.address.clone());
    let client = run(config, address, bench.table(), TestDoorbell(&bench.bell), delivery, report);
    tokio::select! {
        _ = client => unreachable!("the client never ends"),
        () = bench.story(listener, &move_to) => {}
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("no answer in 30 s: {:?}", bench.events),
    }
}

#[tokio::test]
async fn a_beaten_server_is_told_and_gets_no_answer() {
    let slots = [Slot::default()];
    let (bell, woken) = (Notify::new(), Notify::new());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let config = ClientConfig {
        address: listener.local_addr().expect("bound").to_string(),
        timeline: TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) },
        writer: Some(Writer { term: Term(3), start_lsn: Lsn(0x70) }),
    };
    let service = TestService { is_over: true, ..TestService::default() };
    let server = serve(listener, service.clone());
    let pages = Mutex::default();
    let delivery = TestDelivery { pages: &pages, woken: &woken };
    let ask = Ask::Pages { rel: rel(), first: BlockNumber(0), count: 1 };
    let marks = [AtomicU64::new(0)];
    let table = SlotTable::new(&slots, &marks);
    table.submit(0, &Request { ask, not_modified_since: Lsn(7) }, &[1]);
    let (_stays, address) = watch::channel(config.address.clone());
    let client = run(config, address, table, TestDoorbell(&bell), delivery, |_| {});
    let ended = tokio::time::timeout(Duration::from_secs(30), client).await.expect("it ends by itself");
    assert_eq!(ended, Fenced("term 3 is over".to_owned()));
    assert_eq!(slots[0].collect(), None, "what waits is not answered");
    assert_eq!(*service.opened.lock().expect("not poisoned"), [(3, 0x70)]);
    server.shutdown_background();
}

#[test]
fn tickets_round_trip() {
    let ticket = Ticket { slot: 1234, generation: 0xbcd_1234_5678 };
    assert_eq!(ticket_of(id_of(ticket)), ticket);
}
