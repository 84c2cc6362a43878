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
        (rmgr::GIN, info) => gin(record, info, &mut when),
        (rmgr::GIST, info) => gist(record, info, &mut when),
        (rmgr::HASH, info) => hash(record, info, &mut when),
        (rmgr::SPGIST, info) => spgist(record, info, &mut when),
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

fn gin(record: &DecodedRecord, info: u8, when: &mut impl FnMut(bool, &'static str)) {
    let data = record.block(0).map_or(&[][..], |block| &block.data[..]);
    let flags = word(record, 0);
    let (in_posting_tree, leaf) = (flags & 1 != 0, flags & 2 != 0);
    match info {
        0x20 if data.is_empty() => {}
        0x20 => {
            when(!in_posting_tree && leaf, "entry into a leaf");
            when(!in_posting_tree && data.get(2) == Some(&1), "entry replaced");
            when(!in_posting_tree && !leaf, "entry above the leaves");
            when(in_posting_tree && !leaf, "posting item above the leaves");
            if in_posting_tree && leaf {
                posting_list_actions(data, when);
            }
        }
        0x30 => {
            // The flags of ginxlogSplit follow a relation and three block numbers.
            let flags = word(record, 24);
            let (in_posting_tree, leaf, root) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            when(root && !in_posting_tree && leaf, "split of a root, entry tree leaf");
            when(root && !in_posting_tree && !leaf, "split of a root, entry tree above the leaves");
            when(root && in_posting_tree && leaf, "split of a root, posting tree leaf");
            when(!root && !in_posting_tree && leaf, "split, entry tree leaf");
            when(!root && !in_posting_tree && !leaf, "split, entry tree above the leaves");
            when(!root && in_posting_tree && leaf, "split, posting tree leaf");
        }
        0x60 => {
            let rows = word(record, 80) > 0;
            when(rows, "rows into the last pending page");
            when(!rows && record.block(1).is_some(), "new pending pages behind the last");
        }
        0x70 => {
            let last = word(record, 0) == 0xffff && word(record, 2) == 0xffff;
            when(!last, "pending page that others follow");
            when(last, "last pending page of a row");
        }
        0x90 => posting_list_actions(data, when),
        _ => {}
    }
}

/// The actions of a `ginxlogRecompressDataLeaf`.
fn posting_list_actions(data: &[u8], when: &mut impl FnMut(bool, &'static str)) {
    let word =
        |at: usize| data.get(at..at + 2).map(|pair| usize::from(u16::from_le_bytes([pair[0], pair[1]])));
    let mut at = 2;
    for _ in 0..word(0).unwrap_or(0) {
        let action = data.get(at + 1).copied();
        at += 2;
        when(action == Some(1), "posting list removed");
        when(action == Some(2), "posting list inserted");
        when(action == Some(3), "posting list replaced");
        when(action == Some(4), "rows added to a posting list");
        at += match action {
            Some(2 | 3) => 8 + word(at + 6).unwrap_or(0).next_multiple_of(2),
            Some(4) => 2 + 6 * word(at).unwrap_or(0),
            _ => 0,
        };
    }
}

fn gist(record: &DecodedRecord, info: u8, when: &mut impl FnMut(bool, &'static str)) {
    match info {
        0x00 => {
            let (removed, added) = (word(record, 0), word(record, 2));
            when(removed == 1 && added == 1, "index tuple replaced in place");
            when(removed == 0 && added > 0, "index tuples added");
            when(removed > 0 && added == 0, "index tuples removed");
            when(removed == 1 && added > 1, "index tuple replaced by several");
            when(record.block(1).is_some(), "downlinks of a split");
        }
        0x30 => {
            let root = record.block(1).is_some_and(|block| block.block.0 == 0);
            when(root, "split of the root");
            when(!root, "split of a page");
            when(record.block(0).is_some(), "split that completes another");
            when(word(record, 18) > if root { 3 } else { 2 }, "split into more than two");
        }
        _ => {}
    }
}

fn hash(record: &DecodedRecord, info: u8, when: &mut impl FnMut(bool, &'static str)) {
    match info {
        0x30 => {
            when(byte(record, 2) != 0, "overflow page that was free");
            when(byte(record, 2) == 0, "overflow page beyond the others");
        }
        0x40 => {
            when(byte(record, 8) & 2 != 0, "bucket of a new splitpoint");
            let has_image =
                |id| record.block(id).and_then(|b| b.image.as_ref()).is_some_and(|image| image.apply);
            when(has_image(0), "bucket split after its image");
        }
        0x80 => {
            let tuples = word(record, 8);
            when(tuples == 0, "squeeze without tuples");
            when(tuples > 0 && byte(record, 11) != 0, "squeeze into the previous page");
            when(record.block(4).is_some(), "squeeze of a page in the middle");
        }
        _ => {}
    }
}

fn spgist(record: &DecodedRecord, info: u8, when: &mut impl FnMut(bool, &'static str)) {
    match info {
        0x10 => {
            let (leaf, head) = (word(record, 2), word(record, 4));
            when(byte(record, 0) != 0, "leaf for a fresh page");
            when(leaf == head, "leaf in place of a dead one");
            when(leaf != head && head != 0, "leaf behind the head of its chain");
        }
        0x20 => {
            when(byte(record, 2) != 0, "chain moves to a fresh page");
            when(byte(record, 3) != 0, "chain of dead tuples moves");
        }
        0x30 => {
            let moves = record.block(1).is_some();
            when(!moves, "inner tuple grows in place");
            when(moves && byte(record, 5) == 0, "inner tuple grows and moves, parent on its old page");
            when(moves && byte(record, 5) == 1, "inner tuple grows and moves, parent on its new page");
            when(moves && byte(record, 5) == 2, "inner tuple grows and moves, parent elsewhere");
        }
        0x40 => {
            when(byte(record, 5) != 0, "inner tuple split onto its own page");
            when(byte(record, 5) == 0, "inner tuple split onto another page");
        }
        0x50 => {
            when(byte(record, 0) != 0, "root becomes an inner page");
            when(record.block(0).is_some() && record.block(1).is_some(), "chain split over two pages");
            when(byte(record, 6) != 0, "chain split, its page made anew");
            when(byte(record, 12) != 0, "chain split, parent on the inner page");
            when(record.block(3).is_some(), "chain split, parent elsewhere");
        }
        0x60 => {
            when(word(record, 0) > 0, "leaves leave dead marks");
            when(word(record, 4) > 0, "leaves move to the heads of their chains");
            when(word(record, 6) > 0, "leaves chained again");
        }
        0x80 => when(word(record, 2) != 0, "redirects cut off"),
        _ => {}
    }
}
