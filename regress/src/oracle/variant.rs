//! Names for the branches of redo that one record type has, so that a workload can be shown to reach each of them.

use strata_pgwal::{DecodedRecord, rmgr};

/// Byte at `at` of the main data.
fn byte(record: &DecodedRecord, at: usize) -> u8 {
    record.main_data.get(at).copied().unwrap_or(0)
}

fn word(record: &DecodedRecord, at: usize) -> u16 {
    u16::from_le_bytes([byte(record, at), byte(record, at + 1)])
}

/// Calls `found` with the name of every variant that the record is.
pub fn for_each(record: &DecodedRecord, mut found: impl FnMut(&'static str)) {
    let mut when = |is: bool, name: &'static str| {
        if is {
            found(name);
        }
    };
    match (record.rmid, record.rmgr_info()) {
        (rmgr::BTREE, info) => btree(record, info, &mut when),
        (rmgr::HEAP, info) => heap(record, info & 0x70, &mut when),
        (rmgr::HEAP2, info) => heap2(record, info & 0x70, &mut when),
        _ => {}
    }
}

fn btree(record: &DecodedRecord, info: u8, when: &mut impl FnMut(bool, &'static str)) {
    let (left, right) = (info == 0x30, info == 0x40);
    if left || right {
        let internal = word(record, 0) != 0;
        let posting = word(record, 8) != 0;
        when(left && internal, "split of an internal page, new item left");
        when(right && internal, "split of an internal page, new item right");
        when(left && posting, "split with a posting list, left");
        when(right && posting, "split with a posting list, right");
        when(record.block(2).is_none(), "split of the rightmost page");
    }
    // DELETE has a conflict horizon before its counts.
    when(info == 0x70 && word(record, 6) > 0, "delete out of a posting list");
    when(info == 0xC0 && word(record, 2) > 0, "vacuum out of a posting list");
    when(matches!(info, 0x80 | 0x90) && record.block(3).is_some(), "unlink of an internal page");
    when(info == 0xA0 && record.block(1).is_none(), "new root without children");
}

fn heap(record: &DecodedRecord, info: u8, when: &mut impl FnMut(bool, &'static str)) {
    let map_page = record.blocks.iter().any(|b| b.rel.fork == strata_common::ForkNumber::VisibilityMap);
    match info {
        0x00 => {
            when(byte(record, 2) & 0x01 != 0, "insert clears all-visible");
            when(byte(record, 2) & 0x04 != 0, "speculative insert");
        }
        0x10 => {
            when(byte(record, 7) & 0x01 != 0, "delete clears all-visible");
            when(byte(record, 7) & 0x08 != 0, "delete of a speculative row");
            when(byte(record, 7) & 0x10 != 0, "delete of a row that moved to another partition");
        }
        0x20 | 0x40 => {
            let flags = byte(record, 7);
            when(flags & 0x01 != 0 && flags & 0x02 != 0, "update clears all-visible twice");
            when(flags & 0x20 != 0, "update with a shared prefix");
            when(flags & 0x40 != 0, "update with a shared suffix");
            when(flags & 0x0c != 0, "update with the old row in the log");
        }
        0x60 => when(byte(record, 7) & 0x01 != 0, "lock clears all-frozen"),
        _ => {}
    }
    when(map_page, "heap record with a map page");
}

fn heap2(record: &DecodedRecord, info: u8, when: &mut impl FnMut(bool, &'static str)) {
    if matches!(info, 0x10 | 0x20 | 0x30) {
        // The flags of xl_heap_prune follow its reason (PG 17).
        let flags = byte(record, 1);
        when(flags & 0x10 != 0, "prune freezes");
        when(flags & 0x20 != 0, "prune redirects");
        when(flags & 0x40 != 0, "prune leaves dead items");
        when(flags & 0x80 != 0, "prune frees items");
    }
    when(info == 0x50 && byte(record, 0) & 0x01 != 0, "multi-insert clears all-visible");
    when(info == 0x50 && byte(record, 0) & 0x20 != 0, "multi-insert of frozen rows");
}
