//! The log's way in: values are put, records finished, full layers frozen; the writer waits while memory is full.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use strata_common::Lsn;
use tokio::time::Instant;

use super::error::StorageError;
use super::mem_layer::MemLayer;
use super::timeline::{Frozen, Timeline};
use crate::core::flush::MemoryState;
use crate::core::index::METADATA_BYTES_MAX;
use crate::core::key::{Key, VALUE_BYTES_MAX, Value};

#[derive(Debug)]
pub(super) struct Ingest {
    open: Arc<MemLayer>,
    /// LSN of the last put; above `finished` while a record is being put.
    put: Lsn,
    finished: Lsn,
    /// The service's, at `finished`.
    metadata: Vec<u8>,
    /// When something first came after the last freeze.
    open_since: Option<Instant>,
    freeze_wanted: bool,
}

impl Ingest {
    pub fn new(open: Arc<MemLayer>, finished: Lsn, metadata: &[u8]) -> Ingest {
        let metadata = metadata.to_vec();
        Ingest { open, put: finished, finished, metadata, open_since: None, freeze_wanted: false }
    }
}

impl Timeline {
    /// Adds values of the record that ends at `lsn`, which is not below the last put and above the last finished record. Nothing of
    /// it can be read before [`Timeline::finish_record`]. Does not wait: what is put between two finishes comes on top of the bound.
    pub fn put(&self, lsn: Lsn, values: Vec<(Key, Value)>) -> Result<(), StorageError> {
        self.check_running()?;
        check_sizes(values.iter().map(|(_, value)| value))?;
        let mut ingest = self.ingest.lock().expect("no panic under this lock");
        let last = ingest.put.max(ingest.finished + 1);
        if lsn < last {
            return Err(StorageError::OutOfOrder { id: self.id, what: "a value", lsn, last });
        }
        ingest.put = lsn;
        ingest.open.put(lsn, values);
        Ok(())
    }

    /// As [`Timeline::put`], values of many records in the order of the log; all of them or, after an error, none.
    pub fn put_all(&self, values: Vec<(Key, Lsn, Value)>) -> Result<(), StorageError> {
        self.check_running()?;
        check_sizes(values.iter().map(|(_, _, value)| value))?;
        let mut ingest = self.ingest.lock().expect("no panic under this lock");
        let mut last = ingest.put.max(ingest.finished + 1);
        for (_, lsn, _) in &values {
            if *lsn < last {
                return Err(StorageError::OutOfOrder { id: self.id, what: "a value", lsn: *lsn, last });
            }
            last = *lsn;
        }
        if !values.is_empty() {
            ingest.put = last;
            ingest.open.put_all(values);
        }
        Ok(())
    }

    /// All records up to the one that ends at `lsn` are put, also those that put nothing (trap G11): they can be read now. `metadata`
    /// comes back from [`Timeline::disk_consistent_at_start`] if this is where the log is read on from. Waits while memory is full, for
    /// as long as that lasts; see [`Timeline::status`] for why.
    pub async fn finish_record(&self, lsn: Lsn, metadata: &[u8]) -> Result<(), StorageError> {
        self.check_running()?;
        if metadata.len() > METADATA_BYTES_MAX {
            let bytes = metadata.len();
            return Err(StorageError::TooLarge { what: "the metadata", bytes, max: METADATA_BYTES_MAX });
        }
        let must_wait = {
            let mut ingest = self.ingest.lock().expect("no panic under this lock");
            let last = ingest.put.max(ingest.finished);
            if lsn < last {
                return Err(StorageError::OutOfOrder { id: self.id, what: "a record's end", lsn, last });
            }
            (ingest.put, ingest.finished) = (lsn, lsn);
            ingest.metadata.clear();
            ingest.metadata.extend_from_slice(metadata);
            if ingest.open_since.is_none() {
                ingest.open_since = Some(Instant::now());
            }
            // Whoever subscribes after this looks at the value first, so nobody there means nobody to wake.
            self.last_record.send_if_modified(|last| {
                *last = lsn;
                self.last_record.receiver_count() > 0
            });
            let state = self.memory_state(&ingest, 0);
            if ingest.freeze_wanted || self.config.flush.should_freeze(&state) {
                self.freeze(&mut ingest);
            }
            self.config.flush.must_wait(&state)
        };
        if must_wait { self.wait_for_room().await } else { Ok(()) }
    }

