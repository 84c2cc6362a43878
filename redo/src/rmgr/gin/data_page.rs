//! Pages of posting trees (`src/backend/access/gin/gindatapage.c`, `ginRedoRecompress` in `ginxlog.c`).
//!
//! Behind the page header lies the right bound of the page's rows (6 bytes, aligned to 8), then, on a leaf, compressed posting
//! lists one behind the other up to `pd_lower`, and on an internal page as many posting items as `maxoff` says: child
//! (block number, high half first) and the last row below it. Versions before 9.4 kept row identifiers uncompressed on leaves, as
//! many as `maxoff` says, and left `pd_lower` alone.

use super::opaque::{self, OPAQUE_AT, flag};
use super::posting_list::{self, Row, TID_BYTES};
use crate::Page;
use crate::error::Fault;
use crate::page;
use crate::wire::Parts;

/// Where rows or posting items begin.
const DATA_AT: usize = page::HEADER_BYTES + 8;
/// Room for them (`GinDataPageMaxDataSize`).
const DATA_BYTES_MAX: usize = OPAQUE_AT - DATA_AT;
/// Bytes of `PostingItem`.
const ITEM_BYTES: usize = 4 + TID_BYTES;

/// What happens to a posting list of a leaf (`ginxlogSegmentAction`).
mod action {
    pub const DELETE: u8 = 1;
    pub const INSERT: u8 = 2;
    pub const REPLACE: u8 = 3;
    pub const ADD_ITEMS: u8 = 4;
}

/// `GinDataPageSetDataSize`.
fn set_data_bytes(page: &mut Page, bytes: usize) -> Result<(), Fault> {
    if bytes > DATA_BYTES_MAX {
        return Err(Fault::ItemLengths { total: bytes, available: DATA_BYTES_MAX });
    }
    page::set_lower(page, (DATA_AT + bytes) as u16);
    Ok(())
}

/// Makes the root of a new posting tree: a leaf with these lists.
pub fn create(page: &mut Page, main: &[u8]) -> Result<(), Fault> {
    let mut fields = Parts::new(main, "ginxlogCreatePostingTree");
    let bytes = fields.u32()? as usize;
    let lists = fields.take(bytes)?;
    opaque::init(page, flag::DATA | flag::LEAF | flag::COMPRESSED);
    set_data_bytes(page, bytes)?;
    page[DATA_AT..DATA_AT + bytes].copy_from_slice(lists);
    Ok(())
}

/// Brings a leaf of the form before 9.4 into the present one.
fn compress(page: &mut Page) -> Result<(), Fault> {
    let count = usize::from(opaque::max_off(page));
    let Some(tids) = page[DATA_AT..OPAQUE_AT].get(..count * TID_BYTES) else {
        return Err(Fault::Mismatch("an uncompressed GIN leaf with more rows than a page can hold"));
    };
    let rows: Vec<Row> = tids.chunks_exact(TID_BYTES).map(Row::parse).collect::<Result<_, _>>()?;
    let list = if rows.is_empty() { Vec::new() } else { posting_list::encode(&rows)? };
    set_data_bytes(page, list.len())?;
    page[DATA_AT..DATA_AT + list.len()].copy_from_slice(&list);
    opaque::add_flags(page, flag::COMPRESSED);
    opaque::set_max_off(page, 0);
    Ok(())
}

/// Writes lists to a leaf, from the first on.
struct Writer<'a> {
    page: &'a mut Page,
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, lists: &[u8]) -> Result<(), Fault> {
        let end = self.at + lists.len();
        if end > OPAQUE_AT {
            return Err(Fault::ItemLengths { total: end - DATA_AT, available: DATA_BYTES_MAX });
        }
        self.page[self.at..end].copy_from_slice(lists);
        self.at = end;
        Ok(())
    }
}

