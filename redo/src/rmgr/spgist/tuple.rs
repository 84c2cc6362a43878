//! Tuples of SP-GiST pages (`src/include/access/spgist_private.h`): inner tuples with nodes, leaf tuples in chains, and
//! what stays of a tuple that is gone.
//!
//! All begin with a state of two bits. A leaf's size is the rest of that word; an inner tuple has it in the next field.

use strata_common::BlockNumber;

use super::State;
use crate::error::Fault;
use crate::wire::{Parts, u16_at, u32_at};

/// `tupstate`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TupleState {
    Redirect = 1,
    Dead = 2,
    Placeholder = 3,
}

/// Bytes of a tuple that is gone (`SGDTSIZE`): state and size, chain link, pointer, transaction id.
pub const DEAD_BYTES: usize = 16;
const LINK_AT: usize = 4;
const POINTER_AT: usize = 6;
const POINTER_BYTES: usize = 6;
/// In `t_info` of a leaf: the next tuple of the chain; the other bits are flags.
const NEXT_MASK: u16 = 0x3fff;

/// Bytes of an inner tuple's header, behind which lie the prefix and then the nodes.
const INNER_HEADER_BYTES: usize = 8;
/// Bytes of a node's header, which is that of an index tuple: pointer, then size and flags.
const NODE_HEADER_BYTES: usize = 8;
const NODE_SIZE_MASK: u16 = 0x1fff;

/// A place in the index.
#[derive(Clone, Copy)]
pub struct Place {
    pub block: BlockNumber,
    pub offset: u16,
}

impl Place {
    /// As an item pointer: block with the high half first, offset number.
    fn pointer(self) -> [u8; POINTER_BYTES] {
        let mut pointer = [0; POINTER_BYTES];
        pointer[0..2].copy_from_slice(&((self.block.0 >> 16) as u16).to_le_bytes());
        pointer[2..4].copy_from_slice(&(self.block.0 as u16).to_le_bytes());
        pointer[4..6].copy_from_slice(&self.offset.to_le_bytes());
        pointer
    }
}

/// `ItemPointerSetInvalid`.
const NO_POINTER: [u8; POINTER_BYTES] = [0xff, 0xff, 0xff, 0xff, 0, 0];

/// What stays of a tuple (`spgFormDeadTuple`); `target` is where a redirect leads.
pub fn dead(state: State, kind: TupleState, target: Place) -> [u8; DEAD_BYTES] {
    let mut tuple = [0; DEAD_BYTES];
    let first = (DEAD_BYTES as u32) << 2 | kind as u32;
    tuple[0..4].copy_from_slice(&first.to_le_bytes());
    let is_redirect = kind == TupleState::Redirect;
    let pointer = if is_redirect { target.pointer() } else { NO_POINTER };
    tuple[POINTER_AT..POINTER_AT + POINTER_BYTES].copy_from_slice(&pointer);
    let xid = if is_redirect { state.redirect_xid } else { 0 };
    tuple[12..16].copy_from_slice(&xid.to_le_bytes());
    tuple
}

pub fn is_placeholder(tuple: &[u8]) -> bool {
    tuple.first().is_some_and(|byte| byte & 3 == TupleState::Placeholder as u8)
}

/// Turns a redirect into a placeholder; its size and transaction id stay.
pub fn make_placeholder(tuple: &mut [u8]) -> Result<(), Fault> {
    if tuple.len() < DEAD_BYTES {
        return Err(Fault::Mismatch("a redirect is cut short"));
    }
    tuple[0] |= TupleState::Placeholder as u8;
    tuple[POINTER_AT..POINTER_AT + POINTER_BYTES].copy_from_slice(&NO_POINTER);
    Ok(())
}

/// Makes `next` follow a leaf tuple in its chain (`SGLT_SET_NEXTOFFSET`).
pub fn set_next(leaf: &mut [u8], next: u16) -> Result<(), Fault> {
    let info = u16_at(leaf, LINK_AT, "leaf tuple")?;
    let linked = info & !NEXT_MASK | next & NEXT_MASK;
    leaf[LINK_AT..LINK_AT + 2].copy_from_slice(&linked.to_le_bytes());
    Ok(())
}

/// Takes a leaf tuple, which is as long as it says itself.
pub fn take_leaf<'a>(parts: &mut Parts<'a>) -> Result<&'a [u8], Fault> {
    let bytes = u32_at(parts.rest(), 0, "leaf tuple")? >> 2;
    take(parts, bytes as usize, DEAD_BYTES - 4)
}

/// Takes an inner tuple, which is as long as it says itself.
pub fn take_inner<'a>(parts: &mut Parts<'a>) -> Result<&'a [u8], Fault> {
    let bytes = u16_at(parts.rest(), 4, "inner tuple")?;
    take(parts, bytes.into(), INNER_HEADER_BYTES)
}

fn take<'a>(parts: &mut Parts<'a>, bytes: usize, least: usize) -> Result<&'a [u8], Fault> {
    if bytes < least {
        return Err(Fault::Mismatch("a tuple of the record is shorter than its header"));
    }
    parts.take(bytes)
}

/// Points node `number` (from 0) of an inner tuple to `place` (`spgUpdateNodeLink`).
pub fn set_node(inner: &mut [u8], number: u16, place: Place) -> Result<(), Fault> {
    let first = u32_at(inner, 0, "inner tuple")?;
    let node_count = (first >> 3 & 0x1fff) as u16;
    if number >= node_count {
        return Err(Fault::Mismatch("the inner tuple has no such node"));
    }
    let mut at = INNER_HEADER_BYTES + (first >> 16) as usize;
    for _ in 0..number {
        let size = usize::from(u16_at(inner, at + 6, "node of an inner tuple")? & NODE_SIZE_MASK);
        if size < NODE_HEADER_BYTES {
            return Err(Fault::Mismatch("a node is shorter than its header"));
        }
        at += size;
    }
    let Some(pointer) = inner.get_mut(at..at + POINTER_BYTES) else {
        return Err(Fault::Short { what: "node of an inner tuple" });
    };
    pointer.copy_from_slice(&place.pointer());
    Ok(())
}
