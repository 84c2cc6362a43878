//! C7: the local file cache outlives a clean stop, and nothing else. What it answers with after a start is compared page by page with the
//! pageserver (`strata.compare_local`); on any doubt it begins empty, with one line in the log.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use strata_regress::cached::{BLOCK, CachedServer};
use strata_regress::whole::wait_until;

const QUIET: &str = "strata.compare_local=off";

/// How often the log says that the cache begins so.
fn begins(server: &CachedServer, how: &str) -> Result<usize> {
    Ok(server.log()?.matches(&format!("the local file cache begins {how}")).count())
}

#[test]
fn a_clean_stop_keeps_the_cache() -> Result<()> {
    let mut server = CachedServer::with(&[])?;
    server.sql(
        "CREATE SEQUENCE s; SELECT nextval('s'), nextval('s'); CREATE UNLOGGED TABLE u AS SELECT 1 AS n",
    )?;
    let pages = server.number("SELECT pg_relation_size('t') / 8192")?;
    server.restart(&[QUIET])?;
    ensure!(begins(&server, "with ")? == 1, "the log does not say that pages were kept:\n{}", server.log()?);
    ensure!(
        server.stat("used_pages")? > pages * 9 / 10,
        "{} pages were kept of {pages}",
        server.stat("used_pages")?
    );
    let (asked, hits) = (server.asked()?, server.stat("hits")?);
    server.scan()?;
    let (asked, hits) = (server.asked()? - asked, server.stat("hits")? - hits);
    ensure!(
        asked * 20 < pages && hits > pages * 9 / 10,
        "a scan of {pages} pages asked for {asked} and hit {hits} times"
    );
    ensure!(server.number("SELECT nextval('s')")? == 3, "the sequence went back, or on");
    ensure!(server.number("SELECT count(*) FROM u")? == 0, "an unlogged table survived a stop");
    // The same with every kept page beside what the pageserver has.
    server.restart(&[])?;
    server.scan()?;
    server.whole.amcheck(&server.compute)?;
    ensure!(
        server.stat("hits")? > pages && server.stat("damaged")? == 0,
        "nothing was kept, or it is damaged"
    );
    ensure!(server.number("SELECT nextval('s')")? == 4, "the sequence went back, or on");
    Ok(())
}

/// V8: the log of a database that was copied lacks bits that its map pages have in shared buffers.
#[test]
fn maps_are_kept_as_the_pageserver_has_them() -> Result<()> {
    let mut server = CachedServer::with(&[])?;
    let bits = "SELECT count(*) FROM pg_class c, pg_visibility_map(c.oid) m WHERE relkind IN ('r', 't', 'm') AND all_visible";
    server.sql("CREATE EXTENSION pg_visibility")?;
    ensure!(server.number(bits)? > 100, "what is copied has no map bits: this shows nothing");
    server.sql("CREATE DATABASE copied TEMPLATE template0 STRATEGY wal_log")?;
    server.whole.sql(&server.compute.in_database("copied")?, "CREATE EXTENSION pg_visibility")?;
    let copied = |server: &CachedServer| server.whole.sql(&server.compute.in_database("copied")?, bits);
    copied(&server)?;
    // Its buffers are few: all map pages leave them.
    server.scan()?;
    server.restart(&[])?;
    let first = copied(&server)?;
    server.scan()?;
    ensure!(copied(&server)? == first, "map bits came or went without a change");
    Ok(())
}

