//! The tar stream of a base backup: entries are made in memory one by one and leave in chunks of bounded size.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::BackupError;

/// Where chunks go; a slow receiver slows the backup down (P4).
pub type ChunkSink = mpsc::Sender<Result<Bytes, BackupError>>;

/// Largest chunk, bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// Sparse regions that fit into a GNU header without an extension.
const SPARSE_REGIONS_MAX: usize = 4;

const TAR_BLOCK_BYTES: usize = 512;

pub(super) struct Tarball {
    sink: ChunkSink,
    pending: Vec<u8>,
}

impl Tarball {
    pub fn new(sink: ChunkSink) -> Tarball {
        Tarball { sink, pending: Vec::with_capacity(2 * CHUNK_BYTES) }
    }

    pub async fn folder(&mut self, path: &str) -> Result<(), BackupError> {
        let mut header = header(tar::EntryType::Directory, 0o700, 0);
        self.entry(&mut header, &format!("{path}/"), &[]).await
    }

    pub async fn file(&mut self, path: &str, content: &[u8]) -> Result<(), BackupError> {
        let mut header = header(tar::EntryType::Regular, 0o600, content.len() as u64);
        self.entry(&mut header, path, content).await
    }

    /// A file of `file_bytes` that is zero but for `pieces` (offset and bytes, ascending and apart), as GNU tar writes it.
    pub async fn sparse_file(
        &mut self,
        path: &str,
        file_bytes: u64,
        pieces: &[(u64, Bytes)],
    ) -> Result<(), BackupError> {
        let regions = regions(pieces);
        assert!(regions.len() < SPARSE_REGIONS_MAX, "a fabricated segment has at most three pieces");
        let stored: usize = regions.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut header = header(tar::EntryType::GNUSparse, 0o600, stored as u64);
        let gnu = header.as_gnu_mut().expect("made as a GNU header");
        octal(&mut gnu.realsize, file_bytes);
        // The last region, of no bytes, says where the file ends.
        let slots = regions.iter().map(|(at, bytes)| (*at, bytes.len() as u64)).chain([(file_bytes, 0)]);
        for (slot, (offset, length)) in gnu.sparse.iter_mut().zip(slots) {
            octal(&mut slot.offset, offset);
            octal(&mut slot.numbytes, length);
        }
        let content: Vec<u8> = regions.into_iter().flat_map(|(_, bytes)| bytes).collect();
        self.entry(&mut header, path, &content).await
    }

    async fn entry(
        &mut self,
        header: &mut tar::Header,
        path: &str,
        content: &[u8],
    ) -> Result<(), BackupError> {
        header.set_path(path).expect("paths of a data directory are short and relative");
        header.set_cksum();
        self.pending.extend_from_slice(header.as_bytes());
        self.pending.extend_from_slice(content);
        let whole = self.pending.len().next_multiple_of(TAR_BLOCK_BYTES);
        self.pending.resize(whole, 0);
        if self.pending.len() >= CHUNK_BYTES { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> Result<(), BackupError> {
        let mut pending = Bytes::from(std::mem::take(&mut self.pending));
        while !pending.is_empty() {
            let chunk = pending.split_to(pending.len().min(CHUNK_BYTES));
            self.sink.send(Ok(chunk)).await.map_err(|_| BackupError::Gone)?;
        }
        Ok(())
    }

    /// Two empty blocks end a tar; a stream without them was cut off.
    pub async fn finish(mut self) -> Result<(), BackupError> {
        self.pending.resize(self.pending.len() + 2 * TAR_BLOCK_BYTES, 0);
        self.send().await
    }
}

fn header(kind: tar::EntryType, mode: u32, bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header
}

/// The pieces widened to whole blocks of a tar, as readers want them; those that meet become one.
fn regions(pieces: &[(u64, Bytes)]) -> Vec<(u64, Vec<u8>)> {
    let block = TAR_BLOCK_BYTES as u64;
    let mut regions: Vec<(u64, Vec<u8>)> = Vec::new();
    for (offset, bytes) in pieces {
        let end = (offset + bytes.len() as u64).next_multiple_of(block);
        let begin = offset - offset % block;
        let meets = regions.last().is_some_and(|(at, held)| begin <= at + held.len() as u64);
        if !meets {
            regions.push((begin, Vec::new()));
        }
        let (at, held) = regions.last_mut().expect("there is one now");
        held.resize((end - *at) as usize, 0);
        let from = (offset - *at) as usize;
        held[from..from + bytes.len()].copy_from_slice(bytes);
    }
    regions
}

/// Eleven octal digits and a zero byte; sizes of segments fit.
fn octal(field: &mut [u8; 12], value: u64) {
    let text = format!("{value:011o}\0");
    field.copy_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[tokio::test(flavor = "current_thread")]
    async fn a_reader_gets_every_file_back() {
        let (sink, mut chunks) = mpsc::channel(64);
        let big = vec![7u8; 3 * CHUNK_BYTES + 5];
        let pieces = [
            (0, Bytes::from_static(b"head")),
            (100, Bytes::from_static(b"x")),
            (8200, Bytes::from_static(b"record")),
        ];
        let mut tar = Tarball::new(sink);
        tar.folder("base").await.expect("sent");
        tar.file("base/big", &big).await.expect("sent");
        tar.sparse_file("pg_wal/000000010000000000000001", 1 << 20, &pieces).await.expect("sent");
        tar.file("empty", &[]).await.expect("sent");
        tar.finish().await.expect("sent");
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk.expect("no error was sent");
            assert!(chunk.len() <= CHUNK_BYTES);
            bytes.extend_from_slice(&chunk);
        }
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut files = Vec::new();
        for entry in archive.entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            files.push((entry.path().expect("a path").display().to_string(), content));
        }
        let mut segment = vec![0u8; 1 << 20];
        segment[..4].copy_from_slice(b"head");
        segment[100] = b'x';
        segment[8200..8206].copy_from_slice(b"record");
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["base/", "base/big", "pg_wal/000000010000000000000001", "empty"]);
        assert!(files[1].1 == big && files[2].1 == segment && files[3].1.is_empty());
    }
}
