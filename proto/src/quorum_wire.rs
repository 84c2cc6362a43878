//! Between the consensus's own types (`quorum`) and the messages of `safekeeper.proto`.
//!
//! Every value that comes off the wire is checked here: id lengths, the order of a history, a missing kind.

use strata_common::{Lsn, MembershipGeneration, NodeId, SystemId, TenantTimelineId, Term};

use crate::convert::{Malformed, history_from_wire, history_to_wire, incarnation};
use crate::quorum as q;
use crate::wal;

impl From<&q::Membership> for wal::Membership {
    fn from(membership: &q::Membership) -> Self {
        let members = membership.members.iter();
        wal::Membership {
            generation: membership.generation.0,
            members: members
                .map(|m| wal::Member { node_id: m.node.0, incarnation: m.incarnation.to_vec().into() })
                .collect(),
        }
    }
}

impl TryFrom<Option<wal::Membership>> for q::Membership {
    type Error = Malformed;
    fn try_from(message: Option<wal::Membership>) -> Result<Self, Malformed> {
        let message = message.ok_or_else(|| Malformed("membership is missing".to_owned()))?;
        let member = |m: wal::Member| {
            Ok(q::Member { node: NodeId(m.node_id), incarnation: incarnation(&m.incarnation)? })
        };
        let members = message.members.into_iter().map(member).collect::<Result<Vec<_>, Malformed>>()?;
        let mut nodes: Vec<NodeId> = members.iter().map(|m| m.node).collect();
        nodes.sort();
        if nodes.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Malformed("membership names a node twice".to_owned()));
        }
        Ok(q::Membership { generation: MembershipGeneration(message.generation), members })
    }
}

impl q::ToAcceptor {
    /// The message as it travels; `timeline` goes into a greeting only.
    pub fn into_wire(self, timeline: TenantTimelineId) -> wal::ProposerMessage {
        use wal::proposer_message::Kind;
        let kind = match self {
            q::ToAcceptor::Greeting(m) => {
                Kind::Greeting(wal::Greeting { timeline: Some(timeline.into()), term: m.term.0 })
            }
            q::ToAcceptor::Vote(m) => Kind::Vote(wal::VoteRequest {
                term: m.term.0,
                candidate: m.candidate.0.to_vec().into(),
                membership_generation: m.generation.0,
            }),
            q::ToAcceptor::Elected(m) => Kind::Elected(wal::Elected {
                term: m.term.0,
                membership_generation: m.generation.0,
                history: history_to_wire(&m.history),
            }),
            q::ToAcceptor::Append(m) => Kind::Append(wal::Append {
                term: m.term.0,
                membership_generation: m.generation.0,
                begin_lsn: m.begin_lsn.0,
                commit_lsn: m.commit_lsn.0,
                wal: m.wal,
            }),
            q::ToAcceptor::CatchUp(m) => Kind::CatchUp(wal::CatchUp {
                term: m.term.0,
                membership_generation: m.generation.0,
                until_lsn: m.until_lsn.0,
                peers: m.peers,
            }),
        };
        wal::ProposerMessage { kind: Some(kind) }
    }
}

impl TryFrom<wal::ProposerMessage> for q::ToAcceptor {
    type Error = Malformed;
    fn try_from(message: wal::ProposerMessage) -> Result<Self, Malformed> {
        use wal::proposer_message::Kind;
        let kind = message.kind.ok_or_else(|| Malformed("message of no kind".to_owned()))?;
        Ok(match kind {
            Kind::Greeting(m) => q::ToAcceptor::Greeting(q::Greeting { term: Term(m.term) }),
            Kind::Vote(m) => q::ToAcceptor::Vote(q::VoteRequest {
                term: Term(m.term),
                candidate: q::Candidate(m.candidate.as_ref().try_into().map_err(|_| {
                    Malformed(format!("candidate: 16 bytes are expected, not {}", m.candidate.len()))
                })?),
                generation: MembershipGeneration(m.membership_generation),
            }),
            Kind::Elected(m) => q::ToAcceptor::Elected(q::Elected {
                term: Term(m.term),
                generation: MembershipGeneration(m.membership_generation),
                history: history_from_wire(&m.history)?,
            }),
            Kind::Append(m) => q::ToAcceptor::Append(q::Append {
                term: Term(m.term),
                generation: MembershipGeneration(m.membership_generation),
                begin_lsn: Lsn(m.begin_lsn),
                commit_lsn: Lsn(m.commit_lsn),
                wal: m.wal,
            }),
            Kind::CatchUp(m) => q::ToAcceptor::CatchUp(q::CatchUp {
                term: Term(m.term),
                generation: MembershipGeneration(m.membership_generation),
                until_lsn: Lsn(m.until_lsn),
                peers: m.peers,
            }),
        })
    }
}

