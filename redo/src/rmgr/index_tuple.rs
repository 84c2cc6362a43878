//! Index tuples as GIN and GiST log them (`IndexTupleData` in `src/include/access/itup.h`): one behind the other, each as
//! long as it says itself, without padding of its own.
//!
//! A tuple starts with `t_tid` (6 bytes: block number, high half first, and offset number) and `t_info` (2 bytes, of which
//! 13 bits are the size). Nothing else of it concerns redo.

use crate::Page;
use crate::error::Fault;
use crate::page::{self, AddItem};

/// Bytes of `IndexTupleData`: no tuple is shorter.
pub const HEADER_BYTES: usize = 8;
const SIZE_MASK: u16 = 0x1fff;

/// Bytes of a tuple as it says itself (`IndexTupleSize`).
fn size(tuple: &[u8]) -> Option<usize> {
    let info = tuple.get(6..HEADER_BYTES)?;
    let size = usize::from(u16::from_le_bytes([info[0], info[1]]) & SIZE_MASK);
    (size >= HEADER_BYTES).then_some(size)
}

/// Takes the first tuple off `bytes`.
pub fn take_first<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let split = size(bytes).and_then(|size| bytes.split_at_checked(size));
    let (tuple, rest) = split.ok_or(Fault::Mismatch("a tuple of the record is cut off"))?;
    *bytes = rest;
    Ok(tuple)
}

/// Takes the one tuple that `bytes` is.
pub fn only(mut bytes: &[u8]) -> Result<&[u8], Fault> {
    let tuple = take_first(&mut bytes)?;
    if bytes.is_empty() { Ok(tuple) } else { Err(Fault::Mismatch("bytes follow the record's only tuple")) }
}

/// Adds `tuple` behind the last item.
pub fn append(page: &mut Page, tuple: &[u8]) -> Result<(), Fault> {
    page::add_item(page, tuple, AddItem::IndexBefore(page::item_count(page) + 1)).map(|_| ())
}

/// Adds every tuple of `tuples` behind the last item; there must be `count` of them.
pub fn append_all(page: &mut Page, mut tuples: &[u8], count: u32) -> Result<(), Fault> {
    let mut added = 0;
    while !tuples.is_empty() {
        append(page, take_first(&mut tuples)?)?;
        added += 1;
    }
    if added == count {
        Ok(())
    } else {
        Err(Fault::Mismatch("the record has more or fewer tuples than it says"))
    }
}
