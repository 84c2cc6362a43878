//! The relation map: which files the mapped catalogs have. A record holds the whole map.
//!
//! Postgres: `relmap_redo` in `src/backend/utils/cache/relmapper.c`.

use strata_pgwal::DecodedRecord;
use strata_pgwal::relmap::{RELMAP_BYTES, RelMap};

use crate::effect::{DatabaseTag, Effect};
use crate::error::{EffectError, Fault};
use crate::wire::Parts;

const UPDATE: u8 = 0x00;
/// Database, tablespace, size.
const HEADER_BYTES: usize = 12;

pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    if record.rmgr_info() != UPDATE {
        return Err(EffectError::unknown(record.rmid, record.info));
    }
    let cut_short = |_: Fault| EffectError::malformed(record, "main data is cut short");
    let mut parts = Parts::new(&record.main_data, "xl_relmap_update");
    let database = parts.u32().map_err(cut_short)?;
    let tablespace = parts.u32().map_err(cut_short)?;
    let bytes = parts.u32().map_err(cut_short)?;
    if bytes as usize != RELMAP_BYTES || parts.rest().len() != RELMAP_BYTES {
        return Err(EffectError::malformed(record, "the relation map has another size"));
    }
    let map = record.main_data.slice(HEADER_BYTES..);
    // Postgres computes the checksum again when it writes the file; it was right when the record was made.
    if RelMap::parse(&map).is_err() {
        return Err(EffectError::malformed(record, "the relation map is damaged"));
    }
    out.push(Effect::RelMap { database: DatabaseTag { tablespace, database }, map });
    Ok(())
}
