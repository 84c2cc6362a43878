//! What no consistency check of Postgres looks at (G20): SLRU files, relation maps, sizes, prepared transactions and counters
//! after our effects, byte for byte against the cluster that wrote the log. Once from a new cluster, once across every wrap
//! that there is: transaction ids, multixact ids and member offsets (S11).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use strata_common::{BLOCK_BYTES, ForkNumber, RelFork};
use strata_pgwal::WalStreamDecoder;
use strata_redo::{SlruKind, SlruPage};
use strata_regress::postgres::{Cluster, Installation, Stop, run};
use strata_regress::replay::{Replay, fork_sizes, relation_maps, slru_pages};
use strata_regress::scripts::SUBTRANSACTIONS;
use strata_regress::wal_files::{control_file, read_log, records_to_end};

const SETTINGS: &[(&str, &str)] = &[
    ("wal_keep_size", "4GB"),
    ("max_wal_size", "4GB"),
    ("max_prepared_transactions", "10"),
    ("track_commit_timestamp", "on"),
    ("autovacuum", "off"),
];

/// Subtransactions over several clog pages, kept and undone; multixacts of one session over several pages.
const TRANSACTIONS: &str = r"
CREATE TABLE m (id int PRIMARY KEY, v int);
INSERT INTO m SELECT i, 0 FROM generate_series(1, 5000) i;
CALL subtransactions(36000, 3);
BEGIN;
CALL subtransactions(500, 7);
ROLLBACK;
BEGIN;
CALL subtransactions(100, 1000);
PREPARE TRANSACTION 'with subtransactions';
BEGIN; INSERT INTO s VALUES (-1); PREPARE TRANSACTION 'undone';
BEGIN; CALL subtransactions(70, 2); INSERT INTO s VALUES (-2); PREPARE TRANSACTION 'left open';
COMMIT PREPARED 'with subtransactions';
ROLLBACK PREPARED 'undone';
DO $$
BEGIN
  FOR i IN 1..5000 LOOP
    PERFORM 1 FROM m WHERE id = i FOR KEY SHARE;
    BEGIN
      UPDATE m SET v = v + 1 WHERE id = i;
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
  END LOOP;
END $$;
";

const SHARERS: &str = r"
\set id random(1, 20)
BEGIN;
SELECT v FROM m WHERE id = :id FOR KEY SHARE;
SELECT v FROM m WHERE id = :id + 20 FOR SHARE;
UPDATE m SET v = v + 1 WHERE id = 1000 + :client_id;
COMMIT;
";

const FILES: &str = r"
CREATE TABLE big AS SELECT i, repeat('x', 300) AS t FROM generate_series(1, 20000) i;
CREATE INDEX ON big (i);
DELETE FROM big WHERE i > 5000;
VACUUM big;
CREATE TABLE gone AS SELECT 1;
CREATE TABLE cut AS SELECT i FROM generate_series(1, 10000) i;
TRUNCATE cut;
DROP TABLE gone;
CREATE UNLOGGED TABLE u (i int PRIMARY KEY);
CREATE DATABASE copied STRATEGY file_copy;
CREATE DATABASE logged STRATEGY wal_log;
CREATE DATABASE dropped STRATEGY file_copy;
DROP DATABASE dropped;
VACUUM FULL pg_class;
CHECKPOINT;
";

/// Lets every database forget old transactions and multixacts, so that both kinds of multixact truncation happen.
fn freeze_all(cluster: &Cluster, databases: &[&str]) -> Result<()> {
    cluster.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS true")?;
    let freeze = "SET vacuum_multixact_freeze_min_age = 0; SET vacuum_multixact_freeze_table_age = 0; VACUUM (FREEZE);";
    for database in databases {
        cluster.sql_in(database, freeze)?;
    }
    Ok(())
}

/// Replays everything that the cluster has logged since it was shut down as `before`.
fn replay(before: &Path, cluster: &Cluster) -> Result<Replay> {
    let start = control_file(before)?;
    let control = control_file(&cluster.data())?;
    let log = read_log(&cluster.data())?;
    let mut replay = Replay::from_cluster(before)?;
    let mut decoder =
        WalStreamDecoder::new(start.checkpoint, control.segment_bytes()).with_system_id(control.system_id);
    let (records, end) = records_to_end(&mut decoder, log.from(start.checkpoint))?;
    for record in &records {
        replay.record(record)?;
    }
    let last = records.last().context("there are records")?;
    ensure!(last.lsn == control.checkpoint, "the log breaks off at {} ({end:?})", last.end_lsn);
    Ok(replay)
}

