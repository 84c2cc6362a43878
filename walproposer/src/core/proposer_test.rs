//! The proposer's rules one by one, with the acceptors' answers written by hand.

use bytes::Bytes;
use strata_common::{Incarnation, Lsn, MembershipGeneration, NodeId, SystemId, Term, TermHistory, TermStart};
use strata_proto::quorum::*;

use super::*;

const TERM_HISTORY: &[(u64, u64)] = &[(1, 100)];

fn member(node: u64) -> Member {
    Member { node: NodeId(node), incarnation: Incarnation([node as u8; 16]) }
}

fn history(entries: &[(u64, u64)]) -> TermHistory {
    TermHistory(entries.iter().map(|&(term, lsn)| TermStart { term: Term(term), lsn: Lsn(lsn) }).collect())
}

fn greeting(node: u64, term: u64, flush: u64, entries: &[(u64, u64)]) -> GreetingReply {
    GreetingReply {
        member: member(node),
        membership: Membership {
            generation: MembershipGeneration(1),
            members: vec![member(1), member(2), member(3)],
        },
        term: Term(term),
        start_lsn: Lsn(100),
        flush_lsn: Lsn(flush),
        commit_lsn: Lsn(100),
        oldest_lsn: Lsn(100),
        history: history(entries),
        facts: LogFacts { system_id: SystemId(7), pg_version_num: 170011, wal_segment_bytes: 16 << 20 },
    }
}

struct Bench(Proposer);

impl Bench {
    fn new(purpose: Purpose) -> Bench {
        let at = |node| AcceptorAddress { node: NodeId(node), address: format!("sk{node}:1") };
        Bench(Proposer::new(purpose, (1..=3).map(at).collect(), Limits::default()))
    }

    fn step(&mut self, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        self.0.step(event, &mut out);
        self.0.settle(&mut out);
        out
    }

    fn greet(&mut self, reply: GreetingReply) -> Vec<Command> {
        let node = reply.member.node;
        self.step(Event::Connected { node });
        self.receive(node.0, FromAcceptor::Greeting(reply))
    }

    fn receive(&mut self, node: u64, message: FromAcceptor) -> Vec<Command> {
        self.step(Event::Received { node: NodeId(node), message })
    }

    fn vote(&mut self, node: u64, term: u64, flush: u64, entries: &[(u64, u64)]) -> Vec<Command> {
        let (term, history) = (Term(term), history(entries));
        let reply = VoteReply { term, granted: true, flush_lsn: Lsn(flush), commit_lsn: Lsn(100), history };
        self.receive(node, FromAcceptor::Vote(reply))
    }

    fn joined(&mut self, node: u64, term: u64, flush: u64) -> Vec<Command> {
        let reply = ElectedReply { term: Term(term), flush_lsn: Lsn(flush), commit_lsn: Lsn(100) };
        self.receive(node, FromAcceptor::Elected(reply))
    }

    fn ack(&mut self, node: u64, term: u64, flush: u64) -> Vec<Command> {
        let (term, flush_lsn) = (Term(term), Lsn(flush));
        let pageserver = PageserverProgress::default();
        let reply = AppendReply { term, flush_lsn, synced_lsn: flush_lsn, commit_lsn: Lsn(100), pageserver };
        self.receive(node, FromAcceptor::Append(reply))
    }
}

fn ready(commands: &[Command]) -> Option<Ready> {
    commands.iter().find_map(|c| if let Command::Ready(ready) = c { Some(*ready) } else { None })
}

fn committed(commands: &[Command]) -> Option<Lsn> {
    commands
        .iter()
        .rev()
        .find_map(|c| if let Command::Committed { commit } = c { Some(*commit) } else { None })
}

fn sent(commands: &[Command], to: u64) -> Vec<&ToAcceptor> {
    let to = NodeId(to);
    commands
        .iter()
        .filter_map(|c| match c {
            Command::Send { node, message } if *node == to => Some(message),
            _ => None,
        })
        .collect()
}

