//! Safekeepers: the real acceptor core over a simulated disk, with crash, restart, wipe, and fetches from peers.

use strata_common::{Lsn, NodeId, Term};
use strata_safekeeper::core::{Acceptor, Command, DurableState, Event, FetchId};

use crate::checker::Violation;
use crate::disk::{Crash, Disk};
use crate::world::{Action, World};

#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    id: FetchId,
    term: Term,
    at: Lsn,
    until: Lsn,
    peers: Vec<NodeId>,
}

#[derive(Debug)]
pub(crate) struct Safekeeper {
    node: NodeId,
    pub disk: Option<Disk>,
    /// None while the process is down or has no timeline.
    pub acceptor: Option<Acceptor>,
    pub running: bool,
    /// Counts starts: what belongs to an earlier life is stale.
    life: u64,
    disk_busy: bool,
    fetch: Option<Fetch>,
    highest_commit: Lsn,
}

impl Safekeeper {
    pub fn new(node: NodeId, state: Option<DurableState>) -> Safekeeper {
        Safekeeper {
            node,
            disk: state.map(Disk::new),
            acceptor: None,
            running: true,
            life: 0,
            disk_busy: false,
            fetch: None,
            highest_commit: Lsn::INVALID,
        }
    }
}

impl World {
    /// Starts the acceptor on what the disk holds.
    pub(crate) fn open(&mut self, node: NodeId) {
        let Some(safekeeper) = self.safekeepers.get_mut(&node) else { return };
        safekeeper.life += 1;
        (safekeeper.disk_busy, safekeeper.fetch, safekeeper.running) = (false, None, true);
        let Some(disk) = &safekeeper.disk else { return };
        #[cfg_attr(not(feature = "mutants"), expect(unused_mut, reason = "a mutant is set below"))]
        let mut acceptor = Acceptor::open(safekeeper.node, disk.state.clone(), disk.durable_end());
        #[cfg(feature = "mutants")]
        {
            acceptor.mutant = match self.options.mutant {
                Some(crate::Mutant::Acceptor(mutant)) => Some(mutant),
                Some(crate::Mutant::WipedVotesAndCounts) => Some(strata_safekeeper::core::Mutant::WipedVotes),
                _ => None,
            };
        }
        safekeeper.acceptor = Some(acceptor);
    }

    /// Starts a safekeeper that is down.
    pub fn restart(&mut self, node: NodeId) {
        let down = self.safekeepers.get(&node).is_some_and(|s| !s.running);
        if down {
            self.open(node);
        }
    }

    pub fn crash(&mut self, node: NodeId, crash: Crash) {
        let Some(safekeeper) = self.safekeepers.get_mut(&node) else { return };
        if !safekeeper.running {
            return;
        }
        (safekeeper.running, safekeeper.acceptor) = (false, None);
        safekeeper.life += 1;
        if let Some(disk) = &mut safekeeper.disk {
            disk.crash(crash, &mut self.rng);
        }
        self.report.crashes += 1;
        let cut = self.sessions.iter_mut().filter(|(_, s)| s.node == node && s.open_at_safekeeper);
        let cut: Vec<u64> = cut
            .map(|(number, session)| {
                session.open_at_safekeeper = false;
                *number
            })
            .collect();
        for session in cut {
            let notice = self.rng.between(1, 60);
            self.after(notice, Action::CloseAtCompute { session });
        }
    }

    /// The disk is lost with everything on it; the process comes back without the timeline.
    pub fn wipe(&mut self, node: NodeId) {
        self.crash(node, Crash::Power);
        let Some(safekeeper) = self.safekeepers.get_mut(&node) else { return };
        if safekeeper.disk.take().is_some() {
            safekeeper.highest_commit = Lsn::INVALID;
            self.report.wipes += 1;
        }
    }

    /// The explicit call that makes a copy where there is none.
    pub(crate) fn create_copy(&mut self, node: NodeId, state: DurableState) {
        let Some(safekeeper) = self.safekeepers.get_mut(&node) else { return };
        if safekeeper.running && safekeeper.disk.is_none() {
            safekeeper.disk = Some(Disk::new(state));
            self.report.learners_created += 1;
            self.open(node);
        }
    }

    /// An empty copy with the present membership, under an incarnation that the membership does not name.
    pub fn create_empty_copy(&mut self, node: NodeId) {
        let facts = self.safekeepers.values().find_map(|s| s.disk.as_ref()).map(|disk| disk.state.facts);
        let Some(facts) = facts else { return };
        let incarnation = strata_common::Incarnation(self.rng.bytes16());
        let start = Lsn(crate::records::LOG_START);
        self.create_copy(node, DurableState::new(incarnation, self.membership.clone(), facts, start));
    }

