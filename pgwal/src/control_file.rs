//! `global/pg_control` (`ControlFileData` in `src/include/catalog/pg_control.h`).
//!
//! 296 bytes in a file of 8192, with a CRC-32C over the first 288. The layout is that of Postgres 17 on x86-64; a file
//! of another version or architecture is refused by its version field.

use strata_common::{Lsn, SystemId};

use crate::checkpoint::{CHECKPOINT_BYTES, CheckPoint};
use crate::fields::{FieldReader, FieldWriter, Short};
use crate::segment::{SegmentBytes, TimelineNumber};

/// Size of the file, bytes.
pub const CONTROL_FILE_BYTES: usize = 8192;
/// `PG_CONTROL_VERSION` of Postgres 17.
pub const CONTROL_VERSION: u32 = 1700;
/// Offset of the CRC, which covers everything before it.
const CRC_OFFSET: usize = 288;
const STRUCT_BYTES: usize = 296;

/// Value of `state` (`DBState`).
pub mod state {
    pub const STARTUP: u32 = 0;
    pub const SHUT_DOWN: u32 = 1;
    pub const SHUT_DOWN_IN_RECOVERY: u32 = 2;
    pub const SHUTTING_DOWN: u32 = 3;
    pub const IN_CRASH_RECOVERY: u32 = 4;
    pub const IN_ARCHIVE_RECOVERY: u32 = 5;
    pub const IN_PRODUCTION: u32 = 6;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    #[error("control file is too short: {0}")]
    Short(#[from] Short),
    #[error("control file has version {0}; Postgres 17 has {CONTROL_VERSION}")]
    Version(u32),
    #[error("control file has checksum {found:08x}, its content {expected:08x}")]
    Crc { found: u32, expected: u32 },
    #[error("control file says segments of {0} bytes, which Postgres does not allow")]
    SegmentBytes(u32),
}

/// Settings that a running server notes for its standbys (trap S6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerSettings {
    /// `WalLevel`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    pub wal_log_hints: bool,
    pub max_connections: i32,
    pub max_worker_processes: i32,
    pub max_wal_senders: i32,
    pub max_prepared_xacts: i32,
    pub max_locks_per_xact: i32,
    pub track_commit_timestamp: bool,
}

/// How the server and the cluster were built; compared at start.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BuildLayout {
    pub max_align: u32,
    pub float_format: f64,
    pub block_bytes: u32,
    pub blocks_per_segment: u32,
    pub wal_page_bytes: u32,
    pub wal_segment_bytes: u32,
    pub name_bytes: u32,
    pub index_keys_max: u32,
    pub toast_chunk_bytes_max: u32,
    pub large_object_block_bytes: u32,
    pub float8_by_value: bool,
    /// 0: data pages have no checksums.
    pub data_checksum_version: u32,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ControlFile {
    pub system_id: SystemId,
    pub control_version: u32,
    pub catalog_version: u32,
    /// One of `state`.
    pub state: u32,
    /// Seconds since 1970.
    pub time: i64,
    /// Position of the last checkpoint record.
    pub checkpoint: Lsn,
    pub checkpoint_copy: CheckPoint,
    /// Next fake position for unlogged relations; at least 1000.
    pub unlogged_lsn: Lsn,
    pub min_recovery_point: Lsn,
    pub min_recovery_point_timeline: TimelineNumber,
    pub backup_start_point: Lsn,
    pub backup_end_point: Lsn,
    pub backup_end_required: bool,
    pub settings: ServerSettings,
    pub layout: BuildLayout,
    pub mock_authentication_nonce: [u8; 32],
}

