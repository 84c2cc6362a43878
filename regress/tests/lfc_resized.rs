//! C4: the local file cache gets another size every second under load. No query fails, every page is compared with a local copy, the disk
//! gets its room back, and what is hot stays when the cache becomes smaller. Ten minutes in full size.

use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use strata_regress::cached::{BLOCK, CachedServer, while_resized};
use strata_regress::size;

#[test]
fn the_cache_is_resized_under_load() -> Result<()> {
    let (seconds, times_min) = if size::is_full() { ("600", 100) } else { ("10", 2) };
    let server = CachedServer::with(&[])?;
    let port = server.compute.port.to_string();
    let place = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
    let pgbench = |more: &[&str]| server.whole.run("pgbench", &[&place[..], more, &["postgres"]].concat());
    pgbench(&["-i", "-q", "-s", "5"])?;
    let work = || {
        let said = pgbench(&["-c", "4", "-n", "-T", seconds])?;
        ensure!(said.contains("number of failed transactions: 0 "), "{said}");
        server.scan()
    };
    let ((), times) = while_resized(&server.whole, &server.compute, 64, work)?;
    ensure!(times >= times_min, "the cache was resized {times} times");
    let sums =
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)
                AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history)";
    ensure!(server.sql(sums)? == "t", "the balances do not agree");
    ensure!(
        server.sql("SELECT state IN ('on', 'off'), damaged FROM strata_lfc_stats")? == "t|0",
        "the cache is not well"
    );
    for (limit, pages) in [("4MB", 512), ("0", 0)] {
        server.set_limit(limit)?;
        server.wait_limit(pages)?;
        let bytes = std::fs::metadata(server.file())?.blocks() * 512;
        ensure!(bytes <= (pages as u64 + 64) * BLOCK, "with a limit of {limit} the file holds {bytes} bytes");
    }
    server.whole.amcheck(&server.compute)
}

/// The hot part of the table is a quarter of it, and fits into what is left.
#[test]
fn what_is_hot_outlives_a_shrink() -> Result<()> {
    let server = CachedServer::with(&[])?;
    let hot = || {
        server.sql("SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(length(filler)) FROM t WHERE n <= 4000")
    };
    for _ in 0..4 {
        hot()?;
    }
    server.scan()?;
    server.set_limit("8MB")?;
    server.wait_limit(1024)?;
    let (hits, misses) = (server.stat("hits")?, server.stat("misses")?);
    hot()?;
    let (hits, misses) = (server.stat("hits")? - hits, server.stat("misses")? - misses);
    ensure!(
        hits > 300 && misses * 10 < hits,
        "after the shrink {hits} hits and {misses} misses of hot pages"
    );
    server.scan()
}