/// Changes posting lists of a leaf: `record` is a `ginxlogRecompressDataLeaf`, whose actions go from left to right.
pub fn recompress(page: &mut Page, record: &[u8]) -> Result<(), Fault> {
    opaque::check_kind(page, flag::DATA | flag::LEAF)?;
    if opaque::flags(page) & flag::COMPRESSED == 0 {
        compress(page)?;
    }
    let end = usize::from(page::lower(page));
    let mut record = Parts::new(record, "ginxlogRecompressDataLeaf");
    let actions = record.u16()?;
    // Lists before the first that changes stay where they are.
    let unchanged = record.rest().first().filter(|_| actions > 0).map_or(0, |&target| usize::from(target));
    let Some(mut lists) = page[..OPAQUE_AT].get(DATA_AT..end) else {
        return Err(Fault::Mismatch("the posting lists of a GIN leaf end outside of their space"));
    };
    for _ in 0..unchanged {
        posting_list::take_first(&mut lists)?;
    }
    let at = end - lists.len();
    let before = lists.to_vec();
    let mut old = &before[..];
    let mut new = Writer { page, at };
    let mut number = unchanged;
    for _ in 0..actions {
        let target = usize::from(record.u8()?);
        let action = record.u8()?;
        while number < target {
            new.put(posting_list::take_first(&mut old)?)?;
            number += 1;
        }
        if number > target {
            return Err(Fault::Mismatch("actions on posting lists are out of order"));
        }
        match action {
            action::INSERT => {
                new.put(take_list(&mut record)?)?;
                continue;
            }
            action::DELETE => {
                posting_list::take_first(&mut old)?;
            }
            action::REPLACE => {
                posting_list::take_first(&mut old)?;
                new.put(take_list(&mut record)?)?;
            }
            action::ADD_ITEMS => {
                let count = usize::from(record.u16()?);
                let added = record.take(count * TID_BYTES)?;
                let list = posting_list::take_first(&mut old)?;
                new.put(&with_rows(list, added)?)?;
            }
            _ => return Err(Fault::Mismatch("an unknown action on a posting list")),
        }
        number += 1;
    }
    new.put(old)?;
    let bytes = new.at - DATA_AT;
    set_data_bytes(page, bytes)
}

/// Takes a posting list off a record.
fn take_list<'a>(record: &mut Parts<'a>) -> Result<&'a [u8], Fault> {
    let mut rest = record.rest();
    let list = posting_list::take_first(&mut rest)?;
    record.take(list.len())
}

/// `list` with the rows of `tids`, packed anew.
fn with_rows(list: &[u8], tids: &[u8]) -> Result<Vec<u8>, Fault> {
    let added: Vec<Row> = tids.chunks_exact(TID_BYTES).map(Row::parse).collect::<Result<_, _>>()?;
    posting_list::with_rows(list, &added)
}

/// Number of posting items of an internal page, at most what fits.
fn item_count(page: &Page) -> Result<usize, Fault> {
    let count = usize::from(opaque::max_off(page));
    if count * ITEM_BYTES > DATA_BYTES_MAX {
        return Err(Fault::Mismatch("a GIN page with more posting items than fit"));
    }
    Ok(count)
}

fn set_item_count(page: &mut Page, count: usize) -> Result<(), Fault> {
    set_data_bytes(page, count * ITEM_BYTES)?;
    opaque::set_max_off(page, count as u16);
    Ok(())
}

/// Where posting item `number` (from 1, one of `count`) begins.
fn item_at(number: u16, count: usize) -> Result<usize, Fault> {
    if number == 0 || usize::from(number) > count {
        return Err(Fault::Mismatch("the record names a posting item that the page lacks"));
    }
    Ok(DATA_AT + (usize::from(number) - 1) * ITEM_BYTES)
}

/// After a split of a child: its posting item `number` now leads to `right_child`, and the record's item, which leads to
/// the left half, goes before it. `record` is a `ginxlogInsertDataInternal`.
pub fn insert_item(page: &mut Page, right_child: [u8; 4], record: &[u8]) -> Result<(), Fault> {
    opaque::check_kind(page, flag::DATA)?;
    let mut record = Parts::new(record, "ginxlogInsertDataInternal");
    let number = record.u16()?;
    let new_item = record.take(ITEM_BYTES)?;
    let count = item_count(page)?;
    let at = item_at(number, count)?;
    let end = DATA_AT + count * ITEM_BYTES;
    set_item_count(page, count + 1)?;
    page[at..at + 4].copy_from_slice(&right_child);
    page.copy_within(at..end, at + ITEM_BYTES);
    page[at..at + ITEM_BYTES].copy_from_slice(new_item);
    Ok(())
}

/// Removes posting item `number` of an internal page (`GinPageDeletePostingItem`).
pub fn delete_item(page: &mut Page, number: u16) -> Result<(), Fault> {
    opaque::check_kind(page, flag::DATA)?;
    let count = item_count(page)?;
    let at = item_at(number, count)?;
    page.copy_within(at + ITEM_BYTES..DATA_AT + count * ITEM_BYTES, at);
    set_item_count(page, count - 1)
}
