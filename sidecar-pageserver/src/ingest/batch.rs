//! Values of whole records on their way to storage, and the counts that `/metrics` shows.
//!
//! Values of one key at one LSN stack in the order of their puts: an image or an initialising change makes the earlier ones
//! moot, another change comes on top (G3).

use bytes::Bytes;
use strata_common::Lsn;

use crate::core::key::{Key, Value};

/// Values before a batch goes to storage. Large enough to make the cost per batch vanish, small enough that readers who
/// wait for this log do not wait long.
const VALUES_MAX: usize = 4096;
const BYTES_MAX: usize = 4 << 20;

/// Cost of a value beside its bytes, for the bound on memory.
const VALUE_OVERHEAD_BYTES: usize = 64;

#[derive(Default)]
pub struct Batch {
    values: Vec<(Key, Lsn, Value)>,
    bytes: usize,
}

impl Batch {
    pub fn put(&mut self, lsn: Lsn, key: Key, value: Value) {
        debug_assert!(
            self.values.last().is_none_or(|(_, last, _)| *last <= lsn),
            "batches are in the order of the log"
        );
        self.bytes += value.bytes().len() + VALUE_OVERHEAD_BYTES;
        self.values.push((key, lsn, value));
    }

    pub fn image(&mut self, lsn: Lsn, key: Key, bytes: Bytes) {
        self.put(lsn, key, Value::Image(bytes));
    }

    /// Values gathered.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// Bytes of the largest value after the first `values`.
    pub fn largest_after(&self, values: usize) -> Option<usize> {
        let after = self.values.get(values..).unwrap_or(&self.values);
        after.iter().map(|(_, _, value)| value.bytes().len()).max()
    }

    /// Keeps the first `values` only.
    pub fn cut(&mut self, values: usize) {
        let cut = self.values.drain(values.min(self.values.len())..);
        self.bytes -= cut.map(|(_, _, value)| value.bytes().len() + VALUE_OVERHEAD_BYTES).sum::<usize>();
    }

    /// Time to hand it to storage, once the record at hand is whole.
    pub fn is_full(&self) -> bool {
        self.values.len() >= VALUES_MAX || self.bytes >= BYTES_MAX
    }

    pub fn take(&mut self) -> Vec<(Key, Lsn, Value)> {
        self.bytes = 0;
        let capacity = self.values.len().min(VALUES_MAX);
        std::mem::replace(&mut self.values, Vec::with_capacity(capacity))
    }
}

/// What ingest did and what it left out, since the process started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub records: u64,
    pub values: u64,
    /// Bits to clear in a page of a visibility map that does not exist (V3).
    pub vm_clears_skipped: u64,
    /// A record changed a block beyond the end of its fork that it did not initialise, as recovery does for maps.
    pub references_beyond_end: u64,
    /// Images of maps whose relation was dropped just before.
    pub images_of_dropped_maps: u64,
    /// Effects that nothing here keeps: mapping files of logical rewrites.
    pub effects_not_kept: u64,
}
