//! Reads a layer file: index and filter are in memory while it is open, blocks come through the block cache.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use strata_common::{Lsn, TenantTimelineId};

use super::MAGIC;
use super::bloom::Bloom;
use super::entry::Entries;
use super::footer::{Extent, FOOTER_BYTES, Footer};
use super::frame::{self, BLOOM_FRAME, FRAME_HEADER_BYTES, FRAME_RAW_BYTES_MAX, INDEX_FRAME};
use crate::core::collect::{Collector, Progress};
use crate::core::key::{KEY_BYTES, Key, KeyRange, Value};
use crate::core::layer::LayerName;
use crate::storage::cache::{BlockCache, BlockId};
use crate::storage::disk::{Disk, DiskReader};
use crate::storage::error::StorageError;

/// An index entry: first key, its LSN, offset, length.
const INDEX_ENTRY_BYTES: usize = KEY_BYTES + 8 + 8 + 4;
const CHECK_BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug)]
struct BlockRef {
    first: (Key, Lsn),
    extent: Extent,
}

#[derive(Debug)]
pub struct LayerFile {
    /// For messages.
    file: String,
    reader: Arc<dyn DiskReader>,
    cache: Arc<BlockCache>,
    cache_id: u64,
    footer: Footer,
    blocks: Vec<BlockRef>,
    bloom: Bloom,
}

impl LayerFile {
    /// Opens the file at `path`, which must be layer `name` of timeline `id`.
    pub fn open(
        disk: &dyn Disk,
        path: &Path,
        id: TenantTimelineId,
        name: &LayerName,
        cache: &Arc<BlockCache>,
    ) -> Result<LayerFile, StorageError> {
        let reader = disk.open(path).map_err(StorageError::disk("opening", path))?;
        // Messages travel far: the name is enough, and says all.
        let file = name.to_string();
        let layer = LayerFile::from_reader(reader, file, cache)?;
        let f = &layer.footer;
        if f.id != id || (f.kind, f.begin, f.end) != (name.kind, name.begin, name.end) {
            return Err(layer.corrupt("footer", format!("it belongs to another layer, of timeline {}", f.id)));
        }
        Ok(layer)
    }

    /// Opens whatever `reader` reads; `file` is for messages.
    pub fn from_reader(
        reader: Arc<dyn DiskReader>,
        file: String,
        cache: &Arc<BlockCache>,
    ) -> Result<LayerFile, StorageError> {
        let corrupt = |part: &str, reason: String| StorageError::Corrupt {
            file: file.clone(),
            part: part.to_owned(),
            reason,
        };
        let io = |e: std::io::Error| StorageError::disk("reading", Path::new(&file))(e);
        let size = reader.bytes().map_err(io)?;
        let footer_at = size
            .checked_sub(FOOTER_BYTES as u64)
            .filter(|at| *at >= MAGIC.len() as u64)
            .ok_or_else(|| corrupt("footer", format!("a file of {size} bytes is too short")))?;
        let mut magic = [0; MAGIC.len()];
        reader.read_exact_at(&mut magic, 0).map_err(io)?;
        if magic != MAGIC {
            return Err(corrupt("header", "the file does not begin as a layer file does".into()));
        }
        let mut raw = [0; FOOTER_BYTES];
        reader.read_exact_at(&mut raw, footer_at).map_err(io)?;
        let footer = Footer::decode(&raw).map_err(|reason| corrupt("footer", reason))?;
        let frame = |part: &str, number: u32, extent: Extent| {
            let bytes = read_extent(&*reader, extent, footer_at).map_err(|reason| corrupt(part, reason))?;
            frame::decode(number, bytes).map_err(|reason| corrupt(part, reason))
        };
        let index = frame("index", INDEX_FRAME, footer.index)?;
        let blocks = parse_index(&index, footer.blocks, footer_at)
            .map_err(|reason| corrupt("index", reason.into()))?;
        let bloom = Bloom::new(frame("filter", BLOOM_FRAME, footer.bloom)?.to_vec())
            .ok_or_else(|| corrupt("filter", "it is empty".into()))?;
        let cache_id = cache.layer_id();
        Ok(LayerFile { file, reader, cache: cache.clone(), cache_id, footer, blocks, bloom })
    }

    /// CRC-32C and size of the whole file, to compare with what an index says.
    pub fn checksum(reader: &dyn DiskReader) -> std::io::Result<(u64, u32)> {
        let size = reader.bytes()?;
        let mut buffer = vec![0; CHECK_BUFFER_BYTES];
        let (mut at, mut crc) = (0u64, 0);
        while at < size {
            let part = buffer.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
            reader.read_exact_at(&mut buffer[..part], at)?;
            crc = crc32c::crc32c_append(crc, &buffer[..part]);
            at += part as u64;
        }
        Ok((size, crc))
    }

    pub fn keys(&self) -> KeyRange {
        self.footer.keys
    }

    /// Values in the file.
    pub fn values(&self) -> u64 {
        self.footer.values
    }

