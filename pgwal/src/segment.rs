//! Segments of the log: their size and the names of their files (`src/include/access/xlog_internal.h`).

use strata_common::Lsn;

/// Size of a log segment (`wal_segment_size`), bytes: a power of two from 1 MiB to 1 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct SegmentBytes(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a segment size: a power of two from 1 MiB to 1 GiB is expected")]
pub struct BadSegmentBytes(pub u64);

impl SegmentBytes {
    pub const MIN: SegmentBytes = SegmentBytes(1 << 20);
    pub const MAX: SegmentBytes = SegmentBytes(1 << 30);
    /// What initdb chooses: 16 MiB.
    pub const DEFAULT: SegmentBytes = SegmentBytes(16 << 20);

    pub fn new(bytes: u64) -> Result<SegmentBytes, BadSegmentBytes> {
        match u32::try_from(bytes) {
            Ok(size) if size.is_power_of_two() && (Self::MIN.0..=Self::MAX.0).contains(&size) => {
                Ok(SegmentBytes(size))
            }
            _ => Err(BadSegmentBytes(bytes)),
        }
    }

    pub fn get(self) -> u64 {
        u64::from(self.0)
    }

    /// Start of the segment after the one that holds `lsn`.
    pub fn next_segment(self, lsn: Lsn) -> Lsn {
        lsn.segment_start(self.get()) + self.get()
    }

    pub fn is_segment_start(self, lsn: Lsn) -> bool {
        lsn.segment_offset(self.get()) == 0
    }
}

/// Postgres's timeline number, 32 bits; part of segment names. Not a Strata timeline id.
pub type TimelineNumber = u32;

/// Name of the segment file that holds `lsn` (24 hex digits).
pub fn segment_file_name(timeline: TimelineNumber, lsn: Lsn, segment_bytes: SegmentBytes) -> String {
    let number = lsn.segment_number(segment_bytes.get());
    let per_id = (1u64 << 32) / segment_bytes.get();
    format!("{timeline:08X}{:08X}{:08X}", number / per_id, number % per_id)
}

/// Timeline and start of the segment with this file name, or `None` if it is no segment name.
pub fn parse_segment_file_name(name: &str, segment_bytes: SegmentBytes) -> Option<(TimelineNumber, Lsn)> {
    let hex_digits = name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    if name.len() != 24 || !hex_digits {
        return None;
    }
    let part = |range| u32::from_str_radix(name.get(range)?, 16).ok();
    let (timeline, id, segment) = (part(0..8)?, part(8..16)?, part(16..24)?);
    let per_id = (1u64 << 32) / segment_bytes.get();
    if u64::from(segment) >= per_id {
        return None;
    }
    let start = (u64::from(id) * per_id + u64::from(segment)).checked_mul(segment_bytes.get())?;
    Some((timeline, Lsn(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_postgres() {
        let size = SegmentBytes::DEFAULT;
        let lsn = Lsn(0x1_02AB_CDEF);
        assert_eq!(segment_file_name(1, lsn, size), "000000010000000100000002");
        assert_eq!(parse_segment_file_name("000000010000000100000002", size), Some((1, Lsn(0x1_0200_0000))));
        for bad in ["", "00000001000000010000000", "00000001.history", "000000010000000100000100"] {
            assert_eq!(parse_segment_file_name(bad, size), None, "{bad}");
        }
        assert!(parse_segment_file_name("000000010000000100000FFF", SegmentBytes::MIN).is_some());
    }

    #[test]
    fn only_powers_of_two_in_range_are_sizes() {
        assert_eq!(SegmentBytes::new(16 << 20), Ok(SegmentBytes::DEFAULT));
        for bad in [0, 1 << 19, (1 << 20) + 1, 1 << 31, u64::MAX] {
            assert_eq!(SegmentBytes::new(bad), Err(BadSegmentBytes(bad)));
        }
    }
}
