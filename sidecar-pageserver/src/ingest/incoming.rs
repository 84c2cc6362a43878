//! Records and what they do, gathered from the log for `Ingest` to take in one after the other.
//!
//! Gathering knows nothing of what is stored, so it may run ahead on another core. Whatever is freed elsewhere than it was allocated
//! costs both cores time: hence one vector of records, one of effects, and one buffer that holds the bytes of all changes.

use std::vec::IntoIter;

use bytes::Bytes;
use strata_common::Lsn;
use strata_pgwal::{DecodeError, DecodedRecord, RawRecord};
use strata_redo::effect::{Effect, PageValue, SlruEffect};
use strata_redo::error::EffectError;

use crate::ingest::{IngestError, is_wholesale, statistics};

/// A record, but for its effects.
pub(super) struct Head {
    pub place: Place,
    pub xid: u32,
    /// Statistics that it brings (S12).
    pub statistics: Option<Bytes>,
    /// How many of the effects are its own.
    pub effects: usize,
}

/// Which record it is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub start: Lsn,
    pub end: Lsn,
    pub prev: Lsn,
    rmid: u8,
    info: u8,
}

impl Place {
    pub fn name(self) -> String {
        strata_pgwal::rmgr::record_name(self.rmid, self.info)
    }
}

/// Whole records in the order of the log.
pub struct Incoming {
    pub(super) heads: IntoIter<Head>,
    /// Of all records, in their order.
    pub(super) effects: IntoIter<Effect>,
}

impl Incoming {
    pub fn is_empty(&self) -> bool {
        self.heads.as_slice().is_empty()
    }

    /// The next record looks at whole databases as they are before it, so everything before it must be flushed first (G15).
    pub fn wants_flush_before(&self) -> bool {
        let own = self.heads.as_slice().first().map_or(0, |head| head.effects);
        self.effects.as_slice()[..own].iter().any(is_wholesale)
    }

    /// Where the records end that are still to be taken in.
    pub fn ends(&self) -> impl Iterator<Item = Lsn> {
        self.heads.as_slice().iter().map(|head| head.place.end)
    }
}

/// `Incoming` in the making.
#[derive(Default)]
pub struct Gathered {
    heads: Vec<Head>,
    effects: Vec<Effect>,
    /// Bytes of all changes, which are empty in `effects` meanwhile, and how many each has.
    changes: Vec<u8>,
    lengths: Vec<usize>,
    weight_bytes: usize,
}

impl Gathered {
    /// Adds a record. Errors: this version cannot read it, or does not know what it does; then it is not added.
    pub fn add(&mut self, raw: &RawRecord) -> Result<(), IngestError> {
        let unreadable = |e: DecodeError| IngestError::Record {
            name: "that cannot be decoded".to_owned(),
            lsn: raw.lsn,
            reason: e.to_string(),
        };
        let record = strata_pgwal::record::decode(raw).map_err(unreadable)?;
        let before = self.effects.len();
        if let Err(error) = strata_redo::effects_into(&record, &mut self.effects) {
            self.effects.truncate(before);
            return Err(park(&record, &error));
        }
        let own = &mut self.effects[before..];
        self.weight_bytes += size_of::<Head>() + size_of_val(own);
        for effect in own.iter_mut() {
            self.weight_bytes += value_bytes(effect);
            if let Some(change) = change_bytes(effect) {
                self.changes.extend_from_slice(change);
                self.lengths.push(change.len());
                *change = Bytes::new();
            }
        }
        let statistics = statistics::of(&record);
        self.weight_bytes += statistics.as_ref().map_or(0, Bytes::len);
        let DecodedRecord { prev, rmid, info, xid, .. } = record;
        let place = Place { start: raw.lsn, end: raw.end_lsn, prev, rmid, info };
        self.heads.push(Head { place, xid, statistics, effects: self.effects.len() - before });
        Ok(())
    }

    /// Memory that it takes, bytes, about.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// The changes get their bytes back.
    pub fn finish(mut self) -> Incoming {
        let mut changes = Bytes::from(self.changes);
        let gaps = self.effects.iter_mut().filter_map(change_bytes);
        for (change, length) in gaps.zip(&self.lengths) {
            *change = changes.split_to(*length);
        }
        assert!(changes.is_empty(), "every change has its bytes");
        Incoming { heads: self.heads.into_iter(), effects: self.effects.into_iter() }
    }
}

/// What of an effect is copied to the buffer.
fn change_bytes(effect: &mut Effect) -> Option<&mut Bytes> {
    match effect {
        Effect::Page { value: PageValue::Change { bytes, .. }, .. }
        | Effect::Slru(SlruEffect::Page { value: PageValue::Change { bytes, .. }, .. }) => Some(bytes),
        _ => None,
    }
}

fn value_bytes(effect: &Effect) -> usize {
    match effect {
        Effect::Page { value: PageValue::Image(bytes) | PageValue::Change { bytes, .. }, .. }
        | Effect::Slru(SlruEffect::Page {
            value: PageValue::Image(bytes) | PageValue::Change { bytes, .. }, ..
        })
        // Slices that keep the log's bytes.
        | Effect::TwoPhasePrepare { data: bytes, .. }
        | Effect::RelMap { map: bytes, .. } => bytes.len(),
        _ => 0,
    }
}

fn park(record: &DecodedRecord, error: &EffectError) -> IngestError {
    IngestError::Record { name: record.name(), lsn: record.lsn, reason: error.to_string() }
}
