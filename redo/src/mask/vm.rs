//! Comparison of visibility map pages: raw, all but LSN and checksum.
//!
//! A map page has `pd_lower` 24 and `pd_upper` 8192, so that every mask takes its bits for free space; Postgres's own
//! check therefore never looks at them (trap V8). A bit too many makes index-only scans wrong, a bit too few costs a
//! heap fetch. CREATE DATABASE with strategy `wal_log` logs map pages with a hole where the bits are: from then on the
//! replayed page may have fewer bits than the primary's, never more. Whoever compares knows which page that happened to.

use strata_common::BLOCK_BYTES;

use crate::Page;
use crate::page::HEADER_BYTES;

/// How the bits of a replayed page have to relate to those of the primary's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bits {
    Equal,
    /// Bits were lost in the log: every replayed bit must be set on the primary.
    Subset,
}

/// Bytes before `pd_flags`: LSN and checksum, which may differ (trap V6).
const LSN_AND_CHECKSUM_BYTES: usize = 10;

/// The first byte in which `replayed` differs from `primary` in a way that `bits` does not allow.
pub fn first_difference(replayed: &Page, primary: &Page, bits: Bits) -> Option<usize> {
    (LSN_AND_CHECKSUM_BYTES..BLOCK_BYTES).find(|&at| {
        let (ours, theirs) = (replayed[at], primary[at]);
        match bits {
            Bits::Subset if at >= HEADER_BYTES => ours & !theirs != 0,
            _ => ours != theirs,
        }
    })
}
