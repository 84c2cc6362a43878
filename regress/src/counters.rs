//! Moves the counters of a branch whose compute has stopped: to the end of their range, or back as after a wrap.
//!
//! `pg_resetwal` has no place here, for a compute has no files of its own. Instead the log goes on with what a server would have
//! written on its way: the records that make new SLRU pages, and a shutdown checkpoint with the new counters, in a term of their
//! own, as the supervisor appends its handoff record. The pageserver ingests them like any log, and the next compute starts there.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use strata_common::{Lsn, NodeId, TenantTimelineId};
use strata_pgwal::handoff::handoff_record;
use strata_pgwal::write::WalWriter;
use strata_pgwal::{CheckPoint, LogIdentity, RecordSpec, rmgr};
use strata_walproposer::{AcceptorAddress, Config, Proposer};

use crate::wal_files::control_file;
use crate::whole::Whole;

/// An SLRU page that comes into being (`CLOG_ZEROPAGE`, `XLOG_MULTIXACT_ZERO_OFF_PAGE`, `XLOG_MULTIXACT_ZERO_MEM_PAGE`).
#[derive(Clone, Copy, Debug)]
pub enum NewPage {
    Clog(i64),
    MultiOffsets(i64),
    MultiMembers(i64),
}

impl NewPage {
    fn record(self) -> RecordSpec {
        let (manager, info, page) = match self {
            NewPage::Clog(page) => (rmgr::CLOG, 0x00, page),
            NewPage::MultiOffsets(page) => (rmgr::MULTIXACT, 0x00, page),
            NewPage::MultiMembers(page) => (rmgr::MULTIXACT, 0x10, page),
        };
        RecordSpec::plain(manager, info, Bytes::copy_from_slice(&page.to_le_bytes()))
    }
}

/// Appends to branch `main`. `pgdata` is of the compute that stopped cleanly at `end`, and nothing has been logged since.
pub fn move_counters(
    whole: &Whole,
    pgdata: &Path,
    end: &str,
    new_pages: &[NewPage],
    change: impl FnOnce(&mut CheckPoint),
) -> Result<()> {
    let control = control_file(pgdata)?;
    let log = LogIdentity {
        timeline: control.checkpoint_copy.this_timeline,
        system_id: control.system_id,
        segment_bytes: control.segment_bytes(),
    };
    let end: Lsn = end.parse()?;
    let mut writer = WalWriter::new(end, control.checkpoint, log);
    let mut bytes = Vec::new();
    for page in new_pages {
        bytes.extend_from_slice(&writer.append(&page.record()).bytes);
    }
    let mut checkpoint = control.checkpoint_copy;
    change(&mut checkpoint);
    let (last, _) = handoff_record(writer.position(), writer.prev(), checkpoint, log);
    bytes.extend_from_slice(&last.bytes);

    let config = Config::new(timeline(whole)?, safekeepers(whole)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let proposer = Proposer::elect(config).await?;
        ensure!(proposer.append_lsn() == end, "the log ends at {}, not at {end}", proposer.append_lsn());
        proposer.append(end, Bytes::from(bytes)).await?;
        proposer.wait_committed(last.end_lsn).await?;
        proposer.release().await;
        Ok(())
    })
}

fn timeline(whole: &Whole) -> Result<TenantTimelineId> {
    let tenants = whole.json(&["tenant", "list"])?;
    let tenant = tenants[0]["tenant_id"].as_str().context("a tenant has an id")?;
    let branches = whole.json(&["branch", "list"])?;
    let main = branches.as_array().into_iter().flatten().find(|branch| branch["name"] == "main");
    let timeline = main.and_then(|main| main["timeline_id"].as_str()).context("main has an id")?;
    Ok(TenantTimelineId { tenant: tenant.parse()?, timeline: timeline.parse()? })
}

fn safekeepers(whole: &Whole) -> Result<Vec<AcceptorAddress>> {
    let status = whole.json(&["status"])?;
    let rows = status["safekeepers"].as_array().context("status shows no safekeepers")?;
    rows.iter()
        .map(|row| {
            let id = row["id"].as_u64().context("a safekeeper has an id")?;
            let host = row["host"].as_str().context("a safekeeper has a host")?;
            Ok(AcceptorAddress { node: NodeId(id), address: format!("{host}:{}", row["port"]) })
        })
        .collect()
}
