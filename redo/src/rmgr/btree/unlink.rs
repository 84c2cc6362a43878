//! MARK_PAGE_HALFDEAD and UNLINK_PAGE: an empty subtree loses its downlink, then its pages leave their levels one by one.

use super::opaque::{self, Opaque, flag};
use super::{append, item, item_mut, tuple};
use crate::Page;
use crate::change::RecordChange;
use crate::error::Fault;
use crate::page;
use crate::wire::Parts;

/// `xl_btree_mark_page_halfdead`, without the leaf's own number.
struct HalfDead {
    parent_item: u16,
    left: u32,
    right: u32,
    top_parent: u32,
}

impl HalfDead {
    fn parse(main: &[u8]) -> Result<HalfDead, Fault> {
        let mut fields = Parts::new(main, "xl_btree_mark_page_halfdead");
        let parent_item = fields.u16()?;
        fields.take(2 + 4)?; // padding, the leaf
        Ok(HalfDead { parent_item, left: fields.u32()?, right: fields.u32()?, top_parent: fields.u32()? })
    }
}

/// `xl_btree_unlink_page`.
struct Unlink {
    left: u32,
    right: u32,
    level: u32,
    safe_xid: u64,
    leaf_left: u32,
    leaf_right: u32,
    leaf_top_parent: u32,
}

impl Unlink {
    fn parse(main: &[u8]) -> Result<Unlink, Fault> {
        let mut fields = Parts::new(main, "xl_btree_unlink_page");
        Ok(Unlink {
            left: fields.u32()?,
            right: fields.u32()?,
            level: fields.u32()?,
            safe_xid: {
                fields.take(4)?; // padding: a FullTransactionId is aligned to 8
                u64::from(fields.u32()?) | u64::from(fields.u32()?) << 32
            },
            leaf_left: fields.u32()?,
            leaf_right: fields.u32()?,
            leaf_top_parent: fields.u32()?,
        })
    }
}

fn make_half_dead_leaf(page: &mut Page, left: u32, right: u32, top_parent: u32) -> Result<(), Fault> {
    opaque::init(page, Opaque { prev: left, next: right, level: 0, flags: flag::HALF_DEAD | flag::LEAF });
    append(page, &tuple::top_parent(top_parent))
}

/// Reference 0 of MARK_PAGE_HALFDEAD: the leaf, made anew.
pub fn half_dead_leaf(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    let record = HalfDead::parse(change.main)?;
    make_half_dead_leaf(page, record.left, record.right, record.top_parent)
}

/// Reference 1 of MARK_PAGE_HALFDEAD: the parent of the subtree. The downlink takes over the right neighbour's child,
/// and the neighbour's item goes: the key space of the subtree passes to the right.
pub fn half_dead_parent(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    let number = HalfDead::parse(change.main)?.parent_item;
    let neighbour = number.wrapping_add(1);
    let right_child = tuple::block_number(item(page, neighbour)?)?;
    tuple::set_block_number(item_mut(page, number)?, right_child)?;
    page::index_tuple_delete(page, neighbour)
}

/// Reference 0 of UNLINK_PAGE: the page that goes, made anew as a deleted one.
pub fn target(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    let record = Unlink::parse(change.main)?;
    let flags = if record.level == 0 { flag::LEAF } else { 0 };
    opaque::init(page, Opaque { prev: record.left, next: record.right, level: record.level, flags });
    opaque::set_deleted(page, record.safe_xid);
    Ok(())
}

/// Reference 1 of UNLINK_PAGE: the left sibling.
pub fn left_sibling(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    opaque::check(page)?;
    opaque::set_next(page, Unlink::parse(change.main)?.right);
    Ok(())
}

/// Reference 2 of UNLINK_PAGE: the right sibling.
pub fn right_sibling(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    opaque::check(page)?;
    opaque::set_prev(page, Unlink::parse(change.main)?.left);
    Ok(())
}

/// Reference 3 of UNLINK_PAGE: the leaf of the subtree, which from now on names the next page to go.
pub fn leaf(page: &mut Page, change: &RecordChange<'_>) -> Result<(), Fault> {
    let record = Unlink::parse(change.main)?;
    make_half_dead_leaf(page, record.leaf_left, record.leaf_right, record.leaf_top_parent)
}
