//! What the installation consists of: nodes, tenants, branches, computes. Written as `registry.json`.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use strata_common::{ClusterId, Incarnation, Lsn, NodeId, SystemId, TenantId, TimelineId};

pub const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    pub format: u32,
    /// Random; daemons write it into their data folders and refuse those of another installation.
    pub cluster_id: ClusterId,
    pub safekeepers: Vec<Node>,
    pub pageservers: Vec<Node>,
    /// From here on computes get their ports, as the nodes did, if it was given. Free ones otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_base: Option<u16>,
    /// Generation of the pageserver's attachments; raised at each of its starts.
    pub pageserver_generation: u32,
    pub tenants: BTreeMap<String, Tenant>,
    pub computes: BTreeMap<String, Compute>,
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub id: NodeId,
    pub port: u16,
    pub http_port: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    pub id: TenantId,
    pub system_id: SystemId,
    pub wal_segment_bytes: u32,
    pub pg_version_num: u32,
    pub branches: BTreeMap<String, Branch>,
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    pub timeline_id: TimelineId,
    pub ancestor: Option<String>,
    pub start_lsn: Lsn,
    /// The voters, each in the incarnation in which its copy is made.
    pub members: Vec<Member>,
    pub membership_generation: u32,
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub copy: Copy,
}

/// How far a safekeeper's copy of a branch's log is made. A copy under the incarnation that the membership names is a voter, so it
/// is made once at most: a second one would be a voter that has forgotten its votes (trap K16).
#[derive(Serialize, Deserialize, Clone, std::marker::Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Copy {
    /// The node was never asked: it may still be.
    Planned,
    /// It was asked and its answer is not known: it is only asked whether it has the copy.
    Asked,
    Made,
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Compute {
    pub tenant: String,
    pub branch: String,
    pub port: u16,
    pub settings: BTreeMap<String, String>,
}

impl Registry {
    /// All ports that processes of this installation have, or will have when they run.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let nodes = self.safekeepers.iter().chain(&self.pageservers);
        let of_nodes = nodes.flat_map(|node| [node.port, node.http_port]);
        of_nodes.chain(self.computes.values().map(|compute| compute.port))
    }

    pub fn tenant(&self, name: &str) -> anyhow::Result<&Tenant> {
        let known = || known(self.tenants.keys());
        self.tenants.get(name).with_context(|| format!("there is no tenant '{name}' (there is {})", known()))
    }

    pub fn branch(&self, tenant: &str, name: &str) -> anyhow::Result<&Branch> {
        let tenant = self.tenant(tenant)?;
        let known = || known(tenant.branches.keys());
        tenant
            .branches
            .get(name)
            .with_context(|| format!("there is no branch '{name}' (there is {})", known()))
    }

    pub fn compute(&self, name: &str) -> anyhow::Result<&Compute> {
        let known = || known(self.computes.keys());
        self.computes
            .get(name)
            .with_context(|| format!("there is no compute '{name}' (there is {})", known()))
    }
}

fn known<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Refuses names that would not do as folder names or in SQL and URLs.
pub fn check_name(what: &str, name: &str) -> anyhow::Result<()> {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !plain || !starts_well || name.len() > 40 {
        bail!(
            "'{name}' is no name for a {what}: use up to 40 of a-z, 0-9, - and _, beginning with a letter or digit"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_are_plain() {
        for good in ["main", "a", "0", "feature-1_x"] {
            assert!(check_name("branch", good).is_ok(), "{good}");
        }
        let long = "x".repeat(41);
        for bad in ["", "-a", "A", "a/b", "a b", "..", "ä", long.as_str()] {
            assert!(check_name("branch", bad).is_err(), "{bad}");
        }
    }
}