/// Wins term 8 with node 1 (last term 5, log to 300) and node 2 (last term 3, log to 400): starts at 300.
fn leading() -> Bench {
    let mut bench = Bench::new(Purpose::Elect);
    bench.step(Event::Campaign { candidate: Candidate([1; 16]) });
    assert!(bench.greet(greeting(1, 5, 300, &[(3, 100), (5, 250)])).is_empty(), "no majority yet");
    let commands = bench.greet(greeting(2, 7, 400, &[(3, 100)]));
    assert!(matches!(sent(&commands, 1)[..], [ToAcceptor::Vote(VoteRequest { term: Term(8), .. })]));
    assert!(ready(&bench.vote(2, 8, 400, &[(3, 100)])).is_none());
    let commands = bench.vote(1, 8, 300, &[(3, 100), (5, 250)]);
    let ready = ready(&commands).expect("two of three have voted");
    assert_eq!((ready.term, ready.start_lsn, ready.append_lsn), (Term(8), Lsn(300), Lsn(300)));
    let [ToAcceptor::Elected(elected)] = sent(&commands, 2)[..] else { panic!("{commands:?}") };
    assert_eq!(elected.history, history(&[(3, 100), (5, 250), (8, 300)]), "K2: last term before length");
    bench
}

#[test]
fn k4_a_flush_below_the_start_is_not_counted_and_at_the_start_older_log_is_committed() {
    let mut bench = leading();
    bench.joined(1, 8, 300);
    let commands = bench.joined(2, 8, 250);
    assert_eq!(committed(&commands), None, "250 is on two, but node 2 is not in the term's log");
    let [ToAcceptor::CatchUp(request)] = sent(&commands, 2)[..] else { panic!("{commands:?}") };
    assert_eq!((request.until_lsn, &request.peers[..]), (Lsn(300), &["sk1:1".to_owned()][..]));
    let commands = bench.ack(2, 8, 280);
    assert_eq!(committed(&commands), None);
    let commands = bench.ack(2, 8, 300);
    assert_eq!(committed(&commands), Some(Lsn(300)), "the history entry is the term's own");
    for node in [1, 2] {
        let [ToAcceptor::Append(append)] = sent(&commands, node)[..] else { panic!("{commands:?}") };
        assert_eq!((append.commit_lsn, append.begin_lsn), (Lsn(300), Lsn::INVALID), "told to all at once");
    }
}

#[test]
fn log_goes_to_those_in_the_term_and_two_of_three_commit_it() {
    let mut bench = leading();
    bench.joined(1, 8, 300);
    let commands = bench.step(Event::Append { begin: Lsn(300), wal: Bytes::from_static(b"12345678") });
    let [ToAcceptor::Append(append)] = sent(&commands, 1)[..] else { panic!("{commands:?}") };
    assert_eq!((append.begin_lsn, append.wal.len()), (Lsn(300), 8));
    assert_eq!(committed(&bench.ack(1, 8, 308)), None);
    assert_eq!(sent(&bench.joined(2, 8, 300), 2).len(), 1);
    assert_eq!(committed(&bench.ack(2, 8, 308)), Some(Lsn(308)));
    // Node 1 goes: what it acknowledged stays, what is new waits.
    bench.step(Event::Disconnected { node: NodeId(1) });
    bench.step(Event::Append { begin: Lsn(308), wal: Bytes::from_static(b"12345678") });
    assert_eq!(committed(&bench.ack(2, 8, 316)), None);
}

