//! Where a btree scan is: what it found on the index page that it is on, and at which entry it stands.
//!
//! `BTScanOpaqueData` and `BTScanPosData` of `src/include/access/nbtree.h`, of Postgres 17, which minor versions leave as they are.
//! They are this process's memory. While the server fills them anew their entries may be anything, so every index is checked, and a
//! position counts only if its entry is the row that is being read.

use std::mem::offset_of;

use pgrx::pg_sys;
use strata_smgr::prefetch::leaf::Tid;

/// `MaxTIDsPerBTreePage`: a page without its header and its btree part, six bytes each.
const ITEMS: usize = (8192 - 24 - 16) / 6;

#[repr(C)]
struct Item {
    row: pg_sys::ItemPointerData,
    index_offset: u16,
    tuple_offset: u16,
}

#[repr(C)]
struct PositionData {
    buffer: i32,
    lsn: u64,
    page: u32,
    next_page: u32,
    more_left: bool,
    more_right: bool,
    direction: i32,
    next_tuple_offset: i32,
    first: i32,
    last: i32,
    here: i32,
    items: [Item; ITEMS],
}

#[repr(C)]
struct Opaque {
    /// Keys, arrays and killed items.
    before: [u64; 11],
    current: PositionData,
    marked: PositionData,
}

// As gcc lays them out on x86_64 and aarch64.
const _: () = {
    assert!(size_of::<Opaque>() == 27352 && size_of::<PositionData>() == 13632 && size_of::<Item>() == 10);
    assert!(offset_of!(Opaque, current) == 88 && offset_of!(PositionData, page) == 16);
    assert!(offset_of!(PositionData, more_right) == 25 && offset_of!(PositionData, direction) == 28);
    assert!(offset_of!(PositionData, here) == 44 && offset_of!(PositionData, items) == 48);
};

/// A valid position of a scan that runs.
pub struct Position {
    data: *const PositionData,
    is_backward: bool,
}

impl Position {
    /// # Safety
    /// The scan is open, and stays so while the position is in use.
    pub unsafe fn of(scan: *const pg_sys::IndexScanDescData, is_backward: bool) -> Option<Position> {
        // SAFETY: an open scan has an open index; of a btree's the private part is the one above.
        let data = unsafe {
            let index = (*scan).indexRelation;
            if index.is_null() || (*scan).opaque.is_null() || (*(*index).rd_rel).relam != pg_sys::BTREE_AM_OID
            {
                return None;
            }
            &raw const (*(*scan).opaque.cast::<Opaque>()).current
        };
        // SAFETY: as above.
        let (page, first, last, here) = unsafe { ((*data).page, (*data).first, (*data).last, (*data).here) };
        let is_valid = page != pg_sys::InvalidBlockNumber
            && (0..=here).contains(&first)
            && here <= last
            && usize::try_from(last).is_ok_and(|last| last < ITEMS);
        is_valid.then_some(Position { data, is_backward })
    }

    pub fn page(&self) -> u32 {
        // SAFETY: `of`'s promise.
        unsafe { (*self.data).page }
    }

    /// Where the scan stands, in an order that grows in its direction.
    pub fn at(&self) -> i32 {
        // SAFETY: as above.
        let here = unsafe { (*self.data).here };
        if self.is_backward { -here } else { here }
    }

    /// Behind the last one.
    pub fn end(&self) -> i32 {
        // SAFETY: as above.
        unsafe { if self.is_backward { 1 - (*self.data).first } else { 1 + (*self.data).last } }
    }

    pub fn here(&self) -> Option<Tid> {
        self.row(self.at())
    }

    pub fn row(&self, at: i32) -> Option<Tid> {
        let index = if self.is_backward { at.checked_neg()? } else { at };
        // SAFETY: as above; entries are within the array.
        unsafe {
            if !((*self.data).first..=(*self.data).last).contains(&index) {
                return None;
            }
            let items = (&raw const (*self.data).items).cast::<Item>();
            let row = (*items.add(usize::try_from(index).ok()?)).row;
            let block = u32::from(row.ip_blkid.bi_hi) << 16 | u32::from(row.ip_blkid.bi_lo);
            Some(Tid { block, offset: row.ip_posid })
        }
    }

    /// The index page to the right, where the scan will go on if it is read to the end of this one.
    pub fn next_page(&self) -> Option<u32> {
        // SAFETY: as above. 0, the meta page, stands for none.
        let (more, next) = unsafe { ((*self.data).more_right, (*self.data).next_page) };
        (!self.is_backward && more && next != 0 && next != pg_sys::InvalidBlockNumber).then_some(next)
    }
}
