//! The safekeepers' copies of branches' logs: made when a branch is, or when a safekeeper that was away then is started.
//!
//! A copy is made at most once under the incarnation that votes (trap K16). So "asked" is written down before the question leaves;
//! a copy whose question got no answer is looked for, never asked for again, and at the worst comes back as a learner.

use anyhow::{Context, bail};
use futures::future::join_all;
use strata_common::TenantTimelineId;
use strata_proto::wal::{CreateTimelineRequest, ListTimelinesRequest, Membership};

use crate::home::Locked;
use crate::output::to_stderr;
use crate::registry::{Branch, Copy, Member, Node, Registry, Tenant};
use crate::rpc::{self, Reached};

/// Makes the copies of a new branch's log, which is in no registry yet, asking all safekeepers at once. A majority must be there;
/// the others follow when they are started.
pub async fn create(safekeepers: &[Reached], tenant: &Tenant, branch: &mut Branch) -> anyhow::Result<()> {
    let member = |safekeeper: &Reached| {
        let index = branch.members.iter().position(|member| member.node == safekeeper.node.id);
        index.map(|index| (index, request(tenant, branch, index)))
    };
    let asked = safekeepers.iter().filter_map(|safekeeper| Some((safekeeper, member(safekeeper)?)));
    let answers = asked.map(|(safekeeper, (index, request))| async move {
        let client = safekeeper.client.as_ref().map_err(|error| (Copy::Planned, format!("{error:#}")));
        let made = match client {
            Ok(client) => client.clone().create_timeline(request).await.map_err(|status| {
                (Copy::Asked, format!("safekeeper {}: {}", safekeeper.node.id, status.message()))
            }),
            Err(refusal) => Err(refusal),
        };
        (index, made)
    });
    let answers = join_all(answers).await;
    let mut refusals = Vec::new();
    for (index, made) in answers {
        branch.members[index].copy = match made {
            Ok(_) => Copy::Made,
            Err((copy, why)) => {
                refusals.push(why);
                copy
            }
        };
    }
    let made = branch.members.iter().filter(|member| member.copy == Copy::Made).count();
    if made < branch.members.len() / 2 + 1 {
        bail!("a majority of safekeepers is needed and {made} could be reached: {}", refusals.join("; "));
    }
    Ok(())
}

fn request(tenant: &Tenant, branch: &Branch, index: usize) -> CreateTimelineRequest {
    let member = |member: &Member| strata_proto::wal::Member {
        node_id: member.node.0,
        incarnation: member.incarnation.to_vec().into(),
    };
    let id = TenantTimelineId { tenant: tenant.id, timeline: branch.timeline_id };
    CreateTimelineRequest {
        timeline: Some(id.into()),
        system_id: tenant.system_id.0,
        pg_version_num: tenant.pg_version_num,
        wal_segment_bytes: tenant.wal_segment_bytes,
        start_lsn: branch.start_lsn.0,
        incarnation: branch.members[index].incarnation.to_vec().into(),
        membership: Some(Membership {
            generation: branch.membership_generation,
            members: branch.members.iter().map(member).collect(),
        }),
    }
}

/// Where in the registry a copy stands.
struct Place {
    tenant: String,
    branch: String,
    index: usize,
}

/// Makes the copies that this safekeeper, which has just been started, missed because it was away when their branches were made.
pub async fn create_missing(locked: &mut Locked, node: &Node) -> anyhow::Result<()> {
    for place in not_made(&locked.registry, node) {
        let tenant = locked.registry.tenant(&place.tenant)?;
        let branch = locked.registry.branch(&place.tenant, &place.branch)?;
        let member = &branch.members[place.index];
        let wanted = request(tenant, branch, place.index);
        let made = if member.copy == Copy::Planned {
            set(locked, &place, Copy::Asked)?;
            ask(node, &place, wanted).await?
        } else {
            has(node, &wanted).await?
        };
        if made {
            set(locked, &place, Copy::Made)?;
        }
    }
    Ok(())
}

fn not_made(registry: &Registry, node: &Node) -> Vec<Place> {
    let mut places = Vec::new();
    for (tenant, facts) in &registry.tenants {
        for (branch, facts) in &facts.branches {
            let missing = |member: &Member| member.node == node.id && member.copy != Copy::Made;
            if let Some(index) = facts.members.iter().position(missing) {
                places.push(Place { tenant: tenant.clone(), branch: branch.clone(), index });
            }
        }
    }
    places
}

/// Written down before anything else happens.
fn set(locked: &mut Locked, place: &Place, copy: Copy) -> anyhow::Result<()> {
    let tenant = locked.registry.tenants.get_mut(&place.tenant).context("the tenant was just there")?;
    let branch = tenant.branches.get_mut(&place.branch).context("the branch was just there")?;
    branch.members[place.index].copy = copy;
    locked.save()
}

/// False, with a word to whoever watches, if the safekeeper will not have it: a compute may have made a learner's copy meanwhile.
async fn ask(node: &Node, place: &Place, wanted: CreateTimelineRequest) -> anyhow::Result<bool> {
    match rpc::safekeeper(node).await?.create_timeline(wanted).await {
        Ok(_) => Ok(true),
        Err(status) => {
            to_stderr(&format!(
                "safekeeper {} takes no part in votes of branch {}: {}",
                node.id,
                place.branch,
                status.message()
            ));
            Ok(false)
        }
    }
}

/// Whether the safekeeper has this very copy.
async fn has(node: &Node, wanted: &CreateTimelineRequest) -> anyhow::Result<bool> {
    let answer = rpc::safekeeper(node).await?.list_timelines(ListTimelinesRequest {}).await;
    let answer = answer.map_err(|status| rpc::refusal("a safekeeper cannot list its timelines", &status))?;
    let copies = answer.into_inner().timelines;
    Ok(copies.iter().any(|copy| copy.timeline == wanted.timeline && copy.incarnation == wanted.incarnation))
}
