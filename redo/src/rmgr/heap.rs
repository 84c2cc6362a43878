//! Heap records, first resource manager: insert, delete, update, confirm, lock, in-place update.
//!
//! Postgres: `heap_redo` in `src/backend/access/heap/heapam.c`, structs in `src/include/access/heapam_xlog.h`. Command ids are
//! not in the log and become the first one (W6); a speculative token becomes the row's own address (W7). Clearing
//! visibility map bits rides on these records (V1).

use strata_common::{BlockNumber, Guard};
use strata_pgwal::DecodedRecord;

use super::heap_page::{
    HEAP_REF, LockRecord, VM_REF, XmaxChange, apply_lock, apply_vm_clear, check_map_page, clear_all_visible,
    clear_bits, push_unreferenced_clear, push_vm_clear, set_prunable,
};
use super::heap_tuple::{NewTuple, StoredHeader, T_HOFF_AT, TUPLE_HEADER_BYTES, Tid, place_tuple, tuple};
use super::{Redo, push_page, required};
use crate::change::Keep;
use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::page::ItemSpan;
use crate::wire::{Parts, u8_at, u16_at, u32_at};
use crate::{Page, page, vm};

/// Record types (`XLOG_HEAP_*`), under `OPERATION_MASK`.
pub mod operation {
    pub const INSERT: u8 = 0x00;
    pub const DELETE: u8 = 0x10;
    pub const UPDATE: u8 = 0x20;
    pub const TRUNCATE: u8 = 0x30;
    pub const HOT_UPDATE: u8 = 0x40;
    pub const CONFIRM: u8 = 0x50;
    pub const LOCK: u8 = 0x60;
    pub const INPLACE: u8 = 0x70;
}

/// Bits of `info` that hold the record type (`XLOG_HEAP_OPMASK`).
pub const OPERATION_MASK: u8 = 0x70;
/// The page is made anew for its first tuple (`XLOG_HEAP_INIT_PAGE`).
pub const INIT_PAGE: u8 = 0x80;

/// `XLH_INSERT_*`.
pub mod insert_flag {
    pub const ALL_VISIBLE_CLEARED: u8 = 1 << 0;
    pub const ALL_FROZEN_SET: u8 = 1 << 5;
}

/// `XLH_UPDATE_*`.
pub mod update_flag {
    pub const OLD_ALL_VISIBLE_CLEARED: u8 = 1 << 0;
    pub const NEW_ALL_VISIBLE_CLEARED: u8 = 1 << 1;
    pub const PREFIX_FROM_OLD: u8 = 1 << 5;
    pub const SUFFIX_FROM_OLD: u8 = 1 << 6;
}

/// `XLH_DELETE_*`.
pub mod delete_flag {
    pub const ALL_VISIBLE_CLEARED: u8 = 1 << 0;
    pub const IS_SUPER: u8 = 1 << 3;
    pub const IS_PARTITION_MOVE: u8 = 1 << 4;
}

/// `XLH_LOCK_ALL_FROZEN_CLEARED`.
pub const LOCK_ALL_FROZEN_CLEARED: u8 = 0x01;

/// References of UPDATE beyond the new heap page.
const OLD_HEAP_REF: u8 = 1;
const VM_NEW_REF: u8 = 2;
const VM_OLD_REF: u8 = 3;

const INSERT_BYTES: usize = 3;
const UPDATE_BYTES: usize = 14;
const OFFSET_BYTES: usize = 2;

/// Byte `at` of main data, which holds flags.
pub(super) fn flags_of(record: &DecodedRecord, at: usize) -> Result<u8, EffectError> {
    u8_at(&record.main_data, at, "flags")
        .map_err(|_| EffectError::malformed(record, "main data is cut short"))
}

