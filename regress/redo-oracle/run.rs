//! A cluster that runs a workload, and the way of its log through the oracle.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use strata_common::Lsn;
use strata_pgwal::segment::{SegmentBytes, segment_file_name};
use strata_pgwal::{RawRecord, WalStreamDecoder};
use strata_regress::oracle::{FilesReport, Model, Oracle, Report, compare_files};
use strata_regress::postgres::{Cluster, Installation, Stop};
use strata_regress::scripts;
use strata_regress::wal_files::control_file;

use crate::phases;

/// The database that the scripts run in.
pub const DATABASE: &str = "oracle";
/// Highest timeline of a log that is read: no workload makes more.
const TIMELINE_MAX: u32 = 4;
/// Records between two words of progress.
const PROGRESS_RECORDS: u64 = 500_000;

/// How much work is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// A sample of every record type.
    Small,
    Large,
}

/// How the server writes its log.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub full_page_writes: &'static str,
    pub wal_log_hints: &'static str,
    pub wal_compression: &'static str,
}

impl Settings {
    /// Whether pages come as images after checkpoints is left to the file, where a script can change it.
    fn file(&self) -> String {
        format!("full_page_writes = {}\n", self.full_page_writes)
    }

    /// For the server's command line. The whole log is kept until it was read; nothing happens behind the workload's back.
    pub fn server(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("wal_consistency_checking", "all"),
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

/// A cluster as initdb left it but for its counters, and a copy to replay from.
pub struct Pair {
    pub cluster: Cluster,
    pub before: Cluster,
}

impl Pair {
    pub fn new() -> Result<Pair> {
        let cluster = Cluster::init(&Installation::from_env()?, &[])?;
        scripts::move_counters(&cluster)?;
        let before = cluster.copy()?;
        Ok(Pair { cluster, before })
    }

    /// Starts the cluster for the first time.
    pub fn start(&mut self, settings: &Settings) -> Result<()> {
        self.configure(&settings.file())?;
        self.cluster.start(&settings.server())
    }

    /// Adds lines to the cluster's settings.
    fn configure(&self, lines: &str) -> Result<()> {
        use std::io::Write as _;
        let file = self.cluster.data().join("postgresql.conf");
        std::fs::OpenOptions::new().append(true).open(file)?.write_all(lines.as_bytes())?;
        Ok(())
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
    let segment_bytes = control_file(data)?.segment_bytes();
    let mut decoder = WalStreamDecoder::new(start, segment_bytes);
    let mut at = start;
    loop {
        let path = segment(data, at, segment_bytes)?;
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

/// The segment file that holds `at`. One of a later timeline begins with a copy of what it shares with the one before.
fn segment(data: &Path, at: Lsn, segment_bytes: SegmentBytes) -> Result<PathBuf> {
    let of = |timeline| data.join("pg_wal").join(segment_file_name(timeline, at, segment_bytes));
    (1..=TIMELINE_MAX).rev().map(of).find(|path| path.is_file()).with_context(|| format!("no log at {at}"))
}

/// Runs the whole workload and replays it.
pub fn workload(settings: &Settings, size: Size) -> Result<Outcome> {
    let mut pair = Pair::new()?;
    // Recovery insists on links otherwise. The core suite wants it off.
    pair.configure("allow_in_place_tablespaces = on\n")?;
    pair.start(settings)?;
    let cluster = &mut pair.cluster;
    cluster.sql(&format!("CREATE DATABASE {DATABASE}"))?;
    let large = (size == Size::Large).then_some(&scripts::LARGE);
    for script in scripts::ALL.iter().chain(large) {
        // After a checkpoint the first change of a page carries its image, if images are on.
        cluster.sql("CHECKPOINT")?;
        script.run(cluster, DATABASE)?;
    }
    scripts::freeze_everything(cluster)?;
    phases::crash_inside_a_record(cluster, settings)?;
    phases::promote(cluster, settings)?;
    cluster.stop(Stop::Fast)?;
    judge_log(&pair)
}

/// Replays the log of a stopped cluster and compares.
pub fn judge_log(pair: &Pair) -> Result<Outcome> {
    let mut oracle = Oracle::new(Model::new(pair.before.data()));
    let mut records = 0;
    pair.replay(|record| {
        records += 1;
        if u64::is_multiple_of(records, PROGRESS_RECORDS) {
            eprintln!("{records} records replayed, {} pages compared", oracle.report.compared_pages());
        }
        oracle.step(record)
    })?;
    let Oracle { mut model, report, .. } = oracle;
    let files = compare_files(&mut model, &pair.cluster.data())?;
    Ok(Outcome { report, files, skipped_clears: model.skipped_clears })
}
