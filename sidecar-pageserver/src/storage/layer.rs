//! A layer of a timeline: here as an open file, or only in the object store until somebody reads it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use strata_common::TenantTimelineId;
use strata_objstore::ObjectStore;

use super::cache::BlockCache;
use super::disk::Disk;
use super::error::StorageError;
use super::layer_file::LayerFile;
use super::names;
use crate::core::layer::LayerDesc;

/// What layers need of their surroundings.
#[derive(Debug)]
pub struct LayerContext {
    pub disk: Arc<dyn Disk>,
    pub store: Arc<dyn ObjectStore>,
    pub cache: Arc<BlockCache>,
    pub id: TenantTimelineId,
    pub dir: PathBuf,
}

#[derive(Debug)]
pub struct Layer {
    context: Arc<LayerContext>,
    pub desc: LayerDesc,
    resident: RwLock<Option<Arc<LayerFile>>>,
    /// Held while somebody downloads: others wait and share what comes.
    download: tokio::sync::Mutex<()>,
    uploaded: AtomicBool,
}

impl Layer {
    /// A layer whose file is in the folder and durable, not yet in the object store.
    pub fn local(context: &Arc<LayerContext>, desc: LayerDesc) -> Result<Layer, StorageError> {
        let layer = Layer::remote(context, desc);
        layer.uploaded.store(false, Ordering::Relaxed);
        layer.open_file()?;
        Ok(layer)
    }

    /// A layer that is in the object store; its file may be here too (see [`Layer::adopt_file`]).
    pub fn remote(context: &Arc<LayerContext>, desc: LayerDesc) -> Layer {
        Layer {
            context: context.clone(),
            desc,
            resident: RwLock::new(None),
            download: tokio::sync::Mutex::new(()),
            uploaded: AtomicBool::new(true),
        }
    }

    pub fn is_uploaded(&self) -> bool {
        self.uploaded.load(Ordering::Acquire)
    }

    /// The open file if it is here. The fast path of every read.
    pub fn resident(&self) -> Option<Arc<LayerFile>> {
        self.resident.read().expect("no panic under this lock").clone()
    }

    /// The open file, downloaded first if need be.
    pub async fn file(self: &Arc<Self>) -> Result<Arc<LayerFile>, StorageError> {
        if let Some(file) = self.resident() {
            return Ok(file);
        }
        let _one_at_a_time = self.download.lock().await;
        match self.resident() {
            Some(file) => Ok(file),
            None => self.fetch().await,
        }
    }

    /// Another copy instead of `damaged`, in which `error` was found. Gives `error` back if there is none: the layer was not
    /// uploaded yet, or what the object store has is damaged, too.
    pub async fn replace(
        self: &Arc<Self>,
        damaged: &Arc<LayerFile>,
        error: StorageError,
    ) -> Result<Arc<LayerFile>, StorageError> {
        if !self.is_uploaded() {
            return Err(error);
        }
        let _one_at_a_time = self.download.lock().await;
        match self.resident() {
            // Somebody else was faster.
            Some(file) if !Arc::ptr_eq(&file, damaged) => return Ok(file),
            _ => {}
        }
        tracing::error!(layer = %self.desc.name, timeline = %self.context.id, %error, "damaged local copy, downloading another");
        self.fetch().await.map_err(|why| {
            tracing::error!(layer = %self.desc.name, timeline = %self.context.id, error = %why, "no other copy");
            error
        })
    }

    /// Downloads the layer over whatever is in the folder; under `download`.
    async fn fetch(self: &Arc<Self>) -> Result<Arc<LayerFile>, StorageError> {
        let key = names::layer_key(self.context.id, &self.desc.name)?;
        let object = self.context.store.get(&key).await?;
        tracing::info!(layer = %self.desc.name, timeline = %self.context.id, bytes = object.bytes.len(), "layer downloaded");
        let layer = self.clone();
        super::blocking(move || {
            layer.store_download(object.bytes)?;
            layer.open_file()
        })
        .await
    }

