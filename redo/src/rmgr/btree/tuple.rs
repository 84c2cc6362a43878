//! Index tuples of a btree and their posting lists (`src/include/access/itup.h`, `nbtree.h`, `nbtdedup.c`).
//!
//! A tuple starts with `t_tid` (6 bytes) and `t_info` (2 bytes: size, flags). In a posting list tuple `t_tid` holds the
//! offset of the list and the number of heap row identifiers in it; the list ends the tuple.

use crate::error::Fault;

/// Bytes of `IndexTupleData`.
pub const HEADER_BYTES: usize = 8;
/// Bytes of a heap row identifier (`ItemPointerData`).
pub const TID_BYTES: usize = 6;
const SIZE_MASK: u16 = 0x1fff;
/// `t_tid` does not hold a row identifier (`INDEX_ALT_TID_MASK`).
const ALTERNATIVE_TID: u16 = 0x2000;
/// In the offset number of such a `t_tid`: this is a posting list (`BT_IS_POSTING`), and how long it is.
const IS_POSTING: u16 = 0x2000;
const COUNT_MASK: u16 = 0x0fff;

fn u16_at(tuple: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([tuple[at], tuple[at + 1]])
}

fn set_u16(tuple: &mut [u8], at: usize, value: u16) {
    tuple[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// The block number in `t_tid`: of a downlink, or the offset of a posting list.
pub fn block_number(tuple: &[u8]) -> Result<u32, Fault> {
    whole_header(tuple)?;
    Ok(u32::from(u16_at(tuple, 0)) << 16 | u32::from(u16_at(tuple, 2)))
}

/// Points a pivot tuple at another child (`BTreeTupleSetDownLink`).
pub fn set_block_number(tuple: &mut [u8], block: u32) -> Result<(), Fault> {
    whole_header(tuple)?;
    set_u16(tuple, 0, (block >> 16) as u16);
    set_u16(tuple, 2, block as u16);
    Ok(())
}

fn whole_header(tuple: &[u8]) -> Result<(), Fault> {
    if tuple.len() < HEADER_BYTES {
        return Err(Fault::Mismatch("an index tuple is shorter than its header"));
    }
    Ok(())
}

/// The dummy high key of a half-dead leaf, which names the top parent of the subtree that goes.
pub fn top_parent(block: u32) -> [u8; HEADER_BYTES] {
    let mut tuple = [0; HEADER_BYTES];
    set_u16(&mut tuple, 0, (block >> 16) as u16);
    set_u16(&mut tuple, 2, block as u16);
    // BTreeTupleSetTopParent also says that the tuple has no key columns.
    set_u16(&mut tuple, 6, HEADER_BYTES as u16 | ALTERNATIVE_TID);
    tuple
}

/// Size of a tuple as it says itself; at most the length of `tuple`.
pub fn size(tuple: &[u8]) -> Result<usize, Fault> {
    whole_header(tuple)?;
    let size = usize::from(u16_at(tuple, 6) & SIZE_MASK);
    if size < HEADER_BYTES || size > tuple.len() {
        return Err(Fault::Mismatch("an index tuple is longer than its line pointer says"));
    }
    Ok(size)
}

/// Takes the first tuple off `bytes`, in which tuples follow each other aligned to 8 bytes.
pub fn take_first<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    if bytes.len() < HEADER_BYTES {
        return Err(Fault::Mismatch("a tuple of the record is cut off"));
    }
    let length = usize::from(u16_at(bytes, 6) & SIZE_MASK).next_multiple_of(8);
    if length < HEADER_BYTES || length > bytes.len() {
        return Err(Fault::Mismatch("a tuple of the record is cut off"));
    }
    let (tuple, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(tuple)
}

/// A leaf tuple taken apart: what it looks like without its list, and its row identifiers.
#[derive(Clone, Copy)]
pub struct Leaf<'a> {
    /// Header and key, up to where a list begins or would begin.
    pub base: &'a [u8],
    /// One or more row identifiers of 6 bytes.
    pub tids: &'a [u8],
    pub is_posting: bool,
}

impl<'a> Leaf<'a> {
    /// Reads the tuple of a line pointer; its size is what `t_info` says and must lie inside.
    pub fn parse(tuple: &'a [u8]) -> Result<Leaf<'a>, Fault> {
        let size = size(tuple)?;
        let info = u16_at(tuple, 6);
        let count_and_flags = u16_at(tuple, 4);
        if info & ALTERNATIVE_TID == 0 || count_and_flags & IS_POSTING == 0 {
            return Ok(Leaf { base: &tuple[..size], tids: &tuple[..TID_BYTES], is_posting: false });
        }
        let at = block_number(tuple)? as usize;
        let count = usize::from(count_and_flags & COUNT_MASK);
        if at < HEADER_BYTES || at > size || count == 0 || count * TID_BYTES > size - at {
            return Err(Fault::Mismatch("a posting list leads out of its tuple"));
        }
        Ok(Leaf { base: &tuple[..at], tids: &tuple[at..at + count * TID_BYTES], is_posting: true })
    }

    pub fn tid_count(&self) -> usize {
        self.tids.len() / TID_BYTES
    }
}

/// Makes a tuple of a base and row identifiers (`_bt_form_posting`): a plain one of a single identifier.
///
/// Errors: the identifiers are none or more than a tuple can hold.
pub fn form(base: &[u8], tids: &[u8]) -> Result<Vec<u8>, Fault> {
    let count = tids.len() / TID_BYTES;
    let key_bytes = base.len();
    let size = if count > 1 { (key_bytes + tids.len()).next_multiple_of(8) } else { key_bytes };
    if key_bytes < HEADER_BYTES
        || count == 0
        || count > usize::from(COUNT_MASK)
        || size > usize::from(SIZE_MASK)
    {
        return Err(Fault::Mismatch("a posting list would not fit into a tuple"));
    }
    let mut tuple = vec![0; size];
    tuple[..key_bytes].copy_from_slice(base);
    let flags = u16_at(&tuple, 6) & !SIZE_MASK;
    if count > 1 {
        set_u16(&mut tuple, 6, flags | size as u16 | ALTERNATIVE_TID);
        set_u16(&mut tuple, 4, count as u16 | IS_POSTING);
        set_block_number(&mut tuple, key_bytes as u32)?;
        tuple[key_bytes..key_bytes + tids.len()].copy_from_slice(tids);
    } else {
        set_u16(&mut tuple, 6, (flags | size as u16) & !ALTERNATIVE_TID);
        tuple[..TID_BYTES].copy_from_slice(tids);
    }
    Ok(tuple)
}

/// A posting list tuple without the identifiers at the places `gone`, which ascend (`_bt_update_posting`).
pub fn without(tuple: &[u8], gone: impl Iterator<Item = u16>) -> Result<Vec<u8>, Fault> {
    let leaf = Leaf::parse(tuple)?;
    if !leaf.is_posting {
        return Err(Fault::Mismatch("a tuple without posting list cannot lose a part of it"));
    }
    let mut gone = gone.map(usize::from).peekable();
    let mut tids = Vec::with_capacity(leaf.tids.len());
    for (place, tid) in leaf.tids.chunks_exact(TID_BYTES).enumerate() {
        if gone.next_if_eq(&place).is_none() {
            tids.extend_from_slice(tid);
        }
    }
    if gone.peek().is_some() {
        return Err(Fault::Mismatch("places to delete do not ascend in the posting list"));
    }
    form(leaf.base, &tids)
}

/// Puts the row identifier of `new_tuple` into the posting list at `place` and the list's last identifier, which is
/// pushed out, into `new_tuple` (`_bt_swap_posting`). The list keeps its length.
pub fn swap_posting(new_tuple: &mut [u8], posting: &mut [u8], place: u16) -> Result<(), Fault> {
    whole_header(new_tuple)?;
    let leaf = Leaf::parse(posting)?;
    let place = usize::from(place);
    if !leaf.is_posting || place == 0 || place >= leaf.tid_count() {
        return Err(Fault::Mismatch("a posting list cannot be split at this place"));
    }
    let list = leaf.base.len();
    let end = list + leaf.tids.len();
    let at = list + place * TID_BYTES;
    let mut pushed_out = [0; TID_BYTES];
    pushed_out.copy_from_slice(&posting[end - TID_BYTES..end]);
    posting.copy_within(at..end - TID_BYTES, at + TID_BYTES);
    posting[at..at + TID_BYTES].copy_from_slice(&new_tuple[..TID_BYTES]);
    new_tuple[..TID_BYTES].copy_from_slice(&pushed_out);
    Ok(())
}
