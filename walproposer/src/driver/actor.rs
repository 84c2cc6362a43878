//! The actor: owns the core, steps it through what has gathered, performs its commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use strata_common::{Incarnation, Lsn, NodeId};
use strata_proto::quorum::{Candidate, FromAcceptor};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::config::Config;
use super::link::{Link, LinkEvent, Session};
use super::{Error, Status};
use crate::core::{Command, CreateCopy, Event, Proposer, Purpose, Ready};

/// Most events that one batch takes before it sends.
const BATCH_EVENTS: usize = 256;

pub(super) struct Outputs {
    pub commit: watch::Sender<Lsn>,
    pub status: watch::Sender<Arc<Status>>,
    pub over: watch::Sender<Option<Error>>,
    pub ready: Option<oneshot::Sender<Ready>>,
}

struct Peer {
    session: Option<Session>,
    creates: mpsc::Sender<CreateCopy>,
    problem: Option<String>,
    /// The problem lasts until log is acknowledged: that the safekeeper can be reached again does not end it.
    is_log_refused: bool,
}

struct Actor {
    core: Proposer,
    config: Config,
    outputs: Outputs,
    peers: BTreeMap<NodeId, Peer>,
    commands: Vec<Command>,
    /// When the next campaign begins, after one was lost.
    campaign_at: Option<Instant>,
    lost: u32,
    changed: bool,
    over: bool,
}

pub(super) async fn run(
    config: Config,
    purpose: Purpose,
    mut appends: mpsc::Receiver<(Lsn, Bytes)>,
    outputs: Outputs,
    mut stop: oneshot::Receiver<()>,
) {
    let (events_tx, mut events) = mpsc::channel(1024);
    let mut links = JoinSet::new();
    let mut peers = BTreeMap::new();
    for at in config.safekeepers.iter().cloned() {
        let (creates_tx, creates) = mpsc::channel(1);
        peers.insert(
            at.node,
            Peer { session: None, creates: creates_tx, problem: None, is_log_refused: false },
        );
        let (timeline, timing, events) = (config.timeline, config.timing, events_tx.clone());
        links.spawn(Link { at, timeline, timing, events, creates }.run());
    }
    let mut core = Proposer::new(purpose, config.safekeepers.clone(), config.limits);
    if let (Purpose::Elect, Some(term)) = (purpose, config.had_term) {
        core = core.after(term);
    }
    let mut tick = tokio::time::interval(config.timing.tick);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let campaign_at = (purpose == Purpose::Elect).then(Instant::now);
    let mut actor = Actor {
        core,
        config,
        outputs,
        peers,
        commands: Vec::new(),
        campaign_at,
        lost: 0,
        changed: true,
        over: false,
    };
    while !actor.over {
        let room = actor.core.has_room();
        let campaign_at = actor.campaign_at;
        tokio::select! {
            biased;
            Some(event) = events.recv() => actor.link(event),
            Some((begin, wal)) = appends.recv(), if room => actor.step(Event::Append { begin, wal }),
            // Also when the handle is dropped.
            _ = &mut stop => break,
            _ = tick.tick() => {
                actor.step(Event::Tick);
                actor.changed = true;
            }
            _ = async { tokio::time::sleep_until(campaign_at.unwrap_or_else(Instant::now)).await }, if campaign_at.is_some() => {
                actor.campaign_at = None;
                actor.step(Event::Campaign { candidate: Candidate(rand::rng().random()) });
            }
        }
        for _ in 0..BATCH_EVENTS {
            if let Ok(event) = events.try_recv() {
                actor.link(event);
            } else if actor.core.has_room()
                && let Ok((begin, wal)) = appends.try_recv()
            {
                actor.step(Event::Append { begin, wal });
            } else {
                break;
            }
        }
        actor.finish_batch();
    }
    actor.peers.clear();
    links.shutdown().await;
}

impl Actor {
    fn step(&mut self, event: Event) {
        if self.over {
            return;
        }
        let mut commands = std::mem::take(&mut self.commands);
        self.core.step(event, &mut commands);
        self.perform(&mut commands);
        self.commands = commands;
    }

