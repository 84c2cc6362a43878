//! A vanilla hot standby that replays a log up to any record and no further, and shows there what it has on disk.
//!
//! It is a copy of the cluster as it was before the log, with `standby.signal` and no source but its own `pg_wal`, which it polls.
//! The log is written there piece by piece: as far as it goes the standby replays, and behind it are zeros. So every stop is exact, and
//! one server goes through all of them without a restart. `CHECKPOINT` on a standby writes everything that it has changed so far, at
//! the place where it stands, if it has replayed a checkpoint since it did so last (`CreateRestartPoint` in
//! `src/backend/access/transam/xlog.c`): relation files, SLRUs and two-phase files are then those of this very LSN.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use strata_common::Lsn;
use strata_pgwal::SegmentBytes;
use strata_pgwal::segment::{parse_segment_file_name, segment_file_name};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::postgres::{Cluster, Stop};
use crate::wal_files::{LogBytes, control_file};

/// Replaying a whole log takes seconds; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(1);
/// How it runs, beside the settings that its log asks for.
const SETTINGS: [(&str, &str); 6] = [
    // Nothing new in `pg_wal` is looked for again after so long.
    ("wal_retrieve_retry_interval", "1ms"),
    // Only the checkpoints that are asked for write, and no segment is used again under another name.
    ("checkpoint_timeout", "1h"),
    ("max_wal_size", "100GB"),
    ("wal_keep_size", "100GB"),
    ("wal_recycle", "off"),
    ("hot_standby", "on"),
];

pub struct Standby {
    cluster: Cluster,
    log: LogBytes,
    segment_bytes: SegmentBytes,
    fed: Lsn,
    client: Client,
    runtime: Runtime,
}

impl Standby {
    /// Starts a copy of `base`, which was shut down, at the beginning of `log`, the log that was written since; `first` is the end
    /// of the checkpoint that `base` ends in.
    pub fn start(base: &Cluster, log: LogBytes, first: Lsn, settings: &[(&str, &str)]) -> Result<Standby> {
        let mut cluster = base.copy()?;
        let segment_bytes = control_file(&cluster.data())?.segment_bytes();
        let folder = cluster.data().join("pg_wal");
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if parse_segment_file_name(&entry.file_name().to_string_lossy(), segment_bytes).is_some() {
                std::fs::remove_file(entry.path())?;
            }
        }
        cluster.installation().write(&cluster.data().join("standby.signal"), b"")?;
        let mut fed = log.start;
        feed(&cluster, &log, segment_bytes, &mut fed, first)?;
        cluster.start(&[&SETTINGS[..], settings].concat())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut config = tokio_postgres::Config::new();
        config.host_path(cluster.home()).user("postgres").dbname("postgres");
        let (client, connection) = runtime.block_on(config.connect(NoTls))?;
        runtime.spawn(connection);
        Ok(Standby { cluster, log, segment_bytes, fed, client, runtime })
    }

    pub fn data(&self) -> PathBuf {
        self.cluster.data()
    }

    /// Gives it the log up to `lsn`, the end of a record, and waits until it has replayed that.
    pub fn advance(&mut self, lsn: Lsn) -> Result<()> {
        feed(&self.cluster, &self.log, self.segment_bytes, &mut self.fed, lsn)?;
        let begin = Instant::now();
        loop {
            let replayed: Lsn = self.ask("SELECT pg_last_wal_replay_lsn()")?.parse()?;
            if replayed == lsn {
                return Ok(());
            }
            ensure!(replayed < lsn, "the standby has replayed up to {replayed}, and its log ends at {lsn}");
            if begin.elapsed() > PATIENCE {
                bail!("the standby stays at {replayed} and does not reach {lsn}:\n{}", self.cluster.log()?);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Writes all that was changed to disk. False if it could not be asked to: it has replayed no checkpoint since the last time.
    pub fn write_out(&mut self) -> Result<bool> {
        let redo = |standby: &Standby| -> Result<Lsn> {
            Ok(control_file(&standby.cluster.data())?.checkpoint_copy.redo)
        };
        let before = redo(self)?;
        self.runtime
            .block_on(self.client.simple_query("CHECKPOINT"))
            .with_context(|| format!("the standby at {}", self.fed))?;
        Ok(redo(self)? > before)
    }

    fn ask(&self, question: &str) -> Result<String> {
        let answer = self
            .runtime
            .block_on(self.client.simple_query(question))
            .with_context(|| format!("{question}, at {}", self.fed))?;
        let rows = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        rows.with_context(|| format!("no answer to {question}"))
    }

    pub fn stop(mut self) -> Result<()> {
        self.cluster.stop(Stop::Immediate)
    }
}

/// Writes the log from `fed` to `end` into the segment files, which are as long as segments are and zero behind it.
fn feed(
    cluster: &Cluster,
    log: &LogBytes,
    segment_bytes: SegmentBytes,
    fed: &mut Lsn,
    end: Lsn,
) -> Result<()> {
    let mut at = *fed;
    while at < end {
        let start = at.segment_start(segment_bytes.get());
        let stop = end.min(segment_bytes.next_segment(at));
        let path = cluster.data().join("pg_wal").join(segment_file_name(1, start, segment_bytes));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        if at == start {
            cluster.installation().give(&path)?;
            file.set_len(segment_bytes.get())?;
        }
        let piece = log.bytes.slice((at - log.start) as usize..(stop - log.start) as usize);
        file.write_all_at(&piece, at - start).with_context(|| path.display().to_string())?;
        at = stop;
    }
    *fed = at.max(*fed);
    Ok(())
}
