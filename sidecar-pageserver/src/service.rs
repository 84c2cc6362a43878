//! What management asks for, without gRPC: import, branch, log state, time to LSN, lists.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use strata_common::{Lsn, SystemId, TenantTimelineId, Term, TimelineId};

use crate::import::{self, DataDir, ImportError, Imported, Spool};
use crate::ingest::control::ControlState;
use crate::node::{EngineTimeline, Node};
use crate::storage::StorageError;
use crate::store::Store;
use crate::timeline::{Timeline, WaitError};
use crate::view::ViewError;

/// The major version whose data directories and log are read here.
const PG_MAJOR: u32 = 17;

/// Longest that a call waits for log, whatever it asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("timeline {0} is not on this pageserver")]
    NotFound(TenantTimelineId),
    #[error(transparent)]
    Wait(#[from] WaitError),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("no record is known to end at {lsn}; the last one known below ends at {known}")]
    NotARecordEnd { lsn: Lsn, known: Lsn },
    #[error("a cluster of server version {0} is not one of Postgres {PG_MAJOR}")]
    Version(u32),
    #[error("{0}")]
    Internal(String),
}

pub fn find(node: &Node, id: TenantTimelineId) -> Result<Arc<EngineTimeline>, ServiceError> {
    node.timeline(id).ok_or(ServiceError::NotFound(id))
}

/// The version of an imported cluster as `server_version_num` gives it: what its owner says, or 0 if nobody knows.
pub fn version_num(told: u32) -> Result<u32, ServiceError> {
    match told {
        0 => Ok(PG_MAJOR * 10_000),
        told if told / 10_000 == PG_MAJOR => Ok(told),
        other => Err(ServiceError::Version(other)),
    }
}

/// Makes a timeline of the tar; in the object store and in service when this returns. Blocks on `tar`: call it where blocking is allowed.
pub fn import_blocking(
    node: &Node,
    id: TenantTimelineId,
    system_id: Option<SystemId>,
    tar: impl Read,
) -> Result<Imported, ServiceError> {
    let spool = Spool::create(node.spool.join(format!("{}-{}", id.tenant, id.timeline)))
        .map_err(ImportError::from)?;
    let data = DataDir::unpack(tar, spool)?;
    let control = data.control(system_id)?;
    node.runtime().block_on(async {
        let mut target = node.storage.begin_import(id, control.lsn)?;
        import::fill(&data, &control, &mut target).await?;
        let engine = target.finish(control.encode().into()).await?;
        node.adopt(engine).map_err(|e| ServiceError::Internal(e.to_string()))?;
        Ok(Imported {
            start_lsn: control.lsn,
            system_id: control.control_file.system_id,
            wal_segment_bytes: control.control_file.layout.wal_segment_bytes,
        })
    })
}

/// Where a branch is to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BranchPoint {
    pub ancestor: TimelineId,
    /// `Lsn::MAX`: the latest record.
    pub lsn: Lsn,
    pub at_least: Lsn,
}

/// Makes a branch at the last known record boundary at or below the LSN.
pub async fn branch(node: &Node, id: TenantTimelineId, point: BranchPoint) -> Result<Imported, ServiceError> {
    let ancestor_id = TenantTimelineId { timeline: point.ancestor, ..id };
    let ancestor = find(node, ancestor_id)?;
    let needed = if point.lsn == Lsn::MAX { point.at_least } else { point.lsn.max(point.at_least) };
    ancestor.wait_for(needed, WAIT_MAX).await?;
    let control = state_at_or_below(&ancestor, point.lsn).await?;
    // A branch has a log, and elections, of its own.
    let control = ControlState { log_term: Term::ZERO, ..control };
    let engine = node.storage.create_branch(id, ancestor_id, control.lsn, control.encode().into()).await?;
    node.adopt(engine).map_err(|e| ServiceError::Internal(e.to_string()))?;
    Ok(Imported {
        start_lsn: control.lsn,
        system_id: control.control_file.system_id,
        wal_segment_bytes: control.control_file.layout.wal_segment_bytes,
    })
}

/// State at the last known record boundary at or below `lsn`.
async fn state_at_or_below<S: Store>(timeline: &Timeline<S>, lsn: Lsn) -> Result<ControlState, ServiceError> {
    let latest = timeline.control();
    if lsn >= latest.lsn {
        return Ok(latest);
    }
    Ok(timeline.view(lsn).control().await?)
}

/// State as of exactly `lsn` (or the latest), once the log is known that far.
pub async fn log_state<S: Store>(
    timeline: &Timeline<S>,
    lsn: Lsn,
    wait_max: Duration,
) -> Result<ControlState, ServiceError> {
    if lsn != Lsn::MAX {
        timeline.wait_for(lsn, wait_max.min(WAIT_MAX)).await?;
    }
    let state = state_at_or_below(timeline, lsn).await?;
    if lsn != Lsn::MAX && state.lsn != lsn {
        return Err(ServiceError::NotARecordEnd { lsn, known: state.lsn });
    }
    Ok(state)
}

/// How sure an answer to "which LSN was it then?" is (G10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeAnswer {
    /// A commit at or before the time and one after it are known.
    Exact(Lsn),
    /// Before the history kept; the LSN is where that begins.
    Past(Lsn),
    /// After the last commit known; the LSN is the latest.
    Future(Lsn),
}

/// The last record boundary all of whose commits are at or before the time. Marks hold the highest commit time so far,
/// which only grows, so halving finds it although commit times themselves are not monotonic.
pub async fn lsn_at_time<S: Store>(
    timeline: &Timeline<S>,
    oldest: Lsn,
    unix_micros: i64,
) -> Result<TimeAnswer, ServiceError> {
    let latest = timeline.control();
    if latest.mark.latest_commit_unix_micros <= unix_micros {
        return Ok(TimeAnswer::Future(latest.lsn));
    }
    let (mut low, first) = timeline.view(oldest).mark().await?;
    if first.latest_commit_unix_micros > unix_micros {
        return Ok(TimeAnswer::Past(oldest));
    }
    // At `low` all commits are in time, at `high` one is not.
    let mut high = latest.lsn;
    while low.0 + 1 < high.0 {
        let middle = Lsn(low.0 + (high.0 - low.0) / 2);
        let (at, mark) = timeline.view(middle).mark().await?;
        if mark.latest_commit_unix_micros > unix_micros {
            high = at;
        } else if at <= low {
            // No mark between `low` and the middle.
            low = middle;
        } else {
            low = middle.max(at);
        }
    }
    Ok(TimeAnswer::Exact(timeline.view(low).mark().await?.0))
}
