//! x
use strata_common::*;
pub struct QuorumConfig {
    pub timeline: TenantTimelineId,
    pub safekeepers: Vec<(NodeId, String)>,
    pub term: Term,
    pub start_lsn: Lsn,
    pub system_id: u64,
    pub segment_bytes: u64,
}
pub enum Ending {
    Fenced(String),
    Failed(String),
}
pub struct Quorum {}
impl Quorum {
    pub fn start(c: QuorumConfig) -> Result<Quorum, String> {
        Err(String::new())
    }
    pub fn ending(&self) -> Option<Ending> {
        None
    }
    pub fn has_room(&self) -> bool {
        false
    }
    pub fn send(&self, b: Lsn, v: Vec<u8>) {}
    pub fn commit_lsn(&self) -> Lsn {
        Lsn(0)
    }
    pub fn publish(&self, s: &super::shared::Shared) {}
    pub fn wake_descriptor(&self) -> i32 {
        0
    }
    pub fn drain_wake(&self) {}
}
