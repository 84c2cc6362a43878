//! The page client: serves the slots from a pageserver over one long-lived stream (D8, P4, P5).
//!
//! Runs on a current-thread runtime in the communicator and returns only when the server is fenced: a lost connection puts every
//! open request back and connects again, with growing pauses, for as long as it takes; queries wait meanwhile. Another address of
//! the pageserver does the same at once: what was asked there is asked here. Requests go out in batches of whatever was submitted
//! when the doorbell rang. Queues are bounded by the number of slots: each has one request at most.
//!
//! What it must not know: where pages live in memory (`Delivery`), how to be woken (`Doorbell`), what Postgres is.

use std::time::Duration;

use strata_common::{BLOCK_BYTES, BlockNumber, Guard, Lsn, RelFork, TenantTimelineId, Term};
use strata_proto::page::page_service_client::PageServiceClient;
use strata_proto::page::{self, page_error, page_request, page_response};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::slots::{Ask, Outcome, Request, Slot, SlotTable, Ticket};

/// Where to ask.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `host:port` of the pageserver.
    pub address: String,
    pub timeline: TenantTimelineId,
    /// `None`: a reader that writes no log.
    pub writer: Option<Writer>,
}

/// In which term the server writes its log, and where that log begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writer {
    pub term: Term,
    pub start_lsn: Lsn,
}

/// The pageserver knows a later term: this server was beaten and must stop. What it waits for never comes (SK-2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fenced(pub String);

/// Why a stream ended.
#[derive(PartialEq, Eq, Debug)]
enum Ended {
    Lost(String),
    /// The pageserver is elsewhere now: here.
    Moved(String),
    Fenced(Fenced),
}

impl From<tonic::Status> for Ended {
    fn from(status: tonic::Status) -> Ended {
        match status.code() {
            tonic::Code::FailedPrecondition => Ended::Fenced(Fenced(status.message().to_owned())),
            code => Ended::Lost(format!("{code:?}: {}", status.message())),
        }
    }
}

impl From<String> for Ended {
    fn from(reason: String) -> Ended {
        Ended::Lost(reason)
    }
}

/// Says that requests were submitted.
pub trait Doorbell {
    /// Returns after a ring that came since it last returned.
    fn rung(&self) -> impl Future<Output = ()>;
}

/// Puts answers where they belong.
pub trait Delivery {
    /// Copies a page to the address that its owner gave. The owner waits for it: the slot is in delivery.
    fn write_page(&self, target: u64, page: &[u8]);
    /// Wakes the process that sleeps on this word. When that was done, in nanoseconds of the monotonic clock.
    fn wake(&self, word: &std::sync::atomic::AtomicU32) -> u64;
}

/// What the log should say; each once per change of state, not per attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Connected,
    Disconnected(String),
    /// Pages are asked for at this address from now on.
    Moved(String),
}

const PAUSE_MS_MIN: u64 = 20;
const PAUSE_MS_MAX: u64 = 1000;
/// A pageserver that asks for a retry gets it after this long.
const RETRY_MS: u64 = 20;

/// Serves the slots until the server is fenced; requests that are open then stay unanswered. `address` says when the pageserver is
/// elsewhere than `config` has it.
pub async fn run(
    mut config: ClientConfig,
    mut address: watch::Receiver<String>,
    slots: SlotTable<'_>,
    doorbell: impl Doorbell,
    delivery: impl Delivery,
    report: impl Fn(Event),
) -> Fenced {
    slots.recover_all(|word| _ = delivery.wake(word));
    let mut pause_ms = PAUSE_MS_MIN;
    let mut reported_down = false;
    let mut moved_to = None;
    loop {
        if let Some(address) = moved_to.take() {
            (pause_ms, reported_down) = (PAUSE_MS_MIN, false);
            report(Event::Moved(String::clone(&address)));
            config.address = address;
        }
        let mut connected = false;
        let working = async {
            match Connection::open(&config).await {
                Ok(mut connection) => {
                    connection
                        .serve(slots, &doorbell, &delivery, &mut || {
                            connected = true;
                            report(Event::Connected);
                        })
                        .await
                }
                Err(ended) => ended,
            }
        };
        // Where `serve` waits no answer is half written, so it can be left there.
        let ended = tokio::select! {
            biased;
            ended = working => ended,
            address = moved(&mut address) => Ended::Moved(address),
        };
        slots.recover_all(|word| _ = delivery.wake(word));
        let reason = match ended {
            Ended::Lost(reason) => reason,
            Ended::Fenced(fenced) => return fenced,
            Ended::Moved(address) => {
                moved_to = Some(address);
                continue;
            }
        };
        if connected {
            pause_ms = PAUSE_MS_MIN;
        }
        if connected || !reported_down {
            report(Event::Disconnected(reason));
            reported_down = true;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            address = moved(&mut address) => moved_to = Some(address),
        }
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
    }
}