/// What a heap record does.
pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let keep = |main_bytes| Keep { main_bytes, data: false };
    let (cleared, bits, guard, keep) = match record.info & OPERATION_MASK {
        operation::INSERT => {
            let cleared = flags_of(record, 2)? & insert_flag::ALL_VISIBLE_CLEARED != 0;
            (cleared, vm::VALID_BITS, Guard::InsertClears, Keep { main_bytes: INSERT_BYTES, data: true })
        }
        operation::DELETE => {
            let cleared = flags_of(record, 7)? & delete_flag::ALL_VISIBLE_CLEARED != 0;
            (cleared, vm::VALID_BITS, Guard::DeleteClears, keep(XmaxChange::BYTES))
        }
        operation::LOCK => {
            let cleared = flags_of(record, 7)? & LOCK_ALL_FROZEN_CLEARED != 0;
            (cleared, vm::ALL_FROZEN, Guard::LockClears, keep(XmaxChange::BYTES))
        }
        operation::CONFIRM => return push_page(record, required(record, HEAP_REF)?, keep(OFFSET_BYTES), out),
        operation::INPLACE => {
            let keep = Keep { main_bytes: OFFSET_BYTES, data: true };
            return push_page(record, required(record, HEAP_REF)?, keep, out);
        }
        operation::UPDATE | operation::HOT_UPDATE => return update_effects(record, out),
        // Storage records say what happens to the files; this one is for logical decoding.
        _ => return Ok(()),
    };
    let heap = required(record, HEAP_REF)?;
    if cleared {
        push_vm_clear(record, heap, bits, guard, out)?;
    }
    push_page(record, heap, keep, out)
}

/// UPDATE refers to the new heap page, to the old one if it is another, and to one or two map pages (V1).
fn update_effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let flags = flags_of(record, 7)?;
    let old_cleared = flags & update_flag::OLD_ALL_VISIBLE_CLEARED != 0;
    let new_cleared = flags & update_flag::NEW_ALL_VISIBLE_CLEARED != 0;
    let new = required(record, HEAP_REF)?;
    let old = record.block(OLD_HEAP_REF);
    let without_data = Keep { main_bytes: UPDATE_BYTES, data: false };
    if old_cleared || new_cleared {
        let maps = [record.block(VM_NEW_REF), record.block(VM_OLD_REF)];
        for map in maps.iter().copied().flatten() {
            push_page(record, map, without_data, out)?;
        }
        if maps == [None, None] {
            if old_cleared && Guard::UpdateOldClears.holds() {
                push_unreferenced_clear(old.unwrap_or(new), vm::VALID_BITS, out);
            }
            if new_cleared && Guard::UpdateNewClears.holds() {
                push_unreferenced_clear(new, vm::VALID_BITS, out);
            }
        }
    }
    if let Some(old) = old {
        push_page(record, old, without_data, out)?;
    }
    push_page(record, new, Keep { main_bytes: UPDATE_BYTES, data: true }, out)
}

/// Redo of one page of a heap record.
pub fn apply(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let id = redo.change.id;
    match redo.change.info & OPERATION_MASK {
        operation::INSERT if id == HEAP_REF => insert(page, redo),
        operation::DELETE if id == HEAP_REF => delete(page, redo),
        operation::LOCK if id == HEAP_REF => apply_lock(page, redo, LockRecord::Lock),
        operation::INSERT | operation::DELETE if id == VM_REF => apply_vm_clear(page, redo, vm::VALID_BITS),
        operation::LOCK if id == VM_REF => apply_vm_clear(page, redo, vm::ALL_FROZEN),
        operation::UPDATE | operation::HOT_UPDATE => update(page, redo),
        operation::CONFIRM if id == HEAP_REF => confirm(page, redo),
        operation::INPLACE if id == HEAP_REF => inplace(page, redo),
        _ => Err(Fault::Mismatch("the record has no such block reference")),
    }
}

#[inline]
fn stored_header(parts: &mut Parts<'_>) -> Result<StoredHeader, Fault> {
    Ok(StoredHeader { infomask2: parts.u16()?, infomask: parts.u16()?, hoff: parts.u8()? })
}

fn insert(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let main = redo.change.main;
    let offset = u16_at(main, 0, "xl_heap_insert")?;
    let flags = u8_at(main, 2, "xl_heap_insert")?;
    if redo.change.info & INIT_PAGE != 0 {
        page::init(page, 0);
    }
    let mut parts = Parts::new(redo.change.data, "an inserted tuple");
    let header = stored_header(&mut parts)?;
    let tid = Tid { block: redo.page_id.block, offset };
    let new = NewTuple { header, xmin: redo.change.xid, xmax: 0, tid, body_bytes: parts.rest().len() };
    let body = place_tuple(page, &new)?;
    page[body].copy_from_slice(parts.rest());
    page::set_lsn(page, redo.lsn);
    if flags & insert_flag::ALL_VISIBLE_CLEARED != 0 {
        clear_all_visible(page);
    }
    Ok(())
}