/// Loads of all kinds, stops in between: whatever is kept is what the pageserver has.
#[test]
fn what_is_kept_is_the_newest() -> Result<()> {
    let mut server = CachedServer::with(&[])?;
    let port = server.compute.port.to_string();
    let place = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
    server.whole.run("pgbench", &[&place[..], &["-i", "-q", "-s", "1", "postgres"]].concat())?;
    for round in 0..3 {
        server.whole.run("pgbench", &[&place[..], &["-c", "4", "-t", "100", "-n", "postgres"]].concat())?;
        server.sql(&format!(
            "DELETE FROM t WHERE n % 7 = {round}; UPDATE t SET filler = repeat('{round}', 800) WHERE n % 5 = 0;
             CREATE TABLE t{round} AS TABLE t; CREATE INDEX ON t{round} USING gin (string_to_array(filler, 'x'));
             DELETE FROM t{round} WHERE n > 3000"
        ))?;
        server.sql("VACUUM")?;
        server.sql(&format!("TRUNCATE pgbench_history; INSERT INTO t SELECT n, 'again' FROM generate_series(1, 1000 + {round}) n"))?;
        let before = server.sql("SELECT count(*), sum(n), sum(length(filler)) FROM t")?;
        server.restart(&[])?;
        ensure!(begins(&server, "with ")? == round + 1, "nothing was kept:\n{}", server.log()?);
        ensure!(
            server.sql("SELECT count(*), sum(n), sum(length(filler)) FROM t")? == before,
            "not as before"
        );
        server.whole.amcheck(&server.compute)?;
        ensure!(server.stat("hits")? > 100, "the kept pages answered nothing");
    }
    Ok(())
}

#[test]
fn a_loss_keeps_nothing() -> Result<()> {
    let mut server = CachedServer::with(&[])?;
    server.sql("UPDATE t SET filler = filler")?;
    let former = File::open(server.file())?;
    server.kill()?;
    server.start_again(&[])?;
    // Not by the start, which would wait for a large one, and not at once.
    wait_until("the former file is taken apart", || Ok(former.metadata()?.len() == 0))?;
    ensure!(begins(&server, "empty: its server did not stop cleanly")? == 1, "the log:\n{}", server.log()?);
    server.scan()?;
    // Kept once, then lost: what was kept is not believed again.
    server.restart(&[])?;
    ensure!(begins(&server, "with ")? == 1, "the log:\n{}", server.log()?);
    server.sql("UPDATE t SET filler = filler")?;
    server.kill()?;
    server.start_again(&[])?;
    ensure!(begins(&server, "with ")? == 1, "the log:\n{}", server.log()?);
    let folder = server.file().with_file_name("");
    wait_until("the pages that nothing is proven of are removed", || {
        let mut names = std::fs::read_dir(&folder)?.flatten().map(|entry| entry.file_name());
        Ok(!names.any(|name| name.to_string_lossy().contains(".gone-")))
    })?;
    server.scan()
}

/// Another compute takes over, on another folder as on another machine; the first one comes back.
#[test]
fn a_takeover_ends_what_was_kept() -> Result<()> {
    let mut server = CachedServer::with(&[])?;
    let other = server.whole.start_compute("b", &["--takeover", "--set", "strata.compare_local=on"])?;
    server.whole.sql(&other.connstr, "UPDATE t SET filler = repeat('y', 900)")?;
    server.whole.stop_compute("b")?.context("a clean stop")?;
    server.start_again(&[])?;
    ensure!(begins(&server, "empty: its server did not stop cleanly")? == 1, "the log:\n{}", server.log()?);
    server.scan()?;
    ensure!(
        server.number("SELECT count(*) FROM t WHERE filler LIKE 'y%'")? == 20_000,
        "the other's rows are missing"
    );
    // This time it stops before the other one writes.
    server.whole.stop_compute("a")?.context("a clean stop")?;
    let other = server.whole.start_compute("b", &[])?;
    server.whole.sql(&other.connstr, "UPDATE t SET filler = repeat('z', 900)")?;
    server.whole.stop_compute("b")?.context("a clean stop")?;
    server.start_again(&[])?;
    ensure!(begins(&server, "empty: its log ended at ")? == 1, "the log:\n{}", server.log()?);
    ensure!(
        server.number("SELECT count(*) FROM t WHERE filler LIKE 'z%'")? == 20_000,
        "the other's rows are missing"
    );
    server.scan()
}

