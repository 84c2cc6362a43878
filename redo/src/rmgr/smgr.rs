//! Relation files made and cut.
//!
//! Postgres: `smgr_redo` in `src/backend/catalog/storage.c`. What a cut does to the maps' last pages is `vm::cut` and `fsm::cut`.

use strata_common::{BlockNumber, ForkNumber, RelTag};
use strata_pgwal::DecodedRecord;

use crate::effect::{Effect, TruncateForks};
use crate::error::{EffectError, Fault};
use crate::wire::Parts;

const CREATE: u8 = 0x10;
const TRUNCATE: u8 = 0x20;

pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let cut_short = |_: Fault| EffectError::malformed(record, "main data is cut short");
    let mut parts = Parts::new(&record.main_data, "smgr record");
    match record.rmgr_info() {
        CREATE => {
            let rel = rel_tag(&mut parts).map_err(cut_short)?;
            let fork = u8::try_from(parts.u32().map_err(cut_short)?).ok().and_then(ForkNumber::from_raw);
            let fork = fork.ok_or_else(|| EffectError::malformed(record, "no such fork"))?;
            out.push(Effect::RelCreate(rel.fork(fork)));
        }
        TRUNCATE => {
            let blocks = BlockNumber(parts.u32().map_err(cut_short)?);
            let rel = rel_tag(&mut parts).map_err(cut_short)?;
            let forks = TruncateForks(parts.u32().map_err(cut_short)?);
            // A relation that is dropped further on in the log may be gone already; then it comes back until then.
            out.push(Effect::RelCreate(rel.fork(ForkNumber::Main)));
            out.push(Effect::RelTruncate { rel, blocks, forks });
        }
        info => return Err(EffectError::unknown(record.rmid, info)),
    }
    Ok(())
}

/// `RelFileLocator`.
fn rel_tag(parts: &mut Parts<'_>) -> Result<RelTag, Fault> {
    Ok(RelTag { tablespace: parts.u32()?, database: parts.u32()?, relation: parts.u32()? })
}
