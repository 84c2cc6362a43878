//! Ctrl-C and SIGTERM end a run between two steps, so that everything it started is stopped and every folder removed on the way out.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Notes the signals from now on, on a thread of its own; without it they would end the process with servers left behind.
pub fn watch() {
    let _ = std::thread::spawn(|| -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            INTERRUPTED.store(true, Ordering::SeqCst);
            Ok(())
        })
    });
}

/// An error if the run shall end.
pub fn check() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::SeqCst), "interrupted");
    Ok(())
}
