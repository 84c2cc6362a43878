//! Connections between computes and safekeepers: in order and without loss, like TCP, until one is cut (each end learns that at
//! its own time) or until the seed's weather is unruly and messages are lost, doubled or overtaken.

use strata_common::{Incarnation, NodeId};
use strata_proto::quorum::{FromAcceptor, ToAcceptor};
use strata_safekeeper::core::{ConnId, Event as AcceptorEvent};
use strata_walproposer::core::Event as ProposerEvent;

use crate::checker::Violation;
use crate::world::{Action, World};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub compute: u64,
    pub node: NodeId,
    pub open_at_compute: bool,
    pub open_at_safekeeper: bool,
    /// When the last message of each direction arrives: later ones arrive after it.
    last_to_safekeeper: u64,
    last_to_compute: u64,
}

impl World {
    pub(crate) fn connect(&mut self, compute: u64, node: NodeId) -> Result<(), Violation> {
        let (Some(safekeeper), true) = (self.safekeepers.get(&node), self.computes.contains_key(&compute))
        else {
            return Ok(());
        };
        let up = safekeeper.acceptor.is_some() && !self.blocked.contains(&(compute, node));
        let wiped = safekeeper.disk.is_none() && safekeeper.running;
        if wiped && !self.blocked.contains(&(compute, node)) {
            let fresh = Incarnation(self.rng.bytes16());
            self.proposer_step(compute, ProposerEvent::NotFound { node, fresh })?;
        }
        if !up {
            let pause = self.rng.between(20, 100);
            self.after(pause, Action::Connect { compute, node });
            return Ok(());
        }
        let session = self.number();
        let now = self.now;
        self.sessions.insert(
            session,
            Session {
                compute,
                node,
                open_at_compute: true,
                open_at_safekeeper: true,
                last_to_safekeeper: now,
                last_to_compute: now,
            },
        );
        if let Some(compute) = self.computes.get_mut(&compute) {
            compute.sessions.insert(node, session);
        }
        self.proposer_step(compute, ProposerEvent::Connected { node })
    }

    pub(crate) fn send_to_safekeeper(&mut self, session: u64, message: ToAcceptor) {
        for (time, message) in self.arrivals(session, message, |s| &mut s.last_to_safekeeper) {
            self.at(time, Action::ToSafekeeper { session, message });
        }
    }

    pub(crate) fn send_to_compute(&mut self, session: u64, message: FromAcceptor) {
        for (time, message) in self.arrivals(session, message, |s| &mut s.last_to_compute) {
            self.at(time, Action::ToCompute { session, message });
        }
    }

    /// When a message arrives: once, after those before it; or not so, if the weather is unruly.
    fn arrivals<M: Clone>(
        &mut self,
        session: u64,
        message: M,
        last: impl Fn(&mut Session) -> &mut u64,
    ) -> Vec<(u64, M)> {
        let delay = self.rng.between(1, self.faults.delay_max);
        let unruly = self.faults.unruly > 0 && self.rng.chance(self.faults.unruly);
        let Some(session) = self.sessions.get_mut(&session) else { return Vec::new() };
        let last = last(session);
        if unruly {
            let time = self.now + 1 + delay;
            return match self.rng.between(0, 2) {
                0 => Vec::new(),
                1 => vec![(time, message)],
                _ => vec![(time, message.clone()), (time + delay, message)],
            };
        }
        *last = (*last).max(self.now + delay);
        vec![(*last, message)]
    }

    pub(crate) fn deliver_to_safekeeper(
        &mut self,
        session: u64,
        message: ToAcceptor,
    ) -> Result<(), Violation> {
        let Some(known) = self.sessions.get(&session).filter(|s| s.open_at_safekeeper) else { return Ok(()) };
        let node = known.node;
        self.acceptor_step(node, AcceptorEvent::Message { conn: ConnId(session), message })
    }

    pub(crate) fn deliver_to_compute(
        &mut self,
        session: u64,
        message: FromAcceptor,
    ) -> Result<(), Violation> {
        let Some(known) = self.sessions.get(&session).filter(|s| s.open_at_compute) else { return Ok(()) };
        let (compute, node) = (known.compute, known.node);
        self.proposer_step(compute, ProposerEvent::Received { node, message })
    }

    /// Both ends will notice, each in its time.
    pub(crate) fn cut_connection(&mut self, session: u64) {
        let (here, there) = (self.rng.between(1, 60), self.rng.between(1, 60));
        self.after(here, Action::CloseAtSafekeeper { session });
        self.after(there, Action::CloseAtCompute { session });
    }

    pub(crate) fn close_at_safekeeper(&mut self, session: u64) -> Result<(), Violation> {
        let Some(known) = self.sessions.get_mut(&session) else { return Ok(()) };
        let node = known.node;
        if std::mem::replace(&mut known.open_at_safekeeper, false) {
            self.acceptor_step(node, AcceptorEvent::Disconnected { conn: ConnId(session) })?;
        }
        self.forget(session);
        Ok(())
    }

    pub(crate) fn close_at_compute(&mut self, session: u64) -> Result<(), Violation> {
        let Some(known) = self.sessions.get_mut(&session) else { return Ok(()) };
        let (compute, node) = (known.compute, known.node);
        let was_open = std::mem::replace(&mut known.open_at_compute, false);
        self.forget(session);
        let Some(owner) = self.computes.get_mut(&compute) else { return Ok(()) };
        if was_open && owner.sessions.get(&node) == Some(&session) {
            owner.sessions.remove(&node);
            let pause = self.rng.between(5, 50);
            self.after(pause, Action::Connect { compute, node });
            self.proposer_step(compute, ProposerEvent::Disconnected { node })?;
        }
        Ok(())
    }

    fn forget(&mut self, session: u64) {
        if self.sessions.get(&session).is_some_and(|s| !s.open_at_compute && !s.open_at_safekeeper) {
            self.sessions.remove(&session);
        }
    }
}