fn compare_slrus(replay: &Replay, data: &Path) -> Result<BTreeMap<SlruKind, usize>> {
    let theirs = slru_pages(data)?;
    let zeros = [0; BLOCK_BYTES];
    let mut counts = BTreeMap::new();
    for page in theirs.keys().chain(replay.slrus.keys()) {
        let expected = theirs.get(page).map_or(&zeros, |content| content);
        let found = replay.slrus.get(page).map_or(&zeros, |content| content);
        let difference = expected.iter().zip(found).position(|(a, b)| a != b);
        ensure!(difference.is_none(), "{page} differs at byte {difference:?}");
        if theirs.contains_key(page) && found != &zeros {
            *counts.entry(page.kind).or_insert(0) += 1;
        }
    }
    // A segment that is gone there is gone here; one that is there has all its pages in the file or is zero beyond it.
    for page in replay.slrus.keys() {
        let segment = |page: &SlruPage| (page.kind, page.page / 32);
        ensure!(theirs.keys().any(|other| segment(other) == segment(page)), "{page}: its segment is gone");
    }
    Ok(counts)
}

/// VACUUM makes a visibility map before it sets the first bit, which is what is logged.
fn is_blank_map(data: &Path, fork: RelFork) -> Result<bool> {
    if fork.fork != ForkNumber::VisibilityMap {
        return Ok(false);
    }
    let folder = match fork.rel.database {
        0 => "global".to_owned(),
        database => format!("base/{database}"),
    };
    let file = fs::read(data.join(folder).join(format!("{}_vm", fork.rel.relation)))?;
    Ok(file.chunks(BLOCK_BYTES).all(|page| page[24..].iter().all(|&byte| byte == 0)))
}

fn compare_sizes(replay: &Replay, data: &Path) -> Result<()> {
    let theirs = fork_sizes(data)?;
    let (mut equal, mut longer) = (0, Vec::new());
    // The free space map is a hint that is only logged with the pages of a copied database.
    let logged = replay.sizes.iter().filter(|(fork, _)| fork.fork != ForkNumber::FreeSpaceMap);
    for (fork, size) in logged {
        let blocks = *theirs.get(fork).with_context(|| format!("{fork} does not exist"))?;
        ensure!(blocks >= *size, "{fork} has {blocks} blocks, the log implies {size}");
        match blocks == *size {
            true => equal += 1,
            false => longer.push(format!("{fork}: {blocks} instead of {size}")),
        }
    }
    for (fork, blocks) in &theirs {
        // MAIN of an unlogged relation is not logged; that it exists is: its INIT fork does.
        let unlogged = theirs.contains_key(&fork.rel.fork(ForkNumber::Init));
        let known = replay.sizes.contains_key(fork) || unlogged || is_blank_map(data, *fork)?;
        ensure!(known, "{fork} of {blocks} blocks is unknown");
    }
    // Files may be longer than the log says, never by much: bulk extension adds up to 64 blocks that nothing was written to
    // (W13, W17), and the clean end of such a file is not logged either.
    ensure!(equal > 500, "only {equal} forks have the size that the log implies");
    for line in &longer {
        let mut words = line.rsplit(' ');
        let implied: u32 = words.next().context("a number")?.parse()?;
        let blocks: u32 = words.nth(2).context("a number")?.parse()?;
        ensure!(blocks - implied <= 64, "{line}: more than a bulk extension");
    }
    ensure!(longer.len() < 20, "too many files are longer than the log implies: {longer:?}");
    Ok(())
}

fn compare_counters(replay: &Replay, data: &Path) -> Result<()> {
    let expected = control_file(data)?.checkpoint_copy;
    // As they were before the shutdown checkpoint named them.
    let found = &replay.before_checkpoint;
    ensure!(found.next_xid == expected.next_xid, "next xid {}, not {}", found.next_xid, expected.next_xid);
    let multi = (found.next_multi, found.next_multi_offset);
    ensure!(multi == (expected.next_multi, expected.next_multi_offset), "next multixact {multi:?}");
    // Postgres takes OIDs by 8192 and logs the end of what it took; a shutdown gives the rest back.
    let ahead = found.next_oid - expected.next_oid;
    ensure!(ahead <= 8192, "next OID {}, not {}", found.next_oid, expected.next_oid);
    let oldest = (found.oldest_multi, found.oldest_multi_db);
    ensure!(oldest == (expected.oldest_multi, expected.oldest_multi_db), "oldest multixact {oldest:?}");
    Ok(())
}

