//! SP-GiST: every record type of `src/backend/access/spgist/spgxlog.c` (layouts in `src/include/access/spgxlog.h`).
//!
//! An index is a tree of inner tuples whose nodes point to inner tuples or to chains of leaf tuples. Tuples keep their
//! numbers: one that goes leaves a redirect, a dead mark or a placeholder. Everything that a record says lies in its main
//! data, shared by up to four pages; each page is redone on its own from it and the block **numbers** of the others (W16).
//! Tuples in main data are not aligned.

mod grow;
mod opaque;
mod page_ops;
mod pick_split;
mod tuple;
mod vacuum;

#[cfg(test)]
mod spgist_test;

use strata_pgwal::{DecodedBlock, DecodedRecord};

use super::{Redo, References, push_page};
use crate::change::Keep;
use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::wire::Parts;
use crate::{Page, page};

/// Record types (`XLOG_SPGIST_*`): the high four bits of `xl_info`.
pub mod info {
    pub const ADD_LEAF: u8 = 0x10;
    pub const MOVE_LEAFS: u8 = 0x20;
    pub const ADD_NODE: u8 = 0x30;
    pub const SPLIT_TUPLE: u8 = 0x40;
    pub const PICKSPLIT: u8 = 0x50;
    pub const VACUUM_LEAF: u8 = 0x60;
    pub const VACUUM_ROOT: u8 = 0x70;
    pub const VACUUM_REDIRECT: u8 = 0x80;
}

/// Which references a record type has; `None` for a type that Postgres 17 does not have.
fn references(info: u8) -> Option<References> {
    Some(match info {
        info::ADD_LEAF | info::SPLIT_TUPLE => References { required: 0b1, allowed: 0b11 },
        info::MOVE_LEAFS => References::exactly(0b111),
        info::ADD_NODE => References { required: 0b1, allowed: 0b111 },
        info::PICKSPLIT => References { required: 0b100, allowed: 0b1111 },
        info::VACUUM_LEAF | info::VACUUM_ROOT | info::VACUUM_REDIRECT => References::exactly(0b1),
        _ => return None,
    })
}

/// What an SP-GiST record does: every page that it refers to changes.
pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let info = record.rmgr_info();
    let Some(references) = references(info) else {
        return Err(EffectError::unknown(record.rmid, info));
    };
    references.check(record)?;
    record.blocks.iter().try_for_each(|block| {
        let keep = Keep { main_bytes: main_bytes_read(record, block), data: false };
        push_page(record, block, keep, out)
    })
}

/// How much of the main data redo of this page reads: a downlink needs none of the tuples behind the fixed part.
fn main_bytes_read(record: &DecodedRecord, block: &DecodedBlock) -> usize {
    let main = &record.main_data;
    match (record.rmgr_info(), block.id) {
        (info::ADD_LEAF, 1) => grow::ADD_LEAF_BYTES,
        (info::MOVE_LEAFS, 0 | 2) => grow::MoveLeafs::bytes_before_tuples(main),
        (info::ADD_NODE, 2) => grow::ADD_NODE_BYTES,
        (info::ADD_NODE, 0) if record.block(1).is_some() => grow::ADD_NODE_BYTES,
        (info::PICKSPLIT, 3) => pick_split::FIXED_BYTES,
        (info::PICKSPLIT, 2) => pick_split::bytes_before_leaves(main),
        _ => main.len(),
    }
}

/// Redoes one page of a record.
pub fn apply(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    match redo.change.info {
        info::ADD_LEAF => grow::add_leaf(page, redo)?,
        info::MOVE_LEAFS => grow::move_leafs(page, redo)?,
        info::ADD_NODE => grow::add_node(page, redo)?,
        info::SPLIT_TUPLE => grow::split_tuple(page, redo)?,
        info::PICKSPLIT => pick_split::apply(page, redo)?,
        info::VACUUM_LEAF => vacuum::leaf(page, redo)?,
        info::VACUUM_ROOT => vacuum::root(page, redo)?,
        info::VACUUM_REDIRECT => vacuum::redirects(page, redo)?,
        _ => return Err(Fault::Unknown),
    }
    page::set_lsn(page, redo.lsn);
    Ok(())
}

/// `spgxlogState`: what redo must know of the index's state when the record was made. Three bytes of padding end it.
#[derive(Clone, Copy)]
struct State {
    /// Transaction id of redirects.
    redirect_xid: u32,
    /// While an index is built nobody can follow a redirect: placeholders do.
    is_build: bool,
}

impl State {
    fn parse(fields: &mut Parts<'_>) -> Result<State, Fault> {
        let redirect_xid = fields.u32()?;
        let is_build = fields.u8()? != 0;
        fields.take(3)?;
        Ok(State { redirect_xid, is_build })
    }
}
