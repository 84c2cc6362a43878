//! The metapage of a hash index (`HashMetaPageData` in `src/include/access/hash.h`).
//!
//! It counts tuples, buckets and overflow pages. Buckets are allocated in phases ("splitpoints"): up to ten groups of one
//! phase each, then groups of four; `spares` says how many overflow pages come before each phase's buckets.

use super::opaque::{self, Opaque, flag};
use super::{Redo, Split};
use crate::Page;
use crate::error::Fault;
use crate::page::{self, HEADER_BYTES, set_u16_at, set_u32_at, u32_at};
use crate::wire::{self, Parts};

/// `XLH_SPLIT_META_UPDATE_MASKS` and `XLH_SPLIT_META_UPDATE_SPLITPOINT`.
pub const SPLIT_MASKS: u8 = 1 << 0;
pub const SPLIT_SPLITPOINT: u8 = 1 << 1;

const MAGIC: u32 = 0x0644_0640;
const VERSION: u32 = 4;
/// `HASH_MAX_SPLITPOINTS` and `HASH_MAX_BITMAPS`.
const SPARES: u32 = (32 - SINGLE_PHASE_GROUPS) * 4 + SINGLE_PHASE_GROUPS;
const BITMAPS: u32 = 1024;
/// `HASH_SPLITPOINT_GROUPS_WITH_ONE_PHASE` and `HASH_SPLITPOINT_PHASE_BITS`; later groups have four phases.
const SINGLE_PHASE_GROUPS: u32 = 10;
const PHASE_BITS: u32 = 2;
const PHASE_MASK: u32 = (1 << PHASE_BITS) - 1;
/// More buckets than this no index begins with.
const BUCKETS_MAX: u32 = 1 << 30;

/// Bytes between header and special space, of which a bitmap uses the largest power of two.
const CONTENT_BYTES: u16 = (opaque::AT - HEADER_BYTES) as u16;
const BITMAP_BYTES: u16 = 1 << CONTENT_BYTES.ilog2();
/// log2 of the bits of a bitmap page.
const BITMAP_SHIFT: u16 = (BITMAP_BYTES.ilog2() + 3) as u16;

mod at {
    use super::{BITMAPS, HEADER_BYTES, SPARES};

    pub const MAGIC: usize = HEADER_BYTES;
    pub const VERSION: usize = HEADER_BYTES + 4;
    pub const TUPLES: usize = HEADER_BYTES + 8;
    pub const FILL_FACTOR: usize = HEADER_BYTES + 16;
    pub const CONTENT_BYTES: usize = HEADER_BYTES + 18;
    pub const BITMAP_BYTES: usize = HEADER_BYTES + 20;
    pub const BITMAP_SHIFT: usize = HEADER_BYTES + 22;
    pub const MAX_BUCKET: usize = HEADER_BYTES + 24;
    pub const HIGH_MASK: usize = HEADER_BYTES + 28;
    pub const LOW_MASK: usize = HEADER_BYTES + 32;
    pub const SPLITPOINT: usize = HEADER_BYTES + 36;
    pub const FIRST_FREE: usize = HEADER_BYTES + 40;
    pub const BITMAP_COUNT: usize = HEADER_BYTES + 44;
    pub const PROCEDURE: usize = HEADER_BYTES + 48;
    pub const SPARES_START: usize = HEADER_BYTES + 52;
    pub const BITMAPS_START: usize = SPARES_START + 4 * SPARES as usize;
    /// The struct is aligned to 8 bytes.
    pub const END: usize = (BITMAPS_START + 4 * BITMAPS as usize).next_multiple_of(8);
}

const _: () = assert!(at::END == HEADER_BYTES + 4544);

