//! Heap records, second resource manager: pruning and freezing, visibility, multi-insert, locks on updated rows.
//!
//! Postgres: `heap2_redo` in `src/backend/access/heap/heapam.c`, `heap_page_prune_execute` in `pruneheap.c`, structs in
//! `src/include/access/heapam_xlog.h`. VISIBLE sets the heap page's flag without moving its LSN (V7): Postgres moves it only
//! with checksums or wal_log_hints, which are always off here.

use strata_common::Guard;
use strata_pgwal::DecodedRecord;

use super::heap::{INIT_PAGE, LOCK_ALL_FROZEN_CLEARED, OPERATION_MASK, flags_of, insert_flag};
use super::heap_page::{
    HEAP_REF, LockRecord, VM_REF, XmaxChange, apply_lock, apply_vm_clear, check_map_page, clear_all_visible,
    push_vm_clear,
};
use super::heap_tuple::{NewTuple, StoredHeader, Tid, place_tuple, tuple};
use super::{Redo, push_page, required};
use crate::change::Keep;
use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::page::{LinePointer, flag};
use crate::wire::{Parts, u8_at, u16_at, u16_list};
use crate::{Page, page, vm};

/// Record types (`XLOG_HEAP2_*`), under `heap::OPERATION_MASK`.
pub mod operation {
    pub const REWRITE: u8 = 0x00;
    pub const PRUNE_ON_ACCESS: u8 = 0x10;
    pub const PRUNE_VACUUM_SCAN: u8 = 0x20;
    pub const PRUNE_VACUUM_CLEANUP: u8 = 0x30;
    pub const VISIBLE: u8 = 0x40;
    pub const MULTI_INSERT: u8 = 0x50;
    pub const LOCK_UPDATED: u8 = 0x60;
    pub const NEW_CID: u8 = 0x70;
}

/// `XLHP_*`: which parts a prune record has.
mod prune_flag {
    pub const CLEANUP_LOCK: u8 = 1 << 2;
    pub const HAS_FREEZE_PLANS: u8 = 1 << 4;
    pub const HAS_REDIRECTIONS: u8 = 1 << 5;
    pub const HAS_DEAD_ITEMS: u8 = 1 << 6;
    pub const HAS_NOW_UNUSED_ITEMS: u8 = 1 << 7;
}

/// `XLH_FREEZE_XVAC` and `XLH_INVALID_XVAC`.
mod freeze_flag {
    pub const FREEZE_XVAC: u8 = 0x02;
    pub const INVALID_XVAC: u8 = 0x04;
}

/// In VISIBLE the map page comes first and the heap page second.
const VISIBLE_VM_REF: u8 = 0;
const VISIBLE_HEAP_REF: u8 = 1;

const PRUNE_BYTES: usize = 2;
const VISIBLE_BYTES: usize = 5;
const FREEZE_PLAN_BYTES: usize = 12;
/// `FrozenTransactionId`.
const FROZEN_XID: u32 = 2;

/// What a heap2 record does.
pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    let without_data = |main_bytes| Keep { main_bytes, data: false };
    match record.info & OPERATION_MASK {
        operation::PRUNE_ON_ACCESS | operation::PRUNE_VACUUM_SCAN | operation::PRUNE_VACUUM_CLEANUP => {
            let keep = Keep { main_bytes: PRUNE_BYTES, data: true };
            push_page(record, required(record, HEAP_REF)?, keep, out)
        }
        operation::VISIBLE => {
            push_page(record, required(record, VISIBLE_HEAP_REF)?, without_data(0), out)?;
            push_page(record, required(record, VISIBLE_VM_REF)?, without_data(VISIBLE_BYTES), out)
        }
        operation::MULTI_INSERT => {
            let heap = required(record, HEAP_REF)?;
            if flags_of(record, 0)? & insert_flag::ALL_VISIBLE_CLEARED != 0 {
                push_vm_clear(record, heap, vm::VALID_BITS, Guard::MultiInsertClears, out)?;
            }
            push_page(record, heap, Keep::ALL, out)
        }
        operation::LOCK_UPDATED => {
            let heap = required(record, HEAP_REF)?;
            if flags_of(record, 7)? & LOCK_ALL_FROZEN_CLEARED != 0 {
                push_vm_clear(record, heap, vm::ALL_FROZEN, Guard::LockUpdatedClears, out)?;
            }
            push_page(record, heap, without_data(XmaxChange::BYTES), out)
        }
        operation::REWRITE => {
            out.push(Effect::LogicalMapping { xid: record.xid, data: record.main_data.clone() });
            Ok(())
        }
        // NEW_CID is for logical decoding alone.
        _ => Ok(()),
    }
}

