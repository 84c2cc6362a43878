//! Relays between the pageserver and its safekeepers that can hold the log back: a pageserver that lags as long as a test wants.
//!
//! Without a lag a stale answer is hard to meet: the pageserver has the log before anybody can ask. With one, a read whose last-written
//! LSN is too low is answered at once and wrongly (L8), and a right one waits.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// Whether bytes from the safekeepers go through.
#[derive(Default)]
struct Gate {
    held: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, held: bool) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while *held {
            held = self.changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One relay for each safekeeper. Their threads end with the test's process.
pub struct HeldLog {
    gate: Arc<Gate>,
    /// `id=host:port` of each relay, as the pageserver's setting wants it.
    pub safekeepers: Vec<String>,
}

impl HeldLog {
    /// Relays to `(id, host:port)`; nothing is held yet.
    pub fn before(safekeepers: &[(u64, String)]) -> Result<HeldLog> {
        let gate = Arc::new(Gate::default());
        let mut relays = Vec::new();
        for (id, address) in safekeepers {
            let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
            relays.push(format!("{id}={}", listener.local_addr()?));
            let (gate, address) = (gate.clone(), address.clone());
            thread::spawn(move || serve(&listener, &address, &gate));
        }
        Ok(HeldLog { gate, safekeepers: relays })
    }

    /// From now on no byte reaches the pageserver, until the answer is dropped.
    pub fn hold(&self) -> Held<'_> {
        self.gate.set(true);
        Held(&self.gate)
    }
}

/// The log is held back as long as this lives.
pub struct Held<'a>(&'a Gate);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

fn serve(listener: &TcpListener, address: &str, gate: &Arc<Gate>) {
    for client in listener.incoming() {
        let Ok(client) = client else { return };
        // A safekeeper that is away: the pageserver sees a connection that closes, and comes again.
        let Ok(server) = TcpStream::connect(address) else { continue };
        let (Ok(client_out), Ok(server_in)) = (client.try_clone(), server.try_clone()) else { continue };
        let gate = gate.clone();
        thread::spawn(move || copy(client, server, None));
        thread::spawn(move || copy(server_in, client_out, Some(&gate)));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, gate: Option<&Gate>) {
    let mut bytes = vec![0u8; 64 << 10];
    while let Ok(count) = from.read(&mut bytes) {
        if let Some(gate) = gate {
            gate.pass();
        }
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