impl ControlFile {
    /// Reads a file (or its first 296 bytes), checking version and CRC.
    pub fn parse(bytes: &[u8]) -> Result<ControlFile, ControlFileError> {
        let mut fields = FieldReader::new(bytes);
        let body = fields.take(CRC_OFFSET)?;
        let found = fields.u32()?;
        let mut fields = FieldReader::new(body);
        let system_id = SystemId(fields.u64()?);
        let control_version = fields.u32()?;
        if control_version != CONTROL_VERSION {
            return Err(ControlFileError::Version(control_version));
        }
        let expected = crc32c::crc32c(body);
        if found != expected {
            return Err(ControlFileError::Crc { found, expected });
        }
        let catalog_version = fields.u32()?;
        let state = fields.u32()?;
        fields.skip(4)?;
        let time = fields.i64()?;
        let checkpoint = Lsn(fields.u64()?);
        let checkpoint_copy = CheckPoint::parse(fields.take(CHECKPOINT_BYTES)?)?;
        let unlogged_lsn = Lsn(fields.u64()?);
        let min_recovery_point = Lsn(fields.u64()?);
        let min_recovery_point_timeline = fields.u32()?;
        fields.skip(4)?;
        let backup_start_point = Lsn(fields.u64()?);
        let backup_end_point = Lsn(fields.u64()?);
        let backup_end_required = fields.flag()?;
        fields.skip(3)?;
        let settings = parse_settings(&mut fields)?;
        let layout = parse_layout(&mut fields)?;
        SegmentBytes::new(u64::from(layout.wal_segment_bytes))
            .map_err(|_| ControlFileError::SegmentBytes(layout.wal_segment_bytes))?;
        let mut mock_authentication_nonce = [0; 32];
        mock_authentication_nonce.copy_from_slice(fields.take(32)?);
        Ok(ControlFile {
            system_id,
            control_version,
            catalog_version,
            state,
            time,
            checkpoint,
            checkpoint_copy,
            unlogged_lsn,
            min_recovery_point,
            min_recovery_point_timeline,
            backup_start_point,
            backup_end_point,
            backup_end_required,
            settings,
            layout,
            mock_authentication_nonce,
        })
    }

    /// The whole file, 8192 bytes, with its CRC.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = FieldWriter::with_capacity(CONTROL_FILE_BYTES);
        fields.u64(self.system_id.0).u32(self.control_version).u32(self.catalog_version);
        fields.u32(self.state).zero_to(24).i64(self.time).u64(self.checkpoint.0);
        fields.put(&self.checkpoint_copy.encode()).u64(self.unlogged_lsn.0);
        fields.u64(self.min_recovery_point.0).u32(self.min_recovery_point_timeline).zero_to(152);
        fields.u64(self.backup_start_point.0).u64(self.backup_end_point.0);
        fields.flag(self.backup_end_required).zero_to(172);
        let settings = &self.settings;
        fields.i32(settings.wal_level).flag(settings.wal_log_hints).zero_to(180);
        fields.i32(settings.max_connections).i32(settings.max_worker_processes);
        fields.i32(settings.max_wal_senders).i32(settings.max_prepared_xacts);
        fields.i32(settings.max_locks_per_xact).flag(settings.track_commit_timestamp).zero_to(204);
        let layout = &self.layout;
        fields.u32(layout.max_align).f64(layout.float_format);
        fields.u32(layout.block_bytes).u32(layout.blocks_per_segment);
        fields.u32(layout.wal_page_bytes).u32(layout.wal_segment_bytes);
        fields.u32(layout.name_bytes).u32(layout.index_keys_max);
        fields.u32(layout.toast_chunk_bytes_max).u32(layout.large_object_block_bytes);
        fields.flag(layout.float8_by_value).zero_to(252).u32(layout.data_checksum_version);
        fields.put(&self.mock_authentication_nonce);
        let crc = crc32c::crc32c(fields.written());
        fields.zero_to(CRC_OFFSET).u32(crc).zero_to(STRUCT_BYTES).zero_to(CONTROL_FILE_BYTES);
        fields.into_bytes()
    }

    pub fn segment_bytes(&self) -> SegmentBytes {
        SegmentBytes::new(u64::from(self.layout.wal_segment_bytes)).expect("checked when the file was parsed")
    }

    /// Says "shut down cleanly", with `checkpoint` the record at `at` (decision D5). Nothing is left to recover.
    pub fn set_shut_down(&mut self, at: Lsn, checkpoint: CheckPoint) {
        assert!(checkpoint.redo == at, "a shutdown checkpoint's redo position is its own");
        self.state = state::SHUT_DOWN;
        self.time = checkpoint.time;
        self.checkpoint = at;
        self.checkpoint_copy = checkpoint;
        self.min_recovery_point = Lsn::INVALID;
        self.min_recovery_point_timeline = 0;
        self.backup_start_point = Lsn::INVALID;
        self.backup_end_point = Lsn::INVALID;
        self.backup_end_required = false;
        self.unlogged_lsn = self.unlogged_lsn.max(Lsn(1000));
    }
}

