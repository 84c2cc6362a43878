//! The end of the log after a clean stop. No worker inside Postgres outlives its shutdown checkpoint, so the supervisor, still in
//! its term, ships what the local log has beyond the quorum, up to the end of that record (trap S8).

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, ensure};
use bytes::Bytes;
use strata_common::Lsn;
use strata_pgwal::control_file::ControlFile;
use strata_pgwal::handoff::shutdown_checkpoint;
use strata_pgwal::segment::segment_file_name;
use strata_pgwal::stream::WalStreamDecoder;
use strata_walproposer::Proposer;

use crate::handoff::{Started, TIMELINE, driver_config, identity};
use crate::spec::Spec;

/// `DB_SHUTDOWNED` (`src/include/catalog/pg_control.h`).
const SHUT_DOWN: u32 = 1;
/// A checkpoint record with the page and segment headers that may lie in it.
const LAST_RECORD_BYTES_MAX: u64 = 114 + 8 + 24 + 40;

/// Ships the tail; the end of the shutdown checkpoint that a majority now holds.
pub async fn ship(spec: &Spec, started: &Started) -> anyhow::Result<Lsn> {
    let proposer = Proposer::resume(driver_config(spec), started.term).await?;
    let begin = proposer.append_lsn();
    let tail = read_tail(spec, begin)?;
    let end = begin + tail.len() as u64;
    if !tail.is_empty() {
        proposer.append(begin, tail).await?;
    }
    proposer.wait_committed(end).await?;
    proposer.release().await;
    Ok(end)
}

/// The local log from `begin`, a record's end, to the end of its last record, which must be the shutdown checkpoint that the
/// control file names.
fn read_tail(spec: &Spec, begin: Lsn) -> anyhow::Result<Bytes> {
    let path = spec.data_dir.join("global/pg_control");
    let control = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let control = ControlFile::parse(&control).context("pg_control of the stopped server is damaged")?;
    ensure!(
        control.state == SHUT_DOWN,
        "the server did not stop cleanly: pg_control says state {}",
        control.state
    );
    let checkpoint = control.checkpoint;
    if begin > checkpoint {
        // The worker has sent all of it. Nothing but the end of that very checkpoint can be the log's end.
        let length = begin - checkpoint;
        ensure!(
            length <= LAST_RECORD_BYTES_MAX,
            "the log goes on {length} bytes beyond the last checkpoint at {checkpoint}"
        );
        return Ok(Bytes::new());
    }
    let log = identity(spec)?;
    let mut decoder = WalStreamDecoder::new(begin, log.segment_bytes).with_system_id(spec.system_id);
    let mut tail = Vec::new();
    let size = log.segment_bytes.get();
    loop {
        let at = begin + tail.len() as u64;
        let name = segment_file_name(TIMELINE, at, log.segment_bytes);
        let path = spec.data_dir.join("pg_wal").join(&name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut bytes = vec![0; usize::try_from(size - at.segment_offset(size)).context("a segment")?];
        file.read_exact_at(&mut bytes, at.segment_offset(size))
            .with_context(|| format!("cannot read {}", path.display()))?;
        let bytes = Bytes::from(bytes);
        tail.extend_from_slice(&bytes);
        decoder.feed(bytes);
        while let Some(record) = decoder.next().context("the local log is damaged")? {
            if record.lsn == checkpoint {
                let is_one = shutdown_checkpoint(&record).context("the local log is damaged")?.is_some();
                ensure!(
                    is_one,
                    "the record at {checkpoint} is no shutdown checkpoint: the server did not stop cleanly"
                );
                let length = usize::try_from(record.end_lsn - begin).context("a tail fits into memory")?;
                tail.truncate(length);
                return Ok(Bytes::from(tail));
            }
        }
    }
}
