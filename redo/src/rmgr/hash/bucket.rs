//! Tuples of bucket and overflow pages: added in bulk at given numbers, and deleted.

use super::opaque;
use crate::Page;
use crate::error::Fault;
use crate::page::{self, AddItem};
use crate::rmgr::btree::tuple;
use crate::wire::{Parts, u16_list};

/// Adds the `count` tuples of `data`: their item numbers come first, then the tuples, each aligned to 8 bytes. A number
/// counts with the tuples before it already on the page.
pub fn add_tuples(page: &mut Page, count: u16, data: &[u8]) -> Result<(), Fault> {
    opaque::check(page)?;
    let mut parts = Parts::new(data, "moved tuples");
    let offsets = u16_list(parts.take(2 * usize::from(count))?);
    let mut tuples = parts.rest();
    for offset in offsets {
        page::add_item(page, tuple::take_first(&mut tuples)?, AddItem::IndexBefore(offset))?;
    }
    if !tuples.is_empty() {
        return Err(Fault::Mismatch("more tuples move than the record says"));
    }
    Ok(())
}

/// Deletes the items whose numbers `offsets` are, in ascending order.
pub fn delete(page: &mut Page, offsets: &[u8]) -> Result<(), Fault> {
    opaque::check(page)?;
    page::index_multi_delete(page, u16_list(offsets))
}
