//! Tenants: a fresh Postgres cluster imported into the pageserver, and its log's copies on the safekeepers.

use anyhow::{Context, bail};
use rand::Rng;
use serde_json::{Value, json};
use strata_common::{Incarnation, Lsn, SystemId, TenantId, TenantTimelineId, TimelineId};
use strata_proto::pageserver::{ImportTimelineRequest, import_timeline_request};
use strata_proto::wal::{CreateTimelineRequest, Membership};

use crate::home::{Home, Locked};
use crate::output::{Output, table};
use crate::registry::{self, Branch, Member, Node, Registry, Tenant};
use crate::users::RunAs;
use crate::{postgres, rpc};

/// Bytes of the tar in one message.
const TAR_CHUNK_BYTES: usize = 1 << 20;

pub async fn create(home: &Home, name: &str) -> anyhow::Result<Output> {
    let mut locked = home.lock()?;
    make(&mut locked, name).await?;
    let id = locked.registry.tenant(name)?.id;
    Ok(Output::new(
        json!({ "name": name, "tenant_id": id, "branch": "main" }),
        format!("tenant {name}, branch main"),
    ))
}

/// Makes a tenant with a branch `main` and saves the registry.
pub async fn make(locked: &mut Locked, name: &str) -> anyhow::Result<()> {
    registry::check_name("tenant", name)?;
    if locked.registry.tenants.contains_key(name) {
        bail!("there is a tenant '{name}' already");
    }
    let id = TenantTimelineId { tenant: TenantId(random()), timeline: TimelineId(random()) };
    let tar = postgres::template(&postgres::tree()?, RunAs::current()?)?;
    // Postgres's own come from clock and pid (xlog.c, BootStrapXLOG); 63 random bits print the same in SQL's bigint.
    let system_id = SystemId(u64::from_le_bytes(random()) >> 1);
    let imported = import(&locked.registry, id, system_id, tar.into()).await?;
    let tenant = Tenant {
        id: id.tenant,
        system_id: SystemId(imported.system_id),
        wal_segment_bytes: imported.wal_segment_bytes,
        pg_version_num: imported.pg_version_num,
        branches: Default::default(),
    };
    let mut branch = new_branch(&locked.registry, id.timeline, None, Lsn(imported.start_lsn));
    create_copies(&locked.registry, &tenant, &mut branch).await?;
    let mut tenant = tenant;
    tenant.branches.insert("main".to_owned(), branch);
    locked.registry.tenants.insert(name.to_owned(), tenant);
    locked.save()
}

async fn import(
    registry: &Registry,
    id: TenantTimelineId,
    system_id: SystemId,
    tar: bytes::Bytes,
) -> anyhow::Result<strata_proto::pageserver::ImportTimelineResponse> {
    use import_timeline_request::{Header, Kind};
    let header = Kind::Header(Header { timeline: Some(id.into()), system_id: system_id.0 });
    let chunks = (0..tar.len()).step_by(TAR_CHUNK_BYTES);
    let chunks = chunks.map(move |at| Kind::Tar(tar.slice(at..(at + TAR_CHUNK_BYTES).min(tar.len()))));
    let messages =
        std::iter::once(header).chain(chunks).map(|kind| ImportTimelineRequest { kind: Some(kind) });
    let mut pageserver = rpc::pageserver(registry).await?;
    let answer = pageserver.import_timeline(tokio_stream::iter(messages.collect::<Vec<_>>())).await;
    Ok(answer
        .map_err(|status| rpc::refusal("the pageserver could not import the new tenant", &status))?
        .into_inner())
}

/// A branch whose log copies are still to be made: every safekeeper votes, each under a fresh incarnation.
pub fn new_branch(
    registry: &Registry,
    timeline_id: TimelineId,
    ancestor: Option<String>,
    start_lsn: Lsn,
) -> Branch {
    let member = |node: &Node| Member { node: node.id, incarnation: Incarnation(random()), created: false };
    let members = registry.safekeepers.iter().map(member).collect();
    Branch { timeline_id, ancestor, start_lsn, members, membership_generation: 1 }
}

/// Makes the copies of a new branch's log. A majority must be there; the others follow when they are started.
pub async fn create_copies(registry: &Registry, tenant: &Tenant, branch: &mut Branch) -> anyhow::Result<()> {
    let request = |index: usize, branch: &Branch| create_request(tenant, branch, index);
    let mut refusals = Vec::new();
    for index in 0..branch.members.len() {
        let node = registry.safekeepers.iter().find(|node| node.id == branch.members[index].node);
        let Some(node) = node else { continue };
        match create_copy(node, request(index, branch)).await {
            Ok(()) => branch.members[index].created = true,
            Err(error) => refusals.push(format!("{error:#}")),
        }
    }
    let made = branch.members.iter().filter(|member| member.created).count();
    if made < registry.majority() {
        bail!("a majority of safekeepers is needed and {made} could be reached: {}", refusals.join("; "));
    }
    Ok(())
}

fn create_request(tenant: &Tenant, branch: &Branch, index: usize) -> CreateTimelineRequest {
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

async fn create_copy(node: &Node, request: CreateTimelineRequest) -> anyhow::Result<()> {
    let mut safekeeper = rpc::safekeeper(node).await?;
    let answer = safekeeper.create_timeline(request).await;
    answer
        .map_err(|status| rpc::refusal(&format!("safekeeper {} cannot keep the branch", node.id), &status))?;
    Ok(())
}

/// Makes the copies that this safekeeper missed because it was away when their branches were made. A copy that it once had
/// is never made again here: it may only come back as a learner (trap K16).
pub async fn create_missing_copies(locked: &mut Locked, node: &Node) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for (tenant_name, tenant) in &locked.registry.tenants {
        for (branch_name, branch) in &tenant.branches {
            let index = branch.members.iter().position(|member| member.node == node.id && !member.created);
            if let Some(index) = index {
                missing.push((
                    tenant_name.clone(),
                    branch_name.clone(),
                    index,
                    create_request(tenant, branch, index),
                ));
            }
        }
    }
    for (tenant, branch, index, request) in missing {
        create_copy(node, request).await?;
        let tenant = locked.registry.tenants.get_mut(&tenant).context("the tenant was just there")?;
        let branch = tenant.branches.get_mut(&branch).context("the branch was just there")?;
        branch.members[index].created = true;
        locked.save()?;
    }
    Ok(())
}

pub fn list(home: &Home) -> anyhow::Result<Output> {
    let registry = home.registry()?;
    let json: Vec<Value> = registry.tenants.iter().map(|(name, tenant)| describe(name, tenant)).collect();
    let row = |(name, tenant): (&String, &Tenant)| {
        vec![name.clone(), tenant.id.to_string(), tenant.branches.len().to_string()]
    };
    let rows: Vec<Vec<String>> = registry.tenants.iter().map(row).collect();
    Ok(Output::new(json!(json), table(&["tenant", "id", "branches"], &rows)))
}

fn describe(name: &str, tenant: &Tenant) -> Value {
    json!({
        "name": name,
        "tenant_id": tenant.id,
        "system_id": tenant.system_id.to_string(),
        "branches": tenant.branches.keys().collect::<Vec<_>>(),
    })
}

/// Random bytes for ids.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill(&mut bytes[..]);
    bytes
}
