//! One reader's stream of log: committed log for learners, durable log of a term for its proposer and acceptors.
//!
//! What may be read is asked of the acceptor before each read and again after it: log of a term may be cut while it is
//! read, and log may be removed. Committed log is never cut, so what was sent to a learner stands (SK-4).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use strata_common::{Lsn, Term};
use strata_proto::wal::WalChunk;
use tokio::sync::mpsc;
use tonic::Status;

use super::status;
use super::timeline::Timeline;
use super::wal::reader::WalReader;

/// Most log in one message, bytes.
const CHUNK_BYTES_MAX: u64 = 1 << 20;
/// A reader hears something at least this often.
const SILENCE_MAX: Duration = Duration::from_millis(500);

/// What a reader asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub from: Lsn,
    /// `None`: for ever.
    pub until: Option<Lsn>,
    pub term: Term,
}

type Sink = mpsc::Sender<Result<WalChunk, Status>>;

/// Sends log until `until`, an error, or the reader's end.
pub async fn run(timeline: Arc<Timeline>, wanted: Wanted, sink: Sink) {
    let outcome = tokio::select! {
        outcome = send_all(&timeline, wanted, &sink) => outcome,
        () = sink.closed() => return,
    };
    if let Err(error) = outcome {
        // The reader may be gone already.
        let _ = sink.send(Err(error)).await;
    }
}

async fn send_all(timeline: &Arc<Timeline>, wanted: Wanted, sink: &Sink) -> Result<(), Status> {
    let position = timeline.readers.enter(wanted.from);
    let mut reader = WalReader::new(timeline.folder.clone());
    let mut changes = timeline.changes();
    let mut at = wanted.from;
    loop {
        changes.mark_unchanged();
        let limit = timeline.read_limit(wanted.term)?;
        if at < limit.oldest {
            return Err(status::removed(at, limit.oldest));
        }
        let end = wanted.until.map_or(limit.end, |until| until.min(limit.end));
        let mut chunk = WalChunk {
            begin_lsn: at.0,
            wal: Bytes::new(),
            commit_lsn: limit.commit.0,
            term: limit.last_term.0,
        };
        if at < end {
            (reader, chunk.wal) = read(timeline, reader, at, end).await?;
            let limit = timeline.read_limit(wanted.term)?;
            if at < limit.oldest || at + chunk.wal.len() as u64 > limit.end {
                continue;
            }
            at = at + chunk.wal.len() as u64;
            timeline.metrics.sent_bytes.increment(chunk.wal.len() as u64);
        } else if wanted.until.is_some_and(|until| at >= until) {
            return Ok(());
        } else if tokio::time::timeout(SILENCE_MAX, changes.changed()).await.is_ok() {
            // More may be readable, or only the commit LSN has moved; either way the loop says so.
            let limit = timeline.read_limit(wanted.term)?;
            if limit.end > at {
                continue;
            }
            (chunk.commit_lsn, chunk.term) = (limit.commit.0, limit.last_term.0);
        }
        if sink.send(Ok(chunk)).await.is_err() {
            return Ok(());
        }
        position.advance(at);
    }
}

async fn read(
    timeline: &Arc<Timeline>,
    mut reader: WalReader,
    at: Lsn,
    end: Lsn,
) -> Result<(WalReader, Bytes), Status> {
    let work = move || {
        let bytes = reader.read(at, end, CHUNK_BYTES_MAX);
        (reader, bytes)
    };
    let (reader, bytes) =
        tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))?;
    let id = timeline.id;
    let bytes = bytes.map_err(|error| Status::data_loss(format!("timeline {id}: {error}")))?;
    Ok((reader, bytes))
}
