//! Body of a checkpoint record, which `pg_control` also holds a copy of (`CheckPoint` in `src/include/catalog/pg_control.h`).
//!
//! These are the counters that a compute starts from (trap S6).

use strata_common::Lsn;

use crate::fields::{FieldReader, FieldWriter, Short};
use crate::fullxid::FullTransactionId;
use crate::segment::TimelineNumber;

/// Size of the struct with its padding, bytes.
pub const CHECKPOINT_BYTES: usize = 88;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckPoint {
    /// Where recovery would start; a shutdown checkpoint's own position.
    pub redo: Lsn,
    pub this_timeline: TimelineNumber,
    pub prev_timeline: TimelineNumber,
    pub full_page_writes: bool,
    /// `WalLevel`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    /// Next free transaction id.
    pub next_xid: FullTransactionId,
    pub next_oid: u32,
    pub next_multi: u32,
    pub next_multi_offset: u32,
    pub oldest_xid: u32,
    pub oldest_xid_db: u32,
    pub oldest_multi: u32,
    pub oldest_multi_db: u32,
    /// Seconds since 1970.
    pub time: i64,
    pub oldest_commit_ts_xid: u32,
    pub newest_commit_ts_xid: u32,
    /// Oldest running transaction; 0 in a shutdown checkpoint.
    pub oldest_active_xid: u32,
}

impl CheckPoint {
    pub fn parse(bytes: &[u8]) -> Result<CheckPoint, Short> {
        let mut fields = FieldReader::new(bytes);
        let redo = Lsn(fields.u64()?);
        let this_timeline = fields.u32()?;
        let prev_timeline = fields.u32()?;
        let full_page_writes = fields.flag()?;
        fields.skip(3)?;
        let wal_level = fields.i32()?;
        let next_xid = FullTransactionId(fields.u64()?);
        let next_oid = fields.u32()?;
        let next_multi = fields.u32()?;
        let next_multi_offset = fields.u32()?;
        let oldest_xid = fields.u32()?;
        let oldest_xid_db = fields.u32()?;
        let oldest_multi = fields.u32()?;
        let oldest_multi_db = fields.u32()?;
        fields.skip(4)?;
        let time = fields.i64()?;
        let oldest_commit_ts_xid = fields.u32()?;
        let newest_commit_ts_xid = fields.u32()?;
        let oldest_active_xid = fields.u32()?;
        fields.skip(4)?;
        Ok(CheckPoint {
            redo,
            this_timeline,
            prev_timeline,
            full_page_writes,
            wal_level,
            next_xid,
            next_oid,
            next_multi,
            next_multi_offset,
            oldest_xid,
            oldest_xid_db,
            oldest_multi,
            oldest_multi_db,
            time,
            oldest_commit_ts_xid,
            newest_commit_ts_xid,
            oldest_active_xid,
        })
    }

    /// The struct's bytes; padding is zero, as Postgres leaves it.
    pub fn encode(&self) -> [u8; CHECKPOINT_BYTES] {
        let mut fields = FieldWriter::with_capacity(CHECKPOINT_BYTES);
        fields.u64(self.redo.0).u32(self.this_timeline).u32(self.prev_timeline);
        fields.flag(self.full_page_writes).zero_to(20).i32(self.wal_level).u64(self.next_xid.0);
        fields.u32(self.next_oid).u32(self.next_multi).u32(self.next_multi_offset);
        fields.u32(self.oldest_xid).u32(self.oldest_xid_db);
        fields.u32(self.oldest_multi).u32(self.oldest_multi_db).zero_to(64).i64(self.time);
        fields.u32(self.oldest_commit_ts_xid).u32(self.newest_commit_ts_xid).u32(self.oldest_active_xid);
        fields.zero_to(CHECKPOINT_BYTES);
        fields.into_bytes().try_into().expect("zero_to made 88 bytes")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> CheckPoint {
        CheckPoint {
            redo: Lsn(0x0100_0028),
            this_timeline: 1,
            prev_timeline: 1,
            full_page_writes: true,
            wal_level: 1,
            next_xid: FullTransactionId::new(2, 731),
            next_oid: 16384,
            next_multi: 5,
            next_multi_offset: 17,
            oldest_xid: 722,
            oldest_xid_db: 1,
            oldest_multi: 1,
            oldest_multi_db: 4,
            time: 1_700_000_000,
            oldest_commit_ts_xid: 8,
            newest_commit_ts_xid: 9,
            oldest_active_xid: 10,
        }
    }

    #[test]
    fn round_trips_and_refuses_short_bytes() {
        let bytes = sample().encode();
        assert_eq!(CheckPoint::parse(&bytes), Ok(sample()));
        assert!(CheckPoint::parse(&bytes[..CHECKPOINT_BYTES - 1]).is_err());
    }

    #[test]
    fn fields_lie_where_postgres_has_them() {
        let bytes = sample().encode();
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        assert_eq!(u32_at(24), 731);
        assert_eq!(u32_at(28), 2);
        assert_eq!(u32_at(32), 16384);
        assert_eq!(u32_at(64), 1_700_000_000);
        assert_eq!(u32_at(80), 10);
    }
}
