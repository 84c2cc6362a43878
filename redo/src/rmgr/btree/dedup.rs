//! DEDUP: runs of leaf tuples with equal keys become one tuple with a posting list each (`_bt_dedup_*` in `nbtdedup.c`).

use super::opaque::{self, flag};
use super::tuple::{self, Leaf};
use super::{HIGH_KEY, append, item};
use crate::Page;
use crate::change::RecordChange;
use crate::error::Fault;
use crate::page;
use crate::wire::Parts;

/// Longest tuple that dedup may make, bytes (`BTMaxItemSize`); Postgres's redo uses the same bound.
const MERGED_BYTES_MAX: usize = (8192 - 40 - opaque::OPAQUE_BYTES) / 3 / 8 * 8 - 8;

/// A run to merge (`BTDedupInterval`).
#[derive(Clone, Copy)]
struct Interval {
    first_item: u16,
    item_count: u16,
}

fn intervals(change: &RecordChange<'_>) -> Result<Vec<Interval>, Fault> {
    let count = Parts::new(change.main, "xl_btree_dedup").u16()?;
    let mut fields = Parts::new(change.data, "intervals of a dedup");
    (0..count).map(|_| Ok(Interval { first_item: fields.u16()?, item_count: fields.u16()? })).collect()
}

/// Tuples that are being merged: the first of them and the row identifiers of all.
struct Pending<'a> {
    first_item: u16,
    first: Leaf<'a>,
    whole_first: &'a [u8],
    item_count: u16,
    tids: Vec<u8>,
}

impl<'a> Pending<'a> {
    fn start(first_item: u16, whole: &'a [u8]) -> Result<Pending<'a>, Fault> {
        let first = Leaf::parse(whole)?;
        let whole_first = &whole[..tuple::size(whole)?];
        Ok(Pending { first_item, first, whole_first, item_count: 1, tids: first.tids.to_vec() })
    }

    fn add(&mut self, next: Leaf<'_>) -> Result<(), Fault> {
        let merged = self.first.base.len() + self.tids.len() + next.tids.len();
        if merged.next_multiple_of(8) > MERGED_BYTES_MAX {
            return Err(Fault::Mismatch("a dedup makes a posting list that is too long"));
        }
        self.tids.extend_from_slice(next.tids);
        self.item_count += 1;
        Ok(())
    }

    fn finish(&self, page: &mut Page) -> Result<(), Fault> {
        if self.item_count == 1 {
            return append(page, self.whole_first);
        }
        append(page, &tuple::form(self.first.base, &self.tids)?)
    }
}

pub fn apply(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    opaque::check(page)?;
    let intervals = intervals(change)?;
    let old = *page;
    opaque::init_like(page, &old);
    merge(page, &old, &intervals)?;
    opaque::clear_flag(page, flag::HAS_GARBAGE);
    Ok(())
}

fn merge(page: &mut Page, old: &Page, intervals: &[Interval]) -> Result<(), Fault> {
    if !opaque::is_rightmost(old) {
        append(page, item(old, HIGH_KEY)?)?;
    }
    let first = opaque::first_data_item(old);
    if first > page::item_count(old) {
        return Err(Fault::Mismatch("a dedup meets a page without tuples"));
    }
    let mut intervals = intervals.iter().copied().peekable();
    let mut pending = Pending::start(first, item(old, first)?)?;
    for number in first + 1..=page::item_count(old) {
        let next = item(old, number)?;
        let belongs =
            |run: &&Interval| run.first_item == pending.first_item && pending.item_count < run.item_count;
        if intervals.peek().filter(belongs).is_some() {
            pending.add(Leaf::parse(next)?)?;
            continue;
        }
        pending.finish(page)?;
        intervals.next_if(|_| pending.item_count > 1);
        pending = Pending::start(number, next)?;
    }
    pending.finish(page)?;
    intervals.next_if(|_| pending.item_count > 1);
    if intervals.peek().is_some() {
        return Err(Fault::Mismatch("an interval of a dedup does not lie on the page"));
    }
    Ok(())
}