fn parse_settings(fields: &mut FieldReader<'_>) -> Result<ServerSettings, Short> {
    let wal_level = fields.i32()?;
    let wal_log_hints = fields.flag()?;
    fields.skip(3)?;
    let max_connections = fields.i32()?;
    let max_worker_processes = fields.i32()?;
    let max_wal_senders = fields.i32()?;
    let max_prepared_xacts = fields.i32()?;
    let max_locks_per_xact = fields.i32()?;
    let track_commit_timestamp = fields.flag()?;
    fields.skip(3)?;
    Ok(ServerSettings {
        wal_level,
        wal_log_hints,
        max_connections,
        max_worker_processes,
        max_wal_senders,
        max_prepared_xacts,
        max_locks_per_xact,
        track_commit_timestamp,
    })
}

fn parse_layout(fields: &mut FieldReader<'_>) -> Result<BuildLayout, Short> {
    let max_align = fields.u32()?;
    let float_format = fields.f64()?;
    let block_bytes = fields.u32()?;
    let blocks_per_segment = fields.u32()?;
    let wal_page_bytes = fields.u32()?;
    let wal_segment_bytes = fields.u32()?;
    let name_bytes = fields.u32()?;
    let index_keys_max = fields.u32()?;
    let toast_chunk_bytes_max = fields.u32()?;
    let large_object_block_bytes = fields.u32()?;
    let float8_by_value = fields.flag()?;
    fields.skip(3)?;
    let data_checksum_version = fields.u32()?;
    Ok(BuildLayout {
        max_align,
        float_format,
        block_bytes,
        blocks_per_segment,
        wal_page_bytes,
        wal_segment_bytes,
        name_bytes,
        index_keys_max,
        toast_chunk_bytes_max,
        large_object_block_bytes,
        float8_by_value,
        data_checksum_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn sample() -> ControlFile {
        ControlFile {
            system_id: SystemId(7),
            control_version: CONTROL_VERSION,
            catalog_version: 202_406_281,
            state: state::IN_PRODUCTION,
            time: 12,
            checkpoint: Lsn(0x28),
            checkpoint_copy: crate::checkpoint::tests::sample(),
            unlogged_lsn: Lsn(1000),
            min_recovery_point: Lsn(1),
            min_recovery_point_timeline: 2,
            backup_start_point: Lsn(3),
            backup_end_point: Lsn(4),
            backup_end_required: true,
            settings: ServerSettings {
                wal_level: 1,
                wal_log_hints: true,
                max_connections: 100,
                max_worker_processes: 8,
                max_wal_senders: 10,
                max_prepared_xacts: 5,
                max_locks_per_xact: 64,
                track_commit_timestamp: true,
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
            mock_authentication_nonce: [9; 32],
        }
    }

    #[test]
    fn round_trips() {
        let bytes = sample().encode();
        assert_eq!(bytes.len(), CONTROL_FILE_BYTES);
        assert_eq!(ControlFile::parse(&bytes), Ok(sample()));
    }

    #[test]
    fn damage_and_other_versions_are_refused() {
        let good = sample().encode();
        for at in 0..CRC_OFFSET + 4 {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            let error = ControlFile::parse(&bytes).expect_err("a flipped bit must be found");
            assert_eq!(matches!(error, ControlFileError::Version(_)), (8..12).contains(&at), "byte {at}");
        }
        assert!(matches!(ControlFile::parse(&good[..200]), Err(ControlFileError::Short(_))));
    }

    #[test]
    fn shut_down_leaves_nothing_to_recover() {
        let mut file = sample();
        let at = Lsn(0x0300_0028);
        file.set_shut_down(at, CheckPoint { redo: at, ..file.checkpoint_copy });
        assert_eq!((file.state, file.checkpoint), (state::SHUT_DOWN, at));
        assert_eq!((file.min_recovery_point, file.backup_end_required), (Lsn::INVALID, false));
    }
}
