//! The layouts of `pgwal` against a real server: every record as `pg_waldump` sees it, files re-encoded byte for byte,
//! and servers started from handoff records at every kind of place (traps L1, S1, S3, S4).

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use strata_common::{ForkNumber, Lsn};
use strata_pgwal::handoff::{fabricate_segments, handoff_record, shutdown_checkpoint};
use strata_pgwal::record::decode;
use strata_pgwal::relmap::RelMap;
use strata_pgwal::{
    BlockSpec, CheckPoint, ControlFile, DecodedRecord, LogIdentity, RawRecord, RecordSpec, WalStreamDecoder,
};
use strata_regress::postgres::{Cluster, Installation, Stop};
use strata_regress::wal_files::{control_file, read_log, records_to_end};

/// Keeps every segment from here on, logs all kinds of records.
const SETTINGS: &[(&str, &str)] = &[
    ("wal_level", "logical"),
    ("wal_keep_size", "4GB"),
    ("max_wal_size", "4GB"),
    ("max_prepared_transactions", "10"),
    ("track_commit_timestamp", "on"),
    ("autovacuum_naptime", "1s"),
];

const WORKLOAD: &str = r"
CREATE TABLE t (id int PRIMARY KEY, a text, b int[], p point, s text);
INSERT INTO t SELECT i, repeat('x', i % 200), ARRAY[i % 7, i % 11], point(i % 100, i % 37), md5(i::text)
  FROM generate_series(1, 6000) i;
CREATE INDEX t_hash ON t USING hash (a);
CREATE INDEX t_gin ON t USING gin (b);
CREATE INDEX t_gist ON t USING gist (p);
CREATE INDEX t_spgist ON t USING spgist (s);
CREATE INDEX t_brin ON t USING brin (id);
SELECT pg_switch_wal() IS NOT NULL;
SET wal_compression = pglz;
CHECKPOINT;
UPDATE t SET a = a || 'y', b = b || id, p = point(id % 50, id % 91) WHERE id % 3 = 0;
SET wal_compression = lz4;
CHECKPOINT;
DELETE FROM t WHERE id % 5 = 0;
SET wal_compression = zstd;
CHECKPOINT;
INSERT INTO t SELECT i, 'again', ARRAY[i], point(i, i), md5(i::text) FROM generate_series(10000, 13000) i;
SET wal_compression = off;
VACUUM (FREEZE) t;
CREATE SEQUENCE q;
SELECT count(nextval('q')) FROM generate_series(1, 100);
BEGIN;
SAVEPOINT a; INSERT INTO t VALUES (-1); SAVEPOINT b; INSERT INTO t VALUES (-2); ROLLBACK TO b; RELEASE a;
COMMIT;
BEGIN; INSERT INTO t VALUES (-3); PREPARE TRANSACTION 'kept'; COMMIT PREPARED 'kept';
BEGIN; INSERT INTO t VALUES (-4); PREPARE TRANSACTION 'dropped'; ROLLBACK PREPARED 'dropped';
BEGIN; INSERT INTO t VALUES (-5); ROLLBACK;
SELECT pg_logical_emit_message(true, 'prefix', repeat('message', 20000)) IS NOT NULL;
SELECT pg_logical_emit_message(false, 'prefix', 'short') IS NOT NULL;
SELECT pg_create_restore_point('here') IS NOT NULL;
CREATE TABLE gone AS SELECT * FROM t;
TRUNCATE gone;
DROP TABLE gone;
CREATE DATABASE copied STRATEGY file_copy;
CREATE DATABASE logged STRATEGY wal_log;
DROP DATABASE copied;
VACUUM FULL pg_class;
SELECT pg_replication_origin_create('elsewhere') > 0;
SELECT pg_replication_origin_session_setup('elsewhere');
INSERT INTO t VALUES (-6);
SELECT pg_replication_origin_session_reset();
SELECT pg_replication_origin_drop('elsewhere');
SELECT pg_switch_wal() IS NOT NULL;
SELECT pg_switch_wal() IS NOT NULL;
CHECKPOINT;
";

/// One line of `pg_waldump`.
struct Printed<'a> {
    manager: &'a str,
    record_bytes: u64,
    total_bytes: u64,
    xid: u32,
    lsn: Lsn,
    prev: Lsn,
    description: &'a str,
}

