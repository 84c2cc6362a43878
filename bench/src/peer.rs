//! The peers: a vanilla Postgres on its own, and one with two synchronous standbys of which one must answer, as many copies of the log as a quorum of
//! three has. Everything that Postgres does to keep what it acknowledged is on: `fsync` on all three, `full_page_writes`.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use strata_regress::postgres::{Cluster, Installation};

/// How long the standbys may take to connect; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How clients reach a server on loopback: the same way as they reach a compute.
fn connstr(port: u16) -> String {
    format!("host=127.0.0.1 port={port} user=postgres dbname=postgres")
}

/// A vanilla Postgres on its own, for what only reads.
pub struct Single {
    cluster: Cluster,
    port: u16,
}

impl Single {
    pub fn start(vanilla: &Path, settings: &[(&str, &str)]) -> Result<Single> {
        let mut cluster = Cluster::init(&Installation::at(vanilla.join("bin"))?, &[])?;
        let port = free_port()?;
        let port_text = port.to_string();
        cluster.start(&[&[("listen_addresses", "127.0.0.1"), ("port", &port_text)], settings].concat())?;
        Ok(Single { cluster, port })
    }

    pub fn installation(&self) -> &Installation {
        self.cluster.installation()
    }

    pub fn connstr(&self) -> String {
        connstr(self.port)
    }
}

/// A primary and what makes its commits durable.
pub struct Replicated {
    primary: Cluster,
    port: u16,
    // Stopped after the primary: fields go in order.
    _standbys: Vec<Cluster>,
}

/// A port that nobody listens on now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

impl Replicated {
    /// Makes and starts all three; returns when both standbys stream and count.
    pub fn start(vanilla: &Path, settings: &[(&str, &str)]) -> Result<Replicated> {
        let installation = Installation::at(vanilla.join("bin"))?;
        let mut primary = Cluster::init(&installation, &[])?;
        let copies = [primary.copy()?, primary.copy()?];
        let port = free_port()?;
        let port_text = port.to_string();
        let durable = [("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")];
        let own = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port_text),
            ("wal_level", "replica"),
            ("wal_keep_size", "4GB"),
            ("synchronous_standby_names", "ANY 1 (s1, s2)"),
        ];
        primary.start(&[&durable[..], &own[..], settings].concat())?;
        let mut standbys = Vec::new();
        for (mut standby, name) in copies.into_iter().zip(["s1", "s2"]) {
            installation.write(&standby.data().join("standby.signal"), b"")?;
            let from = format!("host=127.0.0.1 port={port} user=postgres application_name={name}");
            let own = [("primary_conninfo", from.as_str()), ("port", &port_text)];
            standby.start(&[&durable[..], &own[..], settings].concat())?;
            standbys.push(standby);
        }
        let replicated = Replicated { primary, port, _standbys: standbys };
        replicated.wait_for_standbys()?;
        Ok(replicated)
    }

    fn wait_for_standbys(&self) -> Result<()> {
        let begin = Instant::now();
        let query =
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'";
        loop {
            let mut psql = self.primary.installation().command("psql");
            psql.args(["-X", "-A", "-t", "-d", &self.connstr(), "-c", query]);
            let output = psql.output().context("cannot run psql")?;
            if output.status.success() && String::from_utf8_lossy(&output.stdout).trim() == "2" {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "the standbys do not stream:\n{}", self.primary.log()?);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn installation(&self) -> &Installation {
        self.primary.installation()
    }

    pub fn connstr(&self) -> String {
        connstr(self.port)
    }
}