/// Redo of one page of a heap2 record.
pub fn apply(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let id = redo.change.id;
    match redo.change.info & OPERATION_MASK {
        operation::PRUNE_ON_ACCESS | operation::PRUNE_VACUUM_SCAN | operation::PRUNE_VACUUM_CLEANUP
            if id == HEAP_REF =>
        {
            prune(page, redo)
        }
        operation::VISIBLE if id == VISIBLE_HEAP_REF => {
            page::add_flags(page, flag::ALL_VISIBLE);
            Ok(())
        }
        operation::VISIBLE if id == VISIBLE_VM_REF => visible(page, redo),
        operation::MULTI_INSERT if id == HEAP_REF => multi_insert(page, redo),
        operation::MULTI_INSERT if id == VM_REF => apply_vm_clear(page, redo, vm::VALID_BITS),
        operation::LOCK_UPDATED if id == HEAP_REF => apply_lock(page, redo, LockRecord::LockUpdated),
        operation::LOCK_UPDATED if id == VM_REF => apply_vm_clear(page, redo, vm::ALL_FROZEN),
        _ => Err(Fault::Mismatch("the record has no such block reference")),
    }
}

fn visible(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let flags = u8_at(redo.change.main, 4, "xl_heap_visible")?;
    let heap_block = redo.required_block(VISIBLE_HEAP_REF)?;
    check_map_page(redo, heap_block)?;
    vm::set(page, heap_block, flags & vm::VALID_BITS, redo.lsn);
    Ok(())
}

fn multi_insert(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let what = "xl_heap_multi_insert";
    let main = redo.change.main;
    let flags = u8_at(main, 0, what)?;
    let count = u16_at(main, 2, what)?;
    let is_init = redo.change.info & INIT_PAGE != 0;
    if is_init {
        page::init(page, 0);
    }
    let data = redo.change.data;
    let mut parts = Parts::new(data, "inserted tuples");
    for index in 0..count {
        let offset = if is_init { index + 1 } else { u16_at(main, 4 + 2 * usize::from(index), what)? };
        // Each tuple's header is aligned to two bytes from the start of the data.
        parts.take((data.len() - parts.rest().len()) % 2)?;
        let body_bytes = usize::from(parts.u16()?);
        let header = StoredHeader { infomask2: parts.u16()?, infomask: parts.u16()?, hoff: parts.u8()? };
        let tid = Tid { block: redo.page_id.block, offset };
        let new = NewTuple { header, xmin: redo.change.xid, xmax: 0, tid, body_bytes };
        let body = place_tuple(page, &new)?;
        page[body].copy_from_slice(parts.take(body_bytes)?);
    }
    if !parts.is_empty() {
        return Err(Fault::Mismatch("more tuple data than tuples"));
    }
    page::set_lsn(page, redo.lsn);
    if flags & insert_flag::ALL_VISIBLE_CLEARED != 0 {
        clear_all_visible(page);
    }
    if flags & insert_flag::ALL_FROZEN_SET != 0 {
        page::add_flags(page, flag::ALL_VISIBLE);
    }
    Ok(())
}

/// The parts of a prune record's data, in their order (`heap_xlog_deserialize_prune_and_freeze`).
struct PruneParts<'a> {
    plans: &'a [u8],
    redirected: &'a [u8],
    now_dead: &'a [u8],
    now_unused: &'a [u8],
    frozen_offsets: &'a [u8],
}

