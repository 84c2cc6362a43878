//! Closing gaps between items (`compactify_tuples`, `PageRepairFragmentation` and `PageTruncateLinePointerArray` in
//! `src/backend/storage/page/bufpage.c`).
//!
//! Where items end up is part of the page's bytes: they are packed against the special space in the order of their line
//! pointers. Postgres chooses between three ways to move them by how they lie; the result is the same.

use strata_common::BLOCK_BYTES;

use super::{
    HEADER_BYTES, HEAP_TUPLES_MAX, INDEX_TUPLES_MAX, LINE_POINTER_BYTES, LinePointer, Page, Pointers,
    add_flags, align, aligned_pointers, clear_flags, flag, item_count, line_at, set_lower, set_u32_at,
    set_upper, u32_at,
};
use crate::error::Fault;

/// An item to keep: its line pointer, and where it lies now with its padding.
#[derive(Clone, Copy, Default)]
struct Kept {
    offset: u16,
    at: u16,
    aligned_bytes: u16,
}

impl Kept {
    fn end(self) -> usize {
        usize::from(self.at) + usize::from(self.aligned_bytes)
    }
}

/// The items to keep, in the order of their line pointers.
pub(super) struct KeptItems {
    items: [Kept; INDEX_TUPLES_MAX as usize],
    count: usize,
    total_bytes: usize,
    /// Each item lies before the one added before it: they can be moved in place.
    descending: bool,
}

impl KeptItems {
    pub(super) fn new() -> KeptItems {
        let items = [Kept::default(); INDEX_TUPLES_MAX as usize];
        KeptItems { items, count: 0, total_bytes: 0, descending: true }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds the item of `line`, which will be line pointer `offset`. It must lie among the items.
    #[inline]
    pub(super) fn push(&mut self, offset: u16, line: LinePointer, pointers: Pointers) -> Result<(), Fault> {
        let (at, length) = (line.at(), line.length());
        let aligned_bytes = align(length.into());
        if usize::from(at) < pointers.upper || usize::from(at) + aligned_bytes > pointers.special {
            return Err(Fault::ItemOutside { offset, at, length });
        }
        let Some(slot) = self.items.get_mut(self.count) else {
            let count = self.count as u16;
            return Err(Fault::OffsetTooLarge { offset, count, limit: INDEX_TUPLES_MAX });
        };
        *slot = Kept { offset, at, aligned_bytes: aligned_bytes as u16 };
        if self.count > 0 && self.items[self.count - 1].at <= at {
            self.descending = false;
        }
        self.count += 1;
        self.total_bytes += aligned_bytes;
        Ok(())
    }

    /// Whether the items fit between the line pointers and the special space.
    pub(super) fn check_total(&self, pointers: Pointers) -> Result<(), Fault> {
        let available = pointers.special - pointers.lower;
        if self.total_bytes > available {
            return Err(Fault::ItemLengths { total: self.total_bytes, available });
        }
        Ok(())
    }

    /// Packs the items against the special space, in order, and sets line pointers and `pd_upper`.
    pub(super) fn pack(&self, page: &mut Page, pointers: Pointers) {
        let items = &self.items[..self.count];
        let mut upper = pointers.special;
        let in_place = items.iter().take_while(|item| {
            let stays = item.end() == upper;
            if stays {
                upper -= usize::from(item.aligned_bytes);
            }
            stays
        });
        let in_place = in_place.count();
        let moving = &items[in_place..];
        if self.descending {
            upper = move_runs(page, moving, upper, |page, from, to| page.copy_within(from, to));
        } else {
            let old: Page = *page;
            upper = move_runs(page, moving, upper, |page, from, to| {
                page[to..to + from.len()].copy_from_slice(&old[from]);
            });
        }
        set_upper(page, upper as u16);
    }
}

/// Moves neighbours in one go: `copy` gets what lies together, and where it goes. Returns where the last item begins.
#[inline]
fn move_runs(
    page: &mut Page,
    moving: &[Kept],
    mut upper: usize,
    mut copy: impl FnMut(&mut Page, std::ops::Range<usize>, usize),
) -> usize {
    let Some(first) = moving.first() else { return upper };
    let (mut tail, mut head) = (first.end(), first.end());
    for item in moving {
        if head != item.end() {
            copy(page, head..tail, upper);
            tail = item.end();
        }
        upper -= usize::from(item.aligned_bytes);
        head = usize::from(item.at);
        let at = line_at(item.offset);
        let line = LinePointer(u32_at(page, at)).with_at(upper as u16);
        set_u32_at(page, at, line.0);
    }
    copy(page, head..tail, upper);
    upper
}

/// Frees fragmented space of a heap page and drops unused line pointers from the end (`PageRepairFragmentation`).
pub fn repair_fragmentation(page: &mut Page) -> Result<(), Fault> {
    let pointers = aligned_pointers(page)?;
    let count = item_count(page);
    if count > INDEX_TUPLES_MAX {
        return Err(Fault::OffsetTooLarge { offset: count, count, limit: HEAP_TUPLES_MAX });
    }
    let mut items = KeptItems::new();
    let mut last_used = 0;
    let mut unused = 0;
    for offset in 1..=count {
        let line = LinePointer(u32_at(page, line_at(offset)));
        if !line.is_used() {
            set_u32_at(page, line_at(offset), LinePointer::UNUSED.0);
            unused += 1;
            continue;
        }
        if line.has_storage() {
            items.push(offset, line, pointers)?;
        }
        last_used = offset;
    }
    if items.len() == 0 {
        set_upper(page, pointers.special as u16);
    } else {
        items.check_total(pointers)?;
        items.pack(page, pointers);
    }
    let dropped = count - last_used;
    if dropped > 0 {
        set_lower(page, (pointers.lower - LINE_POINTER_BYTES * usize::from(dropped)) as u16);
    }
    hint_free_lines(page, unused > dropped);
    Ok(())
}

fn hint_free_lines(page: &mut Page, any: bool) {
    if any { add_flags(page, flag::HAS_FREE_LINES) } else { clear_flags(page, flag::HAS_FREE_LINES) }
}

/// Drops unused line pointers from the end of a heap page, all but the first, and moves nothing
/// (`PageTruncateLinePointerArray`).
pub fn truncate_line_pointers(page: &mut Page) {
    let count = item_count(page);
    let is_used = |page: &Page, offset: u16| LinePointer(u32_at(page, line_at(offset))).is_used();
    let mut kept = count;
    while kept > 1 && !is_used(page, kept) {
        kept -= 1;
    }
    let any_unused = (1..=kept).rev().any(|offset| !is_used(page, offset));
    if kept < count {
        let lower = usize::from(super::lower(page)).min(BLOCK_BYTES);
        set_lower(page, (lower - LINE_POINTER_BYTES * usize::from(count - kept)) as u16);
    }
    debug_assert!(kept == 0 || usize::from(super::lower(page)) >= HEADER_BYTES);
    hint_free_lines(page, any_unused);
}
