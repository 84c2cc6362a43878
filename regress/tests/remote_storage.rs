//! Nothing of a permanent relation is ever on the compute's disk, and what Postgres says of sizes is right all the same.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use strata_regress::tpcb::{self, Load};
use strata_regress::whole::Whole;

/// Relation files (digits, with a fork's or segment's suffix) below `base` and `global`, with their sizes in bytes.
fn relation_files(pgdata: &Path) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![pgdata.join("global")];
    for entry in std::fs::read_dir(pgdata.join("base"))? {
        folders.push(entry?.path());
    }
    for folder in folders {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.bytes().next().is_some_and(|byte| byte.is_ascii_digit()) {
                found.push((entry.path().display().to_string(), entry.metadata()?.size()));
            }
        }
    }
    Ok(found)
}

#[test]
fn permanent_relations_have_no_files() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &["--set", "shared_buffers=16MB"])?;
    let scale = 20;
    tpcb::fill(&whole, &compute, scale)?;
    let files = relation_files(&compute.pgdata)?;
    ensure!(files.is_empty(), "relation files after the fill: {files:?}");

    // About 300 MB of data under 16 MB of buffers.
    let (acknowledged, unharmed) = Load::start(&whole, &compute, scale, 4, 10, 1)?.finish()?;
    ensure!(unharmed && acknowledged.total() > 0, "the load did not run");
    let files = relation_files(&compute.pgdata)?;
    ensure!(files.is_empty(), "relation files after the load: {files:?}");
    tpcb::check(&whole, &compute, &[acknowledged])?;

    sizes_are_right(&whole, &compute.connstr)
}

fn sizes_are_right(whole: &Whole, connstr: &str) -> Result<()> {
    let number = |sql: &str| -> Result<u64> { whole.sql(connstr, sql)?.parse().context("a number") };
    let accounts = number("SELECT pg_relation_size('pgbench_accounts')")?;
    // 61 rows of 100 bytes of filler and more fit on a page: pgbench's fill leaves 16,394 bytes a thousand rows or more.
    let blocks = number("SELECT max((ctid::text::point)[0]::bigint) + 1 FROM pgbench_accounts")?;
    ensure!(accounts >= blocks * 8192, "pg_relation_size says {accounts}, rows lie in {blocks} blocks");
    ensure!(
        accounts < blocks * 8192 + (8 << 20),
        "pg_relation_size says {accounts}, rows end in block {blocks}"
    );
    let total = number("SELECT pg_total_relation_size('pgbench_accounts')")?;
    let parts = number("SELECT pg_table_size('pgbench_accounts') + pg_indexes_size('pgbench_accounts')")?;
    ensure!(total == parts && total > accounts, "total {total}, parts {parts}, main fork {accounts}");
    let database = number("SELECT pg_database_size(current_database())")?;
    let sum = number(
        "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
         WHERE relkind IN ('r', 'm', 'S') AND reltablespace = 0 AND relpersistence = 'p'",
    )?;
    ensure!(database.abs_diff(sum) < database / 20, "database {database}, its relations {sum}");
    let listed = whole.sql(connstr, "\\dt+ pgbench_accounts")?;
    ensure!(listed.contains("MB"), "\\dt+ says: {listed}");
    Ok(())
}
