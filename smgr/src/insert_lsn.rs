//! The end of the last record from Postgres's insert pointer (trap L1).
//!
//! `GetXLogInsertRecPtr` (`src/backend/access/transam/xlog.c`) says where the next record's bytes will go. When the last
//! record ended exactly on a page's end, that is past the next page's header; nothing ends there, so flushing or asking up to
//! it would wait for a record that does not exist yet.

use strata_common::{Guard, Lsn};

/// Bytes of a page header inside a segment and of the one that begins a segment (`src/include/access/xlog_internal.h`).
const SHORT_HEADER_BYTES: u64 = 24;
const LONG_HEADER_BYTES: u64 = 40;

/// Where the last record ended, given where the next one's bytes will go. `segment_bytes` is `wal_segment_size`.
pub fn end_of_last_record(insert_pointer: Lsn, segment_bytes: u64) -> Lsn {
    if !Guard::EndOfLastRecord.holds() {
        return insert_pointer;
    }
    let in_page = insert_pointer.page_offset();
    let in_segment = insert_pointer.segment_offset(segment_bytes);
    if in_segment == LONG_HEADER_BYTES {
        Lsn(insert_pointer.0 - LONG_HEADER_BYTES)
    } else if in_segment > LONG_HEADER_BYTES && in_page == SHORT_HEADER_BYTES {
        Lsn(insert_pointer.0 - SHORT_HEADER_BYTES)
    } else {
        insert_pointer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 16 << 20;

    #[test]
    fn trap_l1_a_pointer_just_past_a_header() {
        strata_common::guard::prove(
            Guard::EndOfLastRecord,
            a_pointer_just_past_a_header_moves_back_to_the_page_end,
        );
    }

    fn a_pointer_just_past_a_header_moves_back_to_the_page_end() {
        let cases = [
            (SEGMENT + 40, SEGMENT),
            (SEGMENT + 8192 + 24, SEGMENT + 8192),
            (SEGMENT + 8192, SEGMENT + 8192),
            (SEGMENT + 24, SEGMENT + 24),
            (SEGMENT + 8192 + 40, SEGMENT + 8192 + 40),
            (SEGMENT + 8192 + 32, SEGMENT + 8192 + 32),
            (SEGMENT + 48, SEGMENT + 48),
        ];
        for (pointer, end) in cases {
            assert_eq!(end_of_last_record(Lsn(pointer), SEGMENT), Lsn(end), "{pointer:#x}");
        }
    }
}
