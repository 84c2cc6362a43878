//! Tablespaces made and dropped.
//!
//! Postgres: `tblspc_redo` in `src/backend/commands/tablespace.c`. A tablespace is empty when it is dropped.

use strata_pgwal::DecodedRecord;

use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::wire::Parts;

const CREATE: u8 = 0x00;
const DROP: u8 = 0x10;
const OID_BYTES: usize = 4;

pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let cut_short = |_: Fault| EffectError::malformed(record, "main data is cut short");
    let mut parts = Parts::new(&record.main_data, "tablespace record");
    let tablespace = parts.u32().map_err(cut_short)?;
    match record.rmgr_info() {
        CREATE => {
            let Some(length) = parts.rest().iter().position(|&byte| byte == 0) else {
                return Err(EffectError::malformed(record, "the path does not end"));
            };
            let path = record.main_data.slice(OID_BYTES..OID_BYTES + length);
            out.push(Effect::TablespaceCreate { tablespace, path });
        }
        DROP => out.push(Effect::TablespaceDrop { tablespace }),
        info => return Err(EffectError::unknown(record.rmid, info)),
    }
    Ok(())
}
