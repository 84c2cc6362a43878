//! What records of both heap resource managers do alike: visibility map references, page flags, locks.

use strata_common::{ForkNumber, Guard, RelFork};
use strata_pgwal::fullxid::xid_precedes;
use strata_pgwal::{DecodedBlock, DecodedRecord};

use super::{Redo, push_page};
use crate::change::Keep;
use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::page::flag;
use crate::wire::{u8_at, u16_at, u32_at};
use crate::{Page, page, vm};

use super::heap_tuple::tuple;

/// The heap page's reference in records of one heap page.
pub const HEAP_REF: u8 = 0;
/// The visibility map page's reference in the same records.
pub const VM_REF: u8 = 1;

/// Fields of the page alone: what redo of a map page reads.
const KEEP_NOTHING: Keep = Keep { main_bytes: 0, data: false };

/// A record of one heap page clears `bits` of it in the visibility map: by the reference that it has since 17.11, or without
/// (V1).
pub fn push_vm_clear(
    record: &DecodedRecord,
    heap: &DecodedBlock,
    bits: u8,
    guard: Guard,
    out: &mut Vec<Effect>,
) -> Result<(), EffectError> {
    if !guard.holds() {
        return Ok(());
    }
    match record.block(VM_REF) {
        Some(map) => push_page(record, map, KEEP_NOTHING, out),
        None => {
            push_unreferenced_clear(heap, bits, out);
            Ok(())
        }
    }
}

/// The bits of `heap` are cleared though the record does not refer to their map page.
pub fn push_unreferenced_clear(heap: &DecodedBlock, bits: u8, out: &mut Vec<Effect>) {
    let RelFork { rel, .. } = heap.rel;
    out.push(Effect::ClearVmBits { heap: rel, heap_block: heap.block, bits });
}

/// Redo of a map page that a record of one heap page refers to. The LSN moves only if a bit was set (V6).
pub fn apply_vm_clear(page: &mut Page, redo: &Redo<'_>, bits: u8) -> Result<(), Fault> {
    let heap_block = redo.required_block(HEAP_REF)?;
    clear_bits(page, redo, heap_block, bits)
}

/// Clears the bits of one heap block, which this map page must cover.
pub fn clear_bits(
    page: &mut Page,
    redo: &Redo<'_>,
    heap_block: strata_common::BlockNumber,
    bits: u8,
) -> Result<(), Fault> {
    check_map_page(redo, heap_block)?;
    if vm::clear(page, heap_block, bits) {
        page::set_lsn(page, redo.lsn);
    }
    Ok(())
}

/// The page is the visibility map's page that covers `heap_block`.
pub fn check_map_page(redo: &Redo<'_>, heap_block: strata_common::BlockNumber) -> Result<(), Fault> {
    let is_map = redo.page_id.rel.fork == ForkNumber::VisibilityMap;
    if is_map && vm::page_of(heap_block) == redo.page_id.block {
        Ok(())
    } else {
        Err(Fault::Mismatch("the referenced page of the visibility map does not cover the heap page"))
    }
}

/// The page's oldest prunable transaction is at most `xid` (`PageSetPrunable`).
#[inline]
pub fn set_prunable(page: &mut Page, xid: u32) {
    let old = page::prune_xid(page);
    if old == 0 || xid_precedes(xid, old) {
        page::set_prune_xid(page, xid);
    }
}

/// Fields that xl_heap_delete, xl_heap_lock and xl_heap_lock_updated have at the same places.
pub struct XmaxChange {
    pub xmax: u32,
    pub offset: u16,
    pub infobits: u8,
    pub flags: u8,
}

impl XmaxChange {
    pub const BYTES: usize = 8;

    #[inline]
    pub fn parse(main: &[u8]) -> Result<XmaxChange, Fault> {
        let what = "main data with an xmax";
        Ok(XmaxChange {
            xmax: u32_at(main, 0, what)?,
            offset: u16_at(main, 4, what)?,
            infobits: u8_at(main, 6, what)?,
            flags: u8_at(main, 7, what)?,
        })
    }
}

/// Which of the two lock records it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockRecord {
    /// HEAP/LOCK: the row version that a command found.
    Lock,
    /// HEAP2/LOCK_UPDATED: a later version of a row that is being locked.
    LockUpdated,
}

/// Redo of a heap page under HEAP/LOCK and HEAP2/LOCK_UPDATED.
pub fn apply_lock(page: &mut Page, redo: &Redo<'_>, record: LockRecord) -> Result<(), Fault> {
    let lock = XmaxChange::parse(redo.change.main)?;
    let mut tuple = tuple(page, lock.offset)?;
    tuple.replace_xmax_bits(lock.infobits);
    tuple.set_xmax(lock.xmax);
    if record == LockRecord::Lock {
        if tuple.is_locked_only() {
            tuple.clear_hot_updated();
            let (block, offset) = (redo.page_id.block, lock.offset);
            tuple.set_ctid(super::heap_tuple::Tid { block, offset });
        }
        tuple.set_first_command();
    }
    page::set_lsn(page, redo.lsn);
    Ok(())
}

/// Clears PD_ALL_VISIBLE.
#[inline]
pub fn clear_all_visible(page: &mut Page) {
    page::clear_flags(page, flag::ALL_VISIBLE);
}
