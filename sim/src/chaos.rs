//! What goes wrong, and when: only what the protocol promises to survive. At most a minority of disks is ever wiped.

use strata_common::NodeId;

use crate::checker::Violation;
use crate::disk::Crash;
use crate::world::{Action, World};

/// Computes that fight each other at once.
const COMPUTES_MAX: usize = 4;

impl World {
    pub(crate) fn chaos(&mut self) -> Result<(), Violation> {
        let pause = self.rng.between(5, 60);
        self.after(pause, Action::Chaos);
        let faults = self.faults;
        let nodes: Vec<NodeId> = self.safekeepers.keys().copied().collect();
        let computes: Vec<u64> = self.computes.keys().copied().collect();
        let sessions: Vec<u64> = self.sessions.keys().copied().collect();
        let node = self.rng.pick(&nodes);
        let compute = self.rng.pick(&computes);
        if self.rng.chance(faults.cut_connection)
            && let Some(session) = self.rng.pick(&sessions)
        {
            self.cut_connection(session);
        }
        if self.rng.chance(faults.partition)
            && let (Some(node), Some(compute)) = (node, compute)
        {
            self.block(compute, node);
        }
        if self.rng.chance(20) && !self.blocked.is_empty() {
            self.blocked.remove(0);
        }
        if let Some(node) = node {
            self.fell(node);
        }
        if let Some(compute) = compute {
            if self.rng.chance(faults.end_compute) {
                self.end_compute(compute);
            } else if self.rng.chance(faults.resume_compute) {
                self.resume_compute(compute);
            }
        }
        let lonely = self.computes.is_empty() && faults.new_compute > 0;
        if lonely || (self.rng.chance(faults.new_compute) && self.computes.len() < COMPUTES_MAX) {
            self.start_compute();
        }
        Ok(())
    }

    fn fell(&mut self, node: NodeId) {
        let tolerated = self.membership.members.len() as u64 - self.membership.majority() as u64;
        if self.rng.chance(self.faults.wipe) && self.wiped < tolerated && self.holds_member(node) {
            self.wiped += 1;
            self.wipe(node);
        } else if self.rng.chance(self.faults.crash) {
            let crash = if self.rng.chance(50) { Crash::Power } else { Crash::Process };
            self.crash(node, crash);
        } else {
            return;
        }
        let down = self.rng.between(1, 300);
        self.after(down, Action::Restart { node });
    }

    fn holds_member(&self, node: NodeId) -> bool {
        let disk = self.safekeepers.get(&node).and_then(|s| s.disk.as_ref());
        disk.is_some_and(|disk| {
            self.membership.members.iter().any(|m| m.incarnation == disk.state.incarnation)
        })
    }

    /// Nothing passes between the two until the block is lifted.
    pub fn block(&mut self, compute: u64, node: NodeId) {
        if self.blocked.len() < 6 {
            self.blocked.push((compute, node));
            let between = self.sessions.iter().filter(|(_, s)| s.compute == compute && s.node == node);
            for session in between.map(|(number, _)| *number).collect::<Vec<_>>() {
                self.cut_connection(session);
            }
        }
    }
}
