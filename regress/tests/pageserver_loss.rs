//! The pageserver dies under load, and loses its disk: queries wait and go on, and what the object store has is all it needs
//! (PS-4, LV-1).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use strata_regress::tpcb::{self, Load};
use strata_regress::whole::{Compute, Whole, wait_until};

const SMALL: [&str; 2] = ["--set", "shared_buffers=1MB"];

#[test]
fn killed_under_load_queries_wait_and_go_on() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &SMALL)?;
    tpcb::fill(&whole, &compute, 2)?;
    let mut load = Load::start(&whole, &compute, 2, 4, 40, 1)?;
    let committed =
        || anyhow::Ok(whole.sql(&compute.connstr, "SELECT count(*) FROM pgbench_history")?.parse::<u64>()?);
    for _ in 0..2 {
        let before = committed()?;
        wait_until("the load goes on", || Ok(committed()? > before + 100))?;
        whole.kill_node("pageservers", 1)?;
        std::thread::sleep(Duration::from_secs(1));
        ensure!(load.is_running()?, "the load ended while the pageserver was away");
        whole.strata(&["pageserver", "start", "1"])?;
    }
    let (acknowledged, unharmed) = load.finish()?;
    ensure!(unharmed, "a client saw an error");
    tpcb::check(&whole, &compute, &[acknowledged])?;
    whole.amcheck(&compute)
}

#[test]
fn wiped_it_comes_back_from_the_object_store() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &SMALL)?;
    tpcb::fill(&whole, &compute, 5)?;
    for sql in [
        "CREATE INDEX ON pgbench_accounts(abalance)",
        "DELETE FROM pgbench_accounts WHERE aid % 7 = 0",
        "VACUUM",
    ] {
        whole.sql(&compute.connstr, sql)?;
    }
    let before = dump(&whole, &compute)?;
    whole.kill_node("pageservers", 1)?;
    let dir = whole.node("pageservers", 1)?["dir"].as_str().context("dir")?.to_owned();
    std::fs::remove_dir_all(&dir)?;
    whole.strata(&["pageserver", "start", "1"])?;
    wait_until("the pageserver answers again", || {
        Ok(whole.sql(&compute.connstr, "SELECT count(*) FROM pgbench_branches").is_ok())
    })?;
    let after = dump(&whole, &compute)?;
    ensure!(before == after, "the dump differs after the pageserver lost its disk");
    whole.amcheck(&compute)
}

/// What pg_dump says, without the random word that fences its meta-commands.
fn dump(whole: &Whole, compute: &Compute) -> Result<String> {
    let text = whole.run("pg_dump", &["--no-sync", &compute.connstr])?;
    let kept =
        text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    Ok(kept.collect::<Vec<_>>().join("\n"))
}
