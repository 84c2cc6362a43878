//! The event loop: a queue of actions by time, each performed alone, the invariants checked after each.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use strata_common::invariants::Invariant;
use strata_common::{Incarnation, Lsn, MembershipGeneration, NodeId, SystemId};
use strata_proto::quorum::{FromAcceptor, LogFacts, Member, Membership, ToAcceptor};
use strata_safekeeper::core::{DurableState, FetchId};

use crate::checker::{Checker, Violation};
use crate::computes::Compute;
use crate::net::Session;
use crate::records::LOG_START;
use crate::rng::Rng;
use crate::safekeepers::Safekeeper;
use crate::{Options, Report};

/// Time of the liveness phase, in which a commit must come.
const LIVENESS_TIME: u64 = 60_000;

#[derive(Clone, Debug)]
pub(crate) enum Action {
    ToSafekeeper { session: u64, message: ToAcceptor },
    ToCompute { session: u64, message: FromAcceptor },
    Connect { compute: u64, node: NodeId },
    CloseAtSafekeeper { session: u64 },
    CloseAtCompute { session: u64 },
    Disk { node: NodeId, life: u64 },
    Restart { node: NodeId },
    FetchStep { node: NodeId, life: u64, fetch: FetchId },
    Tick { compute: u64 },
    Campaign { compute: u64 },
    Produce { compute: u64 },
    Pageserver,
    Chaos,
}

/// Events that are kept for a failure's message.
const TAIL_EVENTS: usize = 80;

#[derive(Clone, Debug)]
enum Noted {
    Action(Action),
    Line(String),
}

impl Noted {
    fn kind(&self) -> Option<std::mem::Discriminant<Action>> {
        match self {
            Noted::Action(action) => Some(std::mem::discriminant(action)),
            Noted::Line(_) => None,
        }
    }

    fn line(&self, now: u64) -> String {
        match self {
            Noted::Action(action) => format!("{now:>6} {action:?}"),
            Noted::Line(line) => format!("{now:>6} {line}"),
        }
    }
}

/// What may go wrong, percent of the moments at which it could.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub members: u64,
    pub delay_max: u64,
    pub disk_delay_max: u64,
    /// A message is lost, doubled or overtakes others inside its connection: more than TCP would ever do.
    pub unruly: u64,
    pub cut_connection: u64,
    pub partition: u64,
    pub crash: u64,
    pub wipe: u64,
    pub new_compute: u64,
    pub end_compute: u64,
    pub resume_compute: u64,
}

impl Faults {
    /// Each seed has its own weather.
    pub fn from_seed(seed: u64) -> Faults {
        let mut rng = Rng::new(seed.rotate_left(17));
        let mut level = |max| if rng.chance(70) { rng.between(1, max) } else { 0 };
        Faults {
            members: if level(2) == 0 { 5 } else { 3 },
            delay_max: 2 + level(40),
            disk_delay_max: 1 + level(30),
            unruly: if level(2) == 2 { level(5) } else { 0 },
            cut_connection: level(10),
            partition: level(10),
            crash: level(25),
            wipe: level(2),
            new_compute: 2 + level(10),
            end_compute: level(8),
            resume_compute: level(8),
        }
    }

    /// Many short terms that see only a part of the safekeepers: logs part often.
    pub fn short_terms(seed: u64) -> Faults {
        let members = 3 + 2 * (seed % 2);
        Faults {
            members,
            delay_max: 30,
            disk_delay_max: 20,
            partition: 60,
            crash: 5,
            new_compute: 50,
            end_compute: 40,
            ..Faults::none(members)
        }
    }

    pub fn none(members: u64) -> Faults {
        Faults {
            members,
            delay_max: 2,
            disk_delay_max: 1,
            unruly: 0,
            cut_connection: 0,
            partition: 0,
            crash: 0,
            wipe: 0,
            new_compute: 0,
            end_compute: 0,
            resume_compute: 0,
        }
    }
}

#[derive(Debug)]
pub struct World {
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    #[cfg(feature = "mutants")]
    pub(crate) options: Options,
    pub(crate) now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    actions: BTreeMap<(u64, u64), Action>,
    pub(crate) membership: Membership,
    pub(crate) safekeepers: BTreeMap<NodeId, Safekeeper>,
    pub(crate) computes: BTreeMap<u64, Compute>,
    pub(crate) sessions: BTreeMap<u64, Session>,
    pub(crate) blocked: Vec<(u64, NodeId)>,
    pub(crate) checker: Checker,
    pub(crate) next_number: u64,
    pub(crate) pageserver_at: Lsn,
    pub(crate) wiped: u64,
    pub(crate) report: Report,
    tail: VecDeque<(u64, Noted)>,
    trace: u64,
}

impl World {
    pub fn new(seed: u64, options: Options, faults: Faults) -> World {
        let mut rng = Rng::new(seed);
        let members: Vec<Member> = (1..=faults.members)
            .map(|node| Member { node: NodeId(node), incarnation: Incarnation(rng.bytes16()) })
            .collect();
        let membership = Membership { generation: MembershipGeneration(1), members };
        let facts = LogFacts { system_id: SystemId(7), pg_version_num: 170011, wal_segment_bytes: 1 << 20 };
        let mut world = World {
            rng,
            faults,
            #[cfg(feature = "mutants")]
            options,
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            actions: BTreeMap::new(),
            safekeepers: BTreeMap::new(),
            computes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            blocked: Vec::new(),
            checker: Checker::new(options.checks),
            next_number: 0,
            pageserver_at: Lsn(LOG_START),
            wiped: 0,
            report: Report::default(),
            tail: VecDeque::new(),
            trace: 0,
            membership: membership.clone(),
        };
        for member in &membership.members {
            let state = DurableState::new(member.incarnation, membership.clone(), facts, Lsn(LOG_START));
            world.safekeepers.insert(member.node, Safekeeper::new(member.node, Some(state)));
            world.open(member.node);
        }
        world
    }

