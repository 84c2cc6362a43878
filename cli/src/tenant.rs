//! Tenants: a fresh Postgres cluster imported into the pageserver, and its log's copies on the safekeepers.

use anyhow::bail;
use rand::Rng;
use serde_json::{Value, json};
use strata_common::{Incarnation, Lsn, SystemId, TenantId, TenantTimelineId, TimelineId};
use strata_proto::pageserver::ImportTimelineRequest;
use strata_proto::pageserver::import_timeline_request::{Header, Kind};

use crate::home::{Home, Locked};
use crate::output::{Output, table};
use crate::registry::{self, Branch, Copy, Member, Node, Registry, Tenant};
use crate::users::RunAs;
use crate::{copies, postgres, rpc};

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
    let tree = postgres::tree()?;
    let pg_version_num = postgres::version_num(&tree)?;
    let tar = postgres::template(&tree, RunAs::current()?)?;
    // Postgres's own come from clock and pid (xlog.c, BootStrapXLOG); 63 random bits print the same in SQL's bigint.
    let system_id = SystemId(u64::from_le_bytes(random()) >> 1);
    let imported = import(
        &locked.registry,
        Header { timeline: Some(id.into()), system_id: system_id.0, pg_version_num },
        tar.into(),
    )
    .await?;
    let tenant = Tenant {
        id: id.tenant,
        system_id: SystemId(imported.system_id),
        wal_segment_bytes: imported.wal_segment_bytes,
        pg_version_num: imported.pg_version_num,
        branches: Default::default(),
    };
    let mut branch = new_branch(&locked.registry, id.timeline, None, Lsn(imported.start_lsn));
    copies::create(&rpc::safekeepers(&locked.registry).await, &tenant, &mut branch).await?;
    let mut tenant = tenant;
    tenant.branches.insert("main".to_owned(), branch);
    locked.registry.tenants.insert(name.to_owned(), tenant);
    locked.save()
}

async fn import(
    registry: &Registry,
    header: Header,
    tar: bytes::Bytes,
) -> anyhow::Result<strata_proto::pageserver::ImportTimelineResponse> {
    let header = Kind::Header(header);
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
    let member =
        |node: &Node| Member { node: node.id, incarnation: Incarnation(random()), copy: Copy::Planned };
    let members = registry.safekeepers.iter().map(member).collect();
    Branch { timeline_id, ancestor, start_lsn, members, membership_generation: 1 }
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