/// Another address, when there is one. Nobody is left to say one: never.
async fn moved(address: &mut watch::Receiver<String>) -> String {
    match address.changed().await {
        Ok(()) => address.borrow_and_update().clone(),
        Err(_) => std::future::pending().await,
    }
}

struct Connection {
    requests: UnboundedSender<page::PageRequests>,
    responses: tonic::Streaming<page::PageResponses>,
}

impl Connection {
    async fn open(config: &ClientConfig) -> Result<Connection, Ended> {
        let channel = connect(&config.address).await?;
        let mut client = PageServiceClient::new(channel)
            .max_decoding_message_size(strata_proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(strata_proto::MESSAGE_BYTES_MAX);
        let (requests, outgoing) = tokio::sync::mpsc::unbounded_channel();
        let open = page::Open {
            tenant_id: config.timeline.tenant.to_vec().into(),
            timeline_id: config.timeline.timeline.to_vec().into(),
            term: config.writer.map_or(0, |writer| writer.term.0),
            start_lsn: config.writer.map_or(0, |writer| writer.start_lsn.0),
        };
        let first = page::PageRequests { open: Some(open), requests: Vec::new() };
        requests.send(first).map_err(|e| e.to_string())?;
        let call = client.exchange(UnboundedReceiverStream::new(outgoing)).await;
        Ok(Connection { requests, responses: call?.into_inner() })
    }

    /// Until the stream ends; says why it did. `working` is called at the first answer.
    async fn serve(
        &mut self,
        slots: SlotTable<'_>,
        doorbell: &impl Doorbell,
        delivery: &impl Delivery,
        working: &mut impl FnMut(),
    ) -> Ended {
        let mut answered = false;
        let mut retry_wanted = false;
        if let Err(reason) = self.send_submitted(slots) {
            return reason.into();
        }
        loop {
            tokio::select! {
                message = self.responses.message() => match message {
                    Ok(Some(responses)) => {
                        if !std::mem::replace(&mut answered, true) {
                            working();
                        }
                        for response in responses.responses {
                            retry_wanted |= deliver(slots, delivery, response);
                        }
                    }
                    Ok(None) => return "the pageserver ended the stream".to_owned().into(),
                    Err(status) => return status.into(),
                },
                () = doorbell.rung() => if let Err(reason) = self.send_submitted(slots) {
                    return reason.into();
                },
                () = tokio::time::sleep(Duration::from_millis(RETRY_MS)), if retry_wanted => {
                    retry_wanted = false;
                    if let Err(reason) = self.send_submitted(slots) {
                        return reason.into();
                    }
                }
            }
        }
    }

    /// Everything submitted goes out as one batch.
    fn send_submitted(&self, slots: SlotTable<'_>) -> Result<(), String> {
        let mut requests = Vec::new();
        slots.take_submitted(|ticket, request| requests.push(to_wire(ticket, request)));
        if requests.is_empty() {
            return Ok(());
        }
        let batch = page::PageRequests { open: None, requests };
        self.requests.send(batch).map_err(|_| "the pageserver closed the stream".to_owned())
    }
}

pub(crate) async fn connect(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| e.to_string())?;
    // Keep-alive: a dead peer is found in seconds (P5). Windows: a batch of answers fits without waiting for credit.
    endpoint
        .connect_timeout(Duration::from_secs(3))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(3))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .connect()
        .await
        .map_err(|e| format!("cannot reach the pageserver at {address}: {}", chain(&e)))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// Bits of a request's id that are the ticket's generation; the others are its slot. Both are far from their limits: a server has
