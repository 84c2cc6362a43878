//! A vanilla Postgres's log goes in by the wire that safekeepers use; what comes out must be what that Postgres has on disk:
//! every page (masked), sizes, SLRUs, relation maps (PS-1, G20). Again after a crash, again from the object store alone
//! (PS-4), and as a base backup that a stock Postgres starts from without recovery, at the end and at a past LSN (V2).

mod compare;
#[allow(dead_code, reason = "the comparison with a standby uses the rest")]
mod harness;
mod log_server;

use anyhow::{Context, Result, ensure};
use strata_common::{Lsn, TimelineId};
use strata_pageserver::basebackup::Handoff;
use strata_pageserver::service::{self, BranchPoint};
use strata_regress::postgres::{Cluster, Installation, Stop};

use harness::{Harness, TENANT, id};

/// As a compute runs: no full-page images, so that redo does all the work; log is never removed.
const SETTINGS: [(&str, &str); 9] = [
    ("full_page_writes", "off"),
    ("wal_level", "replica"),
    ("wal_keep_size", "8GB"),
    ("max_wal_size", "8GB"),
    ("max_prepared_transactions", "10"),
    ("shared_buffers", "16MB"),
    ("autovacuum_naptime", "1s"),
    ("summarize_wal", "off"),
    ("track_commit_timestamp", "on"),
];

const FIRST_PART: &str = "
create extension pageinspect;
create table t (id int primary key, v text, n int) with (fillfactor = 70);
insert into t select g, repeat('x', g % 300), g from generate_series(1, 20000) g;
create index on t (n);
create sequence s; select nextval('s'), nextval('s');
create unlogged table u (id int primary key, v text);
insert into u select g, 'u' from generate_series(1, 2000) g;
vacuum (freeze, analyze) t;
update t set n = n + 1 where id % 7 = 0;
delete from t where id % 11 = 0;
begin; savepoint a; insert into t values (100001, 'kept', 1); savepoint b; insert into t values (100002, 'gone', 1);
rollback to b; insert into t values (100003, 'kept too', 1); commit;
create table gone as select g from generate_series(1, 5000) g; drop table gone;
create table cut as select g, repeat('y', 500) p from generate_series(1, 5000) g;
vacuum cut; delete from cut where g > 100; vacuum cut; insert into cut select g, 'again' from generate_series(1, 300) g;
create table emptied as select g from generate_series(1, 1000) g; truncate emptied; insert into emptied values (1);
";

const SECOND_PART: &str = "
create database by_log strategy wal_log;
create database by_file strategy file_copy;
create table p (id int primary key);
begin; insert into p values (1); prepare transaction 'stays';
begin; insert into p values (2); prepare transaction 'ends'; commit prepared 'ends';
create database dropped strategy file_copy; drop database dropped;
alter table t alter column n type bigint;
reindex table t; vacuum full cut; cluster t using t_pkey;
vacuum t; checkpoint;
";

/// Sessions that share row locks (multixacts) while others update.
const LOAD: &str = r"
\set a random(1, 2000)
begin;
select 1 from t where id = :a for share;
savepoint s;
update t set n = n + 1 where id = :a + 1 and not exists (select 1 from t where id = 0);
commit;
";

/// Sums that change with every part of the workload; index-only scans answer the second if the map lets them.
const QUESTION: &str = "set enable_seqscan = off;
select count(*), sum(n), sum(length(v)) from t; select count(id) from t where id > 0; select count(*), min(g) from cut;";

#[test]
fn what_comes_out_is_what_vanilla_has() -> Result<()> {
    let installation = Installation::from_env()?;
    let mut vanilla = Cluster::init(&installation, &[])?;
    let mut harness = Harness::new()?;
    let imported = harness.import(&vanilla)?;
    vanilla.start(&SETTINGS)?;
    vanilla.sql(FIRST_PART)?;
    vanilla.pgbench(LOAD, 4, 200)?;
    // Right after DML, with map bits just cleared (V2). Flushed, so that the log holds what the answer shows.
    let past_answer = vanilla.sql(QUESTION)?;
    let past: Lsn = vanilla.sql("select pg_current_wal_flush_lsn()")?.parse()?;
    vanilla.sql(SECOND_PART)?;
    let answer = vanilla.sql(QUESTION)?;
    let kinds = compare::relation_kinds(&vanilla)?;
    vanilla.stop(Stop::Fast)?;
    let end = harness.serve_log_of(&vanilla)?;

    harness.wait_for(end)?;
    compare::all(&harness, &vanilla, &kinds, end).context("after the whole log")?;

    harness.crash_and_restart()?;
    harness.wait_for(end)?;
    compare::all(&harness, &vanilla, &kinds, end).context("after a crash")?;

    harness.flush()?;
    harness.wipe_and_reattach_without_log()?;
    harness.wait_for(end)?;
    compare::all(&harness, &vanilla, &kinds, end).context("from the object store alone")?;

    let mut started = harness.stock_postgres(&installation, id(), end, Handoff::Refuse)?;
    start_and_check(&mut started, &answer, "stays")?;

    let child = TimelineId([9; 16]);
    let branch = strata_common::TenantTimelineId { tenant: TENANT, timeline: child };
    let point = BranchPoint { ancestor: id().timeline, lsn: past, at_least: Lsn::INVALID };
    let made = harness.block_on(service::branch(harness.node(), branch, point))?;
    ensure!(made.start_lsn <= past && made.start_lsn > imported, "the branch begins at {}", made.start_lsn);
    let mut started = harness.stock_postgres(&installation, branch, made.start_lsn, Handoff::Fabricate)?;
    start_and_check(&mut started, &past_answer, "")
}

/// Starts a stock Postgres from a base backup and asks it what the first one was asked.
fn start_and_check(cluster: &mut Cluster, answer: &str, prepared: &str) -> Result<()> {
    cluster.start(&[
        ("max_prepared_transactions", "10"),
        ("autovacuum", "off"),
        ("track_commit_timestamp", "on"),
    ])?;
    let log = cluster.log()?;
    ensure!(log.contains("database system was shut down at"), "not a clean start:\n{log}");
    ensure!(!log.contains("redo starts") && !log.contains("not properly shut down"), "recovery ran:\n{log}");
    let found = cluster.sql(QUESTION)?;
    ensure!(found == answer, "answers differ: {found} and {answer}");
    ensure!(
        cluster.sql("select string_agg(gid, ',') from pg_prepared_xacts")? == prepared,
        "prepared transactions"
    );
    ensure!(cluster.sql("select count(*) from u")? == "0", "an unlogged table begins empty");
    cluster.sql("insert into u values (1, 'works'); insert into t values (300000, 'works', 1);")?;
    let mut amcheck = cluster.client("pg_amcheck", "postgres");
    let output = amcheck.args(["--all", "--install-missing", "--heapallindexed"]).output()?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pg_amcheck: {said}\n{}", cluster.log()?);
    cluster.stop(Stop::Fast)
}
