//! Messages for logical decoding (`pg_logical_emit_message`), which concern neither pages nor counters.
//!
//! Postgres: `logicalmsg_redo` in `src/backend/replication/logical/message.c`, which only refuses what it does not know.
//! The transaction id of a transactional message counts like that of any other record; that is not this file's affair.

use strata_pgwal::DecodedRecord;

use crate::error::EffectError;

const MESSAGE: u8 = 0x00;

/// Nothing, for the one type that there is.
pub fn effects(record: &DecodedRecord) -> Result<(), EffectError> {
    match record.rmgr_info() {
        MESSAGE => Ok(()),
        other => Err(EffectError::unknown(record.rmid, other)),
    }
}

#[cfg(test)]
mod tests {
    use strata_pgwal::rmgr::LOGICALMSG;

    use crate::testing::{effect_error, record};
    use crate::{EffectError, effects};

    #[test]
    fn a_message_does_nothing_and_other_types_are_refused() {
        assert_eq!(effects(&record(LOGICALMSG, 0x00, 500, b"anything", vec![])), Ok(vec![]));
        let error = effect_error(&record(LOGICALMSG, 0x10, 500, b"anything", vec![]));
        assert!(matches!(error, EffectError::Unknown { info: 0x10, .. }), "{error}");
    }
}