    pub(crate) fn acceptor_step(&mut self, node: NodeId, event: Event) -> Result<(), Violation> {
        let Some(safekeeper) = self.safekeepers.get_mut(&node) else { return Ok(()) };
        let (Some(acceptor), Some(disk)) = (&mut safekeeper.acceptor, &mut safekeeper.disk) else {
            return Ok(());
        };
        let commands = acceptor.step(event);
        safekeeper.highest_commit = safekeeper.highest_commit.max(acceptor.commit_lsn());
        let mut sends = Vec::new();
        let (mut fetch, mut stop) = (None, false);
        for command in commands {
            match command {
                Command::Reply { conn, message } => {
                    self.checker.reply(node, disk, &message)?;
                    sends.push((conn.0, message));
                }
                Command::Close { conn, why } => {
                    let session = conn.0;
                    let text = why.to_string();
                    if let Some(known) = self.sessions.get_mut(&session) {
                        known.open_at_safekeeper = false;
                    }
                    self.note(format!("safekeeper {node} closes {session}: {text}"));
                    self.after(2, Action::CloseAtCompute { session });
                    self.after(1, Action::CloseAtSafekeeper { session });
                    let Some(safekeeper) = self.safekeepers.get_mut(&node) else { return Ok(()) };
                    let Some(acceptor) = &mut safekeeper.acceptor else { return Ok(()) };
                    let more = acceptor.step(Event::Disconnected { conn });
                    stop |= more.iter().any(|c| matches!(c, Command::StopFetch { .. }));
                    return self.finish_step(node, sends, fetch, stop);
                }
                Command::Fetch { fetch: id, term, from, until, peers } => {
                    let peers = peers.iter().filter_map(|peer| peer.parse().ok().map(NodeId)).collect();
                    fetch = Some(Fetch { id, term, at: from, until, peers });
                }
                Command::StopFetch { .. } => stop = true,
                Command::Committed { .. } | Command::Flushed { .. } => {}
                disk_command => disk.queue.push_back(disk_command),
            }
        }
        self.finish_step(node, sends, fetch, stop)
    }

    fn finish_step(
        &mut self,
        node: NodeId,
        sends: Vec<(u64, strata_proto::quorum::FromAcceptor)>,
        fetch: Option<Fetch>,
        stop: bool,
    ) -> Result<(), Violation> {
        for (session, message) in sends {
            self.send_to_compute(session, message);
        }
        let Some(safekeeper) = self.safekeepers.get_mut(&node) else { return Ok(()) };
        let life = safekeeper.life;
        if stop {
            safekeeper.fetch = None;
        }
        let started = fetch.as_ref().map(|fetch| fetch.id);
        if fetch.is_some() {
            safekeeper.fetch = fetch;
            self.report.fetches += 1;
        }
        if let Some(fetch) = started {
            self.after(2, Action::FetchStep { node, life, fetch });
        }
        self.wake_disk(node);
        self.check_disks(node)
    }

    fn wake_disk(&mut self, node: NodeId) {
        let delay = self.rng.between(1, self.faults.disk_delay_max);
        let Some(safekeeper) = self.safekeepers.get_mut(&node) else { return };
        let waiting = safekeeper.disk.as_ref().is_some_and(|disk| !disk.queue.is_empty());
        if waiting && !safekeeper.disk_busy {
            safekeeper.disk_busy = true;
            let life = safekeeper.life;
            self.after(delay, Action::Disk { node, life });
        }
    }

    pub(crate) fn disk_step(&mut self, node: NodeId, life: u64) -> Result<(), Violation> {
        let Some(safekeeper) = self.safekeepers.get_mut(&node).filter(|s| s.life == life) else {
            return Ok(());
        };
        safekeeper.disk_busy = false;
        let Some(disk) = &mut safekeeper.disk else { return Ok(()) };
        match disk.queue.front() {
            Some(Command::TruncateWal { to, .. }) => {
                self.report.cuts_with_loss += u64::from(*to < disk.durable_end());
                self.checker.cut(node, disk, *to, safekeeper.highest_commit)?;
            }
            Some(Command::RemoveWal { .. }) => self.report.log_removed += 1,
            Some(Command::ResetWal { .. }) => self.report.log_restarts += 1,
            _ => {}
        }
        let completion = disk.perform_next();
        self.check_disks(node)?;
        match completion {
            Some(event) => self.acceptor_step(node, event),
            None => {
                self.wake_disk(node);
                Ok(())
            }
        }
    }

    pub(crate) fn fetch_step(&mut self, node: NodeId, life: u64, id: FetchId) -> Result<(), Violation> {
        let Some(safekeeper) = self.safekeepers.get(&node).filter(|s| s.life == life) else { return Ok(()) };
        let Some(fetch) = safekeeper.fetch.clone().filter(|fetch| fetch.id == id) else { return Ok(()) };
        let mut gap = None;
        for peer in &fetch.peers {
            let Some(peer) = self.safekeepers.get(peer) else { continue };
            let (Some(acceptor), Some(disk)) = (&peer.acceptor, &peer.disk) else { continue };
            let Ok(limit) = acceptor.read_limit(fetch.term) else { continue };
            if limit.oldest > fetch.at || disk.base > fetch.at {
                gap = gap.max(Some(limit.oldest));
                continue;
            }
            let room = limit.end.min(fetch.until).checked_sub(fetch.at).unwrap_or(0);
            if room == 0 {
                continue;
            }
            let length = self.rng.between(1, room.min(700));
            let wal = bytes::Bytes::copy_from_slice(disk.read(fetch.at, fetch.at + length));
            let begin = fetch.at;
            let next = begin + length;
            if let Some(running) = self.safekeepers.get_mut(&node).and_then(|s| s.fetch.as_mut()) {
                running.at = next;
            }
            if next < fetch.until {
                let delay = self.rng.between(1, self.faults.delay_max);
                self.after(delay, Action::FetchStep { node, life, fetch: id });
            }
            return self.acceptor_step(node, Event::Fetched { fetch: id, begin, wal });
        }
        let event = match gap {
            Some(oldest) => Event::FetchGap { fetch: id, oldest },
            None => Event::FetchFailed { fetch: id },
        };
        self.acceptor_step(node, event)
    }
}
