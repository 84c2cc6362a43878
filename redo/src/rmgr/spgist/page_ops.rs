//! What redo does to SP-GiST pages: tuples in at given numbers, and out with something left in their place.

use super::State;
use super::opaque;
use super::tuple::{self, Place, TupleState};
use crate::Page;
use crate::error::Fault;
use crate::page::{self, AddItem};
use crate::wire::u16_list;

/// Adds `tuple` as item `offset`, behind the last one or in place of a placeholder (`addOrReplaceTuple`).
pub fn add_or_replace(page: &mut Page, tuple: &[u8], offset: u16) -> Result<(), Fault> {
    opaque::check(page)?;
    if offset <= page::item_count(page) {
        let old = page::stored_item(page, offset)?;
        if !tuple::is_placeholder(&page[old.range()]) {
            return Err(Fault::Mismatch("the tuple to be replaced is not a placeholder"));
        }
        opaque::add_placeholders(page, -1);
        page::index_tuple_delete(page, offset)?;
    }
    add(page, tuple, offset)
}

/// Puts `tuple` in place of item `offset`, whatever that was. The counters are the caller's.
pub fn replace(page: &mut Page, tuple: &[u8], offset: u16) -> Result<(), Fault> {
    opaque::check(page)?;
    page::index_tuple_delete(page, offset)?;
    add(page, tuple, offset)
}

fn add(page: &mut Page, tuple: &[u8], offset: u16) -> Result<(), Fault> {
    page::add_item(page, tuple, AddItem::IndexBefore(offset)).map(|_| ())
}

/// What is left of tuples that go.
#[derive(Clone, Copy)]
pub struct Remains {
    /// Of the first in the record's list, which chains and downlinks point to.
    pub first: TupleState,
    pub rest: TupleState,
    /// Where a redirect leads.
    pub target: Place,
}

/// A place for remains that lead nowhere.
pub const NOWHERE: Place = Place { block: strata_common::BlockNumber(u32::MAX), offset: 0 };

impl Remains {
    /// The same of all, and no redirects.
    pub fn all(kind: TupleState) -> Remains {
        Remains { first: kind, rest: kind, target: NOWHERE }
    }
}

/// Deletes the items whose numbers `offsets` are, in any order, and leaves something in each one's place
/// (`spgPageIndexMultiDelete`).
pub fn delete(page: &mut Page, state: State, offsets: &[u8], remains: Remains) -> Result<(), Fault> {
    opaque::check(page)?;
    let offsets = u16_list(offsets);
    let Some(first) = offsets.clone().next() else { return Ok(()) };
    let mut sorted: Vec<u16> = offsets.collect();
    sorted.sort_unstable();
    page::index_multi_delete(page, sorted.iter().copied())?;
    for offset in sorted {
        let kind = if offset == first { remains.first } else { remains.rest };
        add(page, &tuple::dead(state, kind, remains.target), offset)?;
        match kind {
            TupleState::Redirect => opaque::add_redirects(page, 1),
            TupleState::Placeholder => opaque::add_placeholders(page, 1),
            TupleState::Dead => {}
        }
    }
    Ok(())
}

/// Points node `node` of inner tuple `parent` to `place`.
pub fn set_downlink(page: &mut Page, parent: u16, node: u16, place: Place) -> Result<(), Fault> {
    let span = page::stored_item(page, parent)?;
    tuple::set_node(&mut page[span.range()], node, place)
}

/// Makes `next` follow leaf tuple `offset` in its chain.
pub fn set_next(page: &mut Page, offset: u16, next: u16) -> Result<(), Fault> {
    let span = page::stored_item(page, offset)?;
    tuple::set_next(&mut page[span.range()], next)
}
