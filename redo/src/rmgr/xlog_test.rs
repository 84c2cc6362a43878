//! The log's own records.

use strata_common::{BLOCK_BYTES, Lsn};
use strata_pgwal::rmgr::XLOG;

use super::*;
use crate::testing::*;
use crate::{Page, PageValue, effects, page};

fn page(byte: u8) -> Page {
    let mut page = [byte; BLOCK_BYTES];
    page::set_upper(&mut page, u16::from(byte) * 8);
    page
}

#[test]
fn images_of_several_pages_are_restored() {
    for info in [xlog_info::FPI, xlog_info::FPI_FOR_HINT] {
        let blocks = (0..32).map(|id| image_reference(id, main_page(id.into()), &page(id), true)).collect();
        let effects = effects(&record(XLOG, info, 100, &[], blocks)).unwrap();
        assert_eq!(effects.len(), 32);
        for (block, effect) in (0..).zip(effects) {
            let Effect::Page { page: id, value: PageValue::Image(bytes) } = effect else {
                panic!("{effect:?}")
            };
            let mut expected = page(block as u8);
            // W15: page 0 counts as uninitialized and keeps its LSN of zeros.
            if block > 0 {
                page::set_lsn(&mut expected, Lsn(100));
            }
            assert_eq!((id, &bytes[..]), (main_page(block), &expected[..]));
        }
    }
}

#[test]
fn only_hints_may_lack_their_images() {
    let without = |info| record(XLOG, info, 100, &[], vec![reference(0, main_page(1), &[])]);
    assert_eq!(effects(&without(xlog_info::FPI_FOR_HINT)), Ok(vec![]));
    let error = effect_error(&without(xlog_info::FPI)).to_string();
    assert_eq!(error, "malformed record XLOG/FPI at 0/24: a block reference without an image");
}

#[test]
fn a_broken_image_is_named() {
    let mut block = image_reference(3, main_page(1), &page(5), true);
    let image = block.image.as_mut().unwrap();
    image.bytes = image.bytes.slice(..100);
    let error = effect_error(&record(XLOG, xlog_info::FPI, 100, &[], vec![block])).to_string();
    let expected = "record XLOG/FPI at 0/24, block reference 3: image of 100 bytes, expected 8192";
    assert_eq!(error, expected);
}

#[test]
fn checkpoints_tell_their_kind() {
    let main: Vec<u8> = (0..88).collect();
    for (info, kind) in [
        (xlog_info::CHECKPOINT_SHUTDOWN, CheckpointKind::Shutdown),
        (xlog_info::CHECKPOINT_ONLINE, CheckpointKind::Online),
    ] {
        let checkpoint = CheckPoint::parse(&main).unwrap();
        let effect = Effect::Checkpoint { kind, checkpoint };
        assert_eq!(effects(&record(XLOG, info, 100, &main, vec![])), Ok(vec![effect]));
        let error = effect_error(&record(XLOG, info, 100, &main[..80], vec![]));
        assert!(matches!(error, EffectError::Malformed { what: "checkpoint is cut short", .. }));
    }
}

#[test]
fn counters_and_settings() {
    let one = |info, main: &[u8]| effects(&record(XLOG, info, 100, main, vec![])).unwrap().remove(0);
    assert_eq!(one(xlog_info::NEXTOID, &[1, 2, 0, 0]), Effect::NextOid(0x201));
    assert_eq!(one(xlog_info::FPW_CHANGE, &[1]), Effect::FullPageWrites(true));
    let mut main: Vec<u8> = (1..=6u32).flat_map(u32::to_le_bytes).collect();
    main.extend([0, 1, 0, 0]);
    let parameters = ParameterChange {
        max_connections: 1,
        max_worker_processes: 2,
        max_wal_senders: 3,
        max_prepared_xacts: 4,
        max_locks_per_xact: 5,
        wal_level: 6,
        wal_log_hints: false,
        track_commit_timestamp: true,
    };
    assert_eq!(one(xlog_info::PARAMETER_CHANGE, &main), Effect::ParameterChange(parameters));
    let mut main = (-5i64).to_le_bytes().to_vec();
    main.extend([2, 0, 0, 0, 1, 0, 0, 0]);
    let end = Effect::EndOfRecovery { this_timeline: 2, previous_timeline: 1, micros: -5 };
    assert_eq!(one(xlog_info::END_OF_RECOVERY, &main), end);
    for info in
        [xlog_info::NEXTOID, xlog_info::FPW_CHANGE, xlog_info::PARAMETER_CHANGE, xlog_info::END_OF_RECOVERY]
    {
        effect_error(&record(XLOG, info, 100, &[], vec![]));
    }
}

#[test]
fn marks_do_nothing_and_unknown_records_are_refused() {
    for info in [0x20, 0x40, 0x50, 0x70, 0xD0, 0xE0] {
        assert_eq!(effects(&record(XLOG, info, 100, &[], vec![])), Ok(vec![]));
    }
    let error = effect_error(&record(XLOG, 0xF0, 100, &[], vec![])).to_string();
    assert_eq!(error, "no redo for record XLOG/UNKNOWN (f0) (resource manager 0, info 0xf0)");
}
