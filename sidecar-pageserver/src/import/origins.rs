//! Progress of replication origins: `pg_logical/replorigin_checkpoint`, read at import and written for a base backup.
//!
//! Without it a subscriber would apply again what it has applied (S12). Layout: magic, then 16 bytes an origin, then a
//! CRC-32C of both (`CheckPointReplicationOrigin` in `src/backend/replication/logical/origin.c`).

use bytes::Bytes;
use strata_common::Lsn;

use crate::keyspace::{self, KeyName, Kind};
use crate::store::Store;
use crate::view::{View, ViewError};

const MAGIC: u32 = 0x1257_DADE;
const ENTRY_BYTES: usize = 16;

/// One origin and how much of it was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    pub id: u16,
    pub remote_lsn: Lsn,
}

/// `None`: not such a file, or damaged.
pub fn parse(file: &[u8]) -> Option<Vec<Origin>> {
    let (body, crc) = file.split_last_chunk::<4>()?;
    let (magic, entries) = body.split_first_chunk::<4>()?;
    let intact = u32::from_le_bytes(*magic) == MAGIC
        && crc32c::crc32c(body) == u32::from_le_bytes(*crc)
        && entries.len() % ENTRY_BYTES == 0;
    let entry = |raw: &[u8]| Origin {
        id: u16::from_le_bytes([raw[0], raw[1]]),
        remote_lsn: Lsn(u64::from_le_bytes(raw[8..16].try_into().expect("sixteen bytes"))),
    };
    intact.then(|| entries.chunks_exact(ENTRY_BYTES).map(entry).collect())
}

pub fn encode(origins: &[Origin]) -> Vec<u8> {
    let mut out = MAGIC.to_le_bytes().to_vec();
    for origin in origins {
        out.extend_from_slice(&origin.id.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&origin.remote_lsn.0.to_le_bytes());
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The file as of the view; `None` if there are no origins.
pub async fn file<S: Store>(view: &View<S>) -> Result<Option<Bytes>, ViewError> {
    let mut origins = Vec::new();
    for (key, value) in view.scan_live(keyspace::kind_range(Kind::Origin)).await? {
        let id = match KeyName::of(key) {
            Some(KeyName::Origin(id)) => u16::try_from(id).ok(),
            _ => None,
        };
        if let (Some(id), Ok(raw)) = (id, <[u8; 8]>::try_from(&value[..])) {
            origins.push(Origin { id, remote_lsn: Lsn(u64::from_le_bytes(raw)) });
        }
    }
    Ok((!origins.is_empty()).then(|| Bytes::from(encode(&origins))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_damage() {
        let origins =
            [Origin { id: 1, remote_lsn: Lsn(0x1234) }, Origin { id: 700, remote_lsn: Lsn(u64::MAX) }];
        let file = encode(&origins);
        assert_eq!(parse(&file), Some(origins.to_vec()));
        for at in 0..file.len() {
            let mut broken = file.clone();
            broken[at] ^= 1;
            assert_eq!(parse(&broken), None, "byte {at}");
        }
        assert_eq!(parse(&file[..file.len() - 4]), None);
    }
}
