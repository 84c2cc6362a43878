//! A pageserver-like learner: follows committed log wherever it finds it, reports how far it is, and lets log go (trap K14).

use strata_common::invariants::Invariant;
use strata_common::{Lsn, NodeId, Term};
use strata_proto::quorum::PageserverProgress;
use strata_safekeeper::core::Event;

use crate::checker::Violation;
use crate::records::LOG_START;
use crate::world::{Action, World};

impl World {
    pub(crate) fn pageserver(&mut self) -> Result<(), Violation> {
        let pause = self.rng.between(20, 120);
        self.after(pause, Action::Pageserver);
        let nodes: Vec<NodeId> = self.safekeepers.keys().copied().collect();
        let Some(node) = self.rng.pick(&nodes) else { return Ok(()) };
        self.read_committed(node)?;
        let lag = self.rng.between(0, 3000);
        let remote = Lsn(self.pageserver_at.0.saturating_sub(lag).max(LOG_START));
        let remote = self.record_end_below(remote);
        let progress = PageserverProgress {
            received: self.pageserver_at,
            disk_consistent: self.pageserver_at,
            remote_consistent: remote,
        };
        for node in nodes {
            self.acceptor_step(node, Event::Progress { pageserver: 1, progress })?;
            if self.rng.chance(20) {
                let keep_bytes = self.rng.between(0, 1) * 1000;
                self.acceptor_step(node, Event::TrimDue { slowest_reader: None, keep_bytes })?;
            }
            if self.rng.chance(20) {
                self.acceptor_step(node, Event::CommitSaveDue)?;
            }
        }
        Ok(())
    }

    /// Reads what one safekeeper calls committed from where the learner is, and compares it with the ledger.
    fn read_committed(&mut self, node: NodeId) -> Result<(), Violation> {
        let Some(safekeeper) = self.safekeepers.get(&node) else { return Ok(()) };
        let (Some(acceptor), Some(disk)) = (&safekeeper.acceptor, &safekeeper.disk) else { return Ok(()) };
        let Ok(limit) = acceptor.read_limit(Term::ZERO) else { return Ok(()) };
        let from = self.pageserver_at;
        if limit.oldest > from || disk.base > from || limit.end <= from || disk.is_restarting() {
            return Ok(());
        }
        let ledger =
            self.checker.ledger.get((from.0 - LOG_START) as usize..(limit.end.0 - LOG_START) as usize);
        if ledger != Some(disk.read(from, limit.end)) {
            let what = format!("a learner was given other log than was committed, {from} to {}", limit.end);
            return Err(Violation { invariant: Invariant::Sk1, what });
        }
        self.pageserver_at = limit.end;
        Ok(())
    }

    fn record_end_below(&self, lsn: Lsn) -> Lsn {
        let length = (lsn.0 - LOG_START) as usize;
        Lsn(LOG_START + crate::records::whole(&self.checker.ledger[..length]) as u64)
    }
}