/// fewer than 2^18 processes, and one slot would have to serve a million requests a second for half a year.
const GENERATION_BITS: u32 = 44;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;

/// A ticket as the id of a request.
fn id_of(ticket: Ticket) -> u64 {
    ((ticket.slot as u64) << GENERATION_BITS) | (ticket.generation & GENERATION_MASK)
}

fn ticket_of(id: u64) -> Ticket {
    let slot = usize::try_from(id >> GENERATION_BITS).expect("20 bits");
    Ticket { slot, generation: id & GENERATION_MASK }
}

fn to_wire(ticket: Ticket, request: Request) -> page::PageRequest {
    let get_pages = |rel: RelFork, first: BlockNumber, count| {
        page_request::Kind::GetPages(page::GetPages { rel: Some(rel.into()), first_block: first.0, count })
    };
    let kind = match request.ask {
        Ask::Pages { rel, first, count } => get_pages(rel, first, count),
        Ask::RelSize(rel) => page_request::Kind::RelSize(rel.into()),
        Ask::RelExists(rel) => page_request::Kind::RelExists(rel.into()),
        Ask::DatabaseSize { tablespace, database } => {
            page_request::Kind::DatabaseSize(page::DatabaseSize { tablespace, database })
        }
        Ask::TablespaceUsed { tablespace } => page_request::Kind::TablespaceUsed(tablespace),
    };
    page::PageRequest {
        id: id_of(ticket),
        // A primary wants the latest: garbage collection may pass any LSN that it could name (L2).
        request_lsn: if Guard::LatestWanted.holds() { u64::MAX } else { request.not_modified_since.0 },
        not_modified_since: request.not_modified_since.0,
        kind: Some(kind),
    }
}

/// Hands one answer to its owner. True: it has to be asked again.
fn deliver(slots: SlotTable<'_>, delivery: &impl Delivery, response: page::PageResponse) -> bool {
    let ticket = ticket_of(response.id);
    if let Some(page_response::Kind::Error(error)) = &response.kind
        && error.kind() == page_error::Kind::Retryable
    {
        slots.put_back(ticket);
        return true;
    }
    let wake = |slot: &Slot| slot.note_woken(ticket.generation, delivery.wake(slot.word()));
    slots.deliver(ticket, |slot| write_answer(slot, delivery, response.kind), wake);
    false
}

fn write_answer(slot: &Slot, delivery: &impl Delivery, answer: Option<page_response::Kind>) -> Outcome {
    use page_response::Kind;
    match answer {
        Some(Kind::Pages(bytes)) => {
            let expected = slot.pages_expected();
            if bytes.len() != expected * BLOCK_BYTES {
                return Outcome::Refused(format!("{} bytes came instead of {expected} pages", bytes.len()));
            }
            for (index, page) in bytes.chunks_exact(BLOCK_BYTES).enumerate() {
                delivery.write_page(slot.target(index), page);
            }
            Outcome::Value(0)
        }
        Some(Kind::BlockCount(blocks)) => Outcome::Value(u64::from(blocks)),
        Some(Kind::Exists(exists)) => Outcome::Value(u64::from(exists)),
        Some(Kind::Bytes(bytes)) => Outcome::Value(bytes),
        Some(Kind::Error(error)) => Outcome::Refused(format!("{:?}: {}", error.kind(), error.message)),
        Some(Kind::SlruSegment(_)) | None => Outcome::Refused("the answer is of another kind".to_owned()),
    }
}

#[cfg(test)]
#[path = "client_test.rs"]
mod tests;
