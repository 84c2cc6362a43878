//! L3, C7 and C9: what the local file cache must not answer with.

use anyhow::{Context, Result, ensure};
use strata_common::Guard;
use strata_regress::cached::empty_cache;
use strata_regress::session::Session;
use strata_regress::sound;
use strata_regress::traps::{Ground, OrHarm, show};
use strata_regress::whole::{Compute, wait_until};

const CACHE: [&str; 2] = ["strata.lfc_max_size=64MB", "strata.keeper_interval=1h"];

/// `cut_and_add` of `cut.c`.
fn install(ground: &Ground, compute: &Compute) -> Result<()> {
    let library = ground.library("cut")?;
    ground.sql(
        compute,
        &format!("CREATE FUNCTION cut_and_add(regclass) RETURNS bigint LANGUAGE C AS '{library}'"),
    )?;
    Ok(())
}

/// A page is written, and cached, between the record of a truncation and the drop of the buffers; then the block is added again, and
/// nothing is logged in between: it is as new as anything, and not what a reader is to find.
#[test]
fn c9_an_added_block_is_not_found_as_it_was_cut_off() -> Result<()> {
    show(Guard::AddedForgotten, |ground| {
        let compute = ground.compute(&CACHE)?;
        install(ground, &compute)?;
        ground.sql(&compute, "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n")?;
        // A written page that is all-visible is as of the moment of its writing (V7).
        ground.sql(&compute, "VACUUM (FREEZE, TRUNCATE false) t")?;
        let moved = ground.sql(&compute, "SELECT cut_and_add('t')")?;
        ensure!(moved == "0", "something logged {moved} bytes in between: the test shows nothing");
        let cached = "SELECT writes FROM strata_lfc_stats";
        ensure!(ground.sql(&compute, cached)? != "0", "no page was cached: the test shows nothing");
        ensure!(ground.sql(&compute, "SELECT evict('t')")? == "0", "not all pages have left");
        let rows = ground.sql(&compute, "SELECT count(*) FROM t").or_harm()?;
        sound!(rows == "0", "{rows} rows that were cut off are there again");
        Ok(())
    })
}

/// A session asks for a page ahead and never reads it; meanwhile another changes it. What the first one has is older than what any read needs.
#[test]
fn l3_a_page_that_changed_is_not_cached_as_it_was_asked_for() -> Result<()> {
    show(Guard::KeptAsOfAsked, |ground| {
        let compute = ground.compute(&["strata.lfc_max_size=64MB", "strata.keeper_interval=200ms"])?;
        ground.sql(
            &compute,
            "CREATE EXTENSION pg_prewarm; CREATE TABLE t AS SELECT 'old' AS v FROM generate_series(1, 10)",
        )?;
        let mut session = Session::open(&compute)?;
        let empty = |session: &mut Session| {
            ensure!(session.sql("SELECT evict('t')")? == "0", "a page stays in shared buffers");
            empty_cache(&ground.whole, &compute)
        };
        ensure!(session.sql("SELECT DISTINCT v FROM t")? == "old", "other rows");
        empty(&mut session)?;
        session.sql("BEGIN; SELECT pg_prewarm('t', 'prefetch')")?;
        let held = "SELECT unanswered, held_pages FROM strata_stat_prefetch";
        wait_until("the page is there", || Ok(ground.sql(&compute, held)? == "0|1"))?;
        let mut other = Session::open(&compute)?;
        other.sql("UPDATE t SET v = 'new'")?;
        empty(&mut other)?;
        session.sql("COMMIT")?;
        let rows = ground.sql(&compute, "SELECT string_agg(DISTINCT v, ',') FROM t").or_harm()?;
        sound!(rows == "new", "a committed update is gone: rows are '{rows}'");
        Ok(())
    })
}

/// Another compute has written to the branch since the one with the cache stopped.
#[test]
fn c7_a_kept_cache_is_not_older_than_the_branch() -> Result<()> {
    show(Guard::KeptAtTheEnd, |ground| {
        let first = ground.compute(&CACHE)?;
        ground.sql(
            &first,
            "CREATE TABLE t AS SELECT n, 0 AS v, repeat('x', 200) AS filler FROM generate_series(1, 5000) n",
        )?;
        ground.sql(&first, "VACUUM (FREEZE) t")?;
        ground.sql(&first, "SELECT evict('t')")?;
        ground.sql(&first, "SELECT sum(v) FROM t")?;
        ground.whole.stop_compute(&first.name)?.context("a clean stop")?;
        let other = ground.bare_compute("b", &CACHE)?;
        ground.sql(&other, "UPDATE t SET v = 1")?;
        ground.whole.stop_compute(&other.name)?.context("a clean stop")?;
        let again = ground.bare_compute(&first.name, &CACHE)?;
        let seen = ground.sql(&again, "SELECT count(*), sum(v) FROM t").or_harm()?;
        sound!(seen == "5000|5000", "what another compute wrote is not there: {seen}");
        Ok(())
    })
}
