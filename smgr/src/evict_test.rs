//! Every row of "drop or spill", on pages built by hand.

use super::*;

const INSERT: Lsn = Lsn(0x5000_0000);
const RUNNING: u32 = 1000;

fn around(fork: ForkNumber) -> Surroundings {
    Surroundings { fork, insert_lsn: INSERT, being_built: false, quiet_below: Lsn::INVALID }
}

fn empty_page(lsn: u64, special_bytes: u16) -> Box<[u8; BLOCK_BYTES]> {
    let mut page = Box::new([0u8; BLOCK_BYTES]);
    page[0..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
    page[12..14].copy_from_slice(&24u16.to_le_bytes());
    let special = 8192 - special_bytes;
    page[14..16].copy_from_slice(&special.to_le_bytes());
    page[16..18].copy_from_slice(&special.to_le_bytes());
    page[18..20].copy_from_slice(&(8192u16 | 4).to_le_bytes());
    page
}

/// Transactions from this one on run, and no vacuum.
struct Since(u32);

impl Running for Since {
    fn transaction(&mut self, xid: u32) -> bool {
        may_run(xid, self.0)
    }

    fn vacuum(&mut self, _cycle_id: u16) -> bool {
        false
    }
}

/// Everything runs.
struct All;

impl Running for All {
    fn transaction(&mut self, _xid: u32) -> bool {
        true
    }

    fn vacuum(&mut self, _cycle_id: u16) -> bool {
        true
    }
}

/// Must not be asked.
struct Never;

impl Running for Never {
    fn transaction(&mut self, xid: u32) -> bool {
        panic!("asked about transaction {xid}")
    }

    fn vacuum(&mut self, cycle_id: u16) -> bool {
        panic!("asked about vacuum {cycle_id}")
    }
}

#[derive(Clone, Copy, Default)]
struct Tuple {
    xmin: u32,
    xmax: u32,
    cid: u32,
    infomask: u16,
    speculative: bool,
}

fn add_tuple(page: &mut [u8; BLOCK_BYTES], tuple: Tuple) {
    let lower = usize::from(u16::from_le_bytes([page[12], page[13]]));
    let upper = usize::from(u16::from_le_bytes([page[14], page[15]])) - 64;
    page[lower..lower + 4].copy_from_slice(&((upper as u32) | (1 << 15) | (48 << 17)).to_le_bytes());
    page[12..14].copy_from_slice(&(lower as u16 + 4).to_le_bytes());
    page[14..16].copy_from_slice(&(upper as u16).to_le_bytes());
    page[upper..upper + 4].copy_from_slice(&tuple.xmin.to_le_bytes());
    page[upper + 4..upper + 8].copy_from_slice(&tuple.xmax.to_le_bytes());
    page[upper + 8..upper + 12].copy_from_slice(&tuple.cid.to_le_bytes());
    let offset: u16 = if tuple.speculative { 0xfffe } else { 1 };
    page[upper + 16..upper + 18].copy_from_slice(&offset.to_le_bytes());
    page[upper + 20..upper + 22].copy_from_slice(&tuple.infomask.to_le_bytes());
    page[upper + 22] = 24;
}

fn judge_heap(tuple: Tuple) -> Verdict {
    let mut page = empty_page(0x100, 0);
    add_tuple(&mut page, tuple);
    judge(&page, around(ForkNumber::Main), &mut Since(RUNNING))
}

const KEEP: Verdict = Verdict::Spill { exists_nowhere_else: false };
const ONLY_COPY: Verdict = Verdict::Spill { exists_nowhere_else: true };
const DROP: Verdict = Verdict::Drop { last_written: Lsn(0x100) };
const NOTHING: Verdict = Verdict::Drop { last_written: Lsn::INVALID };

#[test]
fn w6_command_ids_of_running_transactions_are_kept() {
    const MULTI: u16 = 0x1000;
    const XMAX_INVALID: u16 = 0x0800;
    const FROZEN: u16 = 0x0300;
    const COMBO: u16 = 0x0020;
    let t = Tuple::default();
    let cases = [
        ("plain, inserter runs, command 0", Tuple { xmin: 1000, infomask: XMAX_INVALID, ..t }, DROP),
        (
            "inserted by a later command of a running one",
            Tuple { xmin: 1000, cid: 1, infomask: XMAX_INVALID, ..t },
            KEEP,
        ),
        ("the same, subtransaction", Tuple { xmin: 1007, cid: 1, infomask: XMAX_INVALID, ..t }, KEEP),
        ("inserter has ended", Tuple { xmin: 999, cid: 7, infomask: XMAX_INVALID, ..t }, DROP),
        ("deleter runs", Tuple { xmin: 900, xmax: 1001, cid: 2, ..t }, KEEP),
        ("deleter has ended", Tuple { xmin: 900, xmax: 999, cid: 2, ..t }, DROP),
        ("deleter aborted", Tuple { xmin: 900, xmax: 1001, cid: 2, infomask: XMAX_INVALID, ..t }, DROP),
        ("combo id 0", Tuple { xmin: 1000, xmax: 1000, cid: 0, infomask: COMBO, ..t }, KEEP),
        ("multixact", Tuple { xmin: 5, xmax: 77, cid: 1, infomask: MULTI, ..t }, KEEP),
        ("multixact, command 0", Tuple { xmin: 5, xmax: 77, cid: 0, infomask: MULTI, ..t }, DROP),
        (
            "frozen with a young xmin",
            Tuple { xmin: 2000, cid: 3, infomask: XMAX_INVALID | FROZEN, ..t },
            DROP,
        ),
        ("bootstrap xid", Tuple { xmin: 1, cid: 3, infomask: XMAX_INVALID, ..t }, DROP),
        ("w7 speculative token", Tuple { xmin: 1000, speculative: true, infomask: XMAX_INVALID, ..t }, KEEP),
        (
            "w7 token of one that ended",
            Tuple { xmin: 10, speculative: true, infomask: XMAX_INVALID, ..t },
            DROP,
        ),
    ];
    for (what, tuple, verdict) in cases {
        assert_eq!(judge_heap(tuple), verdict, "{what}");
    }
}

/// The cheap test: below the first record of the oldest running transaction no tuple is looked at.
#[test]
fn w6_pages_below_all_running_transactions_need_no_look() {
    let mut page = empty_page(0x100, 0);
    add_tuple(&mut page, Tuple { xmin: 1000, cid: 1, infomask: 0x0800, ..Tuple::default() });
    let quiet_below = |lsn| Surroundings { quiet_below: Lsn(lsn), ..around(ForkNumber::Main) };
    assert_eq!(judge(&page, quiet_below(0x100), &mut Never), DROP);
    assert_eq!(judge(&page, quiet_below(0xff), &mut Since(RUNNING)), KEEP);
}

/// Ids of vacuums that have ended may be lost.
#[test]
fn w8_only_ids_of_running_vacuums_are_kept() {
    let mut page = empty_page(0x100, 16);
    page[8190..].copy_from_slice(&7u16.to_le_bytes());
    assert_eq!(judge(&page, around(ForkNumber::Main), &mut Since(RUNNING)), DROP);
    assert_eq!(judge(&page, around(ForkNumber::Main), &mut All), KEEP);
}

#[test]
fn running_across_the_wrap_of_xids() {
    assert!(may_run(5, u32::MAX - 10));
    assert!(!may_run(u32::MAX - 11, u32::MAX - 10));
    assert!(!may_run(2, 3));
}

#[test]
fn w1_pages_without_lsn() {
    let main = around(ForkNumber::Main);
    assert_eq!(judge(&[0; BLOCK_BYTES], main, &mut Never), NOTHING);
    assert_eq!(judge(&empty_page(0, 0), main, &mut Never), NOTHING);
    let mut filled = empty_page(0, 0);
    add_tuple(&mut filled, Tuple::default());
    assert_eq!(judge(&filled, main, &mut Never), Verdict::NotLogged);
    assert_eq!(judge(&filled, Surroundings { being_built: true, ..main }, &mut Never), ONLY_COPY);
    for lsn in [0, 1] {
        let mut index = empty_page(lsn, 16);
        assert_eq!(judge(&index, main, &mut Never), KEEP);
        add_tuple(&mut index, Tuple::default());
        assert_eq!(judge(&index, main, &mut Never), ONLY_COPY);
    }
}

#[test]
fn w8_btree_cycle_ids_and_other_special_areas() {
    let main = around(ForkNumber::Main);
    for (last_two, verdict) in
        [(0u16, DROP), (1, KEEP), (0xff7f, KEEP), (0xff80, DROP), (0xff81, DROP), (0xff82, DROP)]
    {
        let mut page = empty_page(0x100, 16);
        page[8190..].copy_from_slice(&last_two.to_le_bytes());
        assert_eq!(judge(&page, main, &mut All), verdict, "{last_two:#x}");
    }
}

#[test]
fn w9_sequences_ahead_of_their_log() {
    for (log_count, verdict) in [(0i64, DROP), (32, KEEP), (1, KEEP)] {
        let mut page = empty_page(0x100, 8);
        page[8184..8188].copy_from_slice(&0x1717u32.to_le_bytes());
        add_tuple(&mut page, Tuple { xmin: 2, ..Tuple::default() });
        let tuple = 8184 - 64;
        page[tuple + 24 + 8..tuple + 24 + 16].copy_from_slice(&log_count.to_le_bytes());
        assert_eq!(judge(&page, around(ForkNumber::Main), &mut All), verdict, "{log_count}");
    }
}

#[test]
fn v7_all_visible_heap_pages_take_the_insert_lsn() {
    let mut page = empty_page(0x100, 0);
    add_tuple(&mut page, Tuple { xmin: 2, infomask: 0x0800, ..Tuple::default() });
    page[10] = 0x04;
    assert_eq!(judge(&page, around(ForkNumber::Main), &mut All), Verdict::Drop { last_written: INSERT });
}

#[test]
fn w18_and_v4_maps() {
    let fsm = around(ForkNumber::FreeSpaceMap);
    let vm = around(ForkNumber::VisibilityMap);
    assert_eq!(judge(&[0; BLOCK_BYTES], fsm, &mut All), NOTHING);
    assert_eq!(judge(&empty_page(0, 0), fsm, &mut All), KEEP);
    assert_eq!(judge(&empty_page(0x100, 0), fsm, &mut All), KEEP);
    assert_eq!(judge(&empty_page(0, 0), vm, &mut All), Verdict::Drop { last_written: INSERT });
    let mut bits = empty_page(0, 0);
    bits[100] = 3;
    assert_eq!(judge(&bits, vm, &mut All), KEEP);
    let mut logged = empty_page(0x100, 0);
    logged[100] = 3;
    assert_eq!(judge(&logged, vm, &mut All), Verdict::Drop { last_written: INSERT });
}

#[test]
fn a_page_beyond_the_log_is_corruption() {
    let page = empty_page(INSERT.0 + 8, 16);
    let verdict = judge(&page, around(ForkNumber::Main), &mut All);
    assert_eq!(verdict, Verdict::BeyondTheLog { page_lsn: Lsn(INSERT.0 + 8) });
}

proptest::proptest! {
    /// Any bytes at all give a verdict: no read leaves the page.
    #[test]
    fn garbage_never_panics(seed in proptest::collection::vec(0u8..=255, 256), fork in 0u8..4) {
        let mut page = Box::new([0u8; BLOCK_BYTES]);
        for (index, byte) in page.iter_mut().enumerate() {
            *byte = seed[index % 256].wrapping_add((index / 256) as u8);
        }
        let fork = ForkNumber::from_raw(fork).expect("a fork");
        judge(&page, Surroundings { fork, insert_lsn: Lsn::MAX, being_built: false, quiet_below: Lsn::INVALID }, &mut All);
    }
}
