//! The local file cache: what it answers need not be asked for again, it follows its limit while the server runs, and whatever happens to
//! its file, queries are right. Every page is compared with a local copy (`strata.compare_local`).

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use strata_regress::cached::{BLOCK, CachedServer, ROWS};
use strata_regress::mounts::{Mount, can_mount};
use strata_regress::whole::{CACHE_SIZE_VARIABLE, Compute, Whole, wait_until};

#[test]
fn what_the_cache_has_is_not_asked_for_again() -> Result<()> {
    let server = CachedServer::with(&[])?;
    let pages = server.number("SELECT pg_relation_size('t') / 8192")?;
    let (asked, hits) = (server.asked()?, server.stat("hits")?);
    for _ in 0..3 {
        server.scan()?;
    }
    let (asked, hits) = (server.asked()? - asked, server.stat("hits")? - hits);
    ensure!(asked * 20 < pages, "three scans of {pages} cached pages asked for {asked}");
    ensure!(hits > pages * 2, "three scans of {pages} pages hit {hits} times");
    // What changes, shrinks, goes and comes again is read as it is, not as it was.
    server.sql("DELETE FROM t WHERE n > 15000")?;
    server.sql("VACUUM t")?;
    server.sql("INSERT INTO t SELECT n, repeat('y', 900) FROM generate_series(15001, 20000) n")?;
    server.scan()?;
    server.sql(
        "CREATE TABLE u AS TABLE t; TRUNCATE t; INSERT INTO t SELECT * FROM u ORDER BY n DESC; DROP TABLE u",
    )?;
    server.scan()?;
    server.sql("UPDATE t SET filler = repeat('z', 900)")?;
    server.sql("VACUUM FULL t")?;
    server.scan()?;
    ensure!(server.sql("SELECT state FROM strata_lfc_stats")? == "on", "the cache went off");
    let listed = server.number("SELECT count(*) FROM strata_lfc_pages()")?;
    let used = server.stat("used_pages")?;
    // The server's own processes read and change pages in between.
    ensure!(listed > 0 && listed.abs_diff(used) < 64, "{listed} pages listed, {used} used");
    server.whole.lose_compute(&server.compute)?;
    let compute = server.whole.start_compute("a", &["--set", "strata.lfc_max_size=64MB"])?;
    let rows = server.whole.sql(&compute.connstr, "SELECT count(*), sum(n) FROM t")?;
    ensure!(rows == format!("{ROWS}|{}", ROWS * (ROWS + 1) / 2), "after a loss: {rows}");
    server.whole.amcheck(&compute)
}

#[test]
fn the_cache_follows_its_limit_under_load() -> Result<()> {
    let server = CachedServer::with(&[])?;
    let on_disk = || Ok::<u64, anyhow::Error>(std::fs::metadata(server.file())?.blocks() * 512);
    let full = on_disk()?;
    ensure!(full > 10 << 20, "the file holds {full} bytes after a scan of 20 MB");
    for (limit, pages) in [("8MB", 1024), ("0", 0), ("32MB", 4096), ("1MB", 128)] {
        server.set_limit(limit)?;
        std::thread::scope(|scope| {
            let load = scope.spawn(|| server.scan());
            server.wait_limit(pages)?;
            load.join().map_err(|_| anyhow::anyhow!("the load's thread panicked"))?
        })?;
        server.scan()?;
        // Blocks of the file system are as large as pages, or smaller.
        let bytes = on_disk()?;
        ensure!(bytes <= (pages as u64 + 64) * BLOCK, "with a limit of {limit} the file holds {bytes} bytes");
    }
    server.set_limit("-1")?;
    wait_until("the cache is as large as it may be", || Ok(server.stat("limit_pages")? == 8192))?;
    server.scan()
}

/// However many pages or sessions meet it, one line in the log tells of a fault.
fn is_logged_once(server: &CachedServer, text: &str) -> Result<()> {
    let log = server.log()?;
    ensure!(log.matches(text).count() == 1, "not one line '{text}' in the log:\n{log}");
    Ok(())
}

/// C1, PS-5: pages that somebody wrote over come from the pageserver again; a file that is cut ends the cache, not the query.
#[test]
fn a_damaged_file_fails_no_query() -> Result<()> {
    let server = CachedServer::with(&[])?;
    let file = OpenOptions::new().write(true).open(server.file())?;
    let length = file.metadata()?.len();
    for page in (0..length / BLOCK).step_by(3) {
        file.write_all_at(&[0x5a; 100], page * BLOCK + 4000)?;
    }
    server.scan()?;
    ensure!(server.stat("damaged")? > 100, "damage was not noticed");
    is_logged_once(&server, "is damaged in the local file cache")?;
    ensure!(
        server.sql("SELECT state FROM strata_lfc_stats")? == "on",
        "one damaged page is no reason to go without"
    );
    file.set_len(length / 2)?;
    server.scan()?;
    ensure!(server.sql("SELECT state FROM strata_lfc_stats")? == "failed", "a cut file was not noticed");
    server.scan()?;
    is_logged_once(&server, "is damaged in the local file cache")?;
    is_logged_once(&server, "local file cache is off")
}

