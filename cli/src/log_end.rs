//! Where a branch's log ends, by what its safekeepers say.
//!
//! A safekeeper learns that something is committed a little after the client does, and never if the compute died in between. So the
//! highest commit LSN that they know is a lower bound only. Whoever needs all that was ever acknowledged takes `acknowledged`.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::join_all;
use strata_common::{Lsn, TenantTimelineId};
use strata_compute::closed_log;
use strata_compute::spec::Endpoint;
use strata_proto::convert::TimelineRefId;
use strata_proto::wal::ListTimelinesRequest;

use crate::rpc::{self, Reached};

/// Between two questions; a live compute tells its safekeepers within about a round trip.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// How long a live compute may take until a majority has, and knows, what one safekeeper has now.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// How far the safekeepers have a timeline: the highest of what any of those that answer knows.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// On a disk at least.
    pub flush: Lsn,
    pub commit: Lsn,
    /// How many copies that vote are among the answers; learners' ends say nothing (trap K16) and are not in `flush`.
    pub voters: usize,
}

/// What the safekeepers that answer know of each timeline; all are asked at once.
pub async fn all(safekeepers: &[Reached]) -> anyhow::Result<HashMap<TenantTimelineId, LogEnd>> {
    let reachable = safekeepers.iter().filter_map(|safekeeper| safekeeper.client.as_ref().ok());
    let answers =
        reachable.map(|client| async move { client.clone().list_timelines(ListTimelinesRequest {}).await });
    let mut ends = HashMap::<TenantTimelineId, LogEnd>::new();
    for answer in join_all(answers).await {
        let answer = match answer {
            // One that stands still is away like one that does not run.
            Err(status) if rpc::is_lost(&status) => continue,
            answer => {
                answer.map_err(|status| rpc::refusal("a safekeeper cannot list its timelines", &status))?
            }
        };
        for status in answer.into_inner().timelines {
            let TimelineRefId(id) = status.timeline.try_into()?;
            let end = ends.entry(id).or_default();
            end.commit = end.commit.max(Lsn(status.commit_lsn));
            if status.voter {
                end.flush = end.flush.max(Lsn(status.flush_lsn));
                end.voters += 1;
            }
        }
    }
    Ok(ends)
}

async fn of(safekeepers: &[Reached], id: TenantTimelineId) -> anyhow::Result<LogEnd> {
    let end = all(safekeepers).await?.get(&id).copied();
    end.context("no safekeeper answers for this branch: 'strata start' starts them")
}

/// The highest commit LSN that any safekeeper knows of a timeline.
pub async fn committed(safekeepers: &[Reached], id: TenantTimelineId) -> anyhow::Result<Lsn> {
    Ok(of(safekeepers, id).await?.commit)
}

/// A committed end that nothing acknowledged before this call lies beyond.
///
/// An acknowledged commit is on a majority's disks, so any majority that answers has a copy with it (SK-1): the end is found once the
/// highest flush of now is known as committed. A live compute brings that about by itself; if there is none, or none any more (`is_written`
/// says no), an election does.
pub async fn acknowledged(
    safekeepers: &[Reached],
    id: TenantTimelineId,
    is_written: impl Fn() -> bool,
) -> anyhow::Result<Lsn> {
    let majority = safekeepers.len() / 2 + 1;
    let first = of(safekeepers, id).await?;
    if first.voters < majority {
        bail!(
            "a majority of safekeepers is needed to know the branch's end and {} answer: 'strata start' starts them",
            first.voters
        );
    }
    if first.commit >= first.flush {
        return Ok(first.commit);
    }
    let settled = tokio::time::timeout(SETTLE_MAX, async {
        while is_written() {
            tokio::time::sleep(ASK_EVERY).await;
            let now = of(safekeepers, id).await?;
            if now.commit >= first.flush {
                return anyhow::Ok(Some(now.commit));
            }
        }
        Ok(None)
    });
    let settled = settled.await.with_context(|| {
        format!("the branch's log is not committed up to {}: 'strata status' says which safekeeper is missing; or name an LSN with --at-lsn", first.flush)
    })??;
    if let Some(committed) = settled {
        return Ok(committed);
    }
    let endpoint = |reached: &Reached| Endpoint {
        id: reached.node.id,
        address: format!("127.0.0.1:{}", reached.node.port),
    };
    let endpoints: Vec<_> = safekeepers.iter().map(endpoint).collect();
    let closed = closed_log::close(id, &endpoints, SETTLE_MAX).await;
    closed.context("the end of the branch's log cannot be settled: start a compute on it")
}
