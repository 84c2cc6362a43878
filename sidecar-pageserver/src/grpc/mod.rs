//! The gRPC face: which connections run where, and both services on one port.
//!
//! A connection belongs to one of a few threads with a current-thread runtime each: measured, that halves the latency of
//! a page against a work-stealing runtime. Management calls arrive on the same port and hop to the node's own runtime,
//! where storage and ingest live.

mod manage;
mod objects;
mod pages;

use std::net::TcpStream as StdTcpStream;
use std::sync::Arc;
use std::time::Duration;

use strata_proto::page::page_service_server::PageServiceServer;
use strata_proto::pageserver::pageserver_server::PageserverServer;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::node::Node;

/// Accepted connections that a thread has not taken yet.
const HANDOVER_MAX: usize = 64;

/// A peer that does not answer pings for so long is gone (P5).
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_WAIT_MAX: Duration = Duration::from_secs(10);

/// Enough for a client's whole batch of page answers without waiting for window updates.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Pages travel in few frames.
const FRAME_BYTES_MAX: u32 = 512 << 10;

/// The threads that serve connections; they end when `stop` turns true.
pub struct Serving {
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Serves `listener` until `stop`. Call inside the node's runtime.
///
/// Errors: a thread or its runtime cannot be made.
pub fn serve(
    node: &Arc<Node>,
    listener: std::net::TcpListener,
    threads: usize,
    stop: watch::Receiver<bool>,
) -> std::io::Result<Serving> {
    let mut handles = Vec::with_capacity(threads);
    let mut queues = Vec::with_capacity(threads);
    for number in 0..threads.max(1) {
        let (queue, connections) = mpsc::channel::<StdTcpStream>(HANDOVER_MAX);
        let (node, stop) = (node.clone(), stop.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name(format!("pages-{number}"))
            .spawn(move || runtime.block_on(serve_connections(node, connections, stop)))?;
        queues.push(queue);
        handles.push(thread);
    }
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(accept(listener, queues, stop));
    Ok(Serving { threads: handles })
}

impl Serving {
    /// Waits until all connections have ended; blocks.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a page thread panicked");
            }
        }
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    queues: Vec<mpsc::Sender<StdTcpStream>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut next = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let handed = match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => queues[next % queues.len()].send(stream).await.is_ok(),
            Err(error) => {
                // Out of descriptors, usually: a moment later there may be some.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                true
            }
        };
        if !handed {
            return;
        }
        next += 1;
    }
}

async fn serve_connections(
    node: Arc<Node>,
    connections: mpsc::Receiver<StdTcpStream>,
    mut stop: watch::Receiver<bool>,
) {
    let incoming = tokio_stream::StreamExt::map(ReceiverStream::new(connections), |stream| {
        stream.set_nodelay(true)?;
        TcpStream::from_std(stream)
    });
    let pages = PageServiceServer::new(pages::Pages::new(node.clone(), stop.clone()))
        .max_decoding_message_size(strata_proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(strata_proto::MESSAGE_BYTES_MAX);
    let manage = PageserverServer::new(manage::Manage::new(node))
        .max_decoding_message_size(strata_proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(strata_proto::MESSAGE_BYTES_MAX);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_WAIT_MAX))
        .add_service(pages)
        .add_service(manage);
    let stopped = async move {
        // An error means that the process is going: stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped).await {
        tracing::error!(%error, "a page thread ended");
    }
}
