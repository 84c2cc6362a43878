//! Reads: what a key is made of at an LSN, and which keys a range has.
//!
//! Sources are visited newest first: open layer, frozen layers, delta layers, the image layer that covers the key; then the same in the
//! ancestor, at the branch point. Layers that are here are read at once (a positioned read, usually from the page cache); only a
//! download makes a read wait, and nothing is held meanwhile (trap G14).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use strata_common::Lsn;

use super::error::{ErrorKind, StorageError};
use super::layer::Layer;
use super::layer_file::LayerFile;
use super::timeline::{Layers, Timeline};
use crate::core::collect::{Collector, Progress};
use crate::core::key::{Key, KeyRange, Reconstruct, Value};

impl Timeline {
    /// What `key` is made of as of `lsn` (all records that end at or below it). An absent key is an empty answer, not an error.
    pub async fn get(&self, key: Key, lsn: Lsn) -> Result<Reconstruct, StorageError> {
        self.get_above(key, lsn, None).await
    }

    /// Like [`Timeline::get`] for a caller who has the content of `key` as of an earlier LSN on this timeline: that stands for
    /// everything at or below it, and only what came later is looked for.
    pub async fn get_above(
        &self,
        key: Key,
        lsn: Lsn,
        known: Option<(Lsn, Bytes)>,
    ) -> Result<Reconstruct, StorageError> {
        self.check_readable(lsn)?;
        let mut collector = Collector::new(known);
        let (mut timeline, mut lsn) = (self, lsn);
        loop {
            if timeline.collect(key, lsn, &mut collector).await? == Progress::Done {
                return Ok(collector.finish());
            }
            let Some((ancestor, branch_lsn)) = &timeline.ancestor else { return Ok(collector.finish()) };
            lsn = lsn.min(*branch_lsn);
            if collector.floor().is_some_and(|floor| floor >= lsn) {
                return Ok(collector.finish());
            }
            // After a restart the ancestor may still be reading the log up to the branch point again.
            ancestor.wait_for(lsn, timeline.config.ancestor_wait_max).await?;
            timeline = ancestor;
        }
    }

    /// The content of every key in `keys` as of `lsn`, in order, for keys whose values are images. Tombstones are values like others.
    pub async fn scan(&self, keys: KeyRange, lsn: Lsn) -> Result<Vec<(Key, Bytes)>, StorageError> {
        let found = self.newest(keys, lsn).await?;
        let image = |(key, (lsn, value))| match value {
            Value::Image(bytes) => Ok((key, bytes)),
            Value::Change { .. } => Err(StorageError::NotAnImage { key, lsn }),
        };
        found.into_iter().map(image).collect()
    }

    /// The keys in `keys` that have any value at or below `lsn`, in order.
    pub async fn keys(&self, keys: KeyRange, lsn: Lsn) -> Result<Vec<Key>, StorageError> {
        Ok(self.newest(keys, lsn).await?.into_keys().collect())
    }

    /// One timeline's part of a search; `Done` also if it is known that the key has nothing older.
    async fn collect(&self, key: Key, lsn: Lsn, collector: &mut Collector) -> Result<Progress, StorageError> {
        let layers = self.layers();
        let image = layers.map.image_for(key, lsn);
        let image_lsn = image.map(|entry| entry.name.begin);
        let above = image_lsn.max(collector.floor());
        for mem in layers.memory() {
            if mem.collect(key, lsn, above, collector) == Progress::Done {
                return Ok(Progress::Done);
            }
        }
        for entry in layers.map.deltas(KeyRange::one(key), lsn, above) {
            if collect(&entry.layer, key, lsn, above, collector).await? == Progress::Done {
                return Ok(Progress::Done);
            }
        }
        let Some(image) = image else { return Ok(Progress::NeedOlder) };
        if collector.floor() < image_lsn {
            collect(&image.layer, key, lsn, None, collector).await?;
        }
        // Found or not, nothing below the image layer matters (trap G4).
        Ok(Progress::Done)
    }

