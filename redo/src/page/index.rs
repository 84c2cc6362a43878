//! Deleting and replacing items of index pages (`PageIndexTupleDelete` and its kin in `src/backend/storage/page/bufpage.c`).
//!
//! Unlike on heap pages, the line pointer of a deleted item goes too, so that later items get lower numbers.

use super::compact::KeptItems;
use super::{
    HEADER_BYTES, INDEX_TUPLES_MAX, ItemSpan, LINE_POINTER_BYTES, LinePointer, Page, Pointers, align,
    aligned_pointers, item_count, line, line_at, set_lower, set_u32_at, set_upper, u32_at,
};
use crate::error::Fault;

/// The item of line pointer `offset`, which lies aligned among the items.
fn index_item(page: &Page, offset: u16, pointers: Pointers) -> Result<(LinePointer, ItemSpan), Fault> {
    let line = line(page, offset)?;
    let (at, length) = (line.at(), line.length());
    let span = ItemSpan { at: at.into(), length: length.into() };
    let end = span.at + align(span.length);
    if span.at < pointers.upper || end > pointers.special || span.at != align(span.at) {
        return Err(Fault::ItemOutside { offset, at, length });
    }
    Ok((line, span))
}

/// Moves the items that lie before `span` up by `bytes`, over it, and `pd_upper` with them.
fn close_gap(page: &mut Page, span: ItemSpan, bytes: usize, pointers: Pointers) {
    page.copy_within(pointers.upper..span.at, pointers.upper + bytes);
    set_upper(page, (pointers.upper + bytes) as u16);
}

/// Adds `by` to the offsets of line pointers up to `count` whose items began at or before `at`.
fn shift_lines(page: &mut Page, count: u16, at: usize, by: isize, chosen: impl Fn(LinePointer) -> bool) {
    for offset in 1..=count {
        let line = LinePointer(u32_at(page, line_at(offset)));
        if chosen(line) && usize::from(line.at()) <= at {
            let moved = line.with_at((line.at() as isize + by) as u16);
            set_u32_at(page, line_at(offset), moved.0);
        }
    }
}

/// Removes item `offset` and its line pointer (`PageIndexTupleDelete`).
pub fn index_tuple_delete(page: &mut Page, offset: u16) -> Result<(), Fault> {
    let pointers = aligned_pointers(page)?;
    let (_, span) = index_item(page, offset, pointers)?;
    let bytes = align(span.length);
    page.copy_within(line_at(offset) + LINE_POINTER_BYTES..pointers.lower, line_at(offset));
    set_lower(page, (pointers.lower - LINE_POINTER_BYTES) as u16);
    close_gap(page, span, bytes, pointers);
    shift_lines(page, item_count(page), span.at, bytes as isize, |_| true);
    Ok(())
}

/// Removes item `offset`; its line pointer becomes unused, or goes if it is the last (`PageIndexTupleDeleteNoCompact`).
pub fn index_tuple_delete_no_compact(page: &mut Page, offset: u16) -> Result<(), Fault> {
    let pointers = aligned_pointers(page)?;
    let (_, span) = index_item(page, offset, pointers)?;
    let bytes = align(span.length);
    if offset < item_count(page) {
        set_u32_at(page, line_at(offset), LinePointer::UNUSED.0);
    } else {
        set_lower(page, (pointers.lower - LINE_POINTER_BYTES) as u16);
    }
    close_gap(page, span, bytes, pointers);
    shift_lines(page, item_count(page), span.at, bytes as isize, LinePointer::has_storage);
    Ok(())
}

/// Removes several items, given in ascending order (`PageIndexMultiDelete`).
pub fn index_multi_delete(
    page: &mut Page,
    offsets: impl DoubleEndedIterator<Item = u16> + ExactSizeIterator,
) -> Result<(), Fault> {
    if offsets.len() <= 2 {
        return offsets.rev().try_for_each(|offset| index_tuple_delete(page, offset));
    }
    let pointers = aligned_pointers(page)?;
    let mut offsets = offsets.peekable();
    let mut items = KeptItems::new();
    let mut lines = [LinePointer::UNUSED; INDEX_TUPLES_MAX as usize];
    for offset in 1..=item_count(page) {
        let (line, _) = index_item(page, offset, pointers)?;
        if offsets.next_if_eq(&offset).is_some() {
            continue;
        }
        let kept = items.len();
        items.push(kept as u16 + 1, line, pointers)?;
        lines[kept] = line;
    }
    if offsets.peek().is_some() {
        return Err(Fault::DeleteOrder);
    }
    items.check_total(pointers)?;
    for (offset, line) in (1..).zip(&lines[..items.len()]) {
        set_u32_at(page, line_at(offset), line.0);
    }
    set_lower(page, (HEADER_BYTES + LINE_POINTER_BYTES * items.len()) as u16);
    items.pack(page, pointers);
    Ok(())
}

/// Puts `item` where item `offset` was, moving what lies before it; the state of the line pointer stays
/// (`PageIndexTupleOverwrite`).
pub fn index_tuple_overwrite(page: &mut Page, offset: u16, item: &[u8]) -> Result<(), Fault> {
    let pointers = aligned_pointers(page)?;
    let (line, span) = index_item(page, offset, pointers)?;
    let (old_bytes, new_bytes) = (align(span.length), align(item.len()));
    if new_bytes > old_bytes + (pointers.upper - pointers.lower) {
        let Pointers { lower, upper, .. } = pointers;
        return Err(Fault::NoSpace { bytes: item.len(), lower: lower as u16, upper: upper as u16 });
    }
    let shift = old_bytes as isize - new_bytes as isize;
    if shift != 0 {
        let upper = pointers.upper.checked_add_signed(shift).expect("checked above");
        page.copy_within(pointers.upper..span.at, upper);
        set_upper(page, upper as u16);
        shift_lines(page, item_count(page), span.at, shift, LinePointer::has_storage);
    }
    let at = span.at.checked_add_signed(shift).expect("at or after pd_upper");
    set_u32_at(page, line_at(offset), line.with_at(at as u16).with_length(item.len() as u16).0);
    page[at..at + item.len()].copy_from_slice(item);
    Ok(())
}