    fn finish_batch(&mut self) {
        if !self.over {
            let mut commands = std::mem::take(&mut self.commands);
            self.core.settle(&mut commands);
            self.perform(&mut commands);
            self.commands = commands;
        }
        let commit = self.core.commit_lsn();
        if commit.is_valid() && *self.outputs.commit.borrow() < commit {
            self.outputs.commit.send_replace(commit);
            if let Some(on_commit) = &self.config.on_commit {
                on_commit(commit);
            }
        }
        if std::mem::take(&mut self.changed) {
            self.outputs.status.send_replace(Arc::new(self.status()));
        }
    }

    fn status(&self) -> Status {
        let acceptors = self.core.status();
        let pageserver =
            acceptors.iter().map(|a| a.pageserver).max_by_key(|p| p.received).unwrap_or_default();
        let problems = self.peers.iter().filter_map(|(node, peer)| {
            peer.problem.as_ref().map(|problem| format!("safekeeper {node}: {problem}"))
        });
        let (term, commit_lsn) = (self.core.term(), self.core.commit_lsn());
        Status { term, commit_lsn, acceptors, pageserver, problems: problems.collect() }
    }

    /// Events of a connection that is not the present one are stale.
    fn link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { node, session } => {
                let Some(peer) = self.peers.get_mut(&node) else { return };
                peer.session = Some(session);
                self.step(Event::Connected { node });
            }
            LinkEvent::Message { node, session, message } => {
                let Some(peer) = self.peers.get_mut(&node) else { return };
                if peer.session.as_ref().is_some_and(|present| present.number == session) {
                    if !peer.is_log_refused || matches!(message, FromAcceptor::Append(_)) {
                        self.changed |= peer.problem.take().is_some();
                        peer.is_log_refused = false;
                    }
                    self.step(Event::Received { node, message });
                }
            }
            LinkEvent::Down { node, session, reason, is_log_refused } => {
                let Some(peer) = self.peers.get_mut(&node) else { return };
                self.changed |= peer.problem.as_ref() != Some(&reason);
                peer.problem = Some(reason);
                peer.is_log_refused = is_log_refused;
                if peer.session.as_ref().is_some_and(|present| present.number == session) {
                    peer.session = None;
                    self.step(Event::Disconnected { node });
                }
            }
            LinkEvent::NotFound { node } => {
                let fresh = Incarnation(rand::rng().random());
                self.step(Event::NotFound { node, fresh });
            }
        }
    }

    fn perform(&mut self, commands: &mut Vec<Command>) {
        for command in commands.drain(..) {
            match command {
                Command::Send { node, message } => {
                    let session = self.peers.get(&node).and_then(|peer| peer.session.as_ref());
                    if let Some(session) = session {
                        // A closed channel is a connection whose end will be reported.
                        let _ = session.outbound.send(message.into_wire(self.config.timeline));
                    }
                }
                Command::Create { node, copy } => {
                    if let Some(peer) = self.peers.get(&node) {
                        // Full: one is under way.
                        let _ = peer.creates.try_send(copy);
                    }
                }
                Command::Ready(ready) => {
                    self.changed = true;
                    if let Some(waiting) = self.outputs.ready.take() {
                        // Nobody waits any more: the handle's end stops this task.
                        let _ = waiting.send(ready);
                    }
                }
                Command::Committed { .. } => {}
                Command::Lost { term } => {
                    self.lost += 1;
                    let widest = Duration::from_millis(100) * self.lost.min(10);
                    let pause = widest.mul_f64(rand::rng().random_range(0.1..1.0));
                    tracing::info!(%term, ?pause, "another candidate was first: trying again");
                    self.campaign_at = Some(Instant::now() + pause);
                }
                Command::Fenced { term } => self.end(Error::Fenced { ours: self.core.term(), seen: term }),
                Command::Impossible { reason } => self.end(Error::Impossible(reason)),
            }
        }
    }

    fn end(&mut self, error: Error) {
        self.over = true;
        self.outputs.over.send_replace(Some(error));
    }
}
