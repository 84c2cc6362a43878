//! Adding an item to a page (`PageAddItemExtended` in `src/backend/storage/page/bufpage.c`).

use super::{
    HEAP_TUPLES_MAX, ItemSpan, LINE_POINTER_BYTES, LinePointer, Page, Pointers, align, item_count, line_at,
    pointers, set_lower, set_u32_at, set_upper, u32_at,
};
use crate::error::Fault;

/// Where and how to add an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddItem {
    /// At this heap line pointer: an unused one or one past the last (`PAI_OVERWRITE | PAI_IS_HEAP`).
    HeapAt(u16),
    /// Before this index item, which moves up with all after it, or one past the last.
    IndexBefore(u16),
    /// At this line pointer of an index that keeps its items' numbers: an unused one or one past the last.
    IndexAt(u16),
}

/// Adds `item` and returns its offset number. Bytes between the item's end and the alignment are left as they are.
#[inline]
pub fn add_item(page: &mut Page, item: &[u8], place: AddItem) -> Result<u16, Fault> {
    let (offset, span) = reserve_item(page, item.len(), place)?;
    page[span.range()].copy_from_slice(item);
    Ok(offset)
}

/// As `add_item`, but leaves it to the caller to write the item's bytes, all of them.
#[inline]
pub fn reserve_item(page: &mut Page, bytes: usize, place: AddItem) -> Result<(u16, ItemSpan), Fault> {
    let pointers = pointers(page)?;
    let limit = item_count(page) + 1;
    let (offset, shuffle) = choose(page, place, limit)?;
    if offset == 0 || offset > limit {
        return Err(Fault::OffsetTooLarge { offset, count: limit - 1, limit: u16::MAX });
    }
    if matches!(place, AddItem::HeapAt(_)) && offset > HEAP_TUPLES_MAX {
        return Err(Fault::OffsetTooLarge { offset, count: limit - 1, limit: HEAP_TUPLES_MAX });
    }
    let new_line = offset == limit || shuffle;
    let lower = if new_line { pointers.lower + LINE_POINTER_BYTES } else { pointers.lower };
    let upper = match pointers.upper.checked_sub(align(bytes)) {
        Some(upper) if lower <= upper => upper,
        _ => {
            let Pointers { lower, upper, .. } = pointers;
            return Err(Fault::NoSpace { bytes, lower: lower as u16, upper: upper as u16 });
        }
    };
    let at = line_at(offset);
    if shuffle {
        // As Postgres does, by the number of line pointers, which a ragged pd_lower exceeds by up to three bytes.
        page.copy_within(at..line_at(limit), at + LINE_POINTER_BYTES);
    }
    set_u32_at(page, at, LinePointer::normal(upper as u16, bytes as u16).0);
    set_lower(page, lower as u16);
    set_upper(page, upper as u16);
    Ok((offset, ItemSpan { at: upper, length: bytes }))
}

/// The offset number to use, and whether line pointers from there on move up.
#[inline]
fn choose(page: &Page, place: AddItem, limit: u16) -> Result<(u16, bool), Fault> {
    match place {
        AddItem::HeapAt(offset) | AddItem::IndexAt(offset) => {
            if offset > 0 && offset < limit {
                let line = LinePointer(u32_at(page, line_at(offset)));
                if line.is_used() || line.has_storage() {
                    return Err(Fault::ItemInUse { offset });
                }
            }
            Ok((offset, false))
        }
        AddItem::IndexBefore(offset) => Ok((offset, offset < limit)),
    }
}
