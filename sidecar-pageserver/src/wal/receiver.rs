//! Keeps one timeline supplied with log: one stream at a time, decoded, taken in, published; another safekeeper when one
//! fails, falls silent, or has nothing while a reader waits.
//!
//! Log that cannot be decoded is tried from every safekeeper before the timeline parks: one bad copy is not the log. A
//! record that this version does not know parks it at once. Nothing is lost by parking: storage stays at the record
//! before, safekeepers keep the log from there on, and a start with another version goes on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use strata_common::Lsn;
use strata_pgwal::StreamError;
use tokio::time::Instant;

use crate::ingest::incoming::Incoming;
use crate::ingest::{Ingest, IngestError};
use crate::store::{Store, StoreError};
use crate::timeline::{Running, Timeline};
use crate::view::ViewError;
use crate::wal::records::{Bad, News, Piece, Records};
use crate::wal::source::{Progress, Safekeepers, SourceError};

/// A reader waits, this source has had nothing for so long: another one may have more.
const WANTED_PATIENCE: Duration = Duration::from_millis(1500);

/// Nobody waits and nothing came for so long: look at another one all the same, this one may be cut off.
const IDLE_PATIENCE: Duration = Duration::from_secs(15);

/// Between two tries, unless somebody waits for log.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_WANTED: Duration = Duration::from_millis(50);

/// Between two reports of an unchanged position.
const REPORT_EVERY: Duration = Duration::from_secs(10);
const REPORT_TICK: Duration = Duration::from_secs(1);

/// Why one stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("safekeeper {address} had nothing new")]
    Idle { address: String },
    #[error("safekeeper {address} sent log from {found} on, not from {expected}")]
    Gap { address: String, expected: Lsn, found: Lsn },
    #[error("log from safekeeper {address} after {after}: {error}")]
    Undecodable { address: String, after: Lsn, error: StreamError },
    #[error("the process is stopping")]
    ShutDown,
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

/// What to do after a stream ended.
enum Next {
    AnotherSource,
    Stop(Running),
}

/// Runs until the timeline closes or stops.
pub async fn run<S: Store>(timeline: Arc<Timeline<S>>, safekeepers: Safekeepers) {
    if safekeepers.count() == 0 {
        return;
    }
    Receiver::new(timeline, safekeepers).run().await;
}

struct Receiver<S> {
    timeline: Arc<Timeline<S>>,
    safekeepers: Safekeepers,
    /// Which safekeeper comes next; timelines begin at different ones.
    which: usize,
    /// Safekeepers whose log could not be decoded at the present place.
    undecodable: BTreeSet<String>,
    /// What the last stream left, whole: another source goes on with it, without asking storage for it again.
    ingest: Option<Ingest<S>>,
}

impl<S: Store> Receiver<S> {
    fn new(timeline: Arc<Timeline<S>>, safekeepers: Safekeepers) -> Receiver<S> {
        let which = usize::from(timeline.id.timeline.0[0]);
        Receiver { timeline, safekeepers, which, undecodable: BTreeSet::new(), ingest: None }
    }

    async fn run(&mut self) {
        while !self.timeline.is_closing() {
            let before = self.timeline.last_record();
            let timeline = self.timeline.clone();
            let ended = tokio::select! {
                ended = self.stream() => ended,
                () = timeline.closed() => return,
            };
            let moved = self.timeline.last_record() > before;
            let next = self.judge(&ended, moved);
            self.timeline.sizes.forget_after(self.timeline.last_record());
            match next {
                Next::Stop(why) => return self.timeline.stop(why),
                Next::AnotherSource => {
                    self.which = self.which.wrapping_add(1);
                    if !moved && !matches!(ended, Ended::Idle { .. }) {
                        self.pause().await;
                    }
                }
            }
        }
    }

    fn judge(&mut self, ended: &Ended, moved: bool) -> Next {
        let id = self.timeline.id;
        if moved {
            // Only progress makes it another place: a safekeeper that is away says nothing about the log.
            self.undecodable.clear();
        }
        if let Ended::Undecodable { address, .. } = ended {
            self.undecodable.insert(address.clone());
        }
        match ended {
            Ended::Idle { .. } | Ended::ShutDown => Next::AnotherSource,
            Ended::Source(error) if error.is_unknown_timeline() => Next::AnotherSource,
            Ended::Undecodable { .. } if self.undecodable.len() >= self.safekeepers.count() => {
                Next::Stop(Running::Parked(format!("timeline {id}: {ended}")))
            }
            Ended::Source(_) | Ended::Gap { .. } | Ended::Undecodable { .. } => {
                tracing::warn!(timeline = %id, error = %ended, "log stream ended");
                self.hindered(ended);
                Next::AnotherSource
            }
            Ended::Ingest(IngestError::Record { .. }) => {
                Next::Stop(Running::Parked(format!("timeline {id}: {ended}")))
            }
            Ended::Ingest(IngestError::Store(error) | IngestError::View(ViewError::Store(error)))
                if matches!(error, StoreError::Unavailable(_)) =>
            {
                tracing::warn!(timeline = %id, %error, "log is not taken in for now");
                self.hindered(ended);
                Next::AnotherSource
            }
            Ended::Ingest(IngestError::Store(error) | IngestError::View(ViewError::Store(error)))
                if matches!(error, StoreError::Fenced(_)) =>
            {
                Next::Stop(Running::Fenced(format!("timeline {id}: {ended}")))
            }
            Ended::Ingest(_) => Next::Stop(Running::Broken(format!("timeline {id}: {ended}"))),
        }
    }

