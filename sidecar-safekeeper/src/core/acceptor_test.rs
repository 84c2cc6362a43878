//! The acceptor's rules one by one: build a state, give an event, compare the commands.

use bytes::Bytes;
use strata_common::{Incarnation, Lsn, MembershipGeneration, NodeId, SystemId, Term, TermHistory, TermStart};
use strata_proto::quorum::*;

use super::*;

const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);

fn member(node: u64) -> Member {
    Member { node: NodeId(node), incarnation: Incarnation([node as u8; 16]) }
}

fn state() -> DurableState {
    let members = vec![member(1), member(2), member(3)];
    let membership = Membership { generation: MembershipGeneration(1), members };
    let facts = LogFacts { system_id: SystemId(7), pg_version_num: 170011, wal_segment_bytes: 16 << 20 };
    DurableState::new(member(1).incarnation, membership, facts, Lsn(100))
}

fn history(entries: &[(u64, u64)]) -> TermHistory {
    TermHistory(entries.iter().map(|&(term, lsn)| TermStart { term: Term(term), lsn: Lsn(lsn) }).collect())
}

fn vote(term: u64, candidate: u8) -> ToAcceptor {
    let generation = MembershipGeneration(1);
    ToAcceptor::Vote(VoteRequest { term: Term(term), candidate: Candidate([candidate; 16]), generation })
}

fn elected(entries: &[(u64, u64)]) -> ToAcceptor {
    let history = history(entries);
    ToAcceptor::Elected(Elected { term: history.last_term(), generation: MembershipGeneration(1), history })
}

fn append(term: u64, begin: u64, commit: u64, bytes: usize) -> ToAcceptor {
    ToAcceptor::Append(Append {
        term: Term(term),
        generation: MembershipGeneration(1),
        begin_lsn: Lsn(begin),
        commit_lsn: Lsn(commit),
        wal: Bytes::from(vec![9; bytes]),
    })
}

fn send(acceptor: &mut Acceptor, conn: ConnId, message: ToAcceptor) -> Vec<Command> {
    acceptor.step(Event::Message { conn, message })
}

/// Performs disk commands at once; every byte is a record. Returns what left the acceptor.
fn settle(acceptor: &mut Acceptor, mut commands: Vec<Command>) -> Vec<Command> {
    let mut seen = Vec::new();
    let mut written = acceptor.flush_lsn();
    while !commands.is_empty() {
        let mut next = Vec::new();
        for command in commands.drain(..) {
            next.extend(match &command {
                Command::WriteWal { begin, wal } => {
                    written = *begin + wal.len() as u64;
                    vec![]
                }
                Command::SyncWal => acceptor.step(Event::WalSynced { written, flush: written }),
                Command::TruncateWal { .. } | Command::ResetWal { .. } => acceptor.step(Event::WalCut),
                Command::PersistState { id, .. } => acceptor.step(Event::StatePersisted(*id)),
                _ => vec![],
            });
            seen.push(command);
        }
        commands = next;
    }
    seen
}

/// An acceptor in term 1 with log up to 200, committed up to 150.
fn following() -> Acceptor {
    let mut acceptor = Acceptor::open(NodeId(1), state(), Lsn(100));
    for message in [vote(1, 1), elected(&[(1, 100)]), append(1, 100, 150, 100)] {
        let commands = send(&mut acceptor, A, message);
        settle(&mut acceptor, commands);
    }
    assert_eq!((acceptor.flush_lsn(), acceptor.commit_lsn()), (Lsn(200), Lsn(150)));
    acceptor
}

fn replies(commands: &[Command]) -> Vec<&FromAcceptor> {
    commands
        .iter()
        .filter_map(|c| if let Command::Reply { message, .. } = c { Some(message) } else { None })
        .collect()
}

