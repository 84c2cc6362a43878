//! PICKSPLIT: a chain of leaves becomes an inner tuple with several chains, on up to four pages.
//!
//! Reference 0 is the page that had the chain (not if it was the root), 1 another page that leaves go to, 2 the page of the
//! inner tuple, 3 its parent's unless that is the same.

use super::opaque::{self, Kind};
use super::page_ops::{Remains, add_or_replace, delete, set_downlink};
use super::tuple::{Place, TupleState, take_inner, take_leaf};
use super::{Redo, State};
use crate::Page;
use crate::error::Fault;
use crate::wire::{Parts, u16_list};

/// Bytes of `spgxlogPickSplit`, behind which come numbers and tuples.
pub const FIXED_BYTES: usize = 28;

/// `spgxlogPickSplit`.
struct PickSplit {
    is_root: bool,
    delete_count: usize,
    insert_count: usize,
    init_source: bool,
    init_target: bool,
    inner: u16,
    init_inner: bool,
    stores_nulls: u8,
    inner_is_parent: bool,
    parent: u16,
    node: u16,
    state: State,
}

impl PickSplit {
    fn take(fields: &mut Parts<'_>) -> Result<PickSplit, Fault> {
        let is_root = fields.u8()? != 0;
        fields.take(1)?;
        let (delete_count, insert_count) = (fields.u16()?.into(), fields.u16()?.into());
        let (init_source, init_target) = (fields.u8()? != 0, fields.u8()? != 0);
        let inner = fields.u16()?;
        let (init_inner, stores_nulls, inner_is_parent) =
            (fields.u8()? != 0, fields.u8()?, fields.u8()? != 0);
        fields.take(1)?;
        let (parent, node) = (fields.u16()?, fields.u16()?);
        fields.take(2)?;
        let state = State::parse(fields)?;
        Ok(PickSplit {
            is_root,
            delete_count,
            insert_count,
            init_source,
            init_target,
            inner,
            init_inner,
            stores_nulls,
            inner_is_parent,
            parent,
            node,
            state,
        })
    }
}

/// The numbers and tuples behind the fixed part.
struct Tail<'a> {
    deleted: &'a [u8],
    inserted: &'a [u8],
    /// For each inserted leaf: 0 if it stays on the page of reference 0.
    goes_to_target: &'a [u8],
    inner: &'a [u8],
    leaves: Parts<'a>,
}

impl<'a> Tail<'a> {
    fn take(record: &PickSplit, mut fields: Parts<'a>) -> Result<Tail<'a>, Fault> {
        Ok(Tail {
            deleted: fields.take(2 * record.delete_count)?,
            inserted: fields.take(2 * record.insert_count)?,
            goes_to_target: fields.take(record.insert_count)?,
            inner: take_inner(&mut fields)?,
            leaves: fields,
        })
    }

    /// Adds the leaves that belong to this page.
    fn add_leaves(&mut self, page: &mut Page, to_target: bool) -> Result<(), Fault> {
        for (offset, selector) in u16_list(self.inserted).zip(self.goes_to_target) {
            let leaf = take_leaf(&mut self.leaves)?;
            if (*selector != 0) == to_target {
                add_or_replace(page, leaf, offset)?;
            }
        }
        Ok(())
    }
}

/// Bytes that the page of the inner tuple needs; all if the record makes no sense.
pub fn bytes_before_leaves(main: &[u8]) -> usize {
    let mut fields = Parts::new(main, "spgxlogPickSplit");
    let tail = PickSplit::take(&mut fields).and_then(|record| Tail::take(&record, fields));
    tail.map_or(main.len(), |tail| main.len() - tail.leaves.rest().len())
}

/// Redoes the page of any reference.
pub fn apply(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let mut fields = Parts::new(redo.change.main, "spgxlogPickSplit");
    let record = PickSplit::take(&mut fields)?;
    let place = Place { block: redo.required_block(2)?, offset: record.inner };
    match redo.change.id {
        0 if !record.is_root => source(page, redo, &record, Tail::take(&record, fields)?),
        1 => {
            redo.check_init(record.init_target)?;
            if record.init_target {
                opaque::init(page, Kind::Leaf, record.stores_nulls);
            }
            Tail::take(&record, fields)?.add_leaves(page, true)
        }
        2 => {
            redo.check_init(record.init_inner)?;
            if record.init_inner {
                opaque::init(page, Kind::Inner, record.stores_nulls);
            }
            add_or_replace(page, Tail::take(&record, fields)?.inner, record.inner)?;
            if record.inner_is_parent {
                set_downlink(page, record.parent, record.node, place)?;
            }
            Ok(())
        }
        3 => {
            redo.check_init(false)?;
            set_downlink(page, record.parent, record.node, place)
        }
        _ => Err(Fault::Mismatch("the record has no such block reference")),
    }
}

/// Reference 0: the chain goes, what stays of it leads to the inner tuple, and some leaves come back.
fn source(page: &mut Page, redo: &Redo<'_>, record: &PickSplit, mut tail: Tail<'_>) -> Result<(), Fault> {
    redo.check_init(record.init_source)?;
    if record.init_source {
        opaque::init(page, Kind::Leaf, record.stores_nulls);
    } else if record.state.is_build {
        delete(page, record.state, tail.deleted, Remains::all(TupleState::Placeholder))?;
    } else {
        let target = Place { block: redo.required_block(2)?, offset: record.inner };
        let remains = Remains { first: TupleState::Redirect, rest: TupleState::Placeholder, target };
        delete(page, record.state, tail.deleted, remains)?;
    }
    tail.add_leaves(page, false)
}
