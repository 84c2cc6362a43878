//! VACUUM of SP-GiST pages: leaves that go, a root that is still a leaf, redirects that nobody can follow any more.

use super::page_ops::{Remains, delete, set_next};
use super::tuple::{self, TupleState};
use super::{Redo, State, opaque};
use crate::Page;
use crate::error::Fault;
use crate::page;
use crate::wire::{Parts, u16_list};

/// VACUUM_LEAF: tuples become dead marks or placeholders, survivors move to the heads of their chains, chains are linked.
pub fn leaf(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    redo.check_init(false)?;
    let mut fields = Parts::new(redo.change.main, "spgxlogVacuumLeaf");
    let mut count = || fields.u16().map(usize::from);
    let (dead, placeholders, moves, chains) = (count()?, count()?, count()?, count()?);
    let state = State::parse(&mut fields)?;
    let mut numbers = |count: usize| fields.take(2 * count);
    let (dead, placeholders) = (numbers(dead)?, numbers(placeholders)?);
    let (from, to) = (numbers(moves)?, numbers(moves)?);
    let (linked, next) = (numbers(chains)?, numbers(chains)?);

    delete(page, state, dead, Remains::all(TupleState::Dead))?;
    delete(page, state, placeholders, Remains::all(TupleState::Placeholder))?;
    for (from, to) in u16_list(from).zip(u16_list(to)) {
        let (source, target) = (page::line(page, from)?, page::line(page, to)?);
        page::set_line(page, from, target)?;
        page::set_line(page, to, source)?;
    }
    delete(page, state, from, Remains::all(TupleState::Placeholder))?;
    u16_list(linked).zip(u16_list(next)).try_for_each(|(offset, next)| set_next(page, offset, next))
}

/// VACUUM_ROOT: a root that is a leaf has no chains, so its tuples just go.
pub fn root(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    redo.check_init(false)?;
    opaque::check(page)?;
    let mut fields = Parts::new(redo.change.main, "spgxlogVacuumRoot");
    let count = usize::from(fields.u16()?);
    fields.take(2)?;
    State::parse(&mut fields)?;
    page::index_multi_delete(page, u16_list(fields.take(2 * count)?))
}

/// VACUUM_REDIRECT: redirects become placeholders, and placeholders at the page's end go.
pub fn redirects(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    redo.check_init(false)?;
    opaque::check(page)?;
    let mut fields = Parts::new(redo.change.main, "spgxlogVacuumRedirect");
    let count = fields.u16()?;
    let first_to_go = fields.u16()?;
    // For hot standby: the newest transaction of a redirect, whether a catalog is meant, and padding.
    fields.take(4 + 1 + 1)?;
    for offset in u16_list(fields.take(2 * usize::from(count))?) {
        let span = page::stored_item(page, offset)?;
        tuple::make_placeholder(&mut page[span.range()])?;
    }
    opaque::add_redirects(page, -i32::from(count));
    opaque::add_placeholders(page, i32::from(count));
    if first_to_go != 0 {
        let last = page::item_count(page);
        let gone = (last + 1).saturating_sub(first_to_go);
        opaque::add_placeholders(page, -i32::from(gone));
        page::index_multi_delete(page, first_to_go..first_to_go.saturating_add(gone))?;
    }
    Ok(())
}
