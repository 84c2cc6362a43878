//! Where the pageserver is while a start asks it: the spec's file may name another address at any time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tonic::transport::{Channel, Endpoint};

use crate::spec::Spec;

/// How often the file is looked at.
pub const LOOK: Duration = Duration::from_millis(500);

/// The pageserver's address, and a connection that is made when it is first used, and again after a restart.
pub struct Pageserver {
    path: PathBuf,
    address: String,
    channel: Channel,
}

impl Pageserver {
    /// `path`: where the spec was read.
    pub fn new(spec: &Spec, path: &Path) -> anyhow::Result<Pageserver> {
        let address = spec.pageserver.clone();
        let channel = connect(&address)?;
        Ok(Pageserver { path: path.to_owned(), address, channel })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Asks one question; `None`: the pageserver is elsewhere now, ask there.
    pub async fn ask<T>(&mut self, question: impl Future<Output = T>) -> Option<T> {
        let address = tokio::select! {
            answer = question => return Some(answer),
            address = elsewhere(&self.path, &self.address) => address,
        };
        match connect(&address) {
            Ok(channel) => {
                tracing::info!("the pageserver is at {address} now");
                (self.address, self.channel) = (address, channel);
            }
            Err(error) => {
                tracing::warn!("{error:#}");
                tokio::time::sleep(LOOK).await;
            }
        }
        None
    }
}

fn connect(address: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).context("the pageserver's address")?;
    Ok(endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(2)).connect_lazy())
}

/// Another address than this one, when the spec in the file has one.
pub async fn elsewhere(path: &Path, address: &str) -> String {
    loop {
        // A file that cannot be read says nothing; a crash would complain of it.
        if let Ok(now) = Spec::read(path)
            && now.pageserver != address
        {
            return now.pageserver;
        }
        tokio::time::sleep(LOOK).await;
    }
}