#[test]
fn k16_a_wiped_copy_is_fed_but_neither_votes_nor_counts() {
    let mut bench = leading();
    bench.joined(1, 8, 300);
    let commands = bench.step(Event::NotFound { node: NodeId(3), fresh: Incarnation([0xee; 16]) });
    assert!(
        matches!(&commands[..], [Command::Create { node: NodeId(3), copy }] if copy.start_lsn == Lsn(100))
    );
    let mut reply = greeting(3, 0, 100, &[]);
    reply.member.incarnation = Incarnation([0xee; 16]);
    assert!(matches!(sent(&bench.greet(reply), 3)[..], [ToAcceptor::Elected(_)]));
    assert_eq!(committed(&bench.joined(3, 8, 300)), None);
    assert_eq!(bench.0.status()[2].state, AcceptorState::Learner);
}

#[test]
fn sk2_a_candidate_that_was_beaten_does_not_outbid_the_winner() {
    let candidate = || {
        let mut bench = Bench::new(Purpose::Elect);
        bench.0 = bench.0.after(Term(4));
        bench.step(Event::Campaign { candidate: Candidate([1; 16]) });
        bench
    };
    let mut free = candidate();
    free.greet(greeting(1, 4, 100, &[]));
    assert!(matches!(sent(&free.greet(greeting(2, 4, 100, &[])), 2)[..], [ToAcceptor::Vote(_)]));

    let mut beaten = candidate();
    beaten.greet(greeting(1, 4, 100, &[]));
    assert_eq!(beaten.greet(greeting(2, 5, 100, &[])), vec![Command::Fenced { term: Term(5) }]);
}

#[test]
fn sk2_a_higher_term_anywhere_ends_a_term_and_beats_a_candidate() {
    let mut bench = leading();
    bench.joined(1, 8, 300);
    assert_eq!(bench.ack(1, 9, 300), vec![Command::Fenced { term: Term(9) }]);
    assert_eq!(bench.step(Event::Tick), vec![], "nothing follows");

    let mut bench = Bench::new(Purpose::Elect);
    bench.step(Event::Campaign { candidate: Candidate([1; 16]) });
    bench.greet(greeting(1, 1, 100, &[]));
    bench.greet(greeting(2, 1, 100, &[]));
    let refusal = VoteReply {
        term: Term(5),
        granted: false,
        flush_lsn: Lsn(100),
        commit_lsn: Lsn(100),
        history: history(&[]),
    };
    assert_eq!(bench.receive(1, FromAcceptor::Vote(refusal)), vec![Command::Lost { term: Term(5) }]);
    let commands = bench.step(Event::Campaign { candidate: Candidate([2; 16]) });
    assert!(matches!(sent(&commands, 2)[..], [ToAcceptor::Vote(VoteRequest { term: Term(6), .. })]));
}

#[test]
fn a_resumed_term_begins_where_a_majority_is_and_votes_are_never_asked_for() {
    let mut bench = Bench::new(Purpose::Resume(Term(1)));
    let mut commands = bench.greet(greeting(1, 1, 500, TERM_HISTORY));
    commands.extend(bench.greet(greeting(2, 1, 300, TERM_HISTORY)));
    assert!(commands.iter().all(|c| !matches!(c, Command::Send { message: ToAcceptor::Vote(_), .. })));
    assert!(ready(&bench.joined(1, 1, 500)).is_none());
    let commands = bench.joined(2, 1, 300);
    assert_eq!(ready(&commands).map(|ready| ready.append_lsn), Some(Lsn(300)));
    assert_eq!(committed(&commands), Some(Lsn(300)));
    // Only who lacks the bytes gets them.
    let commands = bench.step(Event::Append { begin: Lsn(300), wal: Bytes::from(vec![1; 250]) });
    let [ToAcceptor::Append(append)] = sent(&commands, 1)[..] else { panic!("{commands:?}") };
    assert_eq!((append.begin_lsn, append.wal.len()), (Lsn(500), 50));
    assert!(matches!(sent(&commands, 2)[..], [ToAcceptor::Append(append)] if append.wal.len() == 250));

    let mut late = Bench::new(Purpose::Resume(Term(1)));
    assert_eq!(late.greet(greeting(1, 2, 500, TERM_HISTORY)), vec![Command::Fenced { term: Term(2) }]);
}
