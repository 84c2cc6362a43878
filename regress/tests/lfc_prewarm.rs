//! C8: prewarming reads what a cache held, before anybody asks: after a loss, on another compute, on a branch. It never makes a page leave,
//! can be cancelled, and passes over what has changed or gone since. Pages are compared with the pageserver's (`strata.compare_local`).

use anyhow::{Result, ensure};
use strata_regress::cached::{CachedServer, set_limit};
use strata_regress::whole::{sets, wait_until};

const QUIET: &str = "strata.compare_local=off";

#[test]
fn after_a_loss_the_former_pages_are_read_again() -> Result<()> {
    let mut server = CachedServer::with(&[QUIET])?;
    let pages = server.number("SELECT pg_relation_size('t') / 8192")?;
    let index = server.file().with_file_name("pages.index");
    let begun = server.number("SELECT rounds FROM strata_keeper()")?;
    wait_until("the keeper has listed the pages", || {
        Ok(index.exists() && server.number("SELECT rounds FROM strata_keeper()")? > begun + 12)
    })?;
    server.kill()?;
    server.start_again(&[QUIET])?;
    ensure!(server.stat("used_pages")? < pages / 2, "a loss kept the cache");
    let read = server.number("SELECT strata_lfc_prewarm()")?;
    ensure!(read > pages * 9 / 10, "{read} pages were read of {pages}");
    let progress = server
        .sql("SELECT pid IS NULL, total = read + present + skipped, read FROM strata_lfc_prewarm_progress")?;
    ensure!(progress == format!("t|t|{read}"), "progress: {progress}");
    server.scan_asks_for_nothing(pages)?;
    // Once more: all are there.
    ensure!(server.number("SELECT strata_lfc_prewarm()")? < pages / 20, "pages were read twice");
    Ok(())
}

#[test]
fn another_compute_and_a_branch_are_prewarmed_and_what_changed_is_not() -> Result<()> {
    let mut server = CachedServer::with(&[])?;
    server.sql(
        "CREATE TABLE gone AS TABLE t; CREATE TABLE cut AS TABLE t; CREATE UNLOGGED TABLE u AS TABLE t",
    )?;
    server.sql("SELECT count(*) FROM gone; SELECT count(*) FROM cut")?;
    let state = server.sql("SELECT encode(strata_lfc_state(), 'hex')")?;
    let file = server.whole.scratch().join("prewarm.sql");
    std::fs::write(&file, format!("SELECT strata_lfc_prewarm(decode('{state}', 'hex'))"))?;
    // An argument of that length is too long for a shell: psql reads it from a file.
    let prewarm = |server: &CachedServer, connstr: &str| {
        let path = file.display().to_string();
        server
            .whole
            .run("psql", &["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", connstr, "-f", &path])
    };
    server.whole.strata(&["branch", "create", "dev"])?;
    let settings = ["strata.lfc_max_size=64MB", "strata.compare_local=on", "shared_buffers=1MB"];
    let other = server.whole.start_compute("b", &[vec!["--branch", "dev"], sets(settings)].concat())?;
    let prewarm_branch = || -> Result<i64> { Ok(prewarm(&server, &other.connstr)?.trim().parse()?) };
    let read = prewarm_branch()?;
    ensure!(read > 2000, "{read} pages were read on the branch");
    server.whole.sql(
        &other.connstr,
        "DROP TABLE gone; TRUNCATE cut; INSERT INTO cut SELECT n, 'new' FROM generate_series(1, 3000) n;
         UPDATE t SET filler = repeat('b', 900) WHERE n % 2 = 0; DELETE FROM t WHERE n > 15000",
    )?;
    server.whole.sql(&other.connstr, "VACUUM t")?;
    server.whole.sql(&other.connstr, "UPDATE t SET filler = filler")?;
    // Empty again, but for what is read meanwhile.
    let used = || server.whole.sql(&other.connstr, "SELECT used_pages < 100 FROM strata_lfc_stats");
    set_limit(&server.whole, &other, "0")?;
    wait_until("the branch's cache is empty", || Ok(used()? == "t"))?;
    set_limit(&server.whole, &other, "-1")?;
    let limit = || server.whole.sql(&other.connstr, "SELECT limit_pages FROM strata_lfc_stats");
    wait_until("the branch's cache may grow", || Ok(limit()? == "8192"))?;
    let read = prewarm_branch()?;
    ensure!(read > 1000, "{read} pages were read on the branch after changes");
    let rows =
        server.whole.sql(&other.connstr, "SELECT count(*), sum(n), (SELECT count(*) FROM cut) FROM t")?;
    ensure!(rows == "15000|112507500|3000", "on the branch: {rows}");
    server.whole.amcheck(&other)?;
    ensure!(
        server.whole.sql(&other.connstr, "SELECT state, damaged FROM strata_lfc_stats")? == "on|0",
        "the cache of the branch is not well"
    );
    server.kill()?;
    server.start_again(&[])?;
    let read: i64 = prewarm(&server, &server.compute.connstr)?.trim().parse()?;
    ensure!(read > 2000, "{read} pages were read on the compute that was lost");
    server.scan()?;
    server.whole.amcheck(&server.compute)
}

#[test]
fn nothing_leaves_for_it_and_it_can_be_cancelled() -> Result<()> {
    let mut server = CachedServer::with(&[QUIET])?;
    server.sql("CREATE TABLE state AS SELECT strata_lfc_state() AS bytes")?;
    server.restart(&[QUIET, "strata.lfc_max_size=0"])?;
    ensure!(server.sql("SELECT strata_lfc_prewarm()").is_err(), "there was no cache to prewarm");
    server.restart(&[QUIET, "strata.lfc_max_size=8MB"])?;
    server.sql("SELECT count(*) FROM t WHERE n < 3000")?;
    server.sql(
        "CREATE TABLE before AS SELECT relfilenode AS r, relforknumber AS f, relblocknumber AS b FROM strata_lfc_pages()",
    )?;
    let outcome = server.sql("SET statement_timeout = '10ms'; SELECT strata_lfc_prewarm(bytes) FROM state");
    ensure!(
        outcome.as_ref().is_err_and(|error| format!("{error:#}").contains("statement timeout")),
        "it was not cancelled: {outcome:?}"
    );
    server.sql("SELECT strata_lfc_prewarm(bytes) FROM state")?;
    // Reading the list and looking at the cache read pages, too, which put out some. What the list holds would put out all.
    let lost = server.number(
        "SELECT count(*) FROM before WHERE r = pg_relation_filenode('t') AND NOT EXISTS
            (SELECT FROM strata_lfc_pages() WHERE relfilenode = r AND relforknumber = f AND relblocknumber = b)",
    )?;
    let had = server.number("SELECT count(*) FROM before WHERE r = pg_relation_filenode('t')")?;
    ensure!(had > 100 && lost * 4 < had, "{lost} of {had} pages left for prewarmed ones");
    ensure!(server.stat("used_pages")? <= 1024, "more pages than the limit");
    for bad in ["'\\x00'", "'\\x7374726c66630001'"] {
        let error = server.sql(&format!("SELECT strata_lfc_prewarm({bad})"));
        ensure!(
            error.is_err_and(|error| format!("{error:#}").contains("no state of a local file cache")),
            "{bad}"
        );
    }
    server.scan()
}
