//! What two copies of a page may differ in, blanked out, so that the rest can be compared byte for byte.
//!
//! Postgres keeps a page in `wal_consistency_checking` mode honest by masking both copies with the function of the
//! **record's** resource manager (`src/backend/access/common/bufmask.c` and the `*_mask` functions) before it
//! compares them. The same is done here, with differences that make the comparison stricter:
//! only real hint bits are hidden (see `heap`), PD_ALL_VISIBLE is compared, and visibility map pages, whose bits Postgres's own mask
//! blanks, are compared by their bits (see `vm`; trap V8).
//!
//! Masking is for comparing: invariant PS-1 is stated in its terms. Nothing here is used on the way of a page read.
//! The blank is the byte 0, as in Postgres.

mod brin;
mod btree;
mod generic;
mod gin;
mod gist;
mod hash;
mod heap;
mod kind;
mod primitive;
mod sequence;
mod spgist;
pub mod vm;

#[cfg(test)]
mod mask_test;

pub use kind::{is_blank, resource_manager_of};
use strata_common::BlockNumber;
use strata_pgwal::rmgr;

use crate::Page;
use crate::page;

/// A page that cannot be masked: it is broken, or nobody knows its layout.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MaskError {
    #[error("page bounds are impossible: lower {lower}, upper {upper}, special {special}")]
    Bounds { lower: u16, upper: u16, special: u16 },
    #[error("no mask is known for resource manager {0}")]
    UnknownResourceManager(u8),
}

impl MaskError {
    fn of_pointers(page: &Page) -> MaskError {
        MaskError::Bounds { lower: page::lower(page), upper: page::upper(page), special: page::special(page) }
    }
}

/// Blanks what redo of resource manager `rmid` may leave different on block `block`.
///
/// Errors: `Bounds` for a page whose header makes no sense (an all-zero page too: it is equal to itself unmasked).
pub fn mask(rmid: u8, block: BlockNumber, page: &mut Page) -> Result<(), MaskError> {
    match rmid {
        rmgr::HEAP | rmgr::HEAP2 => heap::mask(block, page),
        rmgr::BTREE => btree::mask(page),
        rmgr::GIN => gin::mask(page),
        rmgr::GIST => gist::mask(page),
        rmgr::SEQ => sequence::mask(page),
        rmgr::HASH => hash::mask(page),
        rmgr::SPGIST => spgist::mask(page),
        rmgr::BRIN => brin::mask(page),
        rmgr::GENERIC => generic::mask(page),
        rmgr::XLOG => {
            primitive::mask_lsn_and_checksum(page);
            Ok(())
        }
        other => Err(MaskError::UnknownResourceManager(other)),
    }
}
