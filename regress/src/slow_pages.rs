//! A relay between computes and their pageserver that holds back every answer for a while: a pageserver that is far away.
//!
//! It is a long line, not a slow one: bytes that come one after the other are late by the same time. What it measures is how much of
//! the latency a reader notices.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::whole::Whole;

/// Pieces that are on their way at once, 64 kB each at most.
const PIECES_MAX: usize = 4096;

/// The relay. Its threads end with the process.
pub struct SlowPages {
    micros: Arc<AtomicU64>,
}

impl SlowPages {
    /// Computes that are started from now on reach the pageserver through it; no delay yet.
    pub fn before(whole: &Whole) -> Result<SlowPages> {
        let path = whole.dir().join("registry.json");
        let mut registry: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let port = registry.pointer_mut("/pageservers/0/port").context("the registry has no pageserver")?;
        let address = format!("127.0.0.1:{port}");
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
        *port = json!(listener.local_addr()?.port());
        std::fs::write(&path, serde_json::to_vec_pretty(&registry)?)?;
        let micros = Arc::new(AtomicU64::new(0));
        let shared = micros.clone();
        thread::spawn(move || serve(&listener, &address, &shared));
        Ok(SlowPages { micros })
    }

    /// What comes from now on comes so much later.
    pub fn delay(&self, delay: Duration) {
        self.micros.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Release);
    }
}

fn serve(listener: &TcpListener, address: &str, micros: &Arc<AtomicU64>) {
    for client in listener.incoming() {
        let Ok(client) = client else { return };
        // A pageserver that is away: the client sees a connection that closes, and comes again.
        let Ok(server) = TcpStream::connect(address) else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(client_out), Ok(server_in)) = (client.try_clone(), server.try_clone()) else { continue };
        let (pieces, late) = sync_channel(PIECES_MAX);
        let micros = micros.clone();
        thread::spawn(move || copy(client, server));
        thread::spawn(move || take(server_in, &pieces, &micros));
        thread::spawn(move || give(&late, client_out));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Bytes, and when they are due.
type Piece = (Instant, Vec<u8>);

fn take(mut from: TcpStream, pieces: &SyncSender<Piece>, micros: &AtomicU64) {
    let mut bytes = vec![0u8; 64 << 10];
    while let Ok(count) = from.read(&mut bytes) {
        let due = Instant::now() + Duration::from_micros(micros.load(Ordering::Acquire));
        if count == 0 || pieces.send((due, bytes[..count].to_vec())).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
}

fn give(late: &Receiver<Piece>, mut to: TcpStream) {
    while let Ok((due, bytes)) = late.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
