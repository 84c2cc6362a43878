//! What the service needs of storage: values by key and LSN. The engine implements it; tests use a map.
//!
//! Futures are `Send`, because ingest and connections run on different threads; none of them waits for log.

use std::future::Future;

use bytes::Bytes;
use strata_common::Lsn;

use crate::storage::{self, ErrorKind, Key, KeyRange, Reconstruct, StorageError, Value};

/// Why storage has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Object store or disk does not answer now; nothing is lost.
    #[error("storage is not available: {0}")]
    Unavailable(String),
    /// A checksum or a structure is wrong (PS-5). Never retried.
    #[error("storage is damaged: {0}")]
    Corrupt(String),
    /// The LSN is older than the history kept.
    #[error("LSN {lsn} is older than the history kept, which begins at {oldest}")]
    BelowHistory { lsn: Lsn, oldest: Lsn },
    /// Another process took over this timeline with a higher generation; writes stop for good here.
    #[error("this pageserver's generation was superseded: {0}")]
    Fenced(String),
}

/// One timeline's values, ancestors included.
pub trait Store: Send + Sync + 'static {
    /// Everything needed to make `key` as of `lsn`: the newest image at or below it (if any), and the changes after that,
    /// or from the newest `will_init` change on. A caller that has the value as of an LSN passes both as `known`: then
    /// nothing at or below that LSN is looked for, and `known` stands for it in the answer.
    fn get(
        &self,
        key: Key,
        lsn: Lsn,
        known: Option<(Lsn, Bytes)>,
    ) -> impl Future<Output = Result<Reconstruct, StoreError>> + Send;

    /// Newest value of each key in `range` as of `lsn`, in key order; only for kinds whose values are images.
    /// Tombstones (empty values) are returned.
    fn scan(
        &self,
        range: KeyRange,
        lsn: Lsn,
    ) -> impl Future<Output = Result<Vec<(Key, Bytes)>, StoreError>> + Send;

    /// Adds values in LSN order. Nothing of them can be read before `finish`, and no layer ends in between (G3).
    fn put(&self, values: Vec<(Key, Lsn, Value)>) -> Result<(), StoreError>;

    /// Everything up to the record that ends at `end` is put: it can be read now. `metadata` is the service's state there.
    /// Waits while memory is full.
    fn finish(&self, end: Lsn, metadata: &[u8]) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> StoreError {
        let text = error.to_string();
        match (&error, error.kind()) {
            (StorageError::BelowStart { lsn, start, .. }, _) => {
                StoreError::BelowHistory { lsn: *lsn, oldest: *start }
            }
            (_, ErrorKind::Retryable) => StoreError::Unavailable(text),
            (_, ErrorKind::Stale) => StoreError::Fenced(text),
            (_, ErrorKind::Corruption) => StoreError::Corrupt(text),
            // The service never asks the engine for something wrong; if it did, nothing it reads can be trusted.
            (_, ErrorKind::BadInput) => StoreError::Corrupt(text),
        }
    }
}

impl Store for storage::Timeline {
    async fn get(&self, key: Key, lsn: Lsn, known: Option<(Lsn, Bytes)>) -> Result<Reconstruct, StoreError> {
        Ok(self.get_above(key, lsn, known).await?)
    }

    async fn scan(&self, range: KeyRange, lsn: Lsn) -> Result<Vec<(Key, Bytes)>, StoreError> {
        Ok(storage::Timeline::scan(self, range, lsn).await?)
    }

    fn put(&self, values: Vec<(Key, Lsn, Value)>) -> Result<(), StoreError> {
        Ok(self.put_all(values)?)
    }

    async fn finish(&self, end: Lsn, metadata: &[u8]) -> Result<(), StoreError> {
        Ok(self.finish_record(end, metadata).await?)
    }
}

#[cfg(test)]
pub mod model {
    //! The oracle: every value ever put, in one ordered map. A key's values at one LSN stack in the order of their puts.

    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;
    use crate::core::collect::{Collector, Progress};

    #[derive(Default)]
    pub struct MapStore {
        values: Mutex<BTreeMap<(Key, Lsn), Vec<Value>>>,
        finished: Mutex<Lsn>,
        /// While true, scans fail as with an object store that is away.
        pub is_away: AtomicBool,
        /// How often it was asked for a key, and for a range.
        pub gets: AtomicU64,
        pub scans: AtomicU64,
    }

    impl Store for MapStore {
        async fn get(
            &self,
            key: Key,
            lsn: Lsn,
            known: Option<(Lsn, Bytes)>,
        ) -> Result<Reconstruct, StoreError> {
            self.gets.fetch_add(1, Ordering::Relaxed);
            let values = self.values.lock().expect("no test panics while holding it");
            let mut collector = Collector::new(known);
            let newest_first = values.range((key, Lsn(0))..=(key, lsn)).rev();
            for (at, value) in
                newest_first.flat_map(|((_, at), list)| list.iter().rev().map(move |v| (*at, v)))
            {
                if collector.push(at, value.clone()) == Progress::Done {
                    break;
                }
            }
            Ok(collector.finish())
        }

        async fn scan(&self, range: KeyRange, lsn: Lsn) -> Result<Vec<(Key, Bytes)>, StoreError> {
            self.scans.fetch_add(1, Ordering::Relaxed);
            if self.is_away.load(Ordering::Relaxed) {
                return Err(StoreError::Unavailable("the model is away".to_owned()));
            }
            let values = self.values.lock().expect("no test panics while holding it");
            let mut out: BTreeMap<Key, Bytes> = BTreeMap::new();
            for ((key, at), list) in values.range((range.first, Lsn(0))..=(range.last, Lsn::MAX)) {
                if let (true, Some(Value::Image(bytes))) = (*at <= lsn, list.last()) {
                    out.insert(*key, bytes.clone());
                }
            }
            Ok(out.into_iter().collect())
        }

        fn put(&self, batch: Vec<(Key, Lsn, Value)>) -> Result<(), StoreError> {
            let mut values = self.values.lock().expect("no test panics while holding it");
            let finished = *self.finished.lock().expect("no test panics while holding it");
            for (key, lsn, value) in batch {
                if lsn <= finished {
                    return Err(StoreError::Corrupt(format!("a value at {lsn} after {finished}")));
                }
                values.entry((key, lsn)).or_default().push(value);
            }
            Ok(())
        }

        async fn finish(&self, end: Lsn, _metadata: &[u8]) -> Result<(), StoreError> {
            let mut finished = self.finished.lock().expect("no test panics while holding it");
            if end < *finished {
                return Err(StoreError::Corrupt(format!("an end at {end} after {finished}")));
            }
            *finished = end;
            Ok(())
        }
    }

    impl MapStore {
        /// Keys and values put at exactly `lsn`, in key order.
        pub fn written_at(&self, lsn: Lsn) -> Vec<(Key, Value)> {
            let values = self.values.lock().expect("no test panics while holding it");
            let here = values.iter().filter(|((_, at), _)| *at == lsn);
            here.flat_map(|((key, _), list)| list.iter().map(|value| (*key, value.clone()))).collect()
        }
    }
}
