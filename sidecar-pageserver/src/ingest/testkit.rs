//! States and records for tests of ingest.

use strata_common::{Lsn, SystemId};
use strata_pgwal::control_file::{BuildLayout, CONTROL_VERSION, ServerSettings, state};
use strata_pgwal::{CheckPoint, ControlFile, FullTransactionId};
use strata_redo::effect::ParameterChange;

use crate::ingest::control::ControlState;
use crate::keyspace::values::Mark;

pub fn checkpoint() -> CheckPoint {
    CheckPoint {
        redo: Lsn(0x1000),
        this_timeline: 1,
        prev_timeline: 1,
        full_page_writes: false,
        wal_level: 1,
        next_xid: FullTransactionId::new(0, 750),
        next_oid: 16_384,
        next_multi: 1,
        next_multi_offset: 0,
        oldest_xid: 722,
        oldest_xid_db: 1,
        oldest_multi: 1,
        oldest_multi_db: 1,
        time: 1_700_000_000,
        oldest_commit_ts_xid: 0,
        newest_commit_ts_xid: 0,
        oldest_active_xid: 0,
    }
}

/// A fresh cluster's state at `lsn`.
pub fn control_state(lsn: Lsn) -> ControlState {
    let checkpoint = checkpoint();
    let control_file = ControlFile {
        system_id: SystemId(7),
        control_version: CONTROL_VERSION,
        catalog_version: 202_406_281,
        state: state::SHUT_DOWN,
        time: 0,
        checkpoint: Lsn(0x1000),
        checkpoint_copy: checkpoint,
        unlogged_lsn: Lsn(1000),
        min_recovery_point: Lsn::INVALID,
        min_recovery_point_timeline: 0,
        backup_start_point: Lsn::INVALID,
        backup_end_point: Lsn::INVALID,
        backup_end_required: false,
        settings: ServerSettings {
            wal_level: 1,
            wal_log_hints: false,
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_xacts: 0,
            max_locks_per_xact: 64,
            track_commit_timestamp: false,
        },
        layout: BuildLayout {
            max_align: 8,
            float_format: 1_234_567.0,
            block_bytes: 8192,
            blocks_per_segment: 131_072,
            wal_page_bytes: 8192,
            wal_segment_bytes: 16 << 20,
            name_bytes: 64,
            index_keys_max: 32,
            toast_chunk_bytes_max: 1996,
            large_object_block_bytes: 2048,
            float8_by_value: true,
            data_checksum_version: 0,
        },
        mock_authentication_nonce: [0; 32],
    };
    let mark = Mark { next_xid: checkpoint.next_xid.0, next_oid: 16_384, next_multi: 1, ..Mark::default() };
    ControlState::from_stored(lsn, checkpoint, control_file, mark)
}

pub fn parameters(track_commit_timestamp: bool) -> ParameterChange {
    ParameterChange {
        max_connections: 123,
        max_worker_processes: 8,
        max_wal_senders: 10,
        max_prepared_xacts: 5,
        max_locks_per_xact: 64,
        wal_level: 1,
        wal_log_hints: false,
        track_commit_timestamp,
    }
}

/// A message for logical decoding (`xl_logical_message`), not transactional.
pub fn message(database: u32, prefix: &[u8], content: &[u8]) -> Vec<u8> {
    let mut data = database.to_le_bytes().to_vec();
    data.extend_from_slice(&[0; 4]);
    data.extend_from_slice(&(prefix.len() as u64).to_le_bytes());
    data.extend_from_slice(&(content.len() as u64).to_le_bytes());
    data.extend_from_slice(prefix);
    data.extend_from_slice(content);
    data
}