    /// Shows why no log comes in. Log that cannot be decoded stays shown until there is progress, whatever else happens.
    fn hindered(&self, ended: &Ended) {
        if self.undecodable.is_empty() || matches!(ended, Ended::Undecodable { .. }) {
            self.timeline.set_hindrance(Some(ended.to_string()));
        }
    }

    async fn pause(&self) {
        if self.timeline.is_wanted() {
            return tokio::time::sleep(RETRY_AFTER_WANTED).await;
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_AFTER) => {}
            () = self.timeline.wanted() => {}
            () = self.timeline.closed() => {}
        }
    }

    /// Takes in log from one source until that ends.
    async fn stream(&mut self) -> Ended {
        let mut ingest = match self.resume().await {
            Ok(ingest) => ingest,
            Err(error) => return error.into(),
        };
        let ended = self.stream_into(&mut ingest).await;
        self.keep(ingest, &ended);
        ended
    }

    /// Where the timeline is; from storage, unless the last stream left that.
    async fn resume(&mut self) -> Result<Ingest<S>, IngestError> {
        let control = self.timeline.control();
        if let Some(kept) = self.ingest.take().filter(|kept| kept.is_at(&control)) {
            return Ok(kept);
        }
        Ingest::resume(self.timeline.store.clone(), self.timeline.sizes.clone(), control).await
    }

    /// After an error of its own it may hold half a record.
    fn keep(&mut self, ingest: Ingest<S>, ended: &Ended) {
        self.ingest = Some(ingest).filter(|_| !matches!(ended, Ended::Ingest(_)));
    }

    async fn stream_into(&self, ingest: &mut Ingest<S>) -> Ended {
        let opened = Records::open(&self.safekeepers, self.which, self.timeline.id, ingest.control()).await;
        let mut records = match opened {
            Ok(records) => records,
            Err(ended) => return ended,
        };
        let mut moved_at = Instant::now();
        loop {
            let piece = match records.next().await {
                Ok(piece) => piece,
                Err(ended) => return ended,
            };
            self.see(records.news(), ingest);
            let before = ingest.flushed();
            if let Err(ended) = self.take(ingest, records.address(), piece).await {
                return ended;
            }
            if self.undecodable.is_empty() || ingest.flushed() > before {
                self.timeline.set_hindrance(None);
            }
            if ingest.flushed() > before {
                moved_at = Instant::now();
                continue;
            }
            let patience = if self.timeline.is_wanted() { WANTED_PATIENCE } else { IDLE_PATIENCE };
            if self.safekeepers.count() > 1 && moved_at.elapsed() >= patience {
                return Ended::Idle { address: records.address().to_owned() };
            }
        }
    }

    /// Before anything of that term can be read: a compute of an earlier one must not see it.
    fn see(&self, news: News, ingest: &mut Ingest<S>) {
        self.timeline.see_commit(news.committed);
        self.timeline.see_term(news.term);
        ingest.see_term(news.term);
    }

    /// Takes in and publishes what came from `address`. After an error of the log's what came before it is good and stays.
    async fn take(&self, ingest: &mut Ingest<S>, address: &str, piece: Piece) -> Result<(), Ended> {
        let mut records = piece.records;
        while !records.is_empty() {
            if let Err(error) = self.take_record(ingest, &mut records).await {
                if matches!(error, Ended::Ingest(IngestError::Record { .. })) {
                    self.publish(ingest).await?;
                }
                return Err(error);
            }
            if ingest.wants_flush() {
                self.publish(ingest).await?;
                // Other timelines share this thread.
                tokio::task::yield_now().await;
            }
        }
        self.publish(ingest).await?;
        match piece.bad {
            None => Ok(()),
            Some(Bad::Undecodable { after, error }) => {
                Err(Ended::Undecodable { address: address.to_owned(), after, error })
            }
            Some(Bad::Record(error)) => Err(error.into()),
        }
    }

    async fn take_record(&self, ingest: &mut Ingest<S>, records: &mut Incoming) -> Result<(), Ended> {
        if records.wants_flush_before() {
            // Published at once: if the record fails for now, the next stream resumes from what is published.
            self.publish(ingest).await?;
        }
        if let Some(unfinished) = ingest.record_at_once(records)? {
            ingest.complete(unfinished).await?;
        }
        Ok(())
    }

    async fn publish(&self, ingest: &mut Ingest<S>) -> Result<(), Ended> {
        if ingest.control().lsn > ingest.flushed() {
            ingest.flush().await?;
            self.timeline.publish(ingest.control(), ingest.counts());
        }
        Ok(())
    }
}

/// Tells all safekeepers how far the timeline is, about once a second while it moves, until it closes.
pub async fn report<S: Store>(
    timeline: Arc<Timeline<S>>,
    safekeepers: Safekeepers,
    pageserver_id: u64,
    progress: impl Fn() -> Progress,
) {
    let mut last: Option<(Progress, Instant)> = None;
    while !timeline.is_closing() {
        let now = progress();
        if last.is_none_or(|(sent, at)| sent != now || at.elapsed() >= REPORT_EVERY) {
            safekeepers.report(pageserver_id, timeline.id, now).await;
            last = Some((now, Instant::now()));
        }
        tokio::select! {
            () = tokio::time::sleep(REPORT_TICK) => {}
            () = timeline.closed() => {}
        }
    }
}

#[cfg(test)]
#[path = "receiver_test.rs"]
mod tests;