    async fn newest(&self, keys: KeyRange, lsn: Lsn) -> Result<BTreeMap<Key, (Lsn, Value)>, StorageError> {
        self.check_readable(lsn)?;
        let mut found = BTreeMap::new();
        // Timelines already visited, youngest first: an image layer there hides what is older.
        let mut younger: Vec<(Arc<Layers>, Lsn)> = Vec::new();
        let (mut timeline, mut lsn) = (self, lsn);
        loop {
            let layers = timeline.layers();
            let hidden = |key: Key, at: Lsn, from_image: bool| {
                let covering = layers.map.image_for(key, lsn).map(|entry| entry.name.begin);
                let here = covering.is_some_and(|image| at < image || (at == image && !from_image));
                here || younger.iter().any(|(layers, lsn)| layers.map.image_for(key, *lsn).is_some())
            };
            let mut visit = |from_image: bool, key: Key, at: Lsn, value: Value| {
                if !hidden(key, at, from_image) {
                    found.entry(key).or_insert((at, value));
                }
            };
            for mem in layers.memory() {
                mem.newest(keys, lsn, |key, at, value| visit(false, key, at, value));
            }
            for entry in layers.map.deltas(keys, lsn, None) {
                newest(&entry.layer, keys, lsn, |key, at, value| visit(false, key, at, value)).await?;
            }
            for entry in layers.map.images(keys, lsn) {
                newest(&entry.layer, keys, lsn, |key, at, value| visit(true, key, at, value)).await?;
            }
            let Some((ancestor, branch_lsn)) = &timeline.ancestor else { return Ok(found) };
            younger.push((layers.clone(), lsn));
            lsn = lsn.min(*branch_lsn);
            ancestor.wait_for(lsn, timeline.config.ancestor_wait_max).await?;
            timeline = ancestor;
        }
    }

    fn check_readable(&self, lsn: Lsn) -> Result<(), StorageError> {
        let last = self.last_record();
        if lsn > last {
            return Err(StorageError::NotYet { id: self.id, lsn, last });
        }
        let mut root = self;
        while let Some((ancestor, _)) = &root.ancestor {
            root = ancestor;
        }
        if lsn < root.start_lsn {
            return Err(StorageError::BelowStart { id: self.id, lsn, start: root.start_lsn });
        }
        Ok(())
    }
}

impl Layers {
    /// Layers in memory, newest first.
    fn memory(&self) -> impl Iterator<Item = &super::mem_layer::MemLayer> {
        std::iter::once(&*self.open).chain(self.frozen.iter().rev().map(|frozen| &*frozen.mem))
    }
}

async fn open(layer: &Arc<Layer>) -> Result<Arc<LayerFile>, StorageError> {
    match layer.resident() {
        Some(file) => Ok(file),
        None => layer.file().await,
    }
}

/// One layer's part of a search. A damaged local copy is replaced once by what the object store has.
async fn collect(
    layer: &Arc<Layer>,
    key: Key,
    lsn: Lsn,
    above: Option<Lsn>,
    collector: &mut Collector,
) -> Result<Progress, StorageError> {
    let (file, before) = (open(layer).await?, collector.changes());
    match file.collect(key, lsn, above, collector) {
        Err(error) if error.kind() == ErrorKind::Corruption => {
            collector.cut(before);
            layer.replace(&file, error).await?.collect(key, lsn, above, collector)
        }
        outcome => outcome,
    }
}

/// As `collect`; what was visited before the damage is visited again.
async fn newest(
    layer: &Arc<Layer>,
    keys: KeyRange,
    lsn: Lsn,
    mut visit: impl FnMut(Key, Lsn, Value),
) -> Result<(), StorageError> {
    let file = open(layer).await?;
    match file.newest(keys, lsn, &mut visit) {
        Err(error) if error.kind() == ErrorKind::Corruption => {
            layer.replace(&file, error).await?.newest(keys, lsn, &mut visit)
        }
        outcome => outcome,
    }
}
