//! Statistics of a cleanly stopped server (S12): its last message before the shutdown checkpoint carries `pg_stat/pgstat.stat`.
//!
//! A compute logs it when no session is left, and only the server's own message counts: one of a session names the session's
//! database (`xl_logical_message` in `src/include/replication/message.h`).

use bytes::Bytes;
use strata_pgwal::{DecodedRecord, rmgr};

use crate::core::key::VALUE_BYTES_MAX;

/// The message's prefix; `pg_ext/src/statistics.rs` writes it.
pub const PREFIX: &[u8] = b"strata.pgstat\0";

/// dbId (4), transactional (1, padded to 4), prefix_size (8), message_size (8), then both.
const HEADER_BYTES: usize = 24;

/// The file that a record carries, if it is that message.
pub fn of(record: &DecodedRecord) -> Option<Bytes> {
    let data = &record.main_data;
    if record.rmid != rmgr::LOGICALMSG || data.len() < HEADER_BYTES || data[..4] != [0; 4] {
        return None;
    }
    let size = u64::from_le_bytes(data[8..16].try_into().ok()?);
    let rest = &data[HEADER_BYTES..];
    if usize::try_from(size) != Ok(PREFIX.len()) || !rest.starts_with(PREFIX) {
        return None;
    }
    let file = data.slice(HEADER_BYTES + PREFIX.len()..);
    // Statistics can be gathered anew; a record must not stop the log for them.
    (file.len() <= VALUE_BYTES_MAX).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::testkit::message;
    use strata_common::Lsn;
    use strata_pgwal::{RawRecord, RecordSpec};

    #[test]
    fn only_the_servers_own_message_counts() {
        let of = |data: Vec<u8>| {
            let bytes = RecordSpec::plain(rmgr::LOGICALMSG, 0, data.into()).encode(Lsn(0x50));
            let end_lsn = Lsn(0x100 + bytes.len() as u64);
            let raw = RawRecord { lsn: Lsn(0x100), end_lsn, bytes };
            of(&strata_pgwal::record::decode(&raw).expect("a record"))
        };
        assert_eq!(of(message(0, PREFIX, b"file")).as_deref(), Some(&b"file"[..]));
        assert_eq!(of(message(5, PREFIX, b"file")), None, "a session's");
        assert_eq!(of(message(0, b"strata.pgsta\0\0", b"file")), None);
        assert_eq!(of(message(0, b"strata\0", b"file")), None);
        assert_eq!(of(message(0, PREFIX, b"file")[..20].to_vec()), None);
    }
}