#[test]
fn a_full_disk_fails_no_query() -> Result<()> {
    if !can_mount("a_full_disk_fails_no_query") {
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("strata-lfc-").tempdir()?;
    let place = folder.path().join("disk");
    std::fs::create_dir(&place)?;
    let _disk = Mount::small_disk(&place, 4)?;
    for path in [folder.path(), &place] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    }
    let server = CachedServer::with(&[&format!("strata.lfc_path={}", place.join("cache").display())])?;
    server.scan()?;
    ensure!(server.sql("SELECT state FROM strata_lfc_stats")? == "failed", "a full disk was not noticed");
    server.scan()?;
    is_logged_once(&server, "local file cache is off")
}

/// Pages just written raise those that share a cell with them, which are then read anew: by chance, as many as the setting promises.
/// Here as many are written as the cache has, which shows ten times what a tenth would. How many cells there are by default:
/// `it_is_there_by_default`.
#[test]
fn what_is_written_costs_the_cache_little() -> Result<()> {
    let read_anew = |cells: u32| -> Result<i64> {
        let server = CachedServer::with(&[&format!("strata.last_written_cells={cells}")])?;
        // Not from `t`: its pages that are read after one was written are as new as that.
        let rows = "SELECT n, repeat('y', 900) AS filler FROM generate_series(1, 20000) n";
        server.sql(&format!("CREATE TABLE other AS {rows}; CHECKPOINT"))?;
        // Of those that the cache is asked for: some are in shared buffers.
        let (hits, misses) = (server.stat("hits")?, server.stat("misses")?);
        server.scan()?;
        let (hits, misses) = (server.stat("hits")? - hits, server.stat("misses")? - misses);
        ensure!(hits + misses > 1000, "only {hits} and {misses} pages were asked for");
        Ok(misses * 100 / (hits + misses))
    };
    // The table has 2,500 pages. Of eight cells for each, an eighth is raised (11.8 %); were half of them not pages', 22 %.
    let (eight, few) = (read_anew(20_000)?, read_anew(1024)?);
    ensure!((8..=17).contains(&eight), "{eight} % of the cached pages were read anew");
    ensure!(few > 80, "with 1024 cells for 2500 pages only {few} % were read anew");
    Ok(())
}

/// Whoever reads or writes the file is seen to do so.
#[test]
fn waits_for_the_file_are_seen() -> Result<()> {
    let server = CachedServer::with(&[])?;
    let named = server.number(
        "SELECT count(*) FROM pg_wait_events WHERE type = 'Extension' AND name LIKE 'StrataFileCache%'",
    )?;
    ensure!(named == 3, "{named} waits for the file have names");
    // Each wait is short: many looks, until one meets it.
    let see = |event: &str| {
        server.sql(&format!(
            "DO $$ BEGIN
               FOR look IN 1..300000 LOOP
                 PERFORM 1 FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND wait_event = '{event}';
                 IF FOUND THEN RETURN; END IF;
                 PERFORM pg_stat_clear_snapshot();
               END LOOP;
               RAISE 'nobody was seen to wait for {event}';
             END $$"
        ))
    };
    let seen = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| -> Result<()> {
            while !seen.load(Ordering::Acquire) {
                server.sql("UPDATE t SET n = n WHERE n % 10 = 0")?;
                server.scan()?;
            }
            Ok(())
        });
        let looks = see("StrataFileCacheRead").and_then(|_| see("StrataFileCacheWrite"));
        seen.store(true, Ordering::Release);
        load.join().map_err(|_| anyhow::anyhow!("the load's thread panicked"))??;
        looks.map(drop)
    })
}

/// Nobody asks for the cache; its size is a share of the disk, or what the environment says, unless a size is given.
#[test]
fn it_is_there_by_default() -> Result<()> {
    let whole = Whole::started()?;
    let start = |arguments: &[&str]| -> Result<String> {
        let mut command = whole.command(&[&["compute", "start", "a", "--json"], arguments].concat());
        let output = command.env_remove(CACHE_SIZE_VARIABLE).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let compute = Compute::from_json(&serde_json::from_slice(&output.stdout)?)?;
        let shown = whole.sql(
            &compute.connstr,
            "SELECT string_agg(setting, ' ' ORDER BY name DESC) FROM pg_settings
             WHERE name IN ('strata.lfc_max_size', 'strata.last_written_cells')",
        )?;
        whole.stop_compute("a")?;
        Ok(shown)
    };
    let by_default = start(&[])?;
    let (mib, cells) = by_default.split_once(' ').context("two settings")?;
    let mib: u64 = mib.parse()?;
    ensure!((16..=2048).contains(&mib), "by default the cache may have {mib} MiB");
    // Eight cells for each page that the cache can hold.
    let expected = (mib * 128 * 8).max(131_072).to_string();
    ensure!(cells == expected, "{mib} MiB and {cells} cells, not {expected}");
    let large = start(&["--set", "strata.lfc_max_size=1GB"])?;
    ensure!(large == "1024 1048576", "with 1 GB: {large}");
    let given = start(&["--set", "strata.lfc_max_size=32MB", "--set", "strata.last_written_cells=2048"])?;
    ensure!(given == "32 2048", "what was given does not count: {given}");
    let mut whole = whole;
    whole.set_environment(CACHE_SIZE_VARIABLE, "64MB");
    let compute = whole.start_compute("b", &[])?;
    let stats = whole
        .sql(&compute.connstr, "CREATE EXTENSION strata; SELECT state, max_pages FROM strata_lfc_stats")?;
    ensure!(stats == "on|8192", "with 64 MB in the environment: {stats}");
    Ok(())
}