    /// Takes over a file left in the folder if it is exactly the index's layer. False if it is not; it is then removed.
    pub fn adopt_file(&self) -> Result<bool, StorageError> {
        let path = self.path();
        let io = |operation| StorageError::disk(operation, &path);
        let reader = self.context.disk.open(&path).map_err(io("opening"))?;
        let found = LayerFile::checksum(&*reader).map_err(io("reading"))?;
        if found != (self.desc.bytes, self.desc.crc) {
            self.context.disk.remove(&path).map_err(io("removal"))?;
            return Ok(false);
        }
        self.open_file()?;
        Ok(true)
    }

    /// Puts the layer into the object store. What is read back from the disk is checked against what was written.
    pub async fn upload(self: &Arc<Self>) -> Result<(), StorageError> {
        if self.is_uploaded() {
            return Ok(());
        }
        let key = names::layer_key(self.context.id, &self.desc.name)?;
        let layer = self.clone();
        let body = super::blocking(move || layer.read_file()).await?;
        self.context.store.put(&key, body, strata_objstore::PutCondition::Always).await?;
        self.uploaded.store(true, Ordering::Release);
        Ok(())
    }

    /// Forgets the local file; the next read downloads it. Refused (false) while it is not in the object store.
    pub async fn evict(&self) -> Result<bool, StorageError> {
        if !self.is_uploaded() {
            return Ok(false);
        }
        let _no_download = self.download.lock().await;
        self.resident.write().expect("no panic under this lock").take();
        let path = self.path();
        self.context.disk.remove(&path).map_err(StorageError::disk("removal", &path))?;
        Ok(true)
    }

    fn path(&self) -> PathBuf {
        self.context.dir.join(self.desc.name.to_string())
    }

    fn open_file(&self) -> Result<Arc<LayerFile>, StorageError> {
        let c = &self.context;
        let file = Arc::new(LayerFile::open(&*c.disk, &self.path(), c.id, &self.desc.name, &c.cache)?);
        *self.resident.write().expect("no panic under this lock") = Some(file.clone());
        Ok(file)
    }

    fn read_file(&self) -> Result<Bytes, StorageError> {
        let path = self.path();
        let io = || StorageError::disk("reading", &path);
        let reader = self.context.disk.open(&path).map_err(StorageError::disk("opening", &path))?;
        let bytes = reader.bytes().map_err(io())?;
        let mut body = vec![0; usize::try_from(bytes).unwrap_or(0)];
        reader.read_exact_at(&mut body, 0).map_err(io())?;
        self.check(&body, "the local file")?;
        Ok(body.into())
    }

    /// A download gets its final name only after this (trap G19).
    fn check(&self, body: &[u8], part: &str) -> Result<(), StorageError> {
        let (bytes, crc) = (body.len() as u64, crc32c::crc32c(body));
        if (bytes, crc) == (self.desc.bytes, self.desc.crc) {
            return Ok(());
        }
        Err(StorageError::Corrupt {
            file: self.desc.name.to_string(),
            part: part.to_owned(),
            reason: format!(
                "it has {bytes} bytes with checksum {crc:08x}, {} with {:08x} are right",
                self.desc.bytes, self.desc.crc
            ),
        })
    }

    fn store_download(&self, body: Bytes) -> Result<(), StorageError> {
        let disk = &self.context.disk;
        let target = self.path();
        self.check(&body, "the copy in the object store")?;
        let temp = self.context.dir.join(format!("{}.temp", self.desc.name));
        disk.create_dirs(&self.context.dir).map_err(StorageError::disk("creation", &self.context.dir))?;
        let written = disk.create(&temp).and_then(|mut file| file.write_all(&body));
        written.map_err(StorageError::disk("write", &temp))?;
        // Not fsynced: it is a copy, and the next start checks it.
        disk.rename(&temp, &target).map_err(StorageError::disk("rename", &temp))
    }
}
