//! A position in the write-ahead log, in bytes since its beginning, with Postgres's text form (`16/B374D848`).
//!
//! Facts of Postgres: `src/include/access/xlogdefs.h`, `src/include/access/xlog_internal.h`.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Log sequence number: a byte position in the log. `Lsn::INVALID` (0) never names a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// Size of a WAL page (`XLOG_BLCKSZ`), bytes.
pub const WAL_PAGE_BYTES: u64 = 8192;

impl Lsn {
    pub const INVALID: Lsn = Lsn(0);
    /// The highest position there is; in a page request it means "the latest".
    pub const MAX: Lsn = Lsn(u64::MAX);

    pub fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// Rounds up to the next multiple of 8, where records begin (`MAXALIGN`).
    pub fn align_up(self) -> Lsn {
        Lsn((self.0 + 7) & !7)
    }

    pub fn is_aligned(self) -> bool {
        self.0 & 7 == 0
    }

    /// Offset in the WAL page that holds this position, bytes.
    pub fn page_offset(self) -> u64 {
        self.0 % WAL_PAGE_BYTES
    }

    /// Number of the segment that holds this position, for segments of `segment_bytes`.
    pub fn segment_number(self, segment_bytes: u64) -> u64 {
        self.0 / segment_bytes
    }

    /// Offset in the segment that holds this position, bytes.
    pub fn segment_offset(self, segment_bytes: u64) -> u64 {
        self.0 % segment_bytes
    }

    /// Start of the segment that holds this position.
    pub fn segment_start(self, segment_bytes: u64) -> Lsn {
        Lsn(self.0 - self.0 % segment_bytes)
    }

    /// Bytes from `earlier` to here, or `None` if `earlier` is later.
    pub fn checked_sub(self, earlier: Lsn) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

impl Add<u64> for Lsn {
    type Output = Lsn;
    fn add(self, bytes: u64) -> Lsn {
        Lsn(self.0.checked_add(bytes).expect("an LSN never wraps"))
    }
}

impl Sub<Lsn> for Lsn {
    type Output = u64;
    fn sub(self, earlier: Lsn) -> u64 {
        self.0.checked_sub(earlier.0).expect("the earlier LSN comes second")
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not an LSN: it looks like 16/B374D848")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Lsn, ParseLsnError> {
        let bad = || ParseLsnError(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let part = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if plain { u32::from_str_radix(digits, 16).map_err(|_| bad()) } else { Err(bad()) }
        };
        Ok(Lsn((u64::from(part(high)?) << 32) | u64::from(part(low)?)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_form_round_trips(raw: u64) {
            prop_assert_eq!(Lsn(raw).to_string().parse::<Lsn>(), Ok(Lsn(raw)));
        }
    }

    #[test]
    fn text_form_is_that_of_postgres() {
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        for bad in ["", "/", "1/", "/1", "1/2/3", "x/1", "1/100000000", "+1/2", "1 /2"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn positions_in_pages_and_segments() {
        let lsn = Lsn(0x0200_2005);
        assert_eq!(lsn.align_up(), Lsn(0x0200_2008));
        assert_eq!(lsn.page_offset(), 5);
        assert_eq!(lsn.segment_number(16 << 20), 2);
        assert_eq!(lsn.segment_start(16 << 20), Lsn(0x0200_0000));
    }
}
