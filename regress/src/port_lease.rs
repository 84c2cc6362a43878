//! Ports of a test's own installation: a block that no other test of this machine gets as long as it is held.
//!
//! An installation's daemons are started long after `strata init` chose their ports, are stopped and started again, and its computes
//! too; meanwhile nobody listens there, and another test's installation would find the port free. So tests take blocks below the range
//! in which free ports are looked for, each behind a lock file that the system gives back when its holder ends.

use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, bail};
use nix::fcntl::{Flock, FlockArg};

const FIRST: u16 = 10_000;
const BLOCKS: u16 = 62;
/// Five safekeepers and a pageserver need two each, each compute that has a name of its own one.
const BLOCK: u16 = 32;

/// Held as long as this lives.
pub struct PortLease {
    pub base: u16,
    _lock: Flock<File>,
}

impl PortLease {
    /// One that nothing of an installation gets by itself.
    pub fn spare(&self) -> u16 {
        self.base + BLOCK - 1
    }

    pub fn take() -> Result<PortLease> {
        let folder = std::env::temp_dir().join("strata-test-ports");
        // Tests of another user take blocks there, too.
        if std::fs::create_dir(&folder).is_ok() {
            std::fs::set_permissions(&folder, Permissions::from_mode(0o1777))?;
        }
        // Tests that run at once begin at different blocks.
        let start = (std::process::id() % u32::from(BLOCKS)) as u16;
        for offset in 0..BLOCKS {
            let number = (start + offset) % BLOCKS;
            let base = FIRST + number * BLOCK;
            let path = folder.join(base.to_string());
            // Files stay, also those of other users: who can read one can lock it.
            let Ok(file) = File::open(&path).or_else(|_| File::create_new(&path)) else { continue };
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            if (base..base + BLOCK).all(nobody_listens) {
                return Ok(PortLease { base, _lock: lock });
            }
        }
        bail!("no {BLOCK} free ports in a row from {FIRST} on: are other tests running?")
    }

    /// Whether the port is of the block, and not the spare one.
    pub fn has(&self, port: u16) -> bool {
        (self.base..self.spare()).contains(&port)
    }
}

/// Tried by calling there. Who listens to try a port keeps it taken: a process that is made meanwhile has a copy of the listener until
/// it becomes another program.
fn nobody_listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn ports_are_free_while_processes_are_made() {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !ended.load(Ordering::Relaxed) {
                        Command::new("true").status().expect("true runs");
                    }
                });
            }
            let taken = (0..300).find_map(|_| {
                let lease = PortLease::take().expect("there are free ports");
                (lease.base..lease.base + BLOCK)
                    .find_map(|port| TcpListener::bind(("127.0.0.1", port)).err().map(|error| (port, error)))
            });
            ended.store(true, Ordering::Relaxed);
            assert!(taken.is_none(), "{taken:?}");
        });
    }
}
