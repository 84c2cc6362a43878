//! Branches: made at the end of another branch or at an LSN in its past, listed with how far they are.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use strata_common::{Lsn, TenantTimelineId, TimelineId};
use strata_proto::pageserver::{CreateBranchRequest, ListTimelinesRequest, TimelineInfo};

use crate::args::BranchCreate;
use crate::home::Home;
use crate::log_end::{self, LogEnd};
use crate::output::{Output, table};
use crate::registry::{self, Branch, Registry};
use crate::{compute, copies, rpc, tenant};

pub async fn create(home: &Home, tenant_name: &str, options: &BranchCreate) -> anyhow::Result<Output> {
    registry::check_name("branch", &options.name)?;
    let mut locked = home.lock()?;
    let tenant = locked.registry.tenant(tenant_name)?;
    let from = locked.registry.branch(tenant_name, &options.from)?.clone();
    if tenant.branches.contains_key(&options.name) {
        bail!("there is a branch '{}' already", options.name);
    }
    let ancestor = TenantTimelineId { tenant: tenant.id, timeline: from.timeline_id };
    let id = TenantTimelineId { tenant: tenant.id, timeline: TimelineId(tenant::random()) };
    // All that is committed now belongs to the branch; the pageserver may still be reading the last of it.
    let (safekeepers, pageserver) =
        tokio::join!(rpc::safekeepers(&locked.registry), rpc::pageserver(&locked.registry));
    let committed = match options.at_lsn {
        Some(_) => log_end::committed(&safekeepers, ancestor).await?,
        None => {
            // A compute may be dying just now: looked at again and again.
            let is_written =
                || !compute::alive_on(home, &locked.registry, tenant_name, &options.from).is_empty();
            log_end::acknowledged(&safekeepers, ancestor, is_written).await?
        }
    };
    if let Some(lsn) = options.at_lsn.filter(|lsn| *lsn > committed) {
        bail!("branch '{}' ends at {committed}, before {lsn}: choose an LSN that it has", options.from);
    }
    let request = CreateBranchRequest {
        timeline: Some(id.into()),
        ancestor_timeline_id: from.timeline_id.to_vec().into(),
        lsn: options.at_lsn.unwrap_or(Lsn::MAX).0,
        at_least_lsn: options.at_lsn.unwrap_or(committed).0,
    };
    let answer = pageserver?.create_branch(request).await;
    let made =
        answer.map_err(|status| rpc::refusal("the pageserver cannot make the branch", &status))?.into_inner();
    let start = Lsn(made.start_lsn);
    let mut branch = tenant::new_branch(&locked.registry, id.timeline, Some(options.from.clone()), start);
    copies::create(&safekeepers, tenant, &mut branch).await?;
    let tenant = locked.registry.tenants.get_mut(tenant_name).context("the tenant was just there")?;
    tenant.branches.insert(options.name.clone(), branch);
    locked.save()?;
    let json =
        json!({ "name": options.name, "timeline_id": id.timeline, "from": options.from, "start_lsn": start });
    Ok(Output::new(json, format!("branch {} of {} at {start}", options.name, options.from)))
}

pub async fn list(home: &Home, tenant_name: &str) -> anyhow::Result<Output> {
    let registry = home.registry()?;
    let json = describe_all(&registry, tenant_name).await?;
    let text =
        |value: &Value, key: &str| value[key].as_str().map_or_else(|| value[key].to_string(), str::to_owned);
    let keys = ["name", "from", "start_lsn", "lsn", "logical_bytes", "physical_bytes", "state"];
    let row = |value: &Value| keys.iter().map(|key| text(value, key).replace("null", "-")).collect();
    let rows: Vec<Vec<String>> = json.iter().map(row).collect();
    Ok(Output::new(json!(json), table(&keys, &rows)))
}

/// Branches as `status --json` shows them; with the pageserver away, without what only it knows.
pub async fn describe_all(registry: &Registry, tenant_name: &str) -> anyhow::Result<Vec<Value>> {
    let tenant = registry.tenant(tenant_name)?;
    let (infos, safekeepers) = tokio::join!(timeline_infos(registry), rpc::safekeepers(registry));
    let (infos, ends) = (infos.ok(), log_end::all(&safekeepers).await?);
    let mut rows = Vec::new();
    for (name, branch) in &tenant.branches {
        let id = TenantTimelineId { tenant: tenant.id, timeline: branch.timeline_id };
        let info = infos.iter().flatten().find(|info| is_timeline(info, id));
        rows.push(describe(name, branch, info, ends.get(&id)));
    }
    Ok(rows)
}

fn describe(name: &str, branch: &Branch, info: Option<&TimelineInfo>, end: Option<&LogEnd>) -> Value {
    json!({
        "name": name,
        "timeline_id": branch.timeline_id,
        "from": branch.ancestor,
        "start_lsn": branch.start_lsn,
        "lsn": end.map(|end| end.commit),
        "flush_lsn": end.map(|end| end.flush),
        "pageserver_lsn": info.map(|info| Lsn(info.last_record_lsn)),
        "remote_consistent_lsn": info.map(|info| Lsn(info.remote_consistent_lsn)),
        "logical_bytes": info.map(|info| info.logical_bytes),
        "physical_bytes": info.map(|info| info.physical_bytes),
        "state": info.map_or("unknown", |info| info.state.as_str()),
        "problem": info.map_or("the pageserver does not answer", |info| info.problem.as_str()),
    })
}

async fn timeline_infos(registry: &Registry) -> anyhow::Result<Vec<TimelineInfo>> {
    let answer = rpc::pageserver(registry).await?.list_timelines(ListTimelinesRequest {}).await;
    Ok(answer
        .map_err(|status| rpc::refusal("the pageserver cannot list its timelines", &status))?
        .into_inner()
        .timelines)
}

fn is_timeline(info: &TimelineInfo, id: TenantTimelineId) -> bool {
    let named = info.timeline.as_ref();
    named.is_some_and(|t| t.tenant_id == id.tenant.to_vec() && t.timeline_id == id.timeline.to_vec())
}

pub async fn lsn(home: &Home, tenant_name: &str, name: &str) -> anyhow::Result<Output> {
    let registry = home.registry()?;
    let tenant = registry.tenant(tenant_name)?;
    let branch = registry.branch(tenant_name, name)?;
    let id = TenantTimelineId { tenant: tenant.id, timeline: branch.timeline_id };
    let lsn = log_end::committed(&rpc::safekeepers(&registry).await, id).await?;
    Ok(Output::new(json!({ "branch": name, "lsn": lsn }), lsn.to_string()))
}
