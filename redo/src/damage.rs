//! For tests: every record and every change that a test applies with success is tried damaged, too.
//!
//! `effects` and `apply` call this in tests only. Log and pages are foreign bytes: whatever is cut off, missing or overwritten must
//! end in an error or in a page, never in a panic, and what is cut off must not be made up. So each error return of redo is
//! reached from a record that was good, next to the test that knows it.

use bytes::Bytes;
use strata_common::{BLOCK_BYTES, Lsn};
use strata_pgwal::{BlockImage, DecodedRecord, ImageCompression};

use crate::change::{PageChange, RecordChange};
use crate::effect::{Effect, PageId};
use crate::image::ImageView;
use crate::{Page, SlruPage, apply_change, apply_slru_change, effects_of, page};

/// Bytes of a part that are tried one by one at each of its ends.
const ENDS: usize = 40;
/// The largest special space of an index page.
const SPECIAL_BYTES: usize = 16;
/// What single bytes become.
const WRONG: [u8; 3] = [0, 1, 0xff];

/// Positions below `bytes`: all near the ends, some between.
fn positions(bytes: usize) -> impl Iterator<Item = usize> {
    let step = (bytes / 16).max(1);
    (0..bytes).filter(move |&at| at < ENDS || at + ENDS >= bytes || at.is_multiple_of(step))
}

/// `bytes` with one of them changed, and cut off, at each of `positions`.
fn variants(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let wrong = move |at: usize| {
        WRONG.into_iter().map(move |byte| {
            let mut changed = bytes.to_vec();
            changed[at] = byte;
            changed
        })
    };
    positions(bytes.len()).flat_map(move |at| std::iter::once(bytes[..at].to_vec()).chain(wrong(at)))
}

fn image(bytes: Bytes) -> BlockImage {
    BlockImage { apply: true, hole_offset: 0, hole_length: 0, compression: ImageCompression::None, bytes }
}

/// Tries what is wrong with `record`, whose effects could be told.
pub fn of_record(record: &DecodedRecord) {
    let tried = |damaged: &DecodedRecord| {
        let mut effects = Vec::new();
        effects_of(damaged, &mut effects).map(|()| effects)
    };
    let sound = tried(record).expect("the record was good");
    for at in positions(record.main_data.len()) {
        let cut = DecodedRecord { main_data: record.main_data.slice(..at), ..record.clone() };
        // A page's change may say less: that is refused when it is applied. Nothing else may be made of less.
        if let Ok(effects) = tried(&cut) {
            // Mappings of a rewrite are handed on as they are.
            let told =
                |effect: &&Effect| !matches!(effect, Effect::Page { .. } | Effect::LogicalMapping { .. });
            let missing = effects.iter().filter(told).find(|effect| !sound.contains(effect));
            assert_eq!(missing, None, "{} cut to {at} bytes", record.name());
        }
    }
    for main in variants(&record.main_data) {
        let _ = tried(&DecodedRecord { main_data: Bytes::from(main), ..record.clone() });
    }
    for number in 0..record.blocks.len() {
        let mut damaged = record.clone();
        damaged.blocks[number].id = 7;
        let _ = tried(&damaged);
        damaged.blocks.remove(number);
        let _ = tried(&damaged);
        let mut damaged = record.clone();
        damaged.blocks[number].image = Some(image(Bytes::from_static(&[0; BLOCK_BYTES])));
        let page = PageId { rel: record.blocks[number].rel, block: record.blocks[number].block };
        let names_page =
            |effect: &Effect| matches!(effect, Effect::Page { page: named, .. } if *named == page);
        let once =
            record.blocks.iter().filter(|block| (block.rel, block.block) == (page.rel, page.block)).count()
                == 1;
        if !once || !sound.iter().any(names_page) {
            let _ = tried(&damaged);
            continue;
        }
        let effects = tried(&damaged).expect("any page may come as an image");
        assert!(effects.iter().any(names_page), "{} with an image of block {number}", record.name());
        damaged.blocks[number].image = Some(image(Bytes::from_static(&[0; BLOCK_BYTES - 1])));
        assert!(tried(&damaged).is_err(), "{} with a short image of block {number}", record.name());
    }
}

