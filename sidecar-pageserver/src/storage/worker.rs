//! The two tasks of a timeline: one makes files of frozen layers, the other brings them to the object store and moves the index.
//!
//! Both try again for ever, with back-off, what may pass: a full disk, a store that is away. Until then memory fills up and the log
//! waits, reads go on, and `remote_consistent` does not move. Losing the index to another process stops both for good.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use strata_common::Lsn;
use tokio::sync::watch;

use super::error::{ErrorKind, StorageError};
use super::layer::Layer;
use super::layer_file::{LayerWriter, WriterOptions};
use super::timeline::{Frozen, Layers, Timeline};
use crate::core::index::TimelineIndex;
use crate::core::key::{Key, ValueRef};
use crate::core::layer::{LayerDesc, LayerKind, LayerName};

/// Keys that get an image at the end of a layer: the LSN of their last change, and the content then.
type Images = HashMap<Key, (Lsn, Bytes)>;

impl Timeline {
    pub(super) async fn run_flusher(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.until_stopped() => return,
                () = self.flush_wanted.notified() => {}
                () = tokio::time::sleep(self.config.tick) => self.freeze_if_old(),
            }
            let mut backoff = self.config.backoff_first;
            while let Some(frozen) = self.layers().frozen.first().cloned() {
                match self.flush_one(&frozen).await {
                    Ok(()) => {
                        backoff = self.config.backoff_first;
                        clear(&self.flush_problem);
                    }
                    Err(e) => {
                        self.report(&self.flush_problem, "flush", e);
                        if !self.back_off(&mut backoff).await {
                            return;
                        }
                    }
                }
            }
        }
    }

    pub(super) async fn run_uploader(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.until_stopped() => return,
                () = self.upload_wanted.notified() => {}
            }
            let mut backoff = self.config.backoff_first;
            loop {
                let result = tokio::select! {
                    () = self.until_stopped() => return,
                    result = self.upload() => result,
                };
                match result {
                    Ok(()) => {
                        clear(&self.upload_problem);
                        break;
                    }
                    Err(e) if e.kind() == ErrorKind::Stale => {
                        tracing::error!(timeline = %self.id, error = %e, "taken over by another process");
                        return self.stop(e);
                    }
                    Err(e) => {
                        self.report(&self.upload_problem, "upload", e);
                        if !self.back_off(&mut backoff).await {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Makes a file of the oldest frozen layer.
    async fn flush_one(&self, frozen: &Arc<Frozen>) -> Result<(), StorageError> {
        let images = tokio::select! {
            () = self.until_stopped() => return Err(StorageError::ShutDown(self.id)),
            images = self.materialize(frozen) => images?,
        };
        // From here on it is not given up half-way: after a shutdown nobody may still be writing to the folder.
        let name = LayerName {
            kind: LayerKind::Delta,
            begin: frozen.mem.begin,
            end: frozen.end,
            ordinal: 0,
            generation: self.generation,
        };
        let layer = if frozen.mem.bytes() == 0 {
            None
        } else {
            let (options, frozen, context) = (self.writer_options(), frozen.clone(), self.context.clone());
            let write = move || Layer::local(&context, write_layer(options, name, &frozen, &images)?);
            Some(Arc::new(super::blocking(write).await?))
        };
        self.change_layers(|layers| {
            assert!(Arc::ptr_eq(&layers.frozen[0], frozen), "layers become files in their order");
            if let Some(layer) = layer {
                layers.map.insert(&layer.desc.clone(), layer)?;
            }
            layers.frozen.remove(0);
            layers.disk_consistent = Lsn(frozen.end.0 - 1);
            layers.metadata = frozen.metadata.clone();
            Ok(())
        })
        .map_err(|source| StorageError::Inconsistent { id: self.id, source })?;
        self.frozen_bytes.fetch_sub(frozen.mem.bytes(), Ordering::Relaxed);
        self.disk_consistent.send_replace(Lsn(frozen.end.0 - 1));
        self.upload_wanted.notify_one();
        Ok(())
    }

    /// Images for the keys whose chain of changes has become long in this layer, so that reading them stays cheap without compaction.
    async fn materialize(&self, frozen: &Frozen) -> Result<Images, StorageError> {
        let mut images = Images::new();
        let Some(materializer) = &self.config.materializer else { return Ok(images) };
        for (key, lsn) in frozen.mem.long_chains(self.config.materialize_changes_min) {
            let parts = match self.get(key, lsn).await {
                Ok(parts) => parts,
                Err(error) if error.kind() == ErrorKind::Retryable => return Err(error),
                Err(error) => {
                    // An image is a short cut, not a duty: one damaged page must not hold back the log of all others.
                    tracing::warn!(timeline = %self.id, %key, %error, "no image of a page that changes often");
                    continue;
                }
            };
            if let Some(image) = materializer.image(key, lsn, parts) {
                images.insert(key, (lsn, image));
            }
            // Redo of a long chain takes a while: let others run.
            tokio::task::yield_now().await;
        }
        Ok(images)
    }

    /// Layers first, index after (trap G7).
    async fn upload(&self) -> Result<(), StorageError> {
        let layers = self.layers();
        if layers.disk_consistent <= self.remote_consistent() {
            return Ok(());
        }
        for entry in layers.map.iter() {
            entry.layer.upload().await?;
        }
        let mut writer = self.index.lock().await;
        writer.write(self.index_of(&layers)).await?;
        self.remote_consistent.send_replace(layers.disk_consistent);
        Ok(())
    }

    /// The index that names exactly `layers`.
    pub(super) fn index_of(&self, layers: &Layers) -> TimelineIndex {
        TimelineIndex {
            id: self.id,
            generation: self.generation,
            writer: String::new(),
            sequence: 0,
            sealed_by: None,
            deleted: false,
            ancestor: self.ancestor(),
            start_lsn: self.start_lsn,
            disk_consistent_lsn: layers.disk_consistent,
            metadata: layers.metadata.clone(),
            layers: layers.map.iter().map(|entry| entry.layer.desc.clone()).collect(),
        }
    }

    fn writer_options(&self) -> WriterOptions {
        WriterOptions {
            disk: self.config.disk.clone(),
            dir: self.context.dir.clone(),
            id: self.id,
            compression: self.config.compression,
        }
    }

    async fn until_stopped(&self) {
        // An error would mean that the sender, which is ours, is gone.
        let _ = self.stopped.subscribe().wait_for(Option::is_some).await;
    }

    /// False if the timeline stopped meanwhile.
    async fn back_off(&self, delay: &mut Duration) -> bool {
        let wait = *delay;
        *delay = (*delay * 2).min(self.config.backoff_max);
        tokio::select! {
            () = self.until_stopped() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    fn report(&self, problem: &watch::Sender<Option<StorageError>>, what: &str, error: StorageError) {
        // Once per outage, not once per try.
        if problem.borrow().is_none() {
            tracing::warn!(timeline = %self.id, error = %error, "{what} failed, it will be tried again");
        }
        problem.send_replace(Some(error));
    }
}

fn clear(problem: &watch::Sender<Option<StorageError>>) {
    problem.send_if_modified(|problem| problem.take().is_some());
}

fn write_layer(
    options: WriterOptions,
    name: LayerName,
    frozen: &Frozen,
    images: &Images,
) -> Result<LayerDesc, StorageError> {
    let mut writer = LayerWriter::create(options, name)?;
    frozen.mem.for_each(|key, versions| {
        for (lsn, value) in versions {
            writer.add(key, *lsn, *value)?;
        }
        match images.get(&key) {
            // After the change of the same LSN: it is the content with that change.
            Some((lsn, image)) => writer.add(key, *lsn, ValueRef::Image(image)),
            None => Ok(()),
        }
    })?;
    writer.finish(None)
}