/// INIT_META_PAGE: the number of first buckets follows from the tuples that are expected (`_hash_init_metabuffer`).
pub fn init(page: &mut Page, main: &[u8]) -> Result<(), Fault> {
    let mut fields = Parts::new(main, "xl_hash_init_meta_page");
    let tuples = f64::from_bits(fields.i64()? as u64);
    let procedure = fields.u32()?;
    let fill_factor = fields.u16()?;
    if fill_factor == 0 || tuples.is_nan() {
        return Err(Fault::Mismatch("a hash index with no tuples in a bucket"));
    }
    let buckets = first_buckets(tuples / f64::from(fill_factor));
    let splitpoint = splitpoint_of(buckets);
    let (prev, next) = (opaque::NO_BLOCK, opaque::NO_BLOCK);
    opaque::init(page, Opaque { prev, next, bucket: opaque::NO_BUCKET, flags: flag::META });
    set_u32_at(page, at::MAGIC, MAGIC);
    set_u32_at(page, at::VERSION, VERSION);
    set_u16_at(page, at::FILL_FACTOR, fill_factor);
    set_u16_at(page, at::CONTENT_BYTES, CONTENT_BYTES);
    set_u16_at(page, at::BITMAP_BYTES, BITMAP_BYTES);
    set_u16_at(page, at::BITMAP_SHIFT, BITMAP_SHIFT);
    set_u32_at(page, at::MAX_BUCKET, buckets - 1);
    let high_mask = (buckets + 1).next_power_of_two() - 1;
    set_u32_at(page, at::HIGH_MASK, high_mask);
    set_u32_at(page, at::LOW_MASK, high_mask >> 1);
    set_u32_at(page, at::SPLITPOINT, splitpoint);
    set_u32_at(page, at::PROCEDURE, procedure);
    // The first bitmap page comes after the first buckets.
    set_u32_at(page, spare(splitpoint)?, 1);
    page::set_lower(page, at::END as u16);
    Ok(())
}

fn first_buckets(wanted: f64) -> u32 {
    if wanted <= 2.0 {
        2
    } else if wanted >= f64::from(BUCKETS_MAX) {
        BUCKETS_MAX
    } else {
        buckets_up_to(splitpoint_of(wanted as u32))
    }
}

/// The phase in which bucket number `buckets - 1` is allocated (`_hash_spareindex`).
fn splitpoint_of(buckets: u32) -> u32 {
    let group = if buckets < 2 { 0 } else { (buckets - 1).ilog2() + 1 };
    if group < SINGLE_PHASE_GROUPS {
        return group;
    }
    let before = SINGLE_PHASE_GROUPS + ((group - SINGLE_PHASE_GROUPS) << PHASE_BITS);
    before + (((buckets - 1) >> (group - (PHASE_BITS + 1))) & PHASE_MASK)
}

/// Buckets that exist once a phase is complete (`_hash_get_totalbuckets`).
fn buckets_up_to(splitpoint: u32) -> u32 {
    let Some(phase) = splitpoint.checked_sub(SINGLE_PHASE_GROUPS) else { return 1 << splitpoint };
    let before = 1u32 << (SINGLE_PHASE_GROUPS + (phase >> PHASE_BITS) - 1);
    before + (before >> PHASE_BITS) * ((phase & PHASE_MASK) + 1)
}

/// A page that says that it is a metapage.
fn check(page: &Page) -> Result<(), Fault> {
    opaque::check(page)?;
    if u32_at(page, at::MAGIC) != MAGIC {
        return Err(Fault::Mismatch("the page is not a hash index's metapage"));
    }
    Ok(())
}

/// Where `spares` has its item for a phase.
fn spare(splitpoint: u32) -> Result<usize, Fault> {
    if splitpoint >= SPARES {
        return Err(Fault::Mismatch("a splitpoint that no hash index has"));
    }
    Ok(at::SPARES_START + 4 * splitpoint as usize)
}

/// Counts one more overflow page in the phase that is being allocated.
fn add_spare(page: &mut Page) -> Result<(), Fault> {
    let at = spare(u32_at(page, at::SPLITPOINT))?;
    set_u32_at(page, at, u32_at(page, at).wrapping_add(1));
    Ok(())
}

fn add_bitmap(page: &mut Page, block: u32) -> Result<(), Fault> {
    let count = u32_at(page, at::BITMAP_COUNT);
    if count >= BITMAPS {
        return Err(Fault::Mismatch("more bitmap pages than a hash index can have"));
    }
    set_u32_at(page, at::BITMAPS_START + 4 * count as usize, block);
    set_u32_at(page, at::BITMAP_COUNT, count + 1);
    Ok(())
}

