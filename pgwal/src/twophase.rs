//! Files of prepared transactions in `pg_twophase` (`src/backend/access/transam/twophase.c`).
//!
//! A file is the main data of the transaction's PREPARE record and its CRC-32C; its name is the full transaction id in 17
//! (trap S10).

use crate::fullxid::FullTransactionId;

/// Name of the file below `pg_twophase`: 16 hex digits.
pub fn file_name(xid: FullTransactionId) -> String {
    format!("{:08X}{:08X}", xid.epoch(), xid.xid())
}

/// The file's bytes, from the main data of the PREPARE record.
pub fn file_bytes(main_data: &[u8]) -> Vec<u8> {
    [main_data, &crc32c::crc32c(main_data).to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_has_the_epoch_and_the_file_its_checksum() {
        assert_eq!(file_name(FullTransactionId::new(1, 0xABC)), "0000000100000ABC");
        assert_eq!(file_bytes(b"123456789"), b"123456789\x83\x92\x06\xe3");
    }
}
