//! The index of a timeline: the sole authority on which layers it has and up to which LSN it is whole.
//!
//! One object per generation. Text: a first line with magic, version and the CRC-32C of the rest, then JSON. Every put of it carries
//! the writer's mark and a number that counts its puts, so that no two writers ever put the same bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use strata_common::{Generation, Lsn, TenantTimelineId, TimelineId};

use super::layer::{LayerDesc, LayerName};

const MAGIC: &str = "strata-index";
const VERSION: u32 = 1;

/// Longest metadata of the service, bytes.
pub const METADATA_BYTES_MAX: usize = 64 << 10;

/// Where a branch left its ancestor: reads at or below `lsn` of what the branch has not go there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ancestor {
    pub timeline: TimelineId,
    pub lsn: Lsn,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimelineIndex {
    pub id: TenantTimelineId,
    pub generation: Generation,
    /// Marks the process that wrote it.
    pub writer: String,
    /// Counts this writer's puts.
    pub sequence: u64,
    /// A higher generation has taken over: whoever wrote this must write no more.
    pub sealed_by: Option<Generation>,
    /// Deletion has begun and will be finished (trap G13).
    pub deleted: bool,
    pub ancestor: Option<Ancestor>,
    /// LSN at which the timeline began: that of its import or branch point.
    pub start_lsn: Lsn,
    /// Every record that ends at or below this is in the layers (inclusive, trap G5); the log is read on from here.
    pub disk_consistent_lsn: Lsn,
    /// What the service wants back at `disk_consistent_lsn`.
    #[serde(with = "hex_bytes")]
    pub metadata: Bytes,
    pub layers: Vec<LayerDesc>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    #[error("it does not begin as an index does")]
    Magic,
    #[error("its format has version {0}; this build reads version {VERSION}")]
    Version(u32),
    #[error("its checksum is {found:08x}, its content has {computed:08x}")]
    Checksum { found: u32, computed: u32 },
    #[error("its content is not an index: {0}")]
    Content(String),
    #[error("it belongs to timeline {0}")]
    Foreign(TenantTimelineId),
}

impl TimelineIndex {
    pub fn encode(&self) -> Bytes {
        let body = serde_json::to_vec_pretty(self).expect("an index has only plain fields");
        let mut text = format!("{MAGIC} {VERSION} {:08x}\n", crc32c::crc32c(&body)).into_bytes();
        text.extend_from_slice(&body);
        text.into()
    }

    pub fn decode(id: TenantTimelineId, text: &[u8]) -> Result<TimelineIndex, IndexError> {
        let newline = text.iter().take(64).position(|b| *b == b'\n').ok_or(IndexError::Magic)?;
        let head = std::str::from_utf8(&text[..newline]).map_err(|_| IndexError::Magic)?;
        let mut words = head.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(IndexError::Magic);
        }
        let version = words.next().and_then(|w| w.parse().ok()).ok_or(IndexError::Magic)?;
        if version != VERSION {
            return Err(IndexError::Version(version));
        }
        let found = words.next().and_then(|w| u32::from_str_radix(w, 16).ok()).ok_or(IndexError::Magic)?;
        let body = &text[newline + 1..];
        let computed = crc32c::crc32c(body);
        if computed != found {
            return Err(IndexError::Checksum { found, computed });
        }
        let index: TimelineIndex =
            serde_json::from_slice(body).map_err(|e| IndexError::Content(e.to_string()))?;
        if index.id != id {
            return Err(IndexError::Foreign(index.id));
        }
        Ok(index)
    }

    pub fn names(&self, name: &LayerName) -> bool {
        self.layers.iter().any(|layer| layer.name == *name)
    }
}

mod hex_bytes {
    use super::*;
    use serde::{Deserializer, Serializer};
    use std::fmt::Write;

    pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            write!(text, "{byte:02x}").map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bad = || serde::de::Error::custom("metadata is not hex");
        if text.len() % 2 != 0 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let byte = |i| u8::from_str_radix(&text[i..i + 2], 16).map_err(|_| bad());
        (0..text.len()).step_by(2).map(byte).collect::<Result<Vec<u8>, _>>().map(Bytes::from)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::core::key::KeyRange;
    use proptest::prelude::*;
    use strata_common::TenantId;

    pub(crate) fn sample() -> TimelineIndex {
        let id = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
        let name = "image.0000000000000010.000000.00000001".parse().expect("a name");
        TimelineIndex {
            id,
            generation: Generation(1),
            writer: "w".into(),
            sequence: 3,
            sealed_by: None,
            deleted: false,
            ancestor: Some(Ancestor { timeline: TimelineId([3; 16]), lsn: Lsn(7) }),
            start_lsn: Lsn(16),
            disk_consistent_lsn: Lsn(16),
            metadata: Bytes::from_static(&[0, 255, 7]),
            layers: vec![LayerDesc { name, bytes: 5, crc: 9, keys: KeyRange::ALL }],
        }
    }

    #[test]
    fn an_index_comes_back_and_a_flipped_byte_is_seen() {
        let index = sample();
        let text = index.encode();
        assert_eq!(TimelineIndex::decode(index.id, &text), Ok(index.clone()));
        for at in 0..text.len() {
            let mut broken = text.to_vec();
            broken[at] ^= 4;
            assert!(TimelineIndex::decode(index.id, &broken).is_err(), "byte {at}");
        }
        let other = TenantTimelineId { timeline: TimelineId([9; 16]), ..index.id };
        assert_eq!(TimelineIndex::decode(other, &text), Err(IndexError::Foreign(index.id)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            prop_assert!(TimelineIndex::decode(sample().id, &bytes).is_err());
        }
    }
}
