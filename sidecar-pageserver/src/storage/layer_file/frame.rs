//! Frames: every part of a layer file between magic and footer is one, with its checksum, compressed or not.
//!
//! The checksum covers the frame's number as well, so that a frame read from the wrong place is not taken for another.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use crate::storage::config::Compression;

/// CRC-32C, codec, raw length.
pub const FRAME_HEADER_BYTES: usize = 9;
/// Longest raw content, bytes: index and filter of the largest layers fit, and a broken length takes no memory.
pub const FRAME_RAW_BYTES_MAX: usize = 256 << 20;

const CODEC_PLAIN: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const ZSTD_LEVEL: i32 = 1;

/// Number of the frame that holds the index, and of the one that holds the filter; blocks count from 0.
pub const INDEX_FRAME: u32 = u32::MAX;
pub const BLOOM_FRAME: u32 = u32::MAX - 1;

thread_local! {
    // Made once per thread: making one costs as much as a block's work.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(ZSTD_LEVEL).ok());
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = RefCell::new(Decompressor::new().ok());
}

/// Appends the frame of `raw` to `out`.
pub fn encode(number: u32, raw: &[u8], compression: Compression, out: &mut Vec<u8>) {
    let start = out.len();
    let compressed = match compression {
        Compression::Off => None,
        // What does not compress well is stored as it is: reading it is then free.
        Compression::Zstd => {
            let compressed = COMPRESSOR.with_borrow_mut(|c| c.as_mut().and_then(|c| c.compress(raw).ok()));
            compressed.filter(|c| c.len() + raw.len() / 8 < raw.len())
        }
    };
    let (codec, payload) = match &compressed {
        Some(payload) => (CODEC_ZSTD, &payload[..]),
        None => (CODEC_PLAIN, raw),
    };
    let raw_bytes = u32::try_from(raw.len()).expect("callers bound a frame's content");
    out.extend_from_slice(&[0; 4]);
    out.push(codec);
    out.extend_from_slice(&raw_bytes.to_le_bytes());
    out.extend_from_slice(payload);
    let crc = checksum(number, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// The content of a frame, or what is wrong with it.
pub fn decode(number: u32, frame: Bytes) -> Result<Bytes, String> {
    let Some((header, payload)) = frame.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err("it is shorter than its header".into());
    };
    let [c0, c1, c2, c3, codec, r0, r1, r2, r3] = *header;
    let stored = u32::from_le_bytes([c0, c1, c2, c3]);
    let computed = checksum(number, &frame[4..]);
    if stored != computed {
        return Err(format!("the checksum is wrong: {stored:08x} is stored, the bytes have {computed:08x}"));
    }
    let raw_bytes = u32::from_le_bytes([r0, r1, r2, r3]) as usize;
    if raw_bytes > FRAME_RAW_BYTES_MAX {
        return Err(format!("a content of {raw_bytes} bytes is too long"));
    }
    let raw = match codec {
        CODEC_PLAIN => frame.slice(FRAME_HEADER_BYTES..),
        CODEC_ZSTD => {
            decompress(payload, raw_bytes).map_err(|e| format!("it does not decompress: {e}"))?.into()
        }
        other => return Err(format!("codec {other} is unknown")),
    };
    if raw.len() != raw_bytes {
        return Err(format!("its content has {} bytes, not {raw_bytes}", raw.len()));
    }
    Ok(raw)
}

fn decompress(payload: &[u8], raw_bytes: usize) -> std::io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| match kept {
        Some(decompressor) => decompressor.decompress(payload, raw_bytes),
        None => zstd::bulk::decompress(payload, raw_bytes),
    })
}

fn checksum(number: u32, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_in_both_codecs_and_only_at_their_number() {
        let raw = vec![7u8; 5000];
        for compression in [Compression::Off, Compression::Zstd] {
            let mut frame = Vec::new();
            encode(3, &raw, compression, &mut frame);
            assert_eq!(frame.len() < 1000, compression == Compression::Zstd);
            assert_eq!(decode(3, frame.clone().into()), Ok(raw.clone().into()));
            assert!(decode(4, frame.clone().into()).is_err_and(|e| e.contains("checksum")));
            for at in 0..frame.len() {
                let mut broken = frame.clone();
                broken[at] ^= 1;
                assert!(decode(3, broken.into()).is_err(), "byte {at}");
            }
        }
    }
}