fn printed(line: &str) -> Result<Printed<'_>> {
    let parse = || -> Option<Printed<'_>> {
        let (manager, rest) = line.strip_prefix("rmgr: ")?.split_once("len (rec/tot):")?;
        let (lengths, rest) = rest.split_once(", tx:")?;
        let (record_bytes, total_bytes) = lengths.split_once('/')?;
        let (xid, rest) = rest.split_once(", lsn: ")?;
        let (lsn, rest) = rest.split_once(", prev ")?;
        let (prev, description) = rest.split_once(", desc: ")?;
        Some(Printed {
            manager: manager.trim(),
            record_bytes: record_bytes.trim().parse().ok()?,
            total_bytes: total_bytes.trim().parse().ok()?,
            xid: xid.trim().parse().ok()?,
            lsn: lsn.parse().ok()?,
            prev: prev.parse().ok()?,
            description,
        })
    };
    parse().with_context(|| format!("pg_waldump printed: {line}"))
}

fn image_bytes(record: &DecodedRecord) -> u64 {
    record.blocks.iter().filter_map(|block| block.image.as_ref()).map(|image| image.bytes.len() as u64).sum()
}

/// How `XLogRecGetBlockRefInfo` prints the block references.
fn block_references(record: &DecodedRecord) -> String {
    let mut text = String::new();
    for block in &record.blocks {
        let rel = block.rel.rel;
        let fork = match block.rel.fork {
            ForkNumber::Main => "",
            ForkNumber::FreeSpaceMap => "fork fsm ",
            ForkNumber::VisibilityMap => "fork vm ",
            ForkNumber::Init => "fork init ",
        };
        let image = match block.image.as_ref().map(|image| image.apply) {
            None => "",
            Some(true) => " FPW",
            Some(false) => " FPW for WAL verification",
        };
        text += &format!(
            "blkref #{}: rel {}/{}/{} {fork}blk {}{image}",
            block.id, rel.tablespace, rel.database, rel.relation, block.block
        );
    }
    text
}

fn compare(raw: &RawRecord, line: &str) -> Result<()> {
    let expected = printed(line)?;
    let record = decode(raw)?;
    ensure!(record.lsn == expected.lsn, "position {} against {line}", record.lsn);
    ensure!(record.prev == expected.prev, "record before {} against {line}", record.prev);
    ensure!(record.xid == expected.xid, "transaction {} against {line}", record.xid);
    ensure!(raw.bytes.len() as u64 == expected.total_bytes, "length {} against {line}", raw.bytes.len());
    let without_images = raw.bytes.len() as u64 - image_bytes(&record);
    ensure!(without_images == expected.record_bytes, "length without images {without_images} against {line}");
    let name = record.name();
    let (manager, kind) = name.split_once('/').context("a name has two parts")?;
    ensure!(manager == expected.manager, "{name} against {line}");
    ensure!(expected.description.starts_with(&format!("{kind} ")), "{name} against {line}");
    let references = expected.description.find("blkref #").map_or("", |at| &expected.description[at..]);
    let without_commas = references.replace(", blkref", "blkref");
    ensure!(block_references(&record) == without_commas, "{} against {line}", block_references(&record));
    Ok(())
}

/// The record made anew from its parts must have the same bytes, checksum included.
fn make_again(raw: &RawRecord) -> Result<RecordSpec> {
    let record = decode(raw)?;
    let block = |block: strata_pgwal::DecodedBlock| BlockSpec {
        id: block.id,
        rel: block.rel,
        block: block.block,
        will_init: block.will_init,
        image: block.image,
        data: block.data,
    };
    let spec = RecordSpec {
        rmid: record.rmid,
        info: record.info,
        xid: record.xid,
        origin: record.origin,
        toplevel_xid: record.toplevel_xid,
        blocks: record.blocks.into_iter().map(block).collect(),
        main_data: record.main_data,
    };
    ensure!(spec.encode(record.prev) == raw.bytes, "record at {} is not made again", raw.lsn);
    Ok(spec)
}

fn identity(control: &ControlFile) -> LogIdentity {
    LogIdentity {
        timeline: control.checkpoint_copy.this_timeline,
        system_id: control.system_id,
        segment_bytes: control.segment_bytes(),
    }
}

