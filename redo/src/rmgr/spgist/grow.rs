//! Insertions: ADD_LEAF, MOVE_LEAFS (a chain moves to a page with room), ADD_NODE and SPLIT_TUPLE (an inner tuple grows).

use super::opaque::{self, Kind};
use super::page_ops::{NOWHERE, Remains, add_or_replace, delete, replace, set_downlink, set_next};
use super::tuple::{self, Place, TupleState, take_inner, take_leaf};
use super::{Redo, State};
use crate::Page;
use crate::error::Fault;
use crate::wire::{Parts, u16_list};

/// Bytes of `spgxlogAddLeaf` and `spgxlogAddNode`; a tuple follows each.
pub const ADD_LEAF_BYTES: usize = 10;
pub const ADD_NODE_BYTES: usize = 20;

/// ADD_LEAF. Reference 0 is the leaf's page, 1 the parent's.
pub fn add_leaf(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let mut fields = Parts::new(redo.change.main, "spgxlogAddLeaf");
    let (new_page, stores_nulls) = (fields.u8()?, fields.u8()?);
    let (leaf, head, parent, node) = (fields.u16()?, fields.u16()?, fields.u16()?, fields.u16()?);
    match redo.change.id {
        0 => {
            redo.check_init(new_page != 0)?;
            if new_page != 0 {
                opaque::init(page, Kind::Leaf, stores_nulls);
            }
            let tuple = take_leaf(&mut fields)?;
            if leaf == head {
                // It takes the place of a dead tuple.
                return replace(page, tuple, leaf);
            }
            add_or_replace(page, tuple, leaf)?;
            if head != 0 { set_next(page, head, leaf) } else { Ok(()) }
        }
        1 if parent != 0 => {
            redo.check_init(false)?;
            set_downlink(page, parent, node, Place { block: redo.required_block(0)?, offset: leaf })
        }
        _ => Err(Fault::Mismatch("the record has no such block reference")),
    }
}

/// `spgxlogMoveLeafs` with the numbers behind it.
pub struct MoveLeafs<'a> {
    new_page: bool,
    stores_nulls: u8,
    parent: u16,
    node: u16,
    state: State,
    deleted: &'a [u8],
    inserted: &'a [u8],
    tuples: Parts<'a>,
}

impl<'a> MoveLeafs<'a> {
    fn parse(main: &'a [u8]) -> Result<MoveLeafs<'a>, Fault> {
        let mut fields = Parts::new(main, "spgxlogMoveLeafs");
        let moves = usize::from(fields.u16()?);
        let (new_page, replace_dead, stores_nulls) = (fields.u8()?, fields.u8()?, fields.u8()?);
        fields.take(1)?;
        let (parent, node) = (fields.u16()?, fields.u16()?);
        fields.take(2)?;
        let state = State::parse(&mut fields)?;
        let deleted = fields.take(2 * moves)?;
        let inserted = fields.take(if replace_dead != 0 { 2 } else { 2 * (moves + 1) })?;
        let new_page = new_page != 0;
        Ok(MoveLeafs { new_page, stores_nulls, parent, node, state, deleted, inserted, tuples: fields })
    }

    /// Bytes that a page without the tuples themselves needs; all if the record makes no sense.
    pub fn bytes_before_tuples(main: &[u8]) -> usize {
        MoveLeafs::parse(main).map_or(main.len(), |record| main.len() - record.tuples.rest().len())
    }

    /// Where the chain begins now.
    fn head(&self, redo: &Redo<'_>) -> Result<Place, Fault> {
        let offset = u16_list(self.inserted).next_back().unwrap_or(0);
        Ok(Place { block: redo.required_block(1)?, offset })
    }
}

/// MOVE_LEAFS. Reference 0 is the page that the chain leaves, 1 the one that it moves to, 2 the parent's.
pub fn move_leafs(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let mut record = MoveLeafs::parse(redo.change.main)?;
    let target = record.head(redo)?;
    redo.check_init(redo.change.id == 1 && record.new_page)?;
    match redo.change.id {
        0 => {
            let first = if record.state.is_build { TupleState::Placeholder } else { TupleState::Redirect };
            let remains = Remains { first, rest: TupleState::Placeholder, target };
            delete(page, record.state, record.deleted, remains)
        }
        1 => {
            if record.new_page {
                opaque::init(page, Kind::Leaf, record.stores_nulls);
            }
            u16_list(record.inserted)
                .try_for_each(|offset| add_or_replace(page, take_leaf(&mut record.tuples)?, offset))
        }
        2 => set_downlink(page, record.parent, record.node, target),
        _ => Err(Fault::Mismatch("the record has no such block reference")),
    }
}

/// ADD_NODE. Reference 0 is the inner tuple's page. If the larger tuple goes elsewhere, 1 is its new page, and 2 the
/// parent's unless that is one of the two.
pub fn add_node(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let mut fields = Parts::new(redo.change.main, "spgxlogAddNode");
    let (old, new) = (fields.u16()?, fields.u16()?);
    let new_page = fields.u8()? != 0;
    // Which reference holds the parent; 0xff if its downlink stays.
    let parent_reference = fields.u8()?;
    let (parent, node) = (fields.u16()?, fields.u16()?);
    fields.take(2)?;
    let state = State::parse(&mut fields)?;
    let id = redo.change.id;
    let Some(new_block) = redo.block(1) else {
        redo.check_init(false)?;
        return replace(page, take_inner(&mut fields)?, old);
    };
    let place = Place { block: new_block, offset: new };
    redo.check_init(id == 1 && new_page)?;
    match id {
        0 if state.is_build => {
            replace(page, &tuple::dead(state, TupleState::Placeholder, NOWHERE), old)?;
            opaque::add_placeholders(page, 1);
        }
        0 => {
            replace(page, &tuple::dead(state, TupleState::Redirect, place), old)?;
            opaque::add_redirects(page, 1);
        }
        1 => {
            if new_page {
                opaque::init(page, Kind::Inner, 0);
            }
            add_or_replace(page, take_inner(&mut fields)?, new)?;
        }
        2 if parent_reference == 2 => {}
        _ => return Err(Fault::Mismatch("the record has no such block reference")),
    }
    if id == parent_reference { set_downlink(page, parent, node, place) } else { Ok(()) }
}

/// SPLIT_TUPLE: an inner tuple becomes one with a shorter prefix (reference 0) and one below it (reference 1, if it is on
/// another page).
pub fn split_tuple(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let mut fields = Parts::new(redo.change.main, "spgxlogSplitTuple");
    let (prefix_offset, postfix_offset) = (fields.u16()?, fields.u16()?);
    let (new_page, same_page) = (fields.u8()? != 0, fields.u8()? != 0);
    let prefix = take_inner(&mut fields)?;
    let postfix = take_inner(&mut fields)?;
    redo.check_init(redo.change.id == 1 && new_page)?;
    match redo.change.id {
        0 => {
            replace(page, prefix, prefix_offset)?;
            if same_page { add_or_replace(page, postfix, postfix_offset) } else { Ok(()) }
        }
        1 if !same_page => {
            if new_page {
                opaque::init(page, Kind::Inner, 0);
            }
            add_or_replace(page, postfix, postfix_offset)
        }
        _ => Err(Fault::Mismatch("the record has no such block reference")),
    }
}