    /// Memory that the open file holds beside cached blocks, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.blocks.len() * size_of::<BlockRef>() + self.bloom.bytes()
    }

    /// Gives `collector` what the file holds of `key` at or below `lsn` and above `above`, newest first.
    pub fn collect(
        &self,
        key: Key,
        lsn: Lsn,
        above: Option<Lsn>,
        collector: &mut Collector,
    ) -> Result<Progress, StorageError> {
        if !self.bloom.may_contain(key) {
            return Ok(collector.progress());
        }
        // Blocks that begin after the wanted position cannot matter; the key's values may begin several blocks earlier.
        let end = self.blocks.partition_point(|block| block.first <= (key, lsn));
        for number in (0..end).rev() {
            let mut found: Vec<(Lsn, Value)> = Vec::new();
            let mut entries = self.entries(number)?;
            while let Some(entry) = entries.next().map_err(|e| self.corrupt_block(number, e.into()))? {
                if entry.key > key || (entry.key == key && entry.lsn > lsn) {
                    break;
                }
                if entry.key == key && above.is_none_or(|above| entry.lsn > above) {
                    found.push((entry.lsn, entries.value(&entry)));
                }
            }
            for (at, value) in found.into_iter().rev() {
                if collector.push(at, value) == Progress::Done {
                    return Ok(Progress::Done);
                }
            }
            let (first, first_lsn) = self.blocks[number].first;
            if first < key || above.is_some_and(|above| first_lsn <= above) {
                break;
            }
        }
        Ok(collector.progress())
    }

    /// Calls `visit` with the newest value at or below `lsn` of every key in `keys`.
    pub fn newest(
        &self,
        keys: KeyRange,
        lsn: Lsn,
        mut visit: impl FnMut(Key, Lsn, Value),
    ) -> Result<(), StorageError> {
        let begin = self.blocks.partition_point(|block| block.first.0 < keys.first).saturating_sub(1);
        let mut last: Option<(Key, Lsn, Value)> = None;
        'blocks: for number in begin..self.blocks.len() {
            let mut entries = self.entries(number)?;
            while let Some(entry) = entries.next().map_err(|e| self.corrupt_block(number, e.into()))? {
                if entry.key > keys.last {
                    break 'blocks;
                }
                if entry.key < keys.first || entry.lsn > lsn {
                    continue;
                }
                if let Some((key, at, value)) = last.take_if(|(key, ..)| *key != entry.key) {
                    visit(key, at, value);
                }
                last = Some((entry.key, entry.lsn, entries.value(&entry)));
            }
        }
        if let Some((key, at, value)) = last {
            visit(key, at, value);
        }
        Ok(())
    }

    fn entries(&self, number: usize) -> Result<Entries, StorageError> {
        Ok(Entries::new(self.block(number)?, self.footer.begin))
    }

    fn block(&self, number: usize) -> Result<Bytes, StorageError> {
        let block = u32::try_from(number).expect("the footer counts blocks in 32 bits");
        let id = BlockId { layer: self.cache_id, block };
        if let Some(content) = self.cache.get(id) {
            return Ok(content);
        }
        let extent = self.blocks[number].extent;
        let mut bytes = vec![0; extent.bytes as usize];
        self.reader
            .read_exact_at(&mut bytes, extent.offset)
            .map_err(|e| StorageError::disk("reading", Path::new(&self.file))(e))?;
        let content =
            frame::decode(block, bytes.into()).map_err(|reason| self.corrupt_block(number, reason))?;
        self.cache.insert(id, content.clone());
        Ok(content)
    }

    fn corrupt(&self, part: &str, reason: String) -> StorageError {
        StorageError::Corrupt { file: self.file.clone(), part: part.to_owned(), reason }
    }

    fn corrupt_block(&self, number: usize, reason: String) -> StorageError {
        self.corrupt(&format!("block {number}"), reason)
    }
}

fn read_extent(reader: &dyn DiskReader, extent: Extent, end_max: u64) -> Result<Bytes, String> {
    if !inside(extent, end_max) {
        return Err("it lies outside of the file".into());
    }
    let mut bytes = vec![0; extent.bytes as usize];
    reader.read_exact_at(&mut bytes, extent.offset).map_err(|e| e.to_string())?;
    Ok(bytes.into())
}

fn inside(extent: Extent, end_max: u64) -> bool {
    let end = extent.offset.checked_add(u64::from(extent.bytes));
    let long_enough = extent.bytes as usize >= FRAME_HEADER_BYTES;
    long_enough && extent.bytes as usize <= FRAME_RAW_BYTES_MAX * 2 && end.is_some_and(|end| end <= end_max)
}

fn parse_index(raw: &[u8], blocks: u32, end_max: u64) -> Result<Vec<BlockRef>, &'static str> {
    if raw.len() != blocks as usize * INDEX_ENTRY_BYTES {
        return Err("it does not have an entry for each block");
    }
    let mut found: Vec<BlockRef> = Vec::with_capacity(blocks as usize);
    for entry in raw.chunks_exact(INDEX_ENTRY_BYTES) {
        let (key, rest) = entry.split_first_chunk::<KEY_BYTES>().ok_or("an entry is cut off")?;
        let number = |at: usize| rest[at..].first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
        let (lsn, offset) = number(0).zip(number(8)).ok_or("an entry is cut off")?;
        let bytes =
            rest[16..].first_chunk::<4>().map(|b| u32::from_le_bytes(*b)).ok_or("an entry is cut off")?;
        let block = BlockRef { first: (Key(*key), Lsn(lsn)), extent: Extent { offset, bytes } };
        if !inside(block.extent, end_max) {
            return Err("a block lies outside of the file");
        }
        if found.last().is_some_and(|before| before.first > block.first) {
            return Err("its keys are not in order");
        }
        found.push(block);
    }
    Ok(found)
}
