//! Between the messages' plain bytes and numbers and our own types.

use strata_common::{
    ForkNumber, Incarnation, Lsn, RelFork, RelTag, TenantId, TenantTimelineId, Term, TermHistory, TermStart,
    TimelineId,
};

use crate::{page, pageserver, wal};

/// A message that holds something impossible; the text says which field.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("malformed message: {0}")]
pub struct Malformed(pub String);

impl From<Malformed> for tonic::Status {
    fn from(error: Malformed) -> tonic::Status {
        tonic::Status::invalid_argument(error.to_string())
    }
}

/// Tenant and timeline from their 16 bytes each.
pub fn tenant_timeline(tenant: &[u8], timeline: &[u8]) -> Result<TenantTimelineId, Malformed> {
    let tenant = TenantId::try_from(tenant).map_err(|e| Malformed(format!("tenant_id: {e}")))?;
    let timeline = TimelineId::try_from(timeline).map_err(|e| Malformed(format!("timeline_id: {e}")))?;
    Ok(TenantTimelineId { tenant, timeline })
}

macro_rules! timeline_ref {
    ($package:ident) => {
        impl From<TenantTimelineId> for $package::TimelineRef {
            fn from(id: TenantTimelineId) -> Self {
                $package::TimelineRef {
                    tenant_id: id.tenant.to_vec().into(),
                    timeline_id: id.timeline.to_vec().into(),
                }
            }
        }

        impl TryFrom<Option<$package::TimelineRef>> for TimelineRefId {
            type Error = Malformed;
            fn try_from(message: Option<$package::TimelineRef>) -> Result<Self, Malformed> {
                let message = message.ok_or_else(|| Malformed("timeline is missing".to_owned()))?;
                tenant_timeline(&message.tenant_id, &message.timeline_id).map(TimelineRefId)
            }
        }
    };
}

/// What a message's `timeline` field names; exists so that conversions can be written for foreign types.
pub struct TimelineRefId(pub TenantTimelineId);

timeline_ref!(wal);
timeline_ref!(pageserver);

pub fn incarnation(bytes: &[u8]) -> Result<Incarnation, Malformed> {
    Incarnation::try_from(bytes).map_err(|e| Malformed(format!("incarnation: {e}")))
}

pub fn history_to_wire(history: &TermHistory) -> Vec<wal::TermStart> {
    history.0.iter().map(|entry| wal::TermStart { term: entry.term.0, lsn: entry.lsn.0 }).collect()
}

pub fn history_from_wire(entries: &[wal::TermStart]) -> Result<TermHistory, Malformed> {
    let sorted = entries.windows(2).all(|pair| pair[0].term < pair[1].term && pair[0].lsn <= pair[1].lsn);
    if !sorted {
        return Err(Malformed("history is not in the order of terms".to_owned()));
    }
    Ok(TermHistory(entries.iter().map(|e| TermStart { term: Term(e.term), lsn: Lsn(e.lsn) }).collect()))
}

impl From<RelFork> for page::RelFork {
    fn from(rel: RelFork) -> page::RelFork {
        page::RelFork {
            tablespace: rel.rel.tablespace,
            database: rel.rel.database,
            relation: rel.rel.relation,
            fork: u32::from(rel.fork.raw()),
        }
    }
}

impl TryFrom<page::RelFork> for RelFork {
    type Error = Malformed;
    fn try_from(message: page::RelFork) -> Result<RelFork, Malformed> {
        let fork = u8::try_from(message.fork).ok().and_then(ForkNumber::from_raw);
        let fork = fork.ok_or_else(|| Malformed(format!("there is no fork {}", message.fork)))?;
        let rel =
            RelTag { tablespace: message.tablespace, database: message.database, relation: message.relation };
        Ok(RelFork { rel, fork })
    }
}
