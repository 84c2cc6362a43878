//! `pg_filenode.map`: which file holds each mapped catalog (`RelMapFile` in `src/backend/utils/cache/relmapper.c`).

use crate::fields::{FieldReader, FieldWriter, Short};

/// Size of the file and of the map in a RelMap record, bytes.
pub const RELMAP_BYTES: usize = 524;
const MAGIC: i32 = 0x0059_2717;
const MAPPINGS_MAX: usize = 64;
const CRC_OFFSET: usize = 520;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelMapError {
    #[error("relation map is too short: {0}")]
    Short(#[from] Short),
    #[error("relation map has magic {magic:#x} and {count} mappings")]
    Content { magic: i32, count: i32 },
    #[error("relation map has checksum {found:08x}, its content {expected:08x}")]
    Crc { found: u32, expected: u32 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelMapping {
    pub catalog_oid: u32,
    pub file_number: u32,
}

/// At most 64 mappings, in the file's order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RelMap {
    pub mappings: Vec<RelMapping>,
}

impl RelMap {
    pub fn parse(bytes: &[u8]) -> Result<RelMap, RelMapError> {
        let mut fields = FieldReader::new(bytes);
        let body = fields.take(CRC_OFFSET)?;
        let found = fields.u32()?;
        let mut fields = FieldReader::new(body);
        let (magic, count) = (fields.i32()?, fields.i32()?);
        let valid = usize::try_from(count).ok().filter(|&count| magic == MAGIC && count <= MAPPINGS_MAX);
        let Some(valid) = valid else { return Err(RelMapError::Content { magic, count }) };
        let expected = crc32c::crc32c(body);
        if found != expected {
            return Err(RelMapError::Crc { found, expected });
        }
        let mapping = |_| Ok(RelMapping { catalog_oid: fields.u32()?, file_number: fields.u32()? });
        Ok(RelMap { mappings: (0..valid).map(mapping).collect::<Result<_, Short>>()? })
    }

    /// The file's bytes with its CRC; unused entries are zero.
    pub fn encode(&self) -> [u8; RELMAP_BYTES] {
        assert!(self.mappings.len() <= MAPPINGS_MAX, "a relation map has at most {MAPPINGS_MAX} entries");
        let mut fields = FieldWriter::with_capacity(RELMAP_BYTES);
        fields.i32(MAGIC).u32(self.mappings.len() as u32);
        for mapping in &self.mappings {
            fields.u32(mapping.catalog_oid).u32(mapping.file_number);
        }
        fields.zero_to(CRC_OFFSET);
        let crc = crc32c::crc32c(fields.written());
        fields.u32(crc);
        fields.into_bytes().try_into().expect("zero_to and the CRC made 524 bytes")
    }

    /// File of the mapped catalog with this OID.
    pub fn file_number(&self, catalog_oid: u32) -> Option<u32> {
        self.mappings.iter().find(|entry| entry.catalog_oid == catalog_oid).map(|entry| entry.file_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_finds_damage() {
        let mapping = |n: u32| RelMapping { catalog_oid: 1000 + n, file_number: 2000 + n };
        for count in [0, 1, 64] {
            let map = RelMap { mappings: (0..count).map(mapping).collect() };
            let bytes = map.encode();
            assert_eq!(RelMap::parse(&bytes), Ok(map));
            for at in 0..RELMAP_BYTES {
                let mut broken = bytes;
                broken[at] ^= 1;
                assert!(RelMap::parse(&broken).is_err(), "byte {at}");
            }
        }
        assert!(RelMap::parse(&[0; 523]).is_err());
    }
}
