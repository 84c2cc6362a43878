//! Where a log ends for good that no compute writes any more.
//!
//! What a lost compute was told is committed may stand on a majority of safekeepers without any of them knowing that it does: the
//! word travels after the client's answer. An election finds out, exactly as the next compute's would (K2, SK-1): its start is
//! committed once a majority holds it. It also fences whoever had the term before (SK-2), so it is not for a log with a live compute.

use std::time::Duration;

use anyhow::Context;
use strata_common::{Lsn, TenantTimelineId};
use strata_walproposer::driver::{Config, Proposer};

use crate::handoff::addresses;
use crate::spec::Endpoint;

/// Elects and waits until all that a majority may have acknowledged is known as committed; returns its end.
/// Errors: no majority answers within `wait_max`, or a compute was elected meanwhile.
pub async fn close(
    timeline: TenantTimelineId,
    safekeepers: &[Endpoint],
    wait_max: Duration,
) -> anyhow::Result<Lsn> {
    let mut config = Config::new(timeline, addresses(safekeepers));
    config.timing.elect_max = wait_max;
    let proposer = Proposer::elect(config).await?;
    let end = proposer.append_lsn();
    let committed = tokio::time::timeout(wait_max, proposer.wait_committed(end)).await;
    committed.with_context(|| format!("no majority of safekeepers has the log up to {end} on disk"))??;
    proposer.release().await;
    Ok(end)
}
