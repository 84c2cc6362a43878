//! The small values behind keys that are not pages: sizes, entries, record marks. Formats are in `FORMAT.md`.
//!
//! An empty value is a tombstone for every kind here: "existed, and does not at this LSN". Without it a dropped
//! relation of a branch would show its ancestor's state again (G1).

use bytes::Bytes;
use strata_common::Lsn;

/// A value that cannot be read: written by a newer version, or damaged.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a {what} of {length} bytes cannot be read")]
pub struct BadValue {
    pub what: &'static str,
    pub length: usize,
}

/// The tombstone of every kind in this module.
pub fn tombstone() -> Bytes {
    Bytes::new()
}

/// What is there at all: databases, tablespaces, init forks.
pub fn present() -> Bytes {
    Bytes::from_static(&[1])
}

/// A number of blocks: of a fork (`RelSize`), or pages of an SLRU segment (`SlruSegment`).
pub fn encode_blocks(blocks: u32) -> Bytes {
    Bytes::copy_from_slice(&blocks.to_le_bytes())
}

/// `None` for a tombstone.
pub fn decode_blocks(value: &[u8]) -> Result<Option<u32>, BadValue> {
    match value {
        [] => Ok(None),
        _ => {
            let raw = value.try_into().map_err(|_| BadValue { what: "block count", length: value.len() })?;
            Ok(Some(u32::from_le_bytes(raw)))
        }
    }
}

/// Known at certain record ends (every commit, abort, prepare and checkpoint, and wherever storage may be cut): where the
/// record began, what came before it, and the counters that move with almost every record. A branch or base backup at any
/// LSN rounds down to one of these, so that the next record's `xl_prev` is true (S3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// Start of the record whose end is this value's LSN.
    pub record_lsn: Lsn,
    /// Start of the record before that one: its `xl_prev`.
    pub prev_record_lsn: Lsn,
    /// The record is a shutdown checkpoint.
    pub shutdown_checkpoint: bool,
    /// Highest commit or abort time so far, microseconds since 1970. A maximum, because commit times are not monotonic
    /// (G10) and a search needs something that is.
    pub latest_commit_unix_micros: i64,
    /// The next full transaction id, epoch included.
    pub next_xid: u64,
    pub next_oid: u32,
    pub next_multi: u32,
    pub next_multi_offset: u32,
    pub newest_commit_ts_xid: u32,
}

const MARK_VERSION: u8 = 1;
pub const MARK_BYTES: usize = 50;

impl Mark {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(MARK_BYTES);
        out.push(MARK_VERSION);
        out.push(u8::from(self.shutdown_checkpoint));
        out.extend_from_slice(&self.record_lsn.0.to_le_bytes());
        out.extend_from_slice(&self.prev_record_lsn.0.to_le_bytes());
        out.extend_from_slice(&self.latest_commit_unix_micros.to_le_bytes());
        out.extend_from_slice(&self.next_xid.to_le_bytes());
        out.extend_from_slice(&self.next_oid.to_le_bytes());
        out.extend_from_slice(&self.next_multi.to_le_bytes());
        out.extend_from_slice(&self.next_multi_offset.to_le_bytes());
        out.extend_from_slice(&self.newest_commit_ts_xid.to_le_bytes());
        Bytes::from(out)
    }

    pub fn decode(value: &[u8]) -> Result<Mark, BadValue> {
        let bad = BadValue { what: "record mark", length: value.len() };
        if value.len() != MARK_BYTES || value[0] != MARK_VERSION || value[1] > 1 {
            return Err(bad);
        }
        let long =
            |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().expect("length checked above"));
        let word =
            |at: usize| u32::from_le_bytes(value[at..at + 4].try_into().expect("length checked above"));
        Ok(Mark {
            shutdown_checkpoint: value[1] == 1,
            record_lsn: Lsn(long(2)),
            prev_record_lsn: Lsn(long(10)),
            latest_commit_unix_micros: long(18).cast_signed(),
            next_xid: long(26),
            next_oid: word(34),
            next_multi: word(38),
            next_multi_offset: word(42),
            newest_commit_ts_xid: word(46),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn marks_round_trip(a: [u64; 3], time: i64, b: [u32; 4], shutdown_checkpoint: bool) {
            let mark = Mark {
                record_lsn: Lsn(a[0]),
                prev_record_lsn: Lsn(a[1]),
                shutdown_checkpoint,
                latest_commit_unix_micros: time,
                next_xid: a[2],
                next_oid: b[0],
                next_multi: b[1],
                next_multi_offset: b[2],
                newest_commit_ts_xid: b[3],
            };
            let bytes = mark.encode();
            prop_assert_eq!(Mark::decode(&bytes), Ok(mark));
            prop_assert!(Mark::decode(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn block_counts_and_tombstones() {
        assert_eq!(decode_blocks(&encode_blocks(0)), Ok(Some(0)));
        assert_eq!(decode_blocks(&encode_blocks(u32::MAX)), Ok(Some(u32::MAX)));
        assert_eq!(decode_blocks(&tombstone()), Ok(None));
        assert!(decode_blocks(&[1, 2]).is_err());
        assert!(Mark::decode(&[9; MARK_BYTES]).is_err());
    }
}