impl<'a> PruneParts<'a> {
    fn parse(data: &'a [u8], flags: u8) -> Result<PruneParts<'a>, Fault> {
        let mut parts = Parts::new(data, "prune data");
        let plans = if flags & prune_flag::HAS_FREEZE_PLANS != 0 {
            let count = usize::from(parts.u16()?);
            parts.take(2)?;
            parts.take(count * FREEZE_PLAN_BYTES)?
        } else {
            &[]
        };
        let mut items = |flag: u8, bytes: usize| {
            if flags & flag == 0 {
                return Ok::<&[u8], Fault>(&[]);
            }
            let count = usize::from(parts.u16()?);
            parts.take(count * bytes)
        };
        let redirected = items(prune_flag::HAS_REDIRECTIONS, 4)?;
        let now_dead = items(prune_flag::HAS_DEAD_ITEMS, 2)?;
        let now_unused = items(prune_flag::HAS_NOW_UNUSED_ITEMS, 2)?;
        Ok(PruneParts { plans, redirected, now_dead, now_unused, frozen_offsets: parts.rest() })
    }
}

fn prune(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let flags = u8_at(redo.change.main, 1, "xl_heap_prune")?;
    let parts = PruneParts::parse(redo.change.data, flags)?;
    if !parts.redirected.is_empty() || !parts.now_dead.is_empty() || !parts.now_unused.is_empty() {
        prune_lines(page, &parts, flags)?;
    }
    freeze(page, &parts)?;
    page::set_lsn(page, redo.lsn);
    Ok(())
}

/// `heap_page_prune_execute`: without a cleanup lock only dead line pointers become unused and nothing moves.
fn prune_lines(page: &mut Page, parts: &PruneParts<'_>, flags: u8) -> Result<(), Fault> {
    for pair in parts.redirected.chunks_exact(4) {
        let from = u16::from_le_bytes([pair[0], pair[1]]);
        let to = u16::from_le_bytes([pair[2], pair[3]]);
        page::line(page, to)?;
        page::set_line(page, from, LinePointer::redirect(to))?;
    }
    for offset in u16_list(parts.now_dead) {
        page::set_line(page, offset, LinePointer::DEAD)?;
    }
    for offset in u16_list(parts.now_unused) {
        page::set_line(page, offset, LinePointer::UNUSED)?;
    }
    if flags & prune_flag::CLEANUP_LOCK != 0 {
        page::repair_fragmentation(page)
    } else {
        page::truncate_line_pointers(page);
        Ok(())
    }
}

/// Each plan freezes the next so many tuples of the list (`heap_execute_freeze_tuple`).
fn freeze(page: &mut Page, parts: &PruneParts<'_>) -> Result<(), Fault> {
    let mut offsets = Parts::new(parts.frozen_offsets, "offsets of frozen tuples");
    for plan in parts.plans.chunks_exact(FREEZE_PLAN_BYTES) {
        let mut plan = Parts::new(plan, "freeze plan");
        let xmax = plan.u32()?;
        let infomask2 = plan.u16()?;
        let infomask = plan.u16()?;
        let flags = plan.u8()?;
        plan.take(1)?;
        let tuples = usize::from(plan.u16()?);
        for offset in u16_list(offsets.take(2 * tuples)?) {
            let mut tuple = tuple(page, offset)?;
            tuple.set_xmax(xmax);
            if flags & freeze_flag::FREEZE_XVAC != 0 {
                tuple.set_field3(FROZEN_XID);
            }
            if flags & freeze_flag::INVALID_XVAC != 0 {
                tuple.set_field3(0);
            }
            tuple.set_infomask(infomask);
            tuple.set_infomask2(infomask2);
        }
    }
    if offsets.is_empty() { Ok(()) } else { Err(Fault::Mismatch("more frozen tuples than plans")) }
}

#[cfg(test)]
#[path = "heap2_test.rs"]
mod tests;
