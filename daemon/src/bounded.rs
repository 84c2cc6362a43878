//! A listener for pages that are asked for now and then: few connections at a time, and none of them for long.
//!
//! Whoever connects and says nothing, or does not read what was asked for, costs a file descriptor of a process that needs them for its
//! work. A connection has a place and an end; without a free place, further ones wait in the kernel until one is given up.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// How many connections there may be, and how long one may last.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub connections_max: usize,
    pub connection_max: Duration,
}

pub struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    bounds: Bounds,
}

impl Bounded {
    pub fn new(listener: TcpListener, bounds: Bounds) -> Bounded {
        Bounded { listener, places: Arc::new(Semaphore::new(bounds.connections_max)), bounds }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // Nobody closes it, so there is a place in the end.
        let place = self.places.clone().acquire_owned().await.ok();
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let end = Box::pin(tokio::time::sleep(self.bounds.connection_max));
        (Connection { stream, end, _place: place }, peer)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Fails when its time is over; its place is free when it is dropped.
pub struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Wakes the task that asked when the time is over.
    fn in_time(&mut self, context: &mut Context<'_>) -> std::io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(std::io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::{http, net};

    /// Far more than the connections of the test may last.
    const PATIENCE: Duration = Duration::from_secs(120);

    #[test]
    fn who_says_nothing_loses_his_place_to_who_asks() {
        let (listener, address) = net::bind("http", "127.0.0.1:0").expect("a free port");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        // The one that asks has as long for its answer, on a busy machine too.
        let bounds = Bounds { connections_max: 2, connection_max: Duration::from_secs(2) };
        let page = || std::future::ready("numbers".to_owned());
        let status = || std::future::ready(serde_json::Value::Null);
        let entered = runtime.enter();
        let serving = http::serve_pages(listener, bounds, page, status).expect("it serves");
        drop(entered);
        runtime.spawn(serving);

        let connect = || {
            let stream = TcpStream::connect(address).expect("the kernel takes it");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream
        };
        let mut silent: Vec<TcpStream> = (0..5).map(|_| connect()).collect();
        let mut asks = connect();
        asks.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("a question");
        let mut text = String::new();
        // To its end: nothing is kept open for a further question.
        asks.read_to_string(&mut text).expect("an answer and an end");
        assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("numbers"), "{text}");
        for stream in &mut silent {
            let said = stream.read(&mut [0; 64]);
            assert!(
                matches!(said, Ok(0))
                    || said.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
            );
        }
    }
}
