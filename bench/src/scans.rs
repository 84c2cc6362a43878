//! I4, I5: what prefetch is worth when the pageserver is far away (every answer comes 2 ms later), beside the same server with prefetch
//! switched off; I5 of an index scan whose rows are all over the table. B5: a sequential scan of a table ten times as large as shared buffers, all of it from the pageserver, beside vanilla
//! reading it from the operating system's page cache.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use strata_regress::evict::EVICT;
use strata_regress::postgres::{Cluster, Installation};
use strata_regress::session::Session;
use strata_regress::slow_pages::SlowPages;
use strata_regress::whole::{self, Compute, Whole};

use crate::report::{Pair, Row, load_average, progress};
use crate::{Size, interrupt};

const DELAY: Duration = Duration::from_millis(2);
const PAGE_MEGABYTES: f64 = 8192.0 / 1e6;
/// For both sides: one process scans, nothing else runs.
const SETTINGS: [(&str, &str); 5] = [
    ("shared_buffers", "16MB"),
    ("max_parallel_workers_per_gather", "0"),
    ("autovacuum", "off"),
    ("checkpoint_timeout", "1h"),
    ("max_wal_size", "8GB"),
];
/// Ours only: pages come from the pageserver, not from a cache of our own.
const REMOTE_ONLY: &str = "strata.lfc_max_size=0";

const SCAN: &str = "SELECT count(filler) FROM t";
/// Every twelfth page or so, by an index.
const BITMAP: &str = "SELECT count(filler) FROM t WHERE n % 100 = 0";

/// Rows all over the table, by the index `t_k`.
const INDEX: &str = "SELECT count(filler) FROM t WHERE n::bigint * 7919 % 1000003 BETWEEN 1 AND 17000";
const INDEX_ROWS: &str = "SELECT count(DISTINCT (ctid::text::point)[0]) FROM t WHERE n::bigint * 7919 % 1000003 BETWEEN 1 AND 17000";

/// A table of about so many megabytes, its index on every hundredth row.
fn fill(session: &mut Session, megabytes: u32) -> Result<f64> {
    let rows = megabytes * 1050;
    session.sql(EVICT)?;
    session.sql(&format!(
        "CREATE TABLE t AS SELECT n, repeat('x', 900) AS filler FROM generate_series(1, {rows}) n"
    ))?;
    session.sql("CREATE INDEX t_n ON t(n) WHERE n % 100 = 0")?;
    session.sql("VACUUM (FREEZE, ANALYZE) t")?;
    session.sql("CHECKPOINT")?;
    pages(session, "SELECT pg_relation_size('t') / 8192")
}

fn pages(session: &mut Session, sql: &str) -> Result<f64> {
    Ok(session.sql(sql)?.parse()?)
}

/// Seconds of a statement that finds no page of the table in shared buffers.
fn seconds(session: &mut Session, sql: &str) -> Result<f64> {
    interrupt::check()?;
    session.sql("SELECT evict('t')")?;
    let begin = Instant::now();
    session.sql(sql)?;
    Ok(begin.elapsed().as_secs_f64())
}

fn compute(whole: &Whole) -> Result<Compute> {
    let sets: Vec<String> = SETTINGS.map(|(name, value)| format!("{name}={value}")).to_vec();
    let sets = sets.iter().map(String::as_str).chain([REMOTE_ONLY]);
    whole.start_compute("bench", &whole::sets(sets))
}

fn counters(session: &mut Session) -> Result<Value> {
    let text = session.sql("SELECT row_to_json(s) FROM strata_stat_prefetch s")?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

/// Prefetch on and off on the same server, round by round.
pub fn far(size: Size) -> Result<Vec<Row>> {
    let whole = Whole::started()?;
    let slow = SlowPages::before(&whole)?;
    let compute = compute(&whole)?;
    let mut session = Session::open(&compute)?;
    session.sql("CREATE EXTENSION strata")?;
    let all = fill(&mut session, size.scan_megabytes)?;
    let some = pages(&mut session, "SELECT count(DISTINCT (ctid::text::point)[0]) FROM t WHERE n % 100 = 0")?;
    session.sql("CREATE INDEX t_k ON t((n::bigint * 7919 % 1000003))")?;
    session.sql("ANALYZE t")?;
    let scattered = pages(&mut session, INDEX_ROWS)?;
    slow.delay(DELAY);
    let mut rows = Vec::new();
    let (max, index_scans) = ("strata.prefetch_max", "strata.prefetch_index_scans");
    for (id, what, before, sql, pages, setting) in [
        ("I4-seq-2ms", "sequential scan", "", SCAN, all, max),
        (
            "I4-bitmap-2ms",
            "bitmap heap scan",
            "SET enable_seqscan = off; SET enable_indexscan = off",
            BITMAP,
            some,
            max,
        ),
        (
            "I5-index-2ms",
            "index scan in another order than the table's",
            "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_indexscan = on",
            INDEX,
            scattered,
            index_scans,
        ),
    ] {
        session.sql(before)?;
        let megabytes = pages * PAGE_MEGABYTES;
        let (load, mut pairs) = (load_average(), Vec::new());
        for _ in 0..size.rounds {
            session.sql(&format!("RESET {setting}"))?;
            let with = seconds(&mut session, sql)?;
            session.sql(&format!("SET {setting} = 0"))?;
            let without = seconds(&mut session, sql)?;
            progress(&format!("{id}: {with:.2} s with prefetch, {without:.2} s without"));
            pairs.push(Pair { ours: megabytes / with, peer: megabytes / without });
        }
        session.sql(&format!("RESET {setting}"))?;
        let details =
            json!({ "pages": pages, "counters": counters(&mut session)?, "load_average_before": load });
        let name = format!("{what} of {pages:.0} remote pages, answers 2 ms late");
        let mut note = format!("peer: the same server with {setting} = 0");
        if setting == max {
            note.push_str(", which still reads 16 pages of a sequence at once");
        }
        rows.push(Row::compared(id, name, "MB/s", &pairs).note(&note).details(details));
    }
    Ok(rows)
}

/// All remote beside all in the page cache.
pub fn near(vanilla: &Path, size: Size) -> Result<Vec<Row>> {
    let mut cluster = Cluster::init(&Installation::at(vanilla.join("bin"))?, &[])?;
    cluster.start(&SETTINGS)?;
    let place = format!("host={} user=postgres dbname=postgres", cluster.home().display());
    let mut peer = Session::open_at(&place)?;
    let whole = Whole::started()?;
    let compute = compute(&whole)?;
    let mut ours = Session::open(&compute)?;
    let mut all = 0.0;
    for session in [&mut peer, &mut ours] {
        all = fill(session, size.scan_megabytes)?;
        seconds(session, SCAN)?;
    }
    let megabytes = all * PAGE_MEGABYTES;
    let (load, mut pairs) = (load_average(), Vec::new());
    for _ in 0..size.rounds {
        let remote = seconds(&mut ours, SCAN)?;
        let local = seconds(&mut peer, SCAN)?;
        progress(&format!("B5: {remote:.2} s from the pageserver, {local:.2} s from the page cache"));
        pairs.push(Pair { ours: megabytes / remote, peer: megabytes / local });
    }
    let name = format!("sequential scan, {megabytes:.0} MB, shared buffers 16 MB, all remote");
    let details = json!({ "pages": all, "load_average_before": load });
    let note = "peer: vanilla from the operating system's page cache";
    Ok(vec![Row::compared("B5", name, "MB/s", &pairs).note(note).details(details)])
}