#[test]
fn another_branch_begins_empty() -> Result<()> {
    let server = CachedServer::with(&[])?;
    server.whole.stop_compute("a")?.context("a clean stop")?;
    server.whole.strata(&["branch", "create", "dev"])?;
    let compute = server.whole.start_compute("a", &["--branch", "dev"])?;
    ensure!(begins(&server, "empty: it is another branch's")? == 1, "the log:\n{}", server.log()?);
    let rows = server.whole.sql(&compute.connstr, "SELECT count(*) FROM t")?;
    ensure!(rows == "20000", "{rows} rows");
    Ok(())
}

/// A kept cache with something done to its folder, and how the next one begins. Queries are right whatever it is.
fn after(
    mut server: CachedServer,
    harm: impl Fn(&Path, &Path) -> Result<()>,
    begins_so: &str,
) -> Result<CachedServer> {
    server.whole.stop_compute("a")?.context("a clean stop")?;
    let pages = server.file();
    let index = PathBuf::from(format!("{}.index", pages.display()));
    harm(&pages, &index)?;
    let before = begins(&server, begins_so)?;
    server.start_again(&[])?;
    ensure!(begins(&server, begins_so)? == before + 1, "not '{begins_so}':\n{}", server.log()?);
    server.scan()?;
    Ok(server)
}

#[test]
fn damage_is_noticed_and_harms_no_query() -> Result<()> {
    let server = CachedServer::with(&[])?;
    let cut = |path: &Path, part: u64| -> Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        Ok(file.set_len(file.metadata()?.len() / part)?)
    };
    let flip = |path: &Path, at: u64| -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        Ok(file.write_all_at(&[byte[0] ^ 1], at)?)
    };
    let server =
        after(server, |_, index| flip(index, 100), "empty: of its former life, the index is damaged")?;
    let server = after(
        server,
        |_, index| cut(index, 2),
        "empty: of its former life, the index is damaged: it is cut off",
    )?;
    let server = after(
        server,
        |_, index| Ok(std::fs::write(index, b"x")?),
        "empty: of its former life, the index is damaged",
    )?;
    let server = after(
        server,
        |_, index| Ok(std::fs::remove_file(index)?),
        "empty: of its former life, it left no index",
    )?;
    let server = after(
        server,
        |pages, _| Ok(std::fs::write(pages.with_file_name("sealed.json"), "{")?),
        "empty: its seal is damaged",
    )?;
    // Half of the pages are there still.
    let server = after(server, |pages, _| cut(pages, 2), "with ")?;
    ensure!(server.sql("SELECT state FROM strata_lfc_stats")? == "on", "a cut file ended the cache");
    let spoil = |pages: &Path, _: &Path| -> Result<()> {
        let count = std::fs::metadata(pages)?.len() / BLOCK;
        (0..count).step_by(3).try_for_each(|page| flip(pages, page * BLOCK + 5000))
    };
    let server = after(server, spoil, "with ")?;
    ensure!(server.stat("damaged")? > 100, "damage was not noticed");
    Ok(())
}

/// The size may be another one: what has its place still is kept.
#[test]
fn a_cache_of_another_size_is_kept() -> Result<()> {
    let mut server = CachedServer::with(&[])?;
    for (size, pages, least) in [("128MB", 16384, 2000), ("8MB", 1024, 500), ("64MB", 8192, 500)] {
        server.restart(&[&format!("strata.lfc_max_size={size}")])?;
        let (limit, used) = (server.stat("limit_pages")?, server.stat("used_pages")?);
        ensure!(limit == pages && used <= limit && used > least, "with {size}: {used} pages of {limit}");
        let most = u64::try_from(pages)? * BLOCK;
        wait_until("the file is no longer than it may be", || {
            Ok(std::fs::metadata(server.file())?.len() <= most)
        })?;
        server.scan()?;
        ensure!(server.stat("damaged")? == 0, "with {size}: the file was cut too short");
    }
    server.restart(&["strata.lfc_max_size=0"])?;
    server.scan()?;
    server.restart(&[])?;
    server.scan()
}
