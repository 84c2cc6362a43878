//! SPLIT_L and SPLIT_R: the left half is rebuilt from the page's old items, the right half comes whole with the record.

use super::opaque::{self, Opaque, flag};
use super::{append, item, other_block, restore_items, tuple};
use crate::Page;
use crate::change::RecordChange;
use crate::error::Fault;
use crate::wire::Parts;

/// Which half the tuple goes to whose insertion made the split.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NewItem {
    Left,
    Right,
}

/// `xl_btree_split`.
struct Split {
    level: u32,
    first_right: u16,
    new_item: u16,
    /// Place in the posting list before the new item that has to be split first; 0 if there is none.
    posting_place: u16,
}

impl Split {
    fn parse(main: &[u8]) -> Result<Split, Fault> {
        let mut fields = Parts::new(main, "xl_btree_split");
        Ok(Split {
            level: fields.u32()?,
            first_right: fields.u16()?,
            new_item: fields.u16()?,
            posting_place: fields.u16()?,
        })
    }

    fn leaf_flag(&self) -> u16 {
        if self.level == 0 { flag::LEAF } else { 0 }
    }
}

/// Reference 1: the new right page.
pub fn right(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    let split = Split::parse(change.main)?;
    let prev = other_block(change, 0)?;
    let next = change.other_block(2).map_or(opaque::NO_BLOCK, |block| block.0);
    opaque::init(page, Opaque { prev, next, level: split.level, flags: split.leaf_flag() });
    restore_items(page, change.data)
}

/// Reference 2: the page that was right of the original; its left neighbour is the new page.
pub fn next(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    opaque::check(page)?;
    opaque::set_prev(page, other_block(change, 1)?);
    Ok(())
}

/// Reference 0: the original page, which keeps the left half. The items go in by number, so that the physical order is
/// that of the primary.
pub fn left(page: &mut Page, change: &RecordChange<'_>, side: NewItem) -> Result<(), Fault> {
    opaque::check(page)?;
    let split = Split::parse(change.main)?;
    let mut data = change.data;
    let mut new_item = None;
    if side == NewItem::Left || split.posting_place != 0 {
        new_item = Some(tuple::take_first(&mut data)?.to_vec());
    }
    let high_key = tuple::take_first(&mut data)?;
    let mut posting = None;
    if let Some(new_item) = new_item.as_mut().filter(|_| split.posting_place != 0) {
        let number = split.new_item.wrapping_sub(1);
        let mut list = item(page, number)?.to_vec();
        tuple::swap_posting(new_item, &mut list, split.posting_place)?;
        posting = Some((number, list));
    }
    let new_item = new_item.filter(|_| side == NewItem::Left);

    let old = *page;
    opaque::init_like(page, &old);
    fill_left(page, &old, &split, high_key, posting.as_ref(), new_item.as_deref())?;
    opaque::set_flags(page, flag::INCOMPLETE_SPLIT | split.leaf_flag());
    opaque::set_next(page, other_block(change, 1)?);
    opaque::clear_cycle_id(page);
    Ok(())
}

fn fill_left(
    page: &mut Page,
    old: &Page,
    split: &Split,
    high_key: &[u8],
    posting: Option<&(u16, Vec<u8>)>,
    new_item: Option<&[u8]>,
) -> Result<(), Fault> {
    append(page, high_key)?;
    let first = opaque::first_data_item(old);
    for number in first..split.first_right {
        if let Some((_, list)) = posting.filter(|(place, _)| *place == number) {
            append(page, list)?;
            continue;
        }
        if let Some(tuple) = new_item.filter(|_| number == split.new_item) {
            append(page, tuple)?;
        }
        append(page, item(old, number)?)?;
    }
    // The new item may be the last of the left half.
    let end = split.first_right.max(first);
    if let Some(tuple) = new_item.filter(|_| end == split.new_item) {
        append(page, tuple)?;
    }
    Ok(())
}