fn compare_two_phase(replay: &Replay, data: &Path, count: usize) -> Result<()> {
    let mut files = 0;
    for entry in fs::read_dir(data.join("pg_twophase"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let full = u64::from_str_radix(&name, 16)?;
        let content = replay.two_phase.get(&(full as u32)).with_context(|| format!("{name} is unknown"))?;
        let file = strata_pgwal::twophase::file_bytes(content);
        ensure!(file == fs::read(entry.path())?, "pg_twophase/{name} differs");
        let id = replay.before_checkpoint.next_xid.full_id_of_earlier(full as u32);
        ensure!(strata_pgwal::twophase::file_name(id) == name, "{name} should have another name");
        files += 1;
    }
    ensure!(files == count && replay.two_phase.len() == count, "{files} prepared transactions");
    Ok(())
}

#[test]
fn a_new_cluster_is_replayed_to_its_end() -> Result<()> {
    let installation = Installation::from_env()?;
    let mut cluster = Cluster::init(&installation, &[])?;
    let before = cluster.copy()?;
    cluster.start(SETTINGS)?;
    cluster.sql(SUBTRANSACTIONS)?;
    cluster.sql(TRANSACTIONS)?;
    for _ in 0..6 {
        cluster.sql(
            "DO $$ BEGIN FOR i IN 1..5000 LOOP PERFORM 1 FROM m WHERE id = i FOR KEY SHARE;
             BEGIN UPDATE m SET v = v + 1 WHERE id = i; EXCEPTION WHEN raise_exception THEN NULL; END;
             END LOOP; END $$",
        )?;
    }
    cluster.pgbench(SHARERS, 8, 150)?;
    cluster.sql(FILES)?;
    freeze_all(&cluster, &["template0", "template1", "copied", "logged", "postgres"])?;
    cluster.sql("INSERT INTO s VALUES (1); ROLLBACK PREPARED 'left open';")?;
    cluster.sql("BEGIN; INSERT INTO s VALUES (2); SAVEPOINT a; INSERT INTO s VALUES (3); PREPARE TRANSACTION 'stays';")?;
    cluster.stop(Stop::Fast)?;

    let data = cluster.data();
    let replay = replay(&before.data(), &cluster)?;
    let pages = compare_slrus(&replay, &data)?;
    for (kind, least) in [(SlruKind::Clog, 2), (SlruKind::MultiXactOffsets, 2), (SlruKind::CommitTs, 30)] {
        let found = pages.get(&kind).copied().unwrap_or(0);
        ensure!(found >= least, "the workload filled {found} pages of {kind:?}, at least {least} are wanted");
    }
    ensure!(replay.truncations > 0 && replay.dropped_segments > 0, "nothing was truncated");
    ensure!(replay.maps == relation_maps(&data)?, "relation maps differ");
    ensure!(replay.maps.len() == 6, "{} relation maps", replay.maps.len());
    compare_sizes(&replay, &data)?;
    compare_counters(&replay, &data)?;
    compare_two_phase(&replay, &data, 1)
}

/// Sets a stopped cluster's counters close to their ends, with the SLRU segments that they are in.
fn move_to_the_wraps(cluster: &Cluster) -> Result<()> {
    let installation = cluster.installation();
    let data = cluster.data();
    let mut resetwal = installation.command("pg_resetwal");
    // An odd offset, so that a multixact of two members lies across the wrap.
    resetwal.args(["-x", "4294965000", "-u", "4294965000", "-e", "3"]);
    resetwal.args(["-m", "4294966000,4294966000", "-O", "4294966501", "-c", "4294965000,4294965000"]);
    run(resetwal.arg("-D").arg(&data))?;
    let segment = vec![0; 32 * BLOCK_BYTES];
    installation.write(&data.join("pg_xact/0FFF"), &segment)?;
    installation.write(&data.join("pg_multixact/offsets/FFFF"), &segment)?;
    // The last members segment that there can be has 26 pages only.
    installation.write(&data.join("pg_multixact/members/14078"), &segment[..26 * BLOCK_BYTES])?;
    installation.write(&data.join("pg_commit_ts").join(format!("{:X}", u32::MAX / 819 / 32)), &segment)
}

#[test]
fn all_numbers_wrap_and_the_replay_follows() -> Result<()> {
    let installation = Installation::from_env()?;
    let mut cluster = Cluster::init(&installation, &[])?;
    // Rows of before would be in the future; frozen ones are in nobody's.
    cluster.start(SETTINGS)?;
    freeze_all(&cluster, &["template0", "template1", "postgres"])?;
    cluster.stop(Stop::Fast)?;
    move_to_the_wraps(&cluster)?;
    let before = cluster.copy()?;
    cluster.start(SETTINGS)?;
    cluster.sql(SUBTRANSACTIONS)?;
    cluster.sql(TRANSACTIONS)?;
    cluster.pgbench(SHARERS, 8, 50)?;
    cluster.stop(Stop::Fast)?;

    let data = cluster.data();
    let replay = replay(&before.data(), &cluster)?;
    let counters = &replay.before_checkpoint;
    ensure!(counters.next_xid.epoch() == 4, "transaction ids did not wrap: {}", counters.next_xid);
    ensure!(counters.next_multi < 100_000, "multixact ids did not wrap: {}", counters.next_multi);
    ensure!(counters.next_multi_offset < 100_000, "offsets did not wrap: {}", counters.next_multi_offset);
    let pages = compare_slrus(&replay, &data)?;
    ensure!(pages.len() == SlruKind::ALL.len(), "an SLRU was left out: {pages:?}");
    compare_counters(&replay, &data)?;
    compare_two_phase(&replay, &data, 1)
}