fn delete(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let delete = XmaxChange::parse(redo.change.main)?;
    let mut tuple = tuple(page, delete.offset)?;
    tuple.replace_xmax_bits(delete.infobits);
    tuple.clear_hot_updated();
    if delete.flags & delete_flag::IS_SUPER == 0 {
        tuple.set_xmax(delete.xmax);
    } else {
        tuple.set_xmin(0);
    }
    tuple.set_first_command();
    tuple.set_ctid(if delete.flags & delete_flag::IS_PARTITION_MOVE != 0 {
        Tid::MOVED_PARTITIONS
    } else {
        Tid { block: redo.page_id.block, offset: delete.offset }
    });
    set_prunable(page, redo.change.xid);
    if delete.flags & delete_flag::ALL_VISIBLE_CLEARED != 0 {
        clear_all_visible(page);
    }
    page::set_lsn(page, redo.lsn);
    Ok(())
}

/// `xl_heap_update`.
struct Update {
    old_xmax: u32,
    old_offset: u16,
    old_infobits: u8,
    flags: u8,
    new_xmax: u32,
    new_offset: u16,
}

impl Update {
    #[inline]
    fn parse(main: &[u8]) -> Result<Update, Fault> {
        let what = "xl_heap_update";
        Ok(Update {
            old_xmax: u32_at(main, 0, what)?,
            old_offset: u16_at(main, 4, what)?,
            old_infobits: u8_at(main, 6, what)?,
            flags: u8_at(main, 7, what)?,
            new_xmax: u32_at(main, 8, what)?,
            new_offset: u16_at(main, 12, what)?,
        })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

fn update(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let update = Update::parse(redo.change.main)?;
    let new_block = redo.required_block(HEAP_REF)?;
    let old_block = redo.block(OLD_HEAP_REF).unwrap_or(new_block);
    match redo.change.id {
        OLD_HEAP_REF => update_old(page, redo, &update, new_block).map(|_| ()),
        HEAP_REF if old_block == new_block => {
            let old = update_old(page, redo, &update, new_block)?;
            update_new(page, redo, &update, Some(old))
        }
        HEAP_REF => {
            if redo.change.info & INIT_PAGE != 0 {
                page::init(page, 0);
            }
            update_new(page, redo, &update, None)
        }
        VM_NEW_REF => {
            if update.has(update_flag::OLD_ALL_VISIBLE_CLEARED)
                && vm::page_of(old_block) == redo.page_id.block
                && Guard::UpdateOldClears.holds()
            {
                clear_bits(page, redo, old_block, vm::VALID_BITS)?;
            }
            if !Guard::UpdateNewClears.holds() {
                return Ok(());
            }
            clear_bits(page, redo, new_block, vm::VALID_BITS)
        }
        VM_OLD_REF if !Guard::UpdateOldClears.holds() => Ok(()),
        VM_OLD_REF => {
            check_map_page(redo, old_block)?;
            clear_bits(page, redo, old_block, vm::VALID_BITS)
        }
        _ => Err(Fault::Mismatch("the record has no such block reference")),
    }
}

/// The old version of the row. Returns where it lies.
fn update_old(
    page: &mut Page,
    redo: &Redo<'_>,
    update: &Update,
    new_block: BlockNumber,
) -> Result<ItemSpan, Fault> {
    let mut tuple = tuple(page, update.old_offset)?;
    tuple.replace_xmax_bits(update.old_infobits);
    if redo.change.info & OPERATION_MASK == operation::HOT_UPDATE {
        tuple.set_hot_updated();
    } else {
        tuple.clear_hot_updated();
    }
    tuple.set_xmax(update.old_xmax);
    tuple.set_first_command();
    tuple.set_ctid(Tid { block: new_block, offset: update.new_offset });
    set_prunable(page, redo.change.xid);
    if update.has(update_flag::OLD_ALL_VISIBLE_CLEARED) {
        clear_all_visible(page);
    }
    page::set_lsn(page, redo.lsn);
    page::normal_item(page, update.old_offset)
}

/// The new version of the row. Its prefix and suffix may come from the old one, which is then on the same page.
fn update_new(page: &mut Page, redo: &Redo<'_>, update: &Update, old: Option<ItemSpan>) -> Result<(), Fault> {
    let mut parts = Parts::new(redo.change.data, "an updated tuple");
    let prefix_bytes = if update.has(update_flag::PREFIX_FROM_OLD) { parts.u16()? } else { 0 };
    let suffix_bytes = if update.has(update_flag::SUFFIX_FROM_OLD) { parts.u16()? } else { 0 };
    let (prefix_bytes, suffix_bytes) = (usize::from(prefix_bytes), usize::from(suffix_bytes));
    let header = stored_header(&mut parts)?;
    // The null bitmap and padding come before a copied prefix; without one, everything is in one piece.
    let bitmap_bytes = match usize::from(header.hoff).checked_sub(TUPLE_HEADER_BYTES) {
        Some(bytes) if prefix_bytes > 0 => bytes,
        None if prefix_bytes > 0 => return Err(Fault::Mismatch("t_hoff inside the tuple's fixed header")),
        _ => 0,
    };
    let copied = copied_ranges(page, update, old, prefix_bytes, suffix_bytes)?;
    let body_bytes = prefix_bytes + parts.rest().len() + suffix_bytes;
    let bitmap = parts.take(bitmap_bytes)?;
    let tid = Tid { block: redo.page_id.block, offset: update.new_offset };
    let new = NewTuple { header, xmin: redo.change.xid, xmax: update.new_xmax, tid, body_bytes };
    let body = place_tuple(page, &new)?;
    let prefix_at = body.start + bitmap_bytes;
    page[body.start..prefix_at].copy_from_slice(bitmap);
    let data_at = prefix_at + prefix_bytes;
    page[data_at..body.end - suffix_bytes].copy_from_slice(parts.rest());
    if let Some((prefix, suffix)) = copied {
        page.copy_within(prefix, prefix_at);
        page.copy_within(suffix, body.end - suffix_bytes);
    }
    if update.has(update_flag::NEW_ALL_VISIBLE_CLEARED) {
        clear_all_visible(page);
    }
    page::set_lsn(page, redo.lsn);
    Ok(())
}

type Range = std::ops::Range<usize>;

/// Where prefix and suffix lie in the old version, if any is copied.
#[inline]
fn copied_ranges(
    page: &Page,
    update: &Update,
    old: Option<ItemSpan>,
    prefix_bytes: usize,
    suffix_bytes: usize,
) -> Result<Option<(Range, Range)>, Fault> {
    if prefix_bytes == 0 && suffix_bytes == 0 {
        return Ok(None);
    }
    let Some(old) = old else {
        return Err(Fault::Mismatch("part of the new tuple is on another page"));
    };
    let prefix_at = usize::from(page[old.at + T_HOFF_AT]);
    if prefix_at + prefix_bytes > old.length || suffix_bytes > old.length {
        return Err(Fault::TupleTooShort { offset: update.old_offset, length: old.length as u16 });
    }
    let prefix = old.at + prefix_at..old.at + prefix_at + prefix_bytes;
    let end = old.at + old.length;
    Ok(Some((prefix, end - suffix_bytes..end)))
}

fn confirm(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let offset = u16_at(redo.change.main, 0, "xl_heap_confirm")?;
    tuple(page, offset)?.set_ctid(Tid { block: redo.page_id.block, offset });
    page::set_lsn(page, redo.lsn);
    Ok(())
}

fn inplace(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let offset = u16_at(redo.change.main, 0, "xl_heap_inplace")?;
    let hoff = usize::from(tuple(page, offset)?.hoff());
    let span = page::normal_item(page, offset)?;
    let data = redo.change.data;
    if span.length.checked_sub(hoff) != Some(data.len()) {
        return Err(Fault::Mismatch("in-place update of another length than the tuple"));
    }
    page[span.at + hoff..span.at + span.length].copy_from_slice(data);
    page::set_lsn(page, redo.lsn);
    Ok(())
}

#[cfg(test)]
#[path = "heap_test.rs"]
pub(super) mod tests;
