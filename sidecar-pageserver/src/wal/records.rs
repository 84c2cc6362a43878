//! One safekeeper's log as records and what they do, made on one core while ingest takes in the piece before on another.
//!
//! Two pieces exist at a time: the one that ingest has, and the one that is being made; a piece ends with its chunk of log, or with
//! enough weight (memory stays bounded however small compressed images are). Their order is that of the log: the next one is begun only
//! when the one before is whole. Log that comes in small pieces, as from a compute at work, is not worth another thread. Nothing is
//! decided here: what cannot be read comes as the last of its piece, behind the records before it.

use futures::FutureExt;
use strata_common::{Lsn, TenantTimelineId, Term};
use strata_pgwal::{StreamError, WalStreamDecoder};
use strata_proto::wal::WalChunk;
use tokio::task::JoinHandle;

use crate::ingest::IngestError;
use crate::ingest::control::ControlState;
use crate::ingest::incoming::{Gathered, Incoming};
use crate::wal::receiver::Ended;
use crate::wal::source::{LogStream, Safekeepers};

/// A piece that weighs so much, bytes, is handed over.
const PIECE_BYTES_MAX: usize = 4 << 20;
/// Less log than this, bytes, is decoded at once.
const CHUNK_BYTES_FOR_THREAD: usize = 64 << 10;

/// Records in the order of the log.
pub struct Piece {
    pub records: Incoming,
    /// What comes next and cannot be taken in.
    pub bad: Option<Bad>,
    /// It ended because of its weight.
    has_more: bool,
}

/// Why the log does not go on.
pub enum Bad {
    Undecodable { after: Lsn, error: StreamError },
    Record(IngestError),
}

impl Piece {
    /// What is whole of the bytes that `decoder` has.
    pub fn next(decoder: &mut WalStreamDecoder) -> Piece {
        let mut gathered = Gathered::default();
        let (mut bad, mut has_more) = (None, true);
        while gathered.weight_bytes() < PIECE_BYTES_MAX {
            let read = match decoder.next() {
                Ok(Some(raw)) => gathered.add(&raw).map_err(Bad::Record),
                Ok(None) => {
                    has_more = false;
                    break;
                }
                Err(error) => Err(Bad::Undecodable { after: decoder.position(), error }),
            };
            if let Err(why) = read {
                (bad, has_more) = (Some(why), false);
                break;
            }
        }
        Piece { records: gathered.finish(), bad, has_more }
    }
}

/// What a safekeeper said beside the log. It may be ahead of the pieces, which does no harm: what is committed is only shown, and a
/// term that began ends those before it from then on, whatever log of theirs is still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct News {
    pub committed: Lsn,
    pub term: Term,
}

impl News {
    pub fn of(chunk: &WalChunk) -> News {
        News { committed: Lsn(chunk.commit_lsn), term: Term(chunk.term) }
    }
}

type Job = JoinHandle<(Box<WalStreamDecoder>, Piece)>;

/// An open stream.
pub struct Records {
    log: LogStream,
    /// Away while a thread makes the next piece.
    decoder: Option<Box<WalStreamDecoder>>,
    job: Option<Job>,
    news: News,
    /// The stream ended, and a piece of before was still to be handed over.
    ended: Option<Ended>,
}

impl Records {
    /// From the record on that follows the one whose state `control` is; from safekeeper number `which`.
    pub async fn open(
        safekeepers: &Safekeepers,
        which: usize,
        id: TenantTimelineId,
        control: &ControlState,
    ) -> Result<Records, Ended> {
        Ok(Records::new(safekeepers.open(which, id, control.lsn).await?, control))
    }

    /// As [`Records::open`], from a stream that begins there.
    fn new(log: LogStream, control: &ControlState) -> Records {
        let file = &control.control_file;
        let decoder = WalStreamDecoder::new(control.lsn, file.segment_bytes())
            .with_system_id(file.system_id)
            .with_prev(control.mark.record_lsn);
        Records { log, decoder: Some(Box::new(decoder)), job: None, news: News::default(), ended: None }
    }

    pub fn address(&self) -> &str {
        &self.log.address
    }

    pub fn news(&self) -> News {
        self.news
    }

    /// The next piece, which may be empty: the safekeeper said only how it is.
    pub async fn next(&mut self) -> Result<Piece, Ended> {
        loop {
            if let Some(job) = &mut self.job {
                let piece = match job.await {
                    Ok((decoder, piece)) => {
                        (self.job, self.decoder) = (None, Some(decoder));
                        piece
                    }
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => return Err(Ended::ShutDown),
                };
                self.read_ahead(&piece);
                return Ok(piece);
            }
            if let Some(ended) = self.ended.take() {
                return Err(ended);
            }
            let chunk = self.log.next().await?;
            let is_long = chunk.wal.len() >= CHUNK_BYTES_FOR_THREAD;
            self.feed(chunk)?;
            if is_long {
                self.begin();
                continue;
            }
            let piece = Piece::next(self.decoder.as_mut().expect("no thread has it"));
            if piece.has_more {
                self.begin();
            }
            return Ok(piece);
        }
    }

    /// Begins on the next piece if there is log for it, while `piece` is taken in.
    fn read_ahead(&mut self, piece: &Piece) {
        if piece.bad.is_some() {
            return;
        }
        if piece.has_more {
            return self.begin();
        }
        let Some(outcome) = self.log.next().now_or_never() else { return };
        let is_empty = outcome.as_ref().is_ok_and(|chunk| chunk.wal.is_empty());
        match outcome.map_err(Ended::from).and_then(|chunk| self.feed(chunk)) {
            Ok(()) if is_empty => {}
            Ok(()) => self.begin(),
            Err(ended) => self.ended = Some(ended),
        }
    }

    /// Only between two pieces.
    fn feed(&mut self, chunk: WalChunk) -> Result<(), Ended> {
        let decoder = self.decoder.as_mut().expect("no thread has it");
        self.news = News::of(&chunk);
        if chunk.wal.is_empty() {
            return Ok(());
        }
        let (expected, found) = (decoder.fed_to(), Lsn(chunk.begin_lsn));
        if found != expected {
            return Err(Ended::Gap { address: self.log.address.clone(), expected, found });
        }
        decoder.feed(chunk.wal);
        Ok(())
    }

    fn begin(&mut self) {
        let mut decoder = self.decoder.take().expect("no thread has it");
        self.job = Some(tokio::task::spawn_blocking(move || {
            let piece = Piece::next(&mut decoder);
            (decoder, piece)
        }));
    }
}

#[cfg(test)]
#[path = "records_test.rs"]
mod tests;
