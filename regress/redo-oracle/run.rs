//! A cluster that runs a workload, and the way of its log through the oracle.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use strata_common::Lsn;
use strata_pgwal::segment::segment_file_name;
use strata_pgwal::{RawRecord, WalStreamDecoder};
use strata_regress::oracle::{FilesReport, Model, Oracle, Report, UnknownRecords, compare_files};
use strata_regress::postgres::{Cluster, Installation, Stop};
use strata_regress::wal_files::control_file;

/// The scripts, in order, with their names for messages.
const SCRIPTS: &[(&str, &str)] = &[
    ("heap", include_str!("sql/heap.sql")),
    ("visibility", include_str!("sql/visibility.sql")),
    ("btree", include_str!("sql/btree.sql")),
    ("btree_posting", include_str!("sql/btree_posting.sql")),
    ("hash", include_str!("sql/hash.sql")),
    ("spgist", include_str!("sql/spgist.sql")),
    ("brin", include_str!("sql/brin.sql")),
    ("generic", include_str!("sql/generic.sql")),
    ("gin", include_str!("sql/gin.sql")),
    ("gist", include_str!("sql/gist.sql")),
    ("locks", include_str!("sql/locks.sql")),
    ("sequence", include_str!("sql/sequence.sql")),
    ("cluster", include_str!("sql/cluster.sql")),
];

/// How the server writes its log.
pub struct Settings {
    pub full_page_writes: &'static str,
    pub wal_log_hints: &'static str,
    pub wal_compression: &'static str,
}

impl Settings {
    /// For the server's command line. The whole log is kept until it was read; nothing happens behind the workload's back.
    pub fn server(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("wal_consistency_checking", "all"),
            ("full_page_writes", self.full_page_writes),
            ("wal_log_hints", self.wal_log_hints),
            ("wal_compression", self.wal_compression),
            ("wal_level", "logical"),
            ("max_prepared_transactions", "10"),
            ("track_commit_timestamp", "on"),
            ("autovacuum", "off"),
            ("wal_keep_size", "100GB"),
            ("max_wal_size", "100GB"),
            ("shared_buffers", "256MB"),
            ("bgwriter_lru_maxpages", "0"),
        ]
    }
}

/// What came out of a run.
pub struct Outcome {
    pub report: Report,
    pub files: FilesReport,
    pub skipped_clears: u64,
}

/// A cluster as initdb left it, and a copy to replay from.
pub struct Pair {
    pub cluster: Cluster,
    pub before: Cluster,
}

impl Pair {
    pub fn new() -> Result<Pair> {
        let cluster = Cluster::init(&Installation::from_env()?, &[])?;
        let before = cluster.copy()?;
        Ok(Pair { cluster, before })
    }

    /// Replays the log of the stopped cluster from the copy on. `step` gets every record, `after` the stopping point.
    pub fn replay(&self, mut step: impl FnMut(&RawRecord) -> Result<()>) -> Result<()> {
        let start = control_file(&self.before.data())?.checkpoint;
        let last = control_file(&self.cluster.data())?.checkpoint;
        read_log(&self.cluster.data(), start, last, &mut step)
    }
}

/// Reads the records from the one at `start` to the one at `last`, and removes each segment once it was read: a log with
/// an image in every record is large.
fn read_log(
    data: &Path,
    start: Lsn,
    last: Lsn,
    step: &mut impl FnMut(&RawRecord) -> Result<()>,
) -> Result<()> {
    let control = control_file(data)?;
    let segment_bytes = control.segment_bytes();
    let mut decoder = WalStreamDecoder::new(start, segment_bytes);
    let mut at = start;
    loop {
        let name = segment_file_name(control.checkpoint_copy.this_timeline, at, segment_bytes);
        let path = data.join("pg_wal").join(&name);
        let segment = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        std::fs::remove_file(&path)?;
        decoder.feed(bytes::Bytes::from(segment).slice(at.segment_offset(segment_bytes.get()) as usize..));
        while let Some(record) = decoder.next()? {
            step(&record)?;
            if record.lsn == last {
                return Ok(());
            }
        }
        at = segment_bytes.next_segment(at);
        ensure!(at <= last, "the log ends before its last checkpoint, at {}", decoder.position());
    }
}

/// Runs the whole workload and replays it.
pub fn workload(settings: &Settings, unknown: UnknownRecords) -> Result<Outcome> {
    let mut pair = Pair::new()?;
    pair.cluster.start(&settings.server())?;
    pair.cluster.sql("CREATE DATABASE oracle")?;
    let socket = pair.cluster.home().display().to_string();
    for (name, script) in SCRIPTS {
        // After a checkpoint the first change of a page carries its image, if images are on.
        let connection = format!("\\set conn 'host={socket} dbname=oracle user=postgres'\n");
        pair.cluster
            .sql_in("oracle", &(connection + "CHECKPOINT;\n" + script))
            .with_context(|| format!("script {name}"))?;
    }
    pair.cluster.stop(Stop::Fast)?;
    judge_log(&pair, unknown)
}

/// Replays the log of a stopped cluster and compares.
pub fn judge_log(pair: &Pair, unknown: UnknownRecords) -> Result<Outcome> {
    let mut oracle = Oracle::new(Model::new(pair.before.data()), unknown);
    pair.replay(|record| oracle.step(record))?;
    let Oracle { mut model, report, .. } = oracle;
    let files = compare_files(&mut model, &pair.cluster.data())?;
    Ok(Outcome { report, files, skipped_clears: model.skipped_clears })
}