/// INIT_BITMAP_PAGE, reference 1: the first bitmap page is the block after the buckets.
pub fn add_first_bitmap(page: &mut Page) -> Result<(), Fault> {
    check(page)?;
    let buckets = u32_at(page, at::MAX_BUCKET).wrapping_add(1);
    add_bitmap(page, buckets.wrapping_add(1))
}

/// ADD_OVFL_PAGE, reference 4: the next free overflow page, and what was added if none was free.
pub fn add_overflow_page(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    check(page)?;
    let was_free = wire::u8_at(redo.change.main, 2, "xl_hash_add_ovfl_page")? != 0;
    set_first_free(page, wire::u32_at(redo.change.data, 0, "first free overflow page")?)?;
    if was_free {
        return Ok(());
    }
    add_spare(page)?;
    if let Some(bitmap) = redo.block(3) {
        add_bitmap(page, bitmap.0)?;
        add_spare(page)?;
    }
    Ok(())
}

pub fn set_first_free(page: &mut Page, number: u32) -> Result<(), Fault> {
    check(page)?;
    set_u32_at(page, at::FIRST_FREE, number);
    Ok(())
}

/// SPLIT_ALLOCATE_PAGE, reference 2: one more bucket, and what of masks and phase changes with it.
pub fn split(page: &mut Page, split: &Split, data: &[u8]) -> Result<(), Fault> {
    check(page)?;
    let mut fields = Parts::new(data, "metapage of a split");
    set_u32_at(page, at::MAX_BUCKET, split.new_bucket);
    if split.meta_changes & SPLIT_MASKS != 0 {
        set_u32_at(page, at::LOW_MASK, fields.u32()?);
        set_u32_at(page, at::HIGH_MASK, fields.u32()?);
    }
    if split.meta_changes & SPLIT_SPLITPOINT != 0 {
        let splitpoint = fields.u32()?;
        set_u32_at(page, spare(splitpoint)?, fields.u32()?);
        set_u32_at(page, at::SPLITPOINT, splitpoint);
    }
    Ok(())
}

/// UPDATE_META_PAGE: how many tuples VACUUM has counted.
pub fn set_tuples(page: &mut Page, main: &[u8]) -> Result<(), Fault> {
    check(page)?;
    let count = Parts::new(main, "xl_hash_update_meta_page").take(8)?;
    page[at::TUPLES..at::TUPLES + 8].copy_from_slice(count);
    Ok(())
}

/// More or fewer tuples.
pub fn add_tuples(page: &mut Page, by: f64) -> Result<(), Fault> {
    check(page)?;
    let bytes = &mut page[at::TUPLES..at::TUPLES + 8];
    let count = bytes.first_chunk().map_or(0.0, |count| f64::from_le_bytes(*count)) + by;
    bytes.copy_from_slice(&count.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The phases as Postgres numbers them: one for each power of two up to 512 buckets, then four to a doubling.
    #[test]
    fn buckets_are_allocated_in_phases() {
        let phases =
            [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (512, 9), (513, 10), (640, 10), (641, 11), (768, 11)];
        let later = [(769, 12), (896, 12), (1024, 13), (1025, 14), (1280, 14), (1281, 15), (BUCKETS_MAX, 93)];
        for (buckets, phase) in phases.into_iter().chain(later) {
            assert_eq!(splitpoint_of(buckets), phase, "{buckets} buckets");
        }
        for (phase, buckets) in [(0, 1), (9, 512), (10, 640), (11, 768), (12, 896), (13, 1024), (14, 1280)] {
            assert_eq!(buckets_up_to(phase), buckets, "phase {phase}");
        }
        assert_eq!(buckets_up_to(93), BUCKETS_MAX);
        assert_eq!(
            [first_buckets(-1.0), first_buckets(2.0), first_buckets(2.5), first_buckets(3.0)],
            [2, 2, 2, 4]
        );
        assert_eq!([first_buckets(600.9), first_buckets(1e30)], [640, BUCKETS_MAX]);
    }
}
