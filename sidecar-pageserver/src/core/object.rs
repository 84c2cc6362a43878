//! Small objects of a timeline: what a compute wants kept for the one after it, whatever becomes of its own disk. `FORMAT.md` has the bytes.
//!
//! The bytes name the timeline, the object, who put it and in which term, under one checksum (PS-5): an object at a wrong place is as
//! wrong as a changed one, and an earlier compute or pageserver can be told from a later one.

use std::fmt;

use bytes::Bytes;
use strata_common::{Generation, TenantId, TenantTimelineId, Term, TimelineId};

const MAGIC: [u8; 8] = *b"STRATAOB";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 60;
const CHECKSUM_BYTES: usize = 4;

/// Which objects there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectName {
    /// Which pages a compute's local file cache holds.
    LfcState,
}

impl ObjectName {
    fn number(self) -> u32 {
        match self {
            ObjectName::LfcState => 1,
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectName::LfcState => "lfc-state",
        })
    }
}

/// An object and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SmallObject {
    pub timeline: TenantTimelineId,
    pub name: ObjectName,
    /// Of the pageserver that wrote it.
    pub generation: Generation,
    /// Of the compute that put it.
    pub term: Term,
    pub content: Bytes,
}

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ObjectDamage {
    #[error("it is cut off")]
    Short,
    #[error("it is none of ours")]
    Foreign,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it is of version {0}, which is not known here")]
    Version(u32),
    #[error("it belongs to another place")]
    Misplaced,
}

impl SmallObject {
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.content.len() + CHECKSUM_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.name.number().to_le_bytes());
        bytes.extend_from_slice(&self.timeline.tenant.0);
        bytes.extend_from_slice(&self.timeline.timeline.0);
        bytes.extend_from_slice(&self.generation.0.to_le_bytes());
        bytes.extend_from_slice(&self.term.0.to_le_bytes());
        assert_eq!(bytes.len(), HEADER_BYTES, "a header has its size");
        bytes.extend_from_slice(&self.content);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.into()
    }

    /// Reads what `encode` wrote for this place; anything else is refused whole.
    pub fn decode(
        timeline: TenantTimelineId,
        name: ObjectName,
        bytes: &Bytes,
    ) -> Result<SmallObject, ObjectDamage> {
        let end = bytes.len().checked_sub(CHECKSUM_BYTES).filter(|end| *end >= HEADER_BYTES);
        let end = end.ok_or(ObjectDamage::Short)?;
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let id = |at: usize| bytes[at..at + 16].try_into().expect("sixteen bytes");
        if bytes[..8] != MAGIC {
            return Err(ObjectDamage::Foreign);
        }
        if crc32c::crc32c(&bytes[..end]) != word(end) {
            return Err(ObjectDamage::Checksum);
        }
        if word(8) != VERSION {
            return Err(ObjectDamage::Version(word(8)));
        }
        let written = TenantTimelineId { tenant: TenantId(id(16)), timeline: TimelineId(id(32)) };
        if (written, word(12)) != (timeline, name.number()) {
            return Err(ObjectDamage::Misplaced);
        }
        let term = Term(u64::from_le_bytes(bytes[52..60].try_into().expect("eight bytes")));
        let content = bytes.slice(HEADER_BYTES..end);
        Ok(SmallObject { timeline, name, generation: Generation(word(48)), term, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(content: Vec<u8>) -> SmallObject {
        let timeline = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
        let name = ObjectName::LfcState;
        SmallObject { timeline, name, generation: Generation(3), term: Term(4), content: content.into() }
    }

    proptest! {
        #[test]
        fn comes_back_and_damage_is_refused(content: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let object = sample(content);
            let (id, name, good) = (object.timeline, object.name, object.encode());
            prop_assert_eq!(SmallObject::decode(id, name, &good), Ok(object));
            let mut flipped = good.to_vec();
            flipped[at.index(good.len())] ^= 1 << bit;
            prop_assert!(SmallObject::decode(id, name, &flipped.into()).is_err());
            prop_assert!(SmallObject::decode(id, name, &good.slice(..at.index(good.len()))).is_err());
        }
    }

    #[test]
    fn the_layout_is_that_of_the_format_page() {
        let bytes = sample(b"content".to_vec()).encode();
        assert_eq!(bytes.len(), 60 + 7 + 4);
        assert_eq!(&bytes[..8], b"STRATAOB");
        assert_eq!((bytes[8], bytes[12], bytes[16], bytes[32], bytes[48], bytes[52]), (1, 1, 1, 2, 3, 4));
        assert_eq!(&bytes[60..67], b"content");
    }

    #[test]
    fn an_object_of_another_timeline_is_refused() {
        let object = sample(Vec::new());
        let other = TenantTimelineId { timeline: TimelineId([9; 16]), ..object.timeline };
        let read = SmallObject::decode(other, object.name, &object.encode());
        assert_eq!(read, Err(ObjectDamage::Misplaced));
    }
}