#[test]
fn sk5_a_vote_is_answered_only_when_it_is_durable_and_given_once_in_a_term() {
    let mut acceptor = Acceptor::open(NodeId(1), state(), Lsn(100));
    let commands = send(&mut acceptor, A, vote(5, 1));
    let [Command::PersistState { id, state }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((state.term, state.vote), (Term(5), Some(Candidate([1; 16]))));
    // Another candidate of the same term waits for the first one's answer, and is refused.
    assert_eq!(send(&mut acceptor, B, vote(5, 2)), vec![]);
    let commands = acceptor.step(Event::StatePersisted(*id));
    let [FromAcceptor::Vote(first), FromAcceptor::Vote(second)] = replies(&commands)[..] else { panic!() };
    assert!(first.granted && !second.granted);
    // The same candidate may ask again.
    let again = send(&mut acceptor, A, vote(5, 1));
    assert!(matches!(replies(&again)[..], [FromAcceptor::Vote(VoteReply { granted: true, .. })]));
}

#[test]
fn k1_log_is_flushed_before_a_vote_tells_its_position() {
    let mut acceptor = following();
    let written = send(&mut acceptor, A, append(1, 200, 150, 50));
    assert!(matches!(written[..], [Command::WriteWal { .. }, Command::SyncWal]));
    assert_eq!(send(&mut acceptor, B, vote(2, 2)), vec![], "nothing is persisted before the log is");
    let commands = acceptor.step(Event::WalSynced { written: Lsn(250), flush: Lsn(240) });
    let persist =
        commands.iter().find_map(|c| if let Command::PersistState { id, .. } = c { Some(*id) } else { None });
    assert!(replies(&commands).is_empty());
    let commands = acceptor.step(Event::StatePersisted(persist.expect("the vote is persisted")));
    let [FromAcceptor::Vote(reply)] = replies(&commands)[..] else { panic!() };
    assert_eq!((reply.granted, reply.flush_lsn), (true, Lsn(240)), "K8: whole records only");
    // The old proposer hears of the higher term.
    let fenced = send(&mut acceptor, A, append(1, 250, 150, 10));
    assert!(matches!(replies(&fenced)[..], [FromAcceptor::Append(AppendReply { term: Term(2), .. })]));
}

#[test]
fn k6_term_then_cut_then_history_then_answer() {
    let mut acceptor = following();
    let commands = send(&mut acceptor, B, elected(&[(1, 100), (3, 170)]));
    let commands = settle(&mut acceptor, commands);
    let [
        Command::PersistState { state: first, .. },
        Command::TruncateWal { to: Lsn(170), known: Lsn(150) },
        Command::PersistState { state: second, .. },
        Command::Reply { message: FromAcceptor::Elected(reply), .. },
    ] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert_eq!((first.term, first.history.last_term()), (Term(3), Term(1)));
    assert_eq!(second.history, history(&[(1, 100), (3, 170)]));
    assert_eq!((reply.term, reply.flush_lsn), (Term(3), Lsn(170)));
    assert_eq!(acceptor.read_limit(Term(3)).map(|limit| limit.end), Ok(Lsn(170)));
    let learners = acceptor.read_limit(Term::ZERO).expect("it works");
    assert_eq!(learners.last_term, Term(3), "learners are told of the election before there is log of it");
    assert!(acceptor.read_limit(Term(1)).is_err());
}

#[test]
fn k8_a_history_that_leaves_the_log_inside_a_record_cuts_nothing() {
    let mut acceptor = following();
    let commands = send(&mut acceptor, B, elected(&[(1, 100), (3, 170)]));
    let [Command::PersistState { id, .. }] = &commands[..] else { panic!("{commands:?}") };
    let commands = acceptor.step(Event::StatePersisted(*id));
    assert!(matches!(commands[..], [Command::TruncateWal { to: Lsn(170), .. }]), "{commands:?}");
    let commands = acceptor.step(Event::CutRefused);
    assert!(matches!(commands[..], [Command::Close { conn: B, why: Refusal::History(_) }]), "{commands:?}");
    assert_eq!((acceptor.flush_lsn(), acceptor.state().term), (Lsn(200), Term(3)));
    assert_eq!(acceptor.state().history, history(&[(1, 100)]));
    // The next one that says where its log leaves is served.
    let commands = send(&mut acceptor, A, elected(&[(1, 100), (4, 180)]));
    settle(&mut acceptor, commands);
    assert_eq!(acceptor.flush_lsn(), Lsn(180));
    assert_eq!(acceptor.state().history, history(&[(1, 100), (4, 180)]));
}

#[test]
fn k5_nothing_committed_is_cut_whatever_is_announced() {
    let mut acceptor = following();
    let commands = send(&mut acceptor, B, elected(&[(1, 100), (3, 140)]));
    let refusal = Refusal::BelowCommit { divergence: Lsn(140), commit: Lsn(150) };
    assert_eq!(commands, vec![Command::Close { conn: B, why: refusal }]);
    assert_eq!(acceptor.state().term, Term(1));
}

#[test]
fn k7_appends_are_contiguous_of_the_term_and_of_the_session() {
    let mut acceptor = following();
    let gap = send(&mut acceptor, A, append(1, 201, 150, 10));
    assert_eq!(
        gap,
        vec![Command::Close { conn: A, why: Refusal::Gap { expected: Lsn(200), got: Lsn(201) } }]
    );
    let stranger = send(&mut acceptor, B, append(1, 200, 150, 10));
    assert_eq!(stranger, vec![Command::Close { conn: B, why: Refusal::NotAnnounced }]);
    let early = send(&mut acceptor, A, append(2, 200, 150, 10));
    assert!(matches!(early[..], [Command::Close { why: Refusal::Term { .. }, .. }]));
}

#[test]
fn k16_a_wiped_copy_stores_but_does_not_vote() {
    let mut wiped = state();
    wiped.incarnation = Incarnation([0xee; 16]);
    let mut acceptor = Acceptor::open(NodeId(1), wiped, Lsn(100));
    let commands = send(&mut acceptor, A, vote(1, 1));
    assert!(matches!(replies(&commands)[..], [FromAcceptor::Vote(VoteReply { granted: false, .. })]));
    assert_eq!(acceptor.state().term, Term::ZERO, "nor does its term move");
    for message in [elected(&[(1, 100)]), append(1, 100, 100, 50)] {
        let commands = send(&mut acceptor, A, message);
        settle(&mut acceptor, commands);
    }
    assert_eq!(acceptor.flush_lsn(), Lsn(150));
}

#[test]
fn k12_after_a_failed_sync_nothing_is_acknowledged() {
    let mut acceptor = following();
    send(&mut acceptor, A, append(1, 200, 150, 50));
    let commands = acceptor.step(Event::DiskFailed { reason: "fdatasync: I/O error".to_owned() });
    assert!(matches!(commands[..], [Command::Close { conn: A, why: Refusal::Stopped(_) }]));
    assert_eq!(acceptor.step(Event::WalSynced { written: Lsn(250), flush: Lsn(250) }), vec![]);
    assert!(matches!(send(&mut acceptor, B, vote(2, 1))[..], [Command::Close { .. }]));
    assert!(acceptor.read_limit(Term::ZERO).is_err());
}

#[test]
fn log_that_is_none_costs_its_sender_the_session_and_nothing_else() {
    let mut acceptor = following();
    send(&mut acceptor, A, append(1, 200, 150, 50));
    send(&mut acceptor, A, append(1, 250, 150, 50));
    // The first append was good, the second is not: one report for both.
    let commands = acceptor.step(Event::WalRejected { end: Lsn(250), reason: "bad".to_owned() });
    let closed = Command::Close { conn: A, why: Refusal::Content("bad".to_owned()) };
    assert_eq!(commands, vec![Command::Flushed { flush: Lsn(250) }, closed]);
    assert_eq!(acceptor.problem(), None);
    let late = send(&mut acceptor, A, append(1, 300, 150, 10));
    assert_eq!(late, vec![Command::Close { conn: A, why: Refusal::NotAnnounced }]);
    // The same term announces itself again and goes on where the log is good.
    for message in [elected(&[(1, 100)]), append(1, 250, 150, 10)] {
        let commands = send(&mut acceptor, B, message);
        settle(&mut acceptor, commands);
    }
    assert_eq!(acceptor.flush_lsn(), Lsn(260));
    // A vote that waits for the log to be durable is given once what is none is gone.
    send(&mut acceptor, B, append(1, 260, 150, 10));
    assert_eq!(send(&mut acceptor, A, vote(2, 2)), vec![]);
    let commands = acceptor.step(Event::WalRejected { end: Lsn(260), reason: "bad".to_owned() });
    let commands = settle(&mut acceptor, commands);
    let [FromAcceptor::Vote(reply)] = replies(&commands)[..] else { panic!("{commands:?}") };
    assert_eq!((reply.granted, reply.flush_lsn), (true, Lsn(260)));
}

#[test]
fn a_log_that_lost_committed_bytes_is_not_served() {
    let mut state = state();
    state.commit_lsn = Lsn(150);
    let acceptor = Acceptor::open(NodeId(1), state, Lsn(120));
    assert!(acceptor.problem().is_some());
}

#[test]
fn a_copy_behind_what_all_peers_removed_begins_anew_above() {
    let mut acceptor = following();
    let request = CatchUp {
        term: Term(1),
        generation: MembershipGeneration(1),
        until_lsn: Lsn(900),
        peers: vec!["127.0.0.1:1".to_owned()],
    };
    let commands = send(&mut acceptor, A, ToAcceptor::CatchUp(request));
    let [Command::Fetch { fetch, from: Lsn(200), until: Lsn(900), .. }] = commands[..] else { panic!() };
    let commands = acceptor.step(Event::FetchGap { fetch, oldest: Lsn(500) });
    let commands = settle(&mut acceptor, commands);
    assert!(matches!(commands[..2], [Command::PersistState { .. }, Command::ResetWal { at: Lsn(500) }]));
    assert_eq!((acceptor.flush_lsn(), acceptor.commit_lsn()), (Lsn(500), Lsn(500)));
}

#[test]
fn k14_only_log_that_every_pageserver_has_in_the_object_store_goes() {
    let mut acceptor = following();
    let due = |keep_bytes| Event::TrimDue { slowest_reader: None, keep_bytes };
    assert_eq!(acceptor.step(due(0)), vec![], "nobody has reported");
    for (pageserver, remote) in [(1, 140), (2, 120)] {
        let progress = PageserverProgress { remote_consistent: Lsn(remote), ..Default::default() };
        acceptor.step(Event::Progress { pageserver, progress });
    }
    let reader = Event::TrimDue { slowest_reader: Some(Lsn(110)), keep_bytes: 0 };
    assert_eq!(acceptor.step(reader), vec![], "a reader still needs it");
    let commands = acceptor.step(due(0));
    assert!(
        matches!(&commands[..], [Command::PersistState { state, .. }, Command::RemoveWal { below: Lsn(120) }]
        if state.oldest_lsn == Lsn(120))
    );
}
