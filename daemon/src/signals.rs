//! SIGTERM and SIGINT as one future: a daemon stops cleanly on either. A second signal ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from its making on; no signal between that and `wait` is lost.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Call inside a runtime.
    pub fn listen() -> std::io::Result<StopSignals> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Done at the first signal; says its name.
    pub async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Ends the process when one more signal comes: for an operator whose clean stop takes too long.
    pub async fn exit_on_next(mut self) {
        let name = self.wait().await;
        tracing::warn!(signal = name, "second signal: exiting at once");
        std::process::exit(1);
    }
}
