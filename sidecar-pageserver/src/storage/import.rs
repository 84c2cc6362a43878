//! Makes a timeline from sorted keys: image layers that together cover all keys, uploaded while the next ones are written.

use std::sync::Arc;

use bytes::Bytes;
use strata_common::{Lsn, TenantTimelineId};
use tokio::task::JoinSet;

use super::engine::Storage;
use super::error::StorageError;
use super::layer::{Layer, LayerContext};
use super::layer_file::{LayerWriter, WriterOptions};
use super::timeline::Timeline;
use crate::core::index::{METADATA_BYTES_MAX, TimelineIndex};
use crate::core::key::{Key, KeyRange, ValueRef};
use crate::core::layer::{LayerKind, LayerName};

/// Uploads that run while the next layer is written; each holds its layer in memory.
const UPLOADS_MAX: usize = 2;

/// An import that is under way. Dropped before [`Import::finish`] it leaves no timeline.
pub struct Import {
    storage: Storage,
    context: Arc<LayerContext>,
    id: TenantTimelineId,
    lsn: Lsn,
    writer: Option<LayerWriter>,
    /// First key that the layer being written speaks for.
    first: Key,
    ordinal: u32,
    layers: Vec<Arc<Layer>>,
    uploads: JoinSet<Result<(), StorageError>>,
    finished: bool,
}

impl Import {
    pub(super) fn new(storage: &Storage, id: TenantTimelineId, lsn: Lsn) -> Import {
        Import {
            storage: storage.clone(),
            context: storage.context(id),
            id,
            lsn,
            writer: None,
            first: Key::MIN,
            ordinal: 0,
            layers: Vec::new(),
            uploads: JoinSet::new(),
            finished: false,
        }
    }

    /// The next key's content as of the import's LSN. Keys come in order, each once.
    pub async fn add(&mut self, key: Key, image: Bytes) -> Result<(), StorageError> {
        let target = self.storage.config().image_layer_bytes_target;
        if let Some(before) = key.previous()
            && self.writer.as_ref().is_some_and(|writer| writer.bytes() >= target)
            && before >= self.first
        {
            self.close_layer(before).await?;
            self.first = key;
        }
        let lsn = self.lsn;
        self.writer()?.add(key, lsn, ValueRef::Image(&image))
    }

    /// Completes and announces the timeline; everything is in the object store. `metadata` as in [`Timeline::finish_record`].
    pub async fn finish(mut self, metadata: Bytes) -> Result<Arc<Timeline>, StorageError> {
        if metadata.len() > METADATA_BYTES_MAX {
            let bytes = metadata.len();
            return Err(StorageError::TooLarge { what: "the metadata", bytes, max: METADATA_BYTES_MAX });
        }
        self.writer()?;
        self.close_layer(Key::MAX).await?;
        while !self.uploads.is_empty() {
            self.finish_an_upload().await?;
        }
        let index = TimelineIndex {
            id: self.id,
            generation: self.storage.generation(),
            writer: String::new(),
            sequence: 0,
            sealed_by: None,
            deleted: false,
            ancestor: None,
            start_lsn: self.lsn,
            disk_consistent_lsn: self.lsn,
            metadata,
            layers: self.layers.iter().map(|layer| layer.desc.clone()).collect(),
        };
        let timeline = self.storage.create(index, std::mem::take(&mut self.layers), None).await?;
        self.finished = true;
        Ok(timeline)
    }

    fn writer(&mut self) -> Result<&mut LayerWriter, StorageError> {
        if self.writer.is_none() {
            let config = self.storage.config();
            let options = WriterOptions {
                disk: config.disk.clone(),
                dir: self.context.dir.clone(),
                id: self.id,
                compression: config.compression,
            };
            let name = LayerName {
                kind: LayerKind::Image,
                begin: self.lsn,
                end: self.lsn + 1,
                ordinal: self.ordinal,
                generation: self.storage.generation(),
            };
            self.writer = Some(LayerWriter::create(options, name)?);
            self.ordinal += 1;
        }
        Ok(self.writer.as_mut().expect("it was just made"))
    }

    async fn close_layer(&mut self, last: Key) -> Result<(), StorageError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let (keys, context) = (KeyRange { first: self.first, last }, self.context.clone());
        let layer = super::blocking(move || Layer::local(&context, writer.finish(Some(keys))?)).await?;
        let layer = Arc::new(layer);
        self.layers.push(layer.clone());
        while self.uploads.len() >= UPLOADS_MAX {
            self.finish_an_upload().await?;
        }
        self.uploads.spawn(async move { layer.upload().await });
        Ok(())
    }

    async fn finish_an_upload(&mut self) -> Result<(), StorageError> {
        match self.uploads.join_next().await {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(e)) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Some(Err(_)) => Err(StorageError::ShutDown(self.id)),
        }
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.storage.give_up_creation(self.id);
        self.writer = None;
        if let Err(e) = self.context.disk.remove_tree(&self.context.dir) {
            tracing::warn!(timeline = %self.id, error = %e, "files of an unfinished import stay until the next start");
        }
    }
}
