//! Clients of the daemons' services on loopback.

use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use strata_proto::pageserver::pageserver_client::PageserverClient;
use strata_proto::wal::safekeeper_client::SafekeeperClient;
use tonic::transport::{Channel, Endpoint};

use crate::registry::{Node, Registry};

/// How long a daemon may take to accept a connection: it is on this machine.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A daemon that stands still accepts connections: it is asked for a sign of life so often, and given up when none comes in time.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
const ALIVE_MAX: Duration = Duration::from_secs(5);

pub async fn safekeeper(node: &Node) -> anyhow::Result<SafekeeperClient<Channel>> {
    let channel = connect(node.port).await;
    let channel = channel
        .with_context(|| format!("safekeeper {} does not answer: 'strata safekeeper start {0}'", node.id))?;
    Ok(SafekeeperClient::new(channel).max_decoding_message_size(strata_proto::MESSAGE_BYTES_MAX))
}

/// A safekeeper, and a connection to it or why there is none.
pub struct Reached {
    pub node: Node,
    pub client: anyhow::Result<SafekeeperClient<Channel>>,
}

/// Connects to all safekeepers at once: one that is away costs no more than its own time.
pub async fn safekeepers(registry: &Registry) -> Vec<Reached> {
    let one = |node: &Node| {
        let node = node.clone();
        async move { Reached { client: safekeeper(&node).await, node } }
    };
    join_all(registry.safekeepers.iter().map(one)).await
}

pub async fn pageserver(registry: &Registry) -> anyhow::Result<PageserverClient<Channel>> {
    let node = registry.pageservers.first().context("the installation has no pageserver")?;
    let channel = connect(node.port).await;
    let channel = channel
        .with_context(|| format!("pageserver {} does not answer: 'strata pageserver start {0}'", node.id))?;
    Ok(PageserverClient::new(channel).max_decoding_message_size(strata_proto::MESSAGE_BYTES_MAX))
}

async fn connect(port: u16) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).context("a loopback address")?;
    let endpoint = endpoint.http2_keep_alive_interval(ALIVE_EVERY).keep_alive_timeout(ALIVE_MAX);
    Ok(endpoint.connect_timeout(CONNECT_MAX).tcp_nodelay(true).connect().await?)
}

/// Whether the connection broke, and this is not what the service said: only what is made on our side has a cause.
pub fn is_lost(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// A service's refusal, as one sentence.
pub fn refusal(what: &str, status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{what}: {}", status.message())
}
