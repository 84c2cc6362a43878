//! What a driver is told: the timeline, where the safekeepers are, bounds and times.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use strata_common::{Lsn, NodeId, TenantTimelineId, Term};

use crate::core::{AcceptorAddress, Limits};

/// Called on the driver's thread as soon as the commit LSN has moved; must not block.
pub type OnCommit = Arc<dyn Fn(Lsn) + Send + Sync>;

#[derive(Clone)]
pub struct Config {
    pub timeline: TenantTimelineId,
    pub safekeepers: Vec<AcceptorAddress>,
    pub limits: Limits,
    pub timing: Timing,
    pub on_commit: Option<OnCommit>,
    /// For `elect`: the term that this process had before. A higher one that it did not ask for itself then means `Fenced`.
    pub had_term: Option<Term>,
}

impl Config {
    pub fn new(timeline: TenantTimelineId, safekeepers: Vec<AcceptorAddress>) -> Config {
        Config {
            timeline,
            safekeepers,
            limits: Limits::default(),
            timing: Timing::default(),
            on_commit: None,
            had_term: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("timeline", &self.timeline)
            .field("safekeepers", &self.safekeepers)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// `elect` gives up after this.
    pub elect_max: Duration,
    /// A connection attempt gives up after this.
    pub connect_max: Duration,
    /// A peer that answers no keepalive for this long is dead (trap P5).
    pub silence_max: Duration,
    /// Between signs of life, and between refreshes of the status.
    pub tick: Duration,
    /// Pauses between connection attempts grow from the first to the second.
    pub reconnect_min: Duration,
    pub reconnect_max: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            elect_max: Duration::from_secs(30),
            connect_max: Duration::from_secs(2),
            silence_max: Duration::from_secs(3),
            tick: Duration::from_millis(500),
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_secs(1),
        }
    }
}

/// Parses `1=host:port,2=host:port`, the form of the setting `strata.safekeepers`.
pub fn parse_safekeepers(text: &str) -> Result<Vec<AcceptorAddress>, String> {
    let mut found: Vec<AcceptorAddress> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((node, address)) = part.split_once('=') else {
            return Err(format!("'{part}' is not of the form id=host:port"));
        };
        let node = node.trim().parse().map_err(|_| format!("'{node}' is not a safekeeper's number"))?;
        let address = address.trim();
        let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) {
            return Err(format!("'{address}' is not of the form host:port"));
        }
        if found.iter().any(|other| other.node == NodeId(node)) {
            return Err(format!("safekeeper {node} is named twice"));
        }
        found.push(AcceptorAddress { node: NodeId(node), address: address.to_owned() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safekeepers_are_parsed_or_refused_by_name() {
        let found = parse_safekeepers("1=127.0.0.1:7001, 2=sk-2:7002").expect("a good list");
        assert_eq!(found[1], AcceptorAddress { node: NodeId(2), address: "sk-2:7002".to_owned() });
        for bad in ["127.0.0.1:1", "x=h:1", "1=h", "1=h:99999", "1=a:1,1=b:2"] {
            assert!(parse_safekeepers(bad).is_err(), "{bad}");
        }
    }
}
