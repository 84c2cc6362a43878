//! Compares two copies of a page, masked, and describes the first difference so that it can be understood without a debugger.

use std::fmt::Write as _;

use strata_common::BlockNumber;
use strata_redo::mask::vm::{self, Bits};
use strata_redo::{Page, mask, page};

/// The difference of two copies after masking by resource manager `rmid`, or `None`.
pub fn pages(rmid: u8, block: BlockNumber, replayed: &Page, primary: &Page) -> Option<String> {
    if replayed == primary {
        return None;
    }
    let (mut ours, mut theirs) = (*replayed, *primary);
    let masked = [mask::mask(rmid, block, &mut ours), mask::mask(rmid, block, &mut theirs)];
    for (result, whose) in masked.iter().zip(["replayed", "primary's"]) {
        if let Err(error) = result {
            return Some(format!("the {whose} page cannot be masked: {error}"));
        }
    }
    let at = (0..ours.len()).find(|&at| ours[at] != theirs[at])?;
    Some(describe(at, &ours, &theirs))
}

/// The difference of two copies of a visibility map page, or `None`.
pub fn map_pages(replayed: &Page, primary: &Page, bits: Bits) -> Option<String> {
    let at = vm::first_difference(replayed, primary, bits)?;
    Some(format!("map byte {at}: replayed {:#04x}, primary {:#04x}", replayed[at], primary[at]))
}

/// What the mask of GiST hides for the images' sake, and scans rely on: a page's LSN, its node sequence number and FOLLOW_RIGHT.
/// Once a record is complete they are the same on both sides.
pub fn gist_interlock(replayed: &Page, primary: &Page) -> Option<String> {
    const FOLLOW_RIGHT: u16 = 1 << 3;
    let of = |page: &Page| {
        let nsn = page.len() - 16..page.len() - 8;
        let follow_right = page::u16_at(page, page.len() - 4) & FOLLOW_RIGHT != 0;
        format!("LSN {}, NSN {}, follow right {follow_right}", page::lsn(page), hex(&page[nsn]))
    };
    let (ours, theirs) = (of(replayed), of(primary));
    (ours != theirs).then(|| format!("replayed {ours}; primary {theirs}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn header(page: &Page) -> String {
    let flags = page::flags(page);
    format!("lower {} upper {} flags {flags:#x}", page::lower(page), page::upper(page))
}

/// The item whose tuple or line pointer byte `at` belongs to.
fn item_at(page: &Page, at: usize) -> Option<u16> {
    let lines_end = page::HEADER_BYTES + usize::from(page::item_count(page)) * page::LINE_POINTER_BYTES;
    if (page::HEADER_BYTES..lines_end).contains(&at) {
        return Some(((at - page::HEADER_BYTES) / page::LINE_POINTER_BYTES + 1) as u16);
    }
    (1..=page::item_count(page)).find(|&offset| {
        page::stored_item(page, offset)
            .is_ok_and(|span| (span.at..page::align(span.at + span.length)).contains(&at))
    })
}

fn item(page: &Page, offset: u16) -> String {
    let line = page::line(page, offset);
    let tuple =
        page::stored_item(page, offset).map_or_else(|_| String::new(), |span| hex(&page[span.range()]));
    format!("{line:?} {tuple}")
}

fn describe(at: usize, ours: &Page, theirs: &Page) -> String {
    let count = (0..ours.len()).filter(|&at| ours[at] != theirs[at]).count();
    let end = (at + 16).min(ours.len());
    let mut text = format!("{count} bytes differ, the first at {at}");
    for (whose, page) in [("replayed", ours), ("primary ", theirs)] {
        let _ = write!(text, "\n  {whose} {} bytes {}", header(page), hex(&page[at..end]));
        if let Some(offset) = item_at(page, at) {
            let _ = write!(text, "\n    item {offset}: {}", item(page, offset));
        }
    }
    text
}