    pub(crate) fn after(&mut self, delay: u64, action: Action) {
        self.at(self.now + delay.max(1), action);
    }

    pub(crate) fn at(&mut self, time: u64, action: Action) {
        self.order += 1;
        self.queue.push(Reverse((time, self.order)));
        self.actions.insert((time, self.order), action);
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub fn safety_phase(&mut self, steps: u64) -> Result<(), Violation> {
        self.start_compute();
        self.after(20, Action::Chaos);
        self.after(20, Action::Pageserver);
        for _ in 0..steps {
            self.step()?;
        }
        Ok(())
    }

    /// LV-1: all faults stop; whoever can be started is; something new must be committed.
    pub fn liveness_phase(&mut self) -> Result<(), Violation> {
        self.faults = Faults { delay_max: 5, disk_delay_max: 3, ..Faults::none(self.faults.members) };
        self.blocked.clear();
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.cut_connection(session);
        }
        for node in self.safekeepers.keys().copied().collect::<Vec<_>>() {
            self.after(1, Action::Restart { node });
        }
        for compute in self.computes.keys().copied().collect::<Vec<_>>() {
            self.end_compute(compute);
        }
        let before = self.checker.ledger_end();
        self.start_compute();
        let deadline = self.now + LIVENESS_TIME;
        while self.checker.ledger_end() <= before + 2000 {
            if self.now > deadline {
                let what = format!(
                    "nothing was committed above {} in time {LIVENESS_TIME}",
                    self.checker.ledger_end()
                );
                return Err(Violation { invariant: Invariant::Lv1, what });
            }
            self.step()?;
        }
        Ok(())
    }

    /// Goes on for `time` units.
    pub fn run_for(&mut self, time: u64) -> Result<(), Violation> {
        let until = self.now + time;
        while self.queue.peek().is_some_and(|Reverse((at, _))| *at <= until) {
            self.step()?;
        }
        self.now = until;
        Ok(())
    }

    /// End of what was ever called committed.
    pub fn committed_end(&self) -> Lsn {
        self.checker.ledger_end()
    }

    /// Performs the next action.
    pub fn step(&mut self) -> Result<(), Violation> {
        let Some(Reverse(key)) = self.queue.pop() else { return Ok(()) };
        let action = self.actions.remove(&key).expect("every queued key has its action");
        self.now = key.0;
        self.trace(Noted::Action(action.clone()));
        match action {
            Action::ToSafekeeper { session, message } => self.deliver_to_safekeeper(session, message)?,
            Action::ToCompute { session, message } => self.deliver_to_compute(session, message)?,
            Action::Connect { compute, node } => self.connect(compute, node)?,
            Action::CloseAtSafekeeper { session } => self.close_at_safekeeper(session)?,
            Action::CloseAtCompute { session } => self.close_at_compute(session)?,
            Action::Disk { node, life } => self.disk_step(node, life)?,
            Action::Restart { node } => self.restart(node),
            Action::FetchStep { node, life, fetch } => self.fetch_step(node, life, fetch)?,
            Action::Tick { compute } => self.tick(compute)?,
            Action::Campaign { compute } => self.campaign(compute)?,
            Action::Produce { compute } => self.produce(compute)?,
            Action::Pageserver => self.pageserver()?,
            Action::Chaos => self.chaos()?,
        }
        Ok(())
    }

    pub(crate) fn note(&mut self, line: String) {
        self.trace(Noted::Line(line));
    }

    /// The trace is a hash over time, kind of event and the state of chance: any difference between two runs shows in it.
    fn trace(&mut self, noted: Noted) {
        let mut hasher = DefaultHasher::new();
        (self.trace, self.now, self.order, noted.kind(), self.rng.clone().next()).hash(&mut hasher);
        self.trace = hasher.finish();
        if self.tail.len() == TAIL_EVENTS {
            self.tail.pop_front();
        }
        self.tail.push_back((self.now, noted));
    }

    pub fn report(&self) -> Report {
        let committed_bytes = self.checker.ledger.len() as u64;
        Report { trace: self.trace, committed_bytes, ..self.report.clone() }
    }

    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().map(|(now, noted)| noted.line(*now)).collect()
    }

    /// Checks what hangs on a disk that has just changed, and what every majority could prove.
    pub(crate) fn check_disks(&self, changed: NodeId) -> Result<(), Violation> {
        if let Some(safekeeper) = self.safekeepers.get(&changed)
            && let Some(disk) = &safekeeper.disk
        {
            let commit = safekeeper.acceptor.as_ref().map_or(disk.state.commit_lsn, |a| a.commit_lsn());
            self.checker.copy(changed, disk, commit)?;
        }
        let survivors = self.safekeepers.iter().filter_map(|(node, safekeeper)| {
            let disk = safekeeper.disk.as_ref()?;
            let member = Member { node: *node, incarnation: disk.state.incarnation };
            self.membership.contains(member).then_some(disk)
        });
        self.checker.provable(&self.membership, survivors)
    }
}
