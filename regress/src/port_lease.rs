//! Ports of a test's own installation: a block that no other test of this machine gets as long as it is held.
//!
//! An installation's daemons are started long after `strata init` chose their ports, are stopped and started again; meanwhile
//! nobody listens there, and another test's `init` would find the port free. So tests take blocks below the range in which free ports
//! are looked for, each behind a lock file that the system gives back when its holder ends.

use std::fs::{File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, bail};
use nix::fcntl::{Flock, FlockArg};

const FIRST: u16 = 10_000;
const BLOCKS: u16 = 125;
/// Five safekeepers and a pageserver need two each.
const BLOCK: u16 = 16;

/// Held as long as this lives.
pub struct PortLease {
    pub base: u16,
    _lock: Flock<File>,
}

impl PortLease {
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
            let ports = (base..base + BLOCK).map(|port| TcpListener::bind(("127.0.0.1", port)));
            if ports.collect::<std::io::Result<Vec<_>>>().is_ok() {
                return Ok(PortLease { base, _lock: lock });
            }
        }
        bail!("no {BLOCK} free ports in a row from {FIRST} on: are other tests running?")
    }
}
