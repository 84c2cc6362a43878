//! VACUUM and DELETE: leaf tuples go, posting lists lose some of their row identifiers.

use super::opaque::{self, flag};
use super::{item, tuple};
use crate::Page;
use crate::change::RecordChange;
use crate::error::Fault;
use crate::page;
use crate::wire::{Parts, u16_list};

/// How many tuples go and how many are changed.
#[derive(Clone, Copy)]
pub struct Counts {
    deleted: u16,
    updated: u16,
}

impl Counts {
    /// `xl_btree_vacuum`.
    pub fn of_vacuum(main: &[u8]) -> Result<Counts, Fault> {
        let mut fields = Parts::new(main, "xl_btree_vacuum");
        Ok(Counts { deleted: fields.u16()?, updated: fields.u16()? })
    }

    /// `xl_btree_delete`: a conflict horizon comes first, and whether the relation is a catalog last.
    pub fn of_delete(main: &[u8]) -> Result<Counts, Fault> {
        let mut fields = Parts::new(main, "xl_btree_delete");
        fields.take(4)?;
        Ok(Counts { deleted: fields.u16()?, updated: fields.u16()? })
    }
}

fn numbers<'a>(
    fields: &mut Parts<'a>,
    count: u16,
) -> Result<impl ExactSizeIterator<Item = u16> + DoubleEndedIterator + Clone + use<'a>, Fault> {
    Ok(u16_list(fields.take(usize::from(count) * 2)?))
}

pub fn apply(page: &mut Page, change: &RecordChange<'_>, counts: Counts) -> Result<(), Fault> {
    opaque::check(page)?;
    let mut fields = Parts::new(change.data, "items to delete or update");
    let deleted = numbers(&mut fields, counts.deleted)?;
    let updated = numbers(&mut fields, counts.updated)?;
    for number in updated {
        let place_count = fields.u16()?;
        let places = numbers(&mut fields, place_count)?;
        let rest = tuple::without(item(page, number)?, places)?;
        page::index_tuple_overwrite(page, number, &rest)?;
    }
    page::index_multi_delete(page, deleted)?;
    opaque::clear_flag(page, flag::HAS_GARBAGE);
    Ok(())
}
