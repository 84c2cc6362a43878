//! How long one page takes over the transport that page requests use, with nothing behind it: a service in a process of its own that
//! answers each request at once with the same 8 KiB, and one request at a time. Prints JSON: p50, p90, p99 in microseconds.
//!
//! The benchmark of page requests (B4) has this as its peer. `page_echo serve` is the service; it prints its port.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::time::Instant;

use strata_proto::page::page_service_client::PageServiceClient;
use strata_proto::page::page_service_server::{PageService, PageServiceServer};
use strata_proto::page::{
    BaseBackupChunk, BaseBackupRequest, GetObjectRequest, GetObjectResponse, GetPages, PageRequest,
    PageRequests, PageResponse, PageResponses, PutObjectRequest, PutObjectResponse, page_request,
    page_response,
};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Endpoint, Server};
use tonic::{Response, Status, Streaming};

const PAGE_BYTES: usize = 8192;
const WARM_UP: usize = 2_000;
const REQUESTS: usize = 20_000;

type Error = Box<dyn std::error::Error>;

struct Echo;

#[tonic::async_trait]
impl PageService for Echo {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<PageResponses, Status>> + Send>>;
    type BaseBackupStream = Pin<Box<dyn Stream<Item = Result<BaseBackupChunk, Status>> + Send>>;

    async fn exchange(
        &self,
        requests: tonic::Request<Streaming<PageRequests>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let answers = requests.into_inner().map(|batch| {
            let page = |request: PageRequest| PageResponse {
                id: request.id,
                kind: Some(page_response::Kind::Pages(vec![7; PAGE_BYTES].into())),
            };
            batch.map(|batch| PageResponses { responses: batch.requests.into_iter().map(page).collect() })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn base_backup(
        &self,
        _: tonic::Request<BaseBackupRequest>,
    ) -> Result<Response<Self::BaseBackupStream>, Status> {
        Err(Status::unimplemented("only pages are echoed"))
    }

    async fn put_object(
        &self,
        _: tonic::Request<PutObjectRequest>,
    ) -> Result<Response<PutObjectResponse>, Status> {
        Err(Status::unimplemented("only pages are echoed"))
    }

    async fn get_object(
        &self,
        _: tonic::Request<GetObjectRequest>,
    ) -> Result<Response<GetObjectResponse>, Status> {
        Err(Status::unimplemented("only pages are echoed"))
    }
}

async fn serve() -> Result<(), Error> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let incoming = TcpListenerStream::new(listener).map(|stream| {
        let stream = stream?;
        stream.set_nodelay(true)?;
        std::io::Result::Ok(stream)
    });
    Server::builder().add_service(PageServiceServer::new(Echo)).serve_with_incoming(incoming).await?;
    Ok(())
}

/// Microseconds of each request, sorted.
async fn measure(port: u16) -> Result<Vec<f64>, Error> {
    let channel =
        Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.tcp_nodelay(true).connect().await?;
    let (sender, outgoing) = tokio::sync::mpsc::unbounded_channel();
    let ask = |id: u64| {
        let get = GetPages { first_block: id as u32, count: 1, ..GetPages::default() };
        let request =
            PageRequest { id, kind: Some(page_request::Kind::GetPages(get)), ..PageRequest::default() };
        PageRequests { open: None, requests: vec![request] }
    };
    sender.send(PageRequests::default())?;
    let call = PageServiceClient::new(channel).exchange(UnboundedReceiverStream::new(outgoing)).await?;
    let mut answers = call.into_inner();
    answers.message().await?;
    let mut times = Vec::new();
    for id in 0..(WARM_UP + REQUESTS) as u64 {
        let begin = Instant::now();
        sender.send(ask(id))?;
        let answer = answers.message().await?.ok_or("the service ended the stream")?;
        let elapsed = begin.elapsed();
        if answer.responses.first().map(|response| response.id) != Some(id) {
            return Err("an answer to another request".into());
        }
        if id >= WARM_UP as u64 {
            times.push(elapsed.as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn main() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return runtime.block_on(serve());
    }
    let mut service = Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut port = String::new();
    BufReader::new(service.stdout.take().ok_or("no output")?).read_line(&mut port)?;
    let times = runtime.block_on(async { measure(port.trim().parse()?).await });
    service.kill()?;
    service.wait()?;
    let times = times?;
    let at = |part: f64| times[(times.len() as f64 * part) as usize];
    println!(
        "{{\"n\": {}, \"p50_us\": {:.1}, \"p90_us\": {:.1}, \"p99_us\": {:.1}}}",
        times.len(),
        at(0.5),
        at(0.9),
        at(0.99)
    );
    Ok(())
}