#[test]
fn every_record_is_read_as_pg_waldump_reads_it() -> Result<()> {
    let installation = Installation::from_env()?;
    let mut cluster = Cluster::init(&installation, &["--wal-segsize=1"])?;
    cluster.start(SETTINGS)?;
    cluster.sql(WORKLOAD)?;
    cluster.pgbench("SELECT id FROM t WHERE id % 3 = 1 AND id < 40 FOR SHARE;\n", 6, 20)?;
    cluster.stop(Stop::Immediate)?;
    cluster.start(SETTINGS)?;
    cluster.stop(Stop::Fast)?;

    let control = control_file(&cluster.data())?;
    let log = read_log(&cluster.data())?;
    let start = log.first_record()?;
    let mut decoder = WalStreamDecoder::new(start, control.segment_bytes()).with_system_id(control.system_id);
    let (records, end) = records_to_end(&mut decoder, log.from(start))?;
    ensure!(end.is_some(), "the log must end before its last segment does");

    let mut waldump = installation.command("pg_waldump");
    waldump.arg("-p").arg(cluster.data().join("pg_wal"));
    waldump.args([&log.file_names[0], log.file_names.last().context("there are segments")?]);
    // It ends with an error where the log ends; what it printed until then is what counts.
    let output = waldump.output()?;
    let text = String::from_utf8(output.stdout)?;
    let lines: Vec<&str> = text.lines().collect();
    for (record, line) in records.iter().zip(&lines) {
        compare(record, line)?;
    }
    ensure!(records.len() == lines.len(), "{} records, pg_waldump has {}", records.len(), lines.len());
    let last = records.last().context("there are records")?;
    ensure!(last.lsn == control.checkpoint, "the log ends with the shutdown checkpoint");
    ensure!(shutdown_checkpoint(last)? == Some(control.checkpoint_copy), "which pg_control has a copy of");

    let log_identity = identity(&control);
    let mut crossings = 0;
    for pair in records.windows(2) {
        let spec = make_again(&pair[1])?;
        let at = pair[0].end_lsn;
        let made = strata_pgwal::write::encode_record(at, pair[0].lsn, &spec, log_identity);
        ensure!(
            (made.record_lsn, made.end_lsn) == (pair[1].lsn, pair[1].end_lsn),
            "place of {}",
            pair[1].lsn
        );
        crossings += usize::from(made.bytes.len() > pair[1].bytes.len() + 8);
    }
    ensure!(crossings > 50, "only {crossings} records crossed a page: too few to prove anything");

    let names: BTreeSet<String> =
        records.iter().map(|r| decode(r).map(|r| r.name())).collect::<Result<_, _>>()?;
    for wanted in ["XLOG/SWITCH", "Transaction/COMMIT_PREPARED", "MultiXact/CREATE_ID", "Heap2/VISIBLE"] {
        ensure!(names.contains(wanted), "the workload made no {wanted}; it made {names:?}");
    }
    ensure!(names.len() > 70, "the workload made only {} kinds of records: {names:?}", names.len());
    Ok(())
}

#[test]
fn files_are_made_again_byte_for_byte() -> Result<()> {
    let installation = Installation::from_env()?;
    let cluster = Cluster::init(&installation, &[])?;
    let bytes = fs::read(cluster.data().join("global/pg_control"))?;
    let control = ControlFile::parse(&bytes)?;
    ensure!(control.encode() == bytes, "pg_control is not made again");

    let mut controldata = installation.command("pg_controldata");
    let printed = strata_regress::postgres::run(controldata.arg(cluster.data()))?;
    let checkpoint = &control.checkpoint_copy;
    let settings = &control.settings;
    let wanted = [
        ("Database system identifier:", control.system_id.to_string()),
        ("Database cluster state:", "shut down".to_owned()),
        ("Latest checkpoint location:", control.checkpoint.to_string()),
        ("Latest checkpoint's NextXID:", checkpoint.next_xid.to_string()),
        ("Latest checkpoint's NextOID:", checkpoint.next_oid.to_string()),
        ("Latest checkpoint's NextMultiXactId:", checkpoint.next_multi.to_string()),
        ("Latest checkpoint's NextMultiOffset:", checkpoint.next_multi_offset.to_string()),
        ("Latest checkpoint's oldestXID:", checkpoint.oldest_xid.to_string()),
        ("Latest checkpoint's oldestXID's DB:", checkpoint.oldest_xid_db.to_string()),
        ("Latest checkpoint's oldestMultiXid:", checkpoint.oldest_multi.to_string()),
        ("Latest checkpoint's oldestMulti's DB:", checkpoint.oldest_multi_db.to_string()),
        ("max_connections setting:", settings.max_connections.to_string()),
        ("max_locks_per_xact setting:", settings.max_locks_per_xact.to_string()),
        ("Bytes per WAL segment:", control.layout.wal_segment_bytes.to_string()),
        ("Maximum columns in an index:", control.layout.index_keys_max.to_string()),
        ("Size of a large-object chunk:", control.layout.large_object_block_bytes.to_string()),
        ("Data page checksum version:", control.layout.data_checksum_version.to_string()),
    ];
    for (label, value) in wanted {
        let found = printed.lines().find_map(|line| line.strip_prefix(label)).map(str::trim);
        ensure!(found == Some(value.as_str()), "{label} {value}, pg_controldata says {found:?}");
    }

    for map in ["global/pg_filenode.map", "base/1/pg_filenode.map", "base/5/pg_filenode.map"] {
        let bytes = fs::read(cluster.data().join(map))?;
        let parsed = RelMap::parse(&bytes)?;
        ensure!(!parsed.mappings.is_empty() && parsed.encode()[..] == bytes, "{map} is not made again");
    }
    Ok(())
}

