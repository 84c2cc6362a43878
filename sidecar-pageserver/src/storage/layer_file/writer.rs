//! Writes a layer file from values that come sorted by key and, within a key, in the order of their LSNs.
//!
//! The file gets its final name only when it is whole and durable: temporary name, blocks, index, filter, footer, fsync, rename,
//! fsync of the folder. A writer that is dropped before that removes its temporary file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use strata_common::{Lsn, TenantTimelineId};

use super::bloom::BloomBuilder;
use super::footer::{Extent, Footer};
use super::frame::{self, BLOOM_FRAME, INDEX_FRAME};
use super::{MAGIC, entry};
use crate::core::key::{Key, KeyRange, VALUE_BYTES_MAX, ValueRef};
use crate::core::layer::{LayerDesc, LayerKind, LayerName};
use crate::storage::config::Compression;
use crate::storage::disk::{Disk, DiskWriter};
use crate::storage::error::StorageError;

/// A block of a delta layer is closed when it holds this much, bytes. Larger blocks compress better and cost more per read.
const DELTA_BLOCK_BYTES_TARGET: usize = 16 << 10;
/// A block of an image layer holds one page, or as many small values.
const IMAGE_BLOCK_BYTES_TARGET: usize = 8 << 10;
/// Written to the file in pieces of this size, bytes.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
pub struct WriterOptions {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub id: TenantTimelineId,
    pub compression: Compression,
}

pub struct LayerWriter {
    options: WriterOptions,
    name: LayerName,
    temp: PathBuf,
    file: Box<dyn DiskWriter>,
    buffer: Vec<u8>,
    /// Bytes written or in the buffer, and their checksum up to the buffer.
    offset: u64,
    crc: u32,
    block: Vec<u8>,
    block_first: Option<(Key, Lsn)>,
    index: Vec<u8>,
    blocks: u32,
    values: u64,
    bloom: BloomBuilder,
    first: Option<Key>,
    last: Option<(Key, Lsn)>,
    finished: bool,
}