    /// Asks for the open layer to be frozen, now or when the record being put is finished. Returns the last finished record's end.
    pub(super) fn request_freeze(&self) -> Lsn {
        let mut ingest = self.ingest.lock().expect("no panic under this lock");
        self.freeze_between_records(&mut ingest);
        ingest.finished
    }

    /// Called now and then: freezes what has become old.
    pub(super) fn freeze_if_old(&self) {
        let mut ingest = self.ingest.lock().expect("no panic under this lock");
        let Some(since) = ingest.open_since else { return };
        let age_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.config.flush.should_freeze(&self.memory_state(&ingest, age_ms)) {
            self.freeze_between_records(&mut ingest);
        }
    }

    fn freeze_between_records(&self, ingest: &mut Ingest) {
        if ingest.put > ingest.finished {
            // Inside of a record: never (trap G3).
            ingest.freeze_wanted = true;
        } else if ingest.finished >= ingest.open.begin {
            self.freeze(ingest);
        }
    }

    fn freeze(&self, ingest: &mut Ingest) {
        assert_eq!(ingest.put, ingest.finished, "a layer ends between records");
        let end = ingest.finished + 1;
        let open = Arc::new(MemLayer::new(end));
        let mem = std::mem::replace(&mut ingest.open, open.clone());
        ingest.open_since = None;
        ingest.freeze_wanted = false;
        self.frozen_bytes.fetch_add(mem.bytes(), Ordering::Relaxed);
        let frozen = Frozen { mem, end, metadata: Bytes::copy_from_slice(&ingest.metadata) };
        self.change_layers(|layers| {
            layers.open = open;
            layers.frozen.push(Arc::new(frozen));
        });
        self.flush_wanted.notify_one();
    }

    fn memory_state(&self, ingest: &Ingest, open_age_ms: u64) -> MemoryState {
        // A position that moved without values counts as something to write down, too.
        let moved = u64::from(ingest.finished >= ingest.open.begin);
        let frozen_bytes = self.frozen_bytes.load(Ordering::Relaxed);
        MemoryState { open_bytes: ingest.open.bytes().max(moved), open_age_ms, frozen_bytes }
    }

    async fn wait_for_room(&self) -> Result<(), StorageError> {
        // Every flush moves this, and gives memory back before it does.
        let (mut flushed, mut stopped) = (self.disk_consistent.subscribe(), self.stopped.subscribe());
        loop {
            flushed.mark_unchanged();
            let full = {
                let mut ingest = self.ingest.lock().expect("no panic under this lock");
                let state = self.memory_state(&ingest, 0);
                if self.config.flush.should_freeze(&state) {
                    self.freeze_between_records(&mut ingest);
                }
                self.config.flush.must_wait(&state)
            };
            if !full {
                return Ok(());
            }
            tokio::select! {
                _ = flushed.changed() => {}
                _ = stopped.wait_for(Option::is_some) => return self.check_running(),
            }
        }
    }

    fn check_running(&self) -> Result<(), StorageError> {
        self.stopped.borrow().as_ref().map_or(Ok(()), |why| Err(why.clone()))
    }
}

fn check_sizes<'a>(mut values: impl Iterator<Item = &'a Value>) -> Result<(), StorageError> {
    let large = values.find(|value| value.bytes().len() > VALUE_BYTES_MAX);
    large.map_or(Ok(()), |value| {
        let bytes = value.bytes().len();
        Err(StorageError::TooLarge { what: "a value", bytes, max: VALUE_BYTES_MAX })
    })
}