const SEGMENT: u64 = 1 << 20;
/// A handoff record, padded, takes this much.
const RECORD: u64 = 120;

/// Where a handoff record is tried: name, and the position that it is asked for.
fn places() -> Vec<(&'static str, Lsn)> {
    let base = 0x1_2300_0000;
    let next = base + SEGMENT;
    vec![
        ("first in a segment", Lsn(base)),
        ("behind the long header", Lsn(base + 40)),
        ("in a segment's first page", Lsn(base + 400)),
        ("first on a page", Lsn(base + 8192)),
        ("mid-segment", Lsn(base + 8192 * 7 + 4000)),
        ("spanning two pages", Lsn(base + 8192 * 8 - 64)),
        ("header spanning two pages", Lsn(base + 8192 * 8 - 8)),
        ("spanning the first two pages", Lsn(base + 8192 - 16)),
        ("ending on a page end", Lsn(base + 8192 * 8 - RECORD)),
        ("ending on a segment end", Lsn(next - RECORD)),
        ("straddling two segments", Lsn(next - 64)),
        ("header straddling two segments", Lsn(next - 8)),
        ("straddling the 32-bit boundary", Lsn(0x7_0000_0000 - 32)),
        ("high", Lsn(0xABCD_0012_3450)),
    ]
}

/// Makes a stopped cluster end its log with a handoff record at `at`, and nothing but fabricated segments.
fn hand_off(cluster: &Cluster, at: Lsn) -> Result<RawRecord> {
    let data = cluster.data();
    let mut control = control_file(&data)?;
    let log = identity(&control);
    let prev = Lsn(at.0 - 4096);
    let checkpoint = CheckPoint { full_page_writes: false, ..control.checkpoint_copy };
    let (wal, checkpoint) = handoff_record(at, prev, checkpoint, log);
    control.set_shut_down(wal.record_lsn, checkpoint);
    for entry in fs::read_dir(data.join("pg_wal"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    let installation = cluster.installation();
    for segment in fabricate_segments(&wal.record, log) {
        installation.write(&data.join("pg_wal").join(&segment.file_name), &segment.to_file())?;
    }
    installation.write(&data.join("global/pg_control"), &control.encode())?;
    Ok(wal.record)
}

fn start_from_handoff(template: &Cluster, place: &str, at: Lsn) -> Result<()> {
    // Large images would only slow this down; the log of the new server must be whole from the handoff record on.
    let settings = [("full_page_writes", "off"), ("wal_keep_size", "1GB"), ("autovacuum", "off")];
    let mut cluster = template.copy()?;
    let record = hand_off(&cluster, at)?;
    cluster.start(&settings)?;
    let started = cluster.log()?;
    ensure!(started.contains("database system was shut down at"), "{started}");
    for sign in ["recovery", "redo", "invalid", "PANIC", "not properly"] {
        ensure!(!started.contains(sign), "the log says {sign}:\n{started}");
    }
    let first = cluster.sql("SELECT pg_current_wal_insert_lsn()")?;
    ensure!(
        first.parse::<Lsn>()? >= record.end_lsn,
        "the server writes at {first}, before {}",
        record.end_lsn
    );
    cluster.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS i; CHECKPOINT;")?;
    cluster.sql("INSERT INTO kept SELECT generate_series(1001, 3000)")?;
    cluster.stop(Stop::Immediate)?;

    cluster.start(&settings)?;
    let recovered = cluster.log()?;
    ensure!(recovered.contains("redo starts at"), "no crash recovery:\n{recovered}");
    let rows = cluster.sql("SELECT count(*), sum(i) FROM kept")?;
    ensure!(rows == "3000|4501500", "{rows}");
    cluster.stop(Stop::Fast)?;

    // Trap S3: what the server wrote follows the handoff record without a gap, from its end to the last checkpoint.
    let control = control_file(&cluster.data())?;
    let log = read_log(&cluster.data())?;
    let mut decoder = WalStreamDecoder::new(record.end_lsn, control.segment_bytes())
        .with_system_id(control.system_id)
        .with_prev(record.lsn);
    let (records, end) = records_to_end(&mut decoder, log.from(record.end_lsn))?;
    let last = records.last().with_context(|| format!("no record follows: {end:?}"))?;
    ensure!(last.lsn == control.checkpoint, "{place}: the log breaks off at {} ({end:?})", last.end_lsn);
    Ok(())
}

#[test]
fn a_server_starts_from_a_handoff_record_wherever_it_lies() -> Result<()> {
    let installation = Installation::from_env()?;
    let template = Cluster::init(&installation, &["--wal-segsize=1"])?;
    for (place, at) in places() {
        start_from_handoff(&template, place, at).with_context(|| format!("{place}, at {at}"))?;
    }
    Ok(())
}