impl LayerWriter {
    pub fn create(options: WriterOptions, name: LayerName) -> Result<LayerWriter, StorageError> {
        let temp = options.dir.join(format!("{name}.temp"));
        options.disk.create_dirs(&options.dir).map_err(StorageError::disk("creation", &options.dir))?;
        let file = options.disk.create(&temp).map_err(StorageError::disk("creation", &temp))?;
        let mut writer = LayerWriter {
            options,
            name,
            temp,
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES * 2),
            offset: 0,
            crc: 0,
            block: Vec::new(),
            block_first: None,
            index: Vec::new(),
            blocks: 0,
            values: 0,
            bloom: BloomBuilder::default(),
            first: None,
            last: None,
            finished: false,
        };
        writer.buffer.extend_from_slice(&MAGIC);
        writer.offset = MAGIC.len() as u64;
        Ok(writer)
    }

    /// Bytes of the file so far.
    pub fn bytes(&self) -> u64 {
        self.offset + self.block.len() as u64
    }

    pub fn add(&mut self, key: Key, lsn: Lsn, value: ValueRef<'_>) -> Result<(), StorageError> {
        assert!(self.name.begin <= lsn && lsn < self.name.end, "{}: a value at {lsn} is outside", self.name);
        let bytes = value.bytes().len();
        if bytes > VALUE_BYTES_MAX {
            return Err(StorageError::TooLarge { what: "a value", bytes, max: VALUE_BYTES_MAX });
        }
        let in_order = match (self.name.kind, self.last) {
            (_, None) => true,
            (LayerKind::Delta, Some(last)) => last <= (key, lsn),
            (LayerKind::Image, Some((last, _))) => last < key,
        };
        if !in_order {
            return Err(StorageError::Unsorted(key));
        }
        let before = self.block_first.and(self.last).map(|(key, _)| key);
        entry::encode(before, key, lsn.0 - self.name.begin.0, value, &mut self.block);
        self.block_first.get_or_insert((key, lsn));
        self.first.get_or_insert(key);
        self.last = Some((key, lsn));
        self.bloom.add(key);
        self.values += 1;
        let target = match self.name.kind {
            LayerKind::Delta => DELTA_BLOCK_BYTES_TARGET,
            LayerKind::Image => IMAGE_BLOCK_BYTES_TARGET,
        };
        if self.block.len() >= target { self.close_block() } else { Ok(()) }
    }

    /// Completes the file. `covers`: the keys that an image layer speaks for; a delta layer's are those it holds.
    pub fn finish(mut self, covers: Option<KeyRange>) -> Result<LayerDesc, StorageError> {
        self.close_block()?;
        let held = self.first.zip(self.last).map(|(first, (last, _))| KeyRange { first, last });
        let keys = covers.or(held).unwrap_or(KeyRange::ALL);
        assert!(held.is_none_or(|held| keys.covers(&held)), "{}: a key is outside of {keys:?}", self.name);
        let index = self.index.clone();
        let bloom = self.bloom.build();
        let footer = Footer {
            id: self.options.id,
            kind: self.name.kind,
            begin: self.name.begin,
            end: self.name.end,
            keys,
            blocks: self.blocks,
            values: self.values,
            index: self.write_frame(INDEX_FRAME, &index)?,
            bloom: self.write_frame(BLOOM_FRAME, &bloom)?,
        };
        self.buffer.extend_from_slice(&footer.encode());
        self.offset += footer.encode().len() as u64;
        self.drain_buffer()?;
        let target = self.options.dir.join(self.name.to_string());
        self.file.sync().map_err(StorageError::disk("fsync", &self.temp))?;
        publish(&*self.options.disk, &self.temp, &target)?;
        self.finished = true;
        Ok(LayerDesc { name: self.name, bytes: self.offset, crc: self.crc, keys })
    }

    fn close_block(&mut self) -> Result<(), StorageError> {
        let Some((key, lsn)) = self.block_first.take() else { return Ok(()) };
        let raw = std::mem::take(&mut self.block);
        let number = self.blocks;
        let extent = self.write_frame(number, &raw)?;
        self.index.extend_from_slice(&key.0);
        self.index.extend_from_slice(&lsn.0.to_le_bytes());
        self.index.extend_from_slice(&extent.offset.to_le_bytes());
        self.index.extend_from_slice(&extent.bytes.to_le_bytes());
        self.blocks += 1;
        self.block = raw;
        self.block.clear();
        Ok(())
    }

    fn write_frame(&mut self, number: u32, raw: &[u8]) -> Result<Extent, StorageError> {
        let start = self.buffer.len();
        frame::encode(number, raw, self.options.compression, &mut self.buffer);
        let bytes = self.buffer.len() - start;
        let extent = Extent {
            offset: self.offset,
            bytes: u32::try_from(bytes).expect("callers bound a frame's content"),
        };
        self.offset += bytes as u64;
        if self.buffer.len() >= BUFFER_BYTES {
            self.drain_buffer()?;
        }
        Ok(extent)
    }

    fn drain_buffer(&mut self) -> Result<(), StorageError> {
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
        self.file.write_all(&self.buffer).map_err(StorageError::disk("write", &self.temp))?;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for LayerWriter {
    fn drop(&mut self) {
        if !self.finished
            && let Err(e) = self.options.disk.remove(&self.temp)
        {
            tracing::warn!(path = %self.temp.display(), error = %e, "an unfinished layer file stays until the next start");
        }
    }
}

/// Gives a complete and durable file its final name, durably.
pub(crate) fn publish(disk: &dyn Disk, temp: &Path, target: &Path) -> Result<(), StorageError> {
    disk.rename(temp, target).map_err(StorageError::disk("rename", temp))?;
    let Some(dir) = target.parent() else { return Ok(()) };
    disk.sync_dir(dir).map_err(StorageError::disk("fsync", dir))
}
