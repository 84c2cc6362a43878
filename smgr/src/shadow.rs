//! Whether the pageserver's copy of a page tells the same as the copy that this server wrote or read last (PS-1, CP-1).
//!
//! For the test aid `strata.compare_local`: the server keeps a copy of every page beside the remote one, and this module says
//! whether two copies may differ as they do. What never comes from the log is masked as `strata-redo` masks it. Not compared:
//! pages of free space maps, which are hints (W18). A visibility map page of the pageserver may have fewer bits, never more (V8).

use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber};
use strata_pgwal::rmgr;
use strata_redo::mask::vm::Bits;
use strata_redo::mask::{self, MaskError};

type PageBytes = [u8; BLOCK_BYTES];

/// Where two copies of a page differ first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Difference {
    /// Byte offset, after masking.
    At(usize),
    /// One of the two makes no sense as a page.
    Broken,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::At(offset) => write!(f, "they differ first at byte {offset}"),
            Difference::Broken => f.write_str("one of them is no page"),
        }
    }
}

/// How `remote` differs from `local`, if it does in a way that matters.
pub fn difference(
    fork: ForkNumber,
    block: BlockNumber,
    local: &PageBytes,
    remote: &PageBytes,
) -> Option<Difference> {
    if fork == ForkNumber::FreeSpaceMap
        || local == remote
        || (mask::is_blank(local) && mask::is_blank(remote))
    {
        return None;
    }
    if fork == ForkNumber::VisibilityMap {
        // A map page that was never logged is zero there, header and all.
        if mask::is_blank(remote) {
            return None;
        }
        return mask::vm::first_difference(remote, local, Bits::Subset).map(Difference::At);
    }
    let Some(rmid) = mask::resource_manager_of(local) else { return Some(Difference::Broken) };
    let (mut ours, mut theirs) = (*local, *remote);
    match mask::mask(rmid, block, &mut ours).and_then(|()| mask::mask(rmid, block, &mut theirs)) {
        Ok(()) => {}
        Err(MaskError::UnknownResourceManager(_)) => return None,
        Err(MaskError::Bounds { .. }) => return Some(Difference::Broken),
    }
    if rmid == rmgr::SPGIST && is_spgist_meta(&ours) {
        blank_spgist_cache(&mut ours);
        blank_spgist_cache(&mut theirs);
    }
    (0..BLOCK_BYTES).find(|&at| ours[at] != theirs[at]).map(Difference::At)
}

/// `SPGIST_META` in the flags of an SP-GiST page (`src/include/access/spgist_private.h`).
fn is_spgist_meta(page: &PageBytes) -> bool {
    page[BLOCK_BYTES - 8] & 1 != 0
}

/// The meta page caches where free space was last; it is written without a record (`SpGistUpdateMetaPage`).
fn blank_spgist_cache(page: &mut PageBytes) {
    const CACHE_AT: usize = 24 + 4;
    page[CACHE_AT..BLOCK_BYTES - 8].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: BlockNumber = BlockNumber(3);

    /// A heap page with one tuple of `bytes` bytes.
    fn heap(flags: u16, fill: u8) -> PageBytes {
        let mut page = [0; BLOCK_BYTES];
        let mut put = |at: usize, value: u16| page[at..at + 2].copy_from_slice(&value.to_le_bytes());
        put(10, flags);
        put(12, 28);
        put(14, 8192 - 32);
        put(16, 8192);
        put(18, 8192 | 4);
        page[24..28].copy_from_slice(&((8192 - 32) as u32 | 1 << 15 | 32 << 17).to_le_bytes());
        page[8192 - 32 + 24..].fill(fill);
        page
    }

    fn compare(fork: ForkNumber, local: &PageBytes, remote: &PageBytes) -> Option<Difference> {
        difference(fork, BLOCK, local, remote)
    }

    #[test]
    fn hints_may_differ_and_content_may_not() {
        let local = heap(0, 7);
        let mut hinted = local;
        hinted[8192 - 32 + 21] |= 0x01;
        hinted[100] = 9;
        assert_eq!(compare(ForkNumber::Main, &local, &hinted), None, "a hint bit and a byte of free space");
        assert_eq!(compare(ForkNumber::Main, &local, &heap(0, 8)), Some(Difference::At(8192 - 8)));
        assert_eq!(compare(ForkNumber::Main, &local, &[0; BLOCK_BYTES]), Some(Difference::Broken));
    }

    #[test]
    fn all_visible_comes_from_the_log() {
        assert!(compare(ForkNumber::Main, &heap(4, 7), &heap(0, 7)).is_some(), "V7");
    }

    #[test]
    fn a_page_that_was_never_filled_need_not_be_known() {
        let mut fresh = [0; BLOCK_BYTES];
        fresh[12..20].copy_from_slice(&[24, 0, 0, 32, 0, 32, 4, 32]);
        assert_eq!(compare(ForkNumber::Main, &fresh, &[0; BLOCK_BYTES]), None);
    }

    #[test]
    fn a_map_page_may_have_fewer_bits_only() {
        let mut local = [0; BLOCK_BYTES];
        local[12..20].copy_from_slice(&[24, 0, 0, 32, 0, 32, 4, 32]);
        local[40] = 0b11;
        let mut remote = local;
        remote[40] = 0b01;
        assert_eq!(compare(ForkNumber::VisibilityMap, &local, &remote), None);
        assert_eq!(compare(ForkNumber::VisibilityMap, &remote, &local), Some(Difference::At(40)), "V4, V8");
        assert_eq!(compare(ForkNumber::FreeSpaceMap, &remote, &local), None);
    }
}
