//! C8: the list of hot pages is in the object store, so a compute that lost everything, a branch and a new pageserver's compute are
//! prewarmed as well. Who comes too late does not replace it, and what is damaged is refused.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use strata_common::{Lsn, TenantTimelineId, Term};
use strata_regress::cached::CachedServer;
use strata_regress::psql_session::PsqlSession;
use strata_regress::whole::{sets, wait_until};
use strata_smgr::client::{ClientConfig, Writer};
use strata_smgr::objects::{self, ObjectName};

const QUIET: &str = "strata.compare_local=off";
const NEVER: &str = "strata.lfc_state_interval=0";
const OFTEN: &str = "strata.lfc_state_interval=1s";

/// Pages of the table.
fn pages(server: &CachedServer) -> Result<i64> {
    server.number("SELECT pg_relation_size('t') / 8192")
}

/// The list in the object store, as a file.
fn list_file(server: &CachedServer) -> Result<PathBuf> {
    let status = server.whole.json(&["status"])?;
    let store = PathBuf::from(status["object_store"].as_str().context("an object store")?);
    let [tenant, timeline] = ["tenant", "timeline"].map(|id| server.sql(&format!("SHOW strata.{id}_id")));
    Ok(store.join("objects").join(tenant?).join(timeline?).join("lfc-state"))
}

fn wipe_pageserver(server: &CachedServer) -> Result<()> {
    server.whole.kill_node("pageservers", 1)?;
    let dir = server.whole.node("pageservers", 1)?["dir"].as_str().context("dir")?.to_owned();
    std::fs::remove_dir_all(&dir)?;
    server.whole.strata(&["pageserver", "start", "1"])?;
    Ok(())
}

#[test]
fn a_compute_that_lost_everything_is_prewarmed() -> Result<()> {
    let mut server = CachedServer::with(&[QUIET, NEVER])?;
    let pages = pages(&server)?;
    ensure!(server.number("SELECT strata_lfc_prewarm_remote()")? == 0, "there was no list yet");
    let listed = server.number("SELECT strata_lfc_state_put()")?;
    ensure!(listed > pages * 9 / 10, "{listed} pages were listed of {pages}");
    let old_term: u64 = server.sql("SHOW strata.term")?.parse()?;
    server.whole.lose_compute(&server.compute)?;
    wipe_pageserver(&server)?;
    server.start_again(&[QUIET, NEVER])?;
    ensure!(server.number("SELECT strata_lfc_prewarm()")? == 0, "the compute's folder was not lost");
    ensure!(server.stat("used_pages")? < pages / 2, "a loss kept the cache");
    let read = server.number("SELECT strata_lfc_prewarm_remote()")?;
    ensure!(read > pages * 9 / 10, "{read} pages were read of {pages}");
    let progress = server.sql(
        "SELECT pid IS NULL, total = read + present + skipped, total, read FROM strata_lfc_prewarm_progress",
    )?;
    ensure!(progress == format!("t|t|{listed}|{read}"), "progress: {progress}");
    server.scan_asks_for_nothing(pages)?;
    server.whole.amcheck(&server.compute)?;
    late_computes_are_refused(&server, Term(old_term))
}

/// The compute that was lost was only away: what it puts now is refused, and the list stays.
fn late_computes_are_refused(server: &CachedServer, term: Term) -> Result<()> {
    let shown = |name: &str| server.sql(&format!("SHOW strata.{name}"));
    let timeline =
        TenantTimelineId { tenant: shown("tenant_id")?.parse()?, timeline: shown("timeline_id")?.parse()? };
    let writer = Some(Writer { term, start_lsn: Lsn::INVALID });
    let late = ClientConfig { address: shown("pageserver")?, timeline, writer };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let before = std::fs::read(list_file(server)?)?;
    let put = runtime.block_on(objects::put(&late, ObjectName::LfcState, "late".into()));
    let refused = put.err().context("an old term's list was taken")?.to_string();
    ensure!(refused.starts_with(&format!("term {term} of this compute is over")), "{refused}");
    ensure!(std::fs::read(list_file(server)?)? == before, "the list has changed");
    Ok(())
}

#[test]
fn the_list_is_put_by_itself_and_a_new_server_spares_it() -> Result<()> {
    let mut server = CachedServer::with(&[QUIET, NEVER])?;
    let pages = pages(&server)?;
    let list = list_file(&server)?;
    ensure!(!list.exists(), "a list was put that nobody asked for");
    server.whole.strata(&["compute", "set", "a", OFTEN])?;
    wait_until("the list has the table's pages", || {
        let bytes = list.metadata().map_or(0, |file| file.len());
        Ok(bytes > pages.unsigned_abs() * 32 * 9 / 10)
    })?;
    server.whole.lose_compute(&server.compute)?;
    server.start_again(&[QUIET, OFTEN])?;
    // Its cache changes.
    server.number("SELECT count(*) FROM pg_class")?;
    wait_until("the new server finds the longer list", || {
        Ok(server.log()?.contains("pages of a former server"))
    })?;
    let read = server.number("SELECT strata_lfc_prewarm_remote()")?;
    ensure!(read > pages * 9 / 10, "{read} pages were read of {pages}");
    server.scan_asks_for_nothing(pages)
}

#[test]
fn branches_damage_and_an_absent_pageserver() -> Result<()> {
    let server = CachedServer::with(&[QUIET, NEVER])?;
    let pages = pages(&server)?;
    server.whole.strata(&["branch", "create", "dev"])?;
    let settings = [QUIET, NEVER, "strata.lfc_max_size=64MB", "shared_buffers=1MB"];
    let other = server.whole.start_compute("b", &[vec!["--branch", "dev"], sets(settings)].concat())?;
    let mut branch = PsqlSession::open(&server.whole, &other)?;
    let said = branch.run("SELECT strata_lfc_prewarm_remote()")?;
    ensure!(said.contains("has no list of hot pages of this branch, nor of one it comes from"), "{said}");
    server.number("SELECT strata_lfc_state_put()")?;
    let said = branch.run("SELECT strata_lfc_prewarm_remote()")?;
    ensure!(said.contains("that of the one it comes from is used"), "{said}");
    let read: i64 = said.lines().last().unwrap_or_default().parse()?;
    ensure!(read > pages * 9 / 10, "{read} pages were read of {pages} on the branch");
    branch.run("SELECT strata_lfc_state_put()")?;
    let said = branch.run("SELECT strata_lfc_prewarm_remote()")?;
    ensure!(!said.contains("NOTICE"), "with a list of its own: {said}");

    let list = list_file(&server)?;
    let mut bytes = std::fs::read(&list)?;
    bytes[100] ^= 1;
    std::fs::write(&list, bytes)?;
    let mut session = PsqlSession::open(&server.whole, &server.compute)?;
    session.start("SELECT strata_lfc_prewarm_remote()")?;
    let said = session.finish()?;
    ensure!(said.contains("lfc-state is damaged: its checksum is wrong"), "{said}");
    session.run("SELECT strata_lfc_state_put()")?;
    session.run("SELECT strata_lfc_prewarm_remote()")?;

    server.whole.kill_node("pageservers", 1)?;
    for call in ["strata_lfc_state_put()", "strata_lfc_prewarm_remote()"] {
        session.start(&format!("SELECT {call}"))?;
        let said = session.finish()?;
        ensure!(said.contains("ERROR:") && said.contains("cannot reach the pageserver"), "{call}: {said}");
    }
    server.whole.strata(&["pageserver", "start", "1"])?;
    session.run("SELECT strata_lfc_state_put()")?;
    session.run("SELECT strata_lfc_prewarm_remote()")?;
    server.scan()
}
