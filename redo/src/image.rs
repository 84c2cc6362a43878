//! Full-page images: decompressed, the hole filled with zeros, the LSN set to the record's end (W15).
//!
//! Postgres: `RestoreBlockImage` in `src/backend/access/transam/xlogreader.c`, and what `XLogReadBufferForRedoExtended` in
//! `xlogutils.c` does after it: a page that is still uninitialized keeps its zero LSN.

use bytes::{Bytes, BytesMut};
use strata_common::{BLOCK_BYTES, Guard, Lsn};
use strata_pgwal::{BlockImage, ImageCompression};

use crate::error::Fault;
use crate::wire::{Parts, put_length};
use crate::{Page, page, pglz};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("image with a hole of {hole_length} bytes at {hole_offset}, which is not inside a page")]
    Hole { hole_offset: u16, hole_length: u16 },
    #[error("image of {bytes} bytes, expected {expected}")]
    Length { bytes: usize, expected: usize },
    #[error("image cannot be decompressed ({method})")]
    Decompress { method: &'static str },
    #[error("image of unknown compression {0}")]
    Compression(u8),
}

/// An image, borrowed from a record or a stored change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageView<'a> {
    pub hole_offset: u16,
    pub hole_length: u16,
    pub compression: ImageCompression,
    pub bytes: &'a [u8],
}

impl<'a> From<&'a BlockImage> for ImageView<'a> {
    fn from(image: &'a BlockImage) -> ImageView<'a> {
        let BlockImage { hole_offset, hole_length, compression, .. } = *image;
        ImageView { hole_offset, hole_length, compression, bytes: &image.bytes }
    }
}

impl<'a> ImageView<'a> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.hole_offset.to_le_bytes());
        out.extend(self.hole_length.to_le_bytes());
        out.push(match self.compression {
            ImageCompression::None => 0,
            ImageCompression::Pglz => 1,
            ImageCompression::Lz4 => 2,
            ImageCompression::Zstd => 3,
        });
        put_length(out, self.bytes.len());
        out.extend(self.bytes);
    }

    pub(crate) fn decode(parts: &mut Parts<'a>) -> Result<ImageView<'a>, Fault> {
        let hole_offset = parts.u16()?;
        let hole_length = parts.u16()?;
        let compression = match parts.u8()? {
            0 => ImageCompression::None,
            1 => ImageCompression::Pglz,
            2 => ImageCompression::Lz4,
            3 => ImageCompression::Zstd,
            other => return Err(ImageError::Compression(other).into()),
        };
        let length = parts.length()?;
        Ok(ImageView { hole_offset, hole_length, compression, bytes: parts.take(length)? })
    }

    /// Writes the whole page, with `lsn` (the record's end) as its LSN unless the page is uninitialized.
    pub fn restore(&self, page: &mut Page, lsn: Lsn) -> Result<(), ImageError> {
        let hole_offset = usize::from(self.hole_offset);
        let hole_end = hole_offset + usize::from(self.hole_length);
        if hole_end > BLOCK_BYTES {
            let ImageView { hole_offset, hole_length, .. } = *self;
            return Err(ImageError::Hole { hole_offset, hole_length });
        }
        let expected = BLOCK_BYTES - usize::from(self.hole_length);
        match self.compression {
            ImageCompression::None => {
                if self.bytes.len() != expected {
                    return Err(ImageError::Length { bytes: self.bytes.len(), expected });
                }
                page[..hole_offset].copy_from_slice(&self.bytes[..hole_offset]);
                page[hole_end..].copy_from_slice(&self.bytes[hole_offset..]);
            }
            method => {
                decompress(method, self.bytes, &mut page[..expected])?;
                page.copy_within(hole_offset..expected, hole_end);
            }
        }
        if Guard::ImageHole.holds() {
            page[hole_offset..hole_end].fill(0);
        }
        let stays_new = page::is_new(page) && Guard::ImageOfZeros.holds();
        if !stays_new && Guard::ImageLsn.holds() {
            page::set_lsn(page, lsn);
        }
        Ok(())
    }

    /// The whole page in a buffer of its own.
    pub fn to_page(&self, lsn: Lsn) -> Result<Bytes, ImageError> {
        let (hole_at, hole_bytes) = (usize::from(self.hole_offset), usize::from(self.hole_length));
        let is_plain =
            self.compression == ImageCompression::None && self.bytes.len() + hole_bytes == BLOCK_BYTES;
        if let Some((front, back)) = self.bytes.split_at_checked(hole_at).filter(|_| is_plain) {
            // The common case, in one pass.
            let mut buffer = Vec::with_capacity(BLOCK_BYTES);
            buffer.extend_from_slice(front);
            buffer.resize(hole_at + hole_bytes, 0);
            buffer.extend_from_slice(back);
            let page = buffer.first_chunk_mut::<BLOCK_BYTES>().expect("the parts are a page long");
            if !page::is_new(page) {
                page::set_lsn(page, lsn);
            }
            return Ok(Bytes::from(buffer));
        }
        let mut buffer = BytesMut::zeroed(BLOCK_BYTES);
        let page = buffer.first_chunk_mut::<BLOCK_BYTES>().expect("the buffer is a page long");
        self.restore(page, lsn)?;
        Ok(buffer.freeze())
    }
}

/// Fills `out` exactly.
fn decompress(method: ImageCompression, bytes: &[u8], out: &mut [u8]) -> Result<(), ImageError> {
    let wanted = out.len();
    let (name, written) = match method {
        ImageCompression::None => unreachable!("handled by the caller"),
        ImageCompression::Pglz => ("pglz", pglz::decompress(bytes, out).then_some(wanted)),
        ImageCompression::Lz4 => ("lz4", lz4_flex::block::decompress_into(bytes, out).ok()),
        ImageCompression::Zstd => ("zstd", zstd::bulk::decompress_to_buffer(bytes, out).ok()),
    };
    if written == Some(wanted) { Ok(()) } else { Err(ImageError::Decompress { method: name }) }
}

#[cfg(test)]
#[path = "image_test.rs"]
mod tests;
