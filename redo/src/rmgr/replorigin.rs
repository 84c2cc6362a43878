//! Progress of replication origins, when it is set by hand; otherwise it comes with commits.
//!
//! Postgres: `replorigin_redo` in `src/backend/replication/logical/origin.c`.

use strata_common::Lsn;
use strata_pgwal::DecodedRecord;

use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::wire::Parts;

const SET: u8 = 0x00;
const DROP: u8 = 0x10;

pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let cut_short = |_: Fault| EffectError::malformed(record, "main data is cut short");
    let mut parts = Parts::new(&record.main_data, "replication origin record");
    match record.rmgr_info() {
        SET => {
            let remote_lsn = Lsn(parts.i64().map_err(cut_short)? as u64);
            let origin = parts.u16().map_err(cut_short)?;
            let backward = parts.u8().map_err(cut_short)? != 0;
            let local_lsn = record.end_lsn;
            out.push(Effect::OriginAdvance { origin, remote_lsn, local_lsn, backward });
        }
        DROP => out.push(Effect::OriginDrop { origin: parts.u16().map_err(cut_short)? }),
        info => return Err(EffectError::unknown(record.rmid, info)),
    }
    Ok(())
}