/// Tries what is wrong with `change` and with the page, `before`, if it could be applied to it.
pub fn of_change(before: &Page, page_id: PageId, lsn: Lsn, change: &[u8], fitted: bool) {
    if !fitted {
        return;
    }
    let tried = |before: &Page, change: PageChange<'_>| {
        let mut page = *before;
        apply_change(&mut page, page_id, lsn, change).map(|()| page)
    };
    for at in positions(change.len()) {
        assert!(PageChange::decode(&change[..at]).is_err(), "a change of {} bytes cut to {at}", change.len());
    }
    for damaged in variants(change) {
        let _ = PageChange::decode(&damaged).and_then(|change| tried(before, change));
    }
    let mut after = *before;
    let sound = PageChange::decode(change).expect("the change was good");
    let PageChange::Record(record) = sound else { return };
    apply_change(&mut after, page_id, lsn, sound).expect("the change fitted");
    if page::lsn(&after) != lsn || after == *before {
        // The page was already past it.
        return;
    }
    let again =
        |main: &[u8], data: &[u8]| tried(before, PageChange::Record(RecordChange { main, data, ..record }));
    for main in variants(record.main) {
        let applied = again(&main, record.data);
        // Lengths that follow in main data are all told by it, so that less of it is refused, unless this page does not need it.
        if main.len() < record.main.len()
            && let Ok(page) = applied
        {
            assert!(page == after, "{} with {} bytes of main data", crate::change::name(change), main.len());
        }
    }
    for data in variants(record.data) {
        let _ = again(record.main, &data);
    }
    for references in variants(record.references) {
        let _ = tried(before, PageChange::Record(RecordChange { references: &references, ..record }));
    }
    let zeros = image(Bytes::from_static(&[0; BLOCK_BYTES]));
    let restored = Some(ImageView::from(&zeros));
    let _ = tried(before, PageChange::Record(RecordChange { image: restored, ..record }));
    for will_init in [false, true] {
        let _ = tried(before, PageChange::Record(RecordChange { will_init, ..record }));
    }
    for_each_damaged_page(before, |damaged| {
        let _ = tried(damaged, sound);
    });
}

/// The same for a change of an SLRU page.
pub fn of_slru_change(before: &Page, page_id: SlruPage, change: &[u8], fitted: bool) {
    if !fitted {
        return;
    }
    for damaged in variants(change) {
        let is_cut = damaged.len() < change.len();
        let applied = PageChange::decode(&damaged)
            .and_then(|change| apply_slru_change(&mut before.clone(), page_id, change));
        assert!(!is_cut || applied.is_err(), "a change of {} bytes cut to {}", change.len(), damaged.len());
    }
}

/// `page` with wrong pointers in its header, wrong line pointers, and wrong items.
fn for_each_damaged_page(before: &Page, mut tried: impl FnMut(&Page)) {
    let mut add = |change: &dyn Fn(&mut Page)| {
        let mut page = *before;
        change(&mut page);
        tried(&page);
    };
    // Lower, upper, special: none, at the ends, beyond.
    for at in [12, 14, 16] {
        for value in [0, 24, 28, 4096, 8176, 8184, 8192, u16::MAX] {
            add(&|page| page::set_u16_at(page, at, value));
        }
    }
    for at in BLOCK_BYTES - SPECIAL_BYTES..BLOCK_BYTES {
        for byte in [0, 0xff] {
            add(&|page| page[at] = byte);
        }
    }
    for offset in (1..=page::item_count(before)).filter(|offset| *offset <= 8) {
        // Unused; dead; a redirect; items of no and of two bytes, beyond the page, and not aligned.
        for raw in
            [0, 3 << 15, 2 << 15 | 1, 1 << 15 | 8000, 1 << 15 | 2 << 17 | 8000, 1 << 15 | 400 << 17 | 8100]
        {
            add(&|page| page::set_line(page, offset, page::LinePointer(raw)).expect("the page has it"));
        }
        let Ok(item) = page::stored_item(before, offset) else { continue };
        for at in item.range().take(32) {
            for byte in [0, 0x20, 0xff] {
                add(&|page| page[at] = byte);
            }
        }
        let line = page::line(before, offset).expect("it is stored").0;
        for (kept, more) in [(line, 1), (line & 0x1_ffff, 4 << 17), (line & 0x1_ffff, 12 << 17)] {
            add(&|page| {
                page::set_line(page, offset, page::LinePointer(kept + more)).expect("the page has it")
            });
        }
    }
}