impl From<q::FromAcceptor> for wal::AcceptorMessage {
    fn from(message: q::FromAcceptor) -> Self {
        use wal::acceptor_message::Kind;
        let kind = match message {
            q::FromAcceptor::Greeting(m) => Kind::Greeting(wal::GreetingReply {
                node_id: m.member.node.0,
                incarnation: m.member.incarnation.to_vec().into(),
                membership: Some((&m.membership).into()),
                term: m.term.0,
                start_lsn: m.start_lsn.0,
                flush_lsn: m.flush_lsn.0,
                commit_lsn: m.commit_lsn.0,
                oldest_lsn: m.oldest_lsn.0,
                history: history_to_wire(&m.history),
                system_id: m.facts.system_id.0,
                pg_version_num: m.facts.pg_version_num,
                wal_segment_bytes: m.facts.wal_segment_bytes,
            }),
            q::FromAcceptor::Vote(m) => Kind::Vote(wal::VoteReply {
                term: m.term.0,
                granted: m.granted,
                flush_lsn: m.flush_lsn.0,
                commit_lsn: m.commit_lsn.0,
                history: history_to_wire(&m.history),
            }),
            q::FromAcceptor::Elected(m) => Kind::Elected(wal::ElectedReply {
                term: m.term.0,
                flush_lsn: m.flush_lsn.0,
                commit_lsn: m.commit_lsn.0,
            }),
            q::FromAcceptor::Append(m) => Kind::Append(wal::AppendReply {
                term: m.term.0,
                flush_lsn: m.flush_lsn.0,
                synced_lsn: m.synced_lsn.0,
                commit_lsn: m.commit_lsn.0,
                pageserver_received_lsn: m.pageserver.received.0,
                pageserver_disk_consistent_lsn: m.pageserver.disk_consistent.0,
                pageserver_remote_consistent_lsn: m.pageserver.remote_consistent.0,
            }),
        };
        wal::AcceptorMessage { kind: Some(kind) }
    }
}

impl TryFrom<wal::AcceptorMessage> for q::FromAcceptor {
    type Error = Malformed;
    fn try_from(message: wal::AcceptorMessage) -> Result<Self, Malformed> {
        use wal::acceptor_message::Kind;
        let kind = message.kind.ok_or_else(|| Malformed("message of no kind".to_owned()))?;
        Ok(match kind {
            Kind::Greeting(m) => q::FromAcceptor::Greeting(q::GreetingReply {
                member: q::Member { node: NodeId(m.node_id), incarnation: incarnation(&m.incarnation)? },
                membership: m.membership.try_into()?,
                term: Term(m.term),
                start_lsn: Lsn(m.start_lsn),
                flush_lsn: Lsn(m.flush_lsn),
                commit_lsn: Lsn(m.commit_lsn),
                oldest_lsn: Lsn(m.oldest_lsn),
                history: history_from_wire(&m.history)?,
                facts: q::LogFacts {
                    system_id: SystemId(m.system_id),
                    pg_version_num: m.pg_version_num,
                    wal_segment_bytes: m.wal_segment_bytes,
                },
            }),
            Kind::Vote(m) => q::FromAcceptor::Vote(q::VoteReply {
                term: Term(m.term),
                granted: m.granted,
                flush_lsn: Lsn(m.flush_lsn),
                commit_lsn: Lsn(m.commit_lsn),
                history: history_from_wire(&m.history)?,
            }),
            Kind::Elected(m) => q::FromAcceptor::Elected(q::ElectedReply {
                term: Term(m.term),
                flush_lsn: Lsn(m.flush_lsn),
                commit_lsn: Lsn(m.commit_lsn),
            }),
            Kind::Append(m) => q::FromAcceptor::Append(q::AppendReply {
                term: Term(m.term),
                flush_lsn: Lsn(m.flush_lsn),
                synced_lsn: Lsn(m.synced_lsn),
                commit_lsn: Lsn(m.commit_lsn),
                pageserver: q::PageserverProgress {
                    received: Lsn(m.pageserver_received_lsn),
                    disk_consistent: Lsn(m.pageserver_disk_consistent_lsn),
                    remote_consistent: Lsn(m.pageserver_remote_consistent_lsn),
                },
            }),
        })
    }
}
