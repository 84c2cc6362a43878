//! Databases made and dropped (R9). One record acts on every relation of a database (G15).
//!
//! Postgres: `dbase_redo` in `src/backend/commands/dbcommands.c`, `src/include/commands/dbcommands_xlog.h`.

use strata_pgwal::DecodedRecord;

use crate::effect::{DatabaseTag, Effect};
use crate::error::{EffectError, Fault};
use crate::wire::Parts;

const CREATE_FILE_COPY: u8 = 0x00;
const CREATE_WAL_LOG: u8 = 0x10;
const DROP: u8 = 0x20;

pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let cut_short = |_: Fault| EffectError::malformed(record, "main data is cut short");
    let mut parts = Parts::new(&record.main_data, "database record");
    match record.rmgr_info() {
        CREATE_FILE_COPY => {
            let to = database_tag(&mut parts).map_err(cut_short)?;
            let from = database_tag(&mut parts).map_err(cut_short)?;
            out.push(Effect::DatabaseCopy { from, to });
        }
        CREATE_WAL_LOG => {
            out.push(Effect::DatabaseCreate(database_tag(&mut parts).map_err(cut_short)?));
        }
        DROP => {
            let database = parts.u32().map_err(cut_short)?;
            let count = parts.u32().map_err(cut_short)?;
            for _ in 0..count {
                let tablespace = parts.u32().map_err(cut_short)?;
                out.push(Effect::DatabaseDrop(DatabaseTag { tablespace, database }));
            }
        }
        info => return Err(EffectError::unknown(record.rmid, info)),
    }
    Ok(())
}

fn database_tag(parts: &mut Parts<'_>) -> Result<DatabaseTag, Fault> {
    let database = parts.u32()?;
    Ok(DatabaseTag { tablespace: parts.u32()?, database })
}
