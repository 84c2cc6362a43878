//! What a hot standby must know: which transactions run. Locks and cache invalidations concern no page.
//!
//! Postgres: `standby_redo` in `src/backend/storage/ipc/standby.c`, `src/include/storage/standbydefs.h`.

use strata_pgwal::DecodedRecord;

use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::wire::Parts;

const LOCK: u8 = 0x00;
const RUNNING_XACTS: u8 = 0x10;
const INVALIDATIONS: u8 = 0x20;

pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    match record.rmgr_info() {
        LOCK | INVALIDATIONS => Ok(()),
        RUNNING_XACTS => {
            let running = running_xacts(&record.main_data)
                .map_err(|_| EffectError::malformed(record, "main data is cut short"))?;
            out.push(running);
            Ok(())
        }
        info => Err(EffectError::unknown(record.rmid, info)),
    }
}

/// `xl_running_xacts` without its list of transaction ids.
fn running_xacts(main: &[u8]) -> Result<Effect, Fault> {
    let mut parts = Parts::new(main, "xl_running_xacts");
    // Two counts, a flag and its padding.
    parts.take(12)?;
    let (next_xid, oldest_running_xid) = (parts.u32()?, parts.u32()?);
    Ok(Effect::RunningXacts { next_xid, oldest_running_xid, latest_completed_xid: parts.u32()? })
}
