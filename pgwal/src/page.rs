//! Header of a page of a relation (`PageHeaderData` in `src/include/storage/bufpage.h`).
//!
//! Free functions over page bytes, because pages are plain arrays everywhere. A slice shorter than a page header
//! is a bug of the caller and panics.

use strata_common::{BLOCK_BYTES, Lsn};

/// A page of a relation.
pub type Page = [u8; BLOCK_BYTES];

/// Size of the header, bytes; line pointers follow (`SizeOfPageHeaderData`).
pub const PAGE_HEADER_BYTES: usize = 24;
/// Size and layout version, in one word (`pd_pagesize_version`).
pub const PAGE_SIZE_VERSION: u16 = BLOCK_BYTES as u16 | 4;
const CHECKSUM_OFFSET: usize = 8;
const FLAGS_OFFSET: usize = 10;
const LOWER_OFFSET: usize = 12;
const UPPER_OFFSET: usize = 14;
const SPECIAL_OFFSET: usize = 16;
const SIZE_VERSION_OFFSET: usize = 18;
const PRUNE_XID_OFFSET: usize = 20;

/// Bits of `pd_flags`.
pub mod flags {
    pub const HAS_FREE_LINES: u16 = 0x0001;
    pub const PAGE_FULL: u16 = 0x0002;
    pub const ALL_VISIBLE: u16 = 0x0004;
    pub const VALID: u16 = 0x0007;
}

fn u16_at(page: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

fn set_u16(page: &mut [u8], at: usize, value: u16) {
    page[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn u32_at(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

fn set_u32(page: &mut [u8], at: usize, value: u32) {
    page[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// `pd_lsn`: stored as two words, the high one first.
pub fn lsn(page: &[u8]) -> Lsn {
    Lsn((u64::from(u32_at(page, 0)) << 32) | u64::from(u32_at(page, 4)))
}

pub fn set_lsn(page: &mut [u8], lsn: Lsn) {
    set_u32(page, 0, (lsn.0 >> 32) as u32);
    set_u32(page, 4, lsn.0 as u32);
}

pub fn checksum(page: &[u8]) -> u16 {
    u16_at(page, CHECKSUM_OFFSET)
}

/// Pages here carry no checksum (decision D3): an imported one is set to 0.
pub fn set_checksum(page: &mut [u8], checksum: u16) {
    set_u16(page, CHECKSUM_OFFSET, checksum);
}

pub fn flags(page: &[u8]) -> u16 {
    u16_at(page, FLAGS_OFFSET)
}

pub fn set_flags(page: &mut [u8], flags: u16) {
    set_u16(page, FLAGS_OFFSET, flags);
}

/// Start of the free space.
pub fn lower(page: &[u8]) -> u16 {
    u16_at(page, LOWER_OFFSET)
}

pub fn set_lower(page: &mut [u8], lower: u16) {
    set_u16(page, LOWER_OFFSET, lower);
}

/// End of the free space; 0 on a page that was never initialised.
pub fn upper(page: &[u8]) -> u16 {
    u16_at(page, UPPER_OFFSET)
}

pub fn set_upper(page: &mut [u8], upper: u16) {
    set_u16(page, UPPER_OFFSET, upper);
}

/// Start of the access method's own space at the end.
pub fn special(page: &[u8]) -> u16 {
    u16_at(page, SPECIAL_OFFSET)
}

pub fn set_special(page: &mut [u8], special: u16) {
    set_u16(page, SPECIAL_OFFSET, special);
}

pub fn size_version(page: &[u8]) -> u16 {
    u16_at(page, SIZE_VERSION_OFFSET)
}

pub fn prune_xid(page: &[u8]) -> u32 {
    u32_at(page, PRUNE_XID_OFFSET)
}

pub fn set_prune_xid(page: &mut [u8], xid: u32) {
    set_u32(page, PRUNE_XID_OFFSET, xid);
}

/// Whether the page was never initialised (`PageIsNew`).
pub fn is_new(page: &[u8]) -> bool {
    upper(page) == 0
}

/// An empty page with `special_bytes` at its end (`PageInit`).
pub fn init(page: &mut Page, special_bytes: u16) {
    let special_bytes = special_bytes.next_multiple_of(8);
    assert!(usize::from(special_bytes) + PAGE_HEADER_BYTES <= BLOCK_BYTES, "the special space must fit");
    page.fill(0);
    set_lower(page, PAGE_HEADER_BYTES as u16);
    set_upper(page, BLOCK_BYTES as u16 - special_bytes);
    set_special(page, BLOCK_BYTES as u16 - special_bytes);
    set_u16(page, SIZE_VERSION_OFFSET, PAGE_SIZE_VERSION);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_do_not_overlap() {
        let mut page: Page = [0; BLOCK_BYTES];
        assert!(is_new(&page));
        init(&mut page, 13);
        set_lsn(&mut page, Lsn(0x1_0203_0405));
        set_checksum(&mut page, 0x1111);
        set_flags(&mut page, flags::ALL_VISIBLE);
        set_prune_xid(&mut page, 0x2222_2222);
        assert_eq!(lsn(&page), Lsn(0x1_0203_0405));
        assert_eq!(page[..8], [1, 0, 0, 0, 5, 4, 3, 2]);
        assert_eq!((checksum(&page), super::flags(&page)), (0x1111, 4));
        assert_eq!((lower(&page), upper(&page), special(&page)), (24, 8176, 8176));
        assert_eq!((size_version(&page), prune_xid(&page)), (0x2004, 0x2222_2222));
        assert!(!is_new(&page));
    }
}
