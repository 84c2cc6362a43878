//! The workloads of heap and of what is no index, made by hand, and what they are turned into.

use bytes::Bytes;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelTag};
use strata_pgwal::{BlockImage, DecodedBlock, DecodedRecord, ImageCompression, rmgr};
use strata_redo::effect::SlruEffect;
use strata_redo::{Effect, Page, PageId, PageValue, SlruKind, SlruPage, apply, effects_into, page};

use crate::indexes;

/// What is repeated.
pub enum Work {
    /// Changes of one page of a relation, which is `page` before.
    Relation { page: Box<Page>, changes: Vec<(Lsn, Bytes)> },
    /// Changes of a page of an SLRU that is empty before.
    Slru { id: SlruPage, changes: Vec<(Lsn, Bytes)> },
    /// The effects of records.
    Effects { records: Vec<DecodedRecord> },
}

pub struct Workload {
    pub id: &'static str,
    pub what: &'static str,
    pub work: Work,
}

pub const PAGE: PageId = PageId {
    rel: strata_common::RelFork {
        rel: RelTag { tablespace: 1663, database: 5, relation: 16384 },
        fork: ForkNumber::Main,
    },
    block: BlockNumber(7),
};

/// Rows of pgbench_accounts: a header of 24 bytes and 97 bytes of data.
const BODY_BYTES: usize = 98;

/// One record that changes `PAGE`, decoded.
pub fn record(rmid: u8, info: u8, end: u64, main: &[u8], data: &[u8]) -> DecodedRecord {
    let block = DecodedBlock {
        id: 0,
        rel: PAGE.rel,
        block: PAGE.block,
        will_init: info & 0x80 != 0,
        image: None,
        data: Bytes::copy_from_slice(data),
        has_data: !data.is_empty(),
    };
    DecodedRecord {
        lsn: Lsn(end - 8),
        end_lsn: Lsn(end),
        prev: Lsn(0),
        xid: 1000,
        rmid,
        info,
        origin: None,
        toplevel_xid: None,
        main_data: Bytes::copy_from_slice(main),
        blocks: vec![block],
    }
}

fn stored_tuple(body_bytes: usize) -> Vec<u8> {
    let mut data = vec![4, 0, 2, 8, 24];
    data.resize(5 + body_bytes, b'x');
    data
}

/// Fills a page with rows: the first record makes the page.
fn inserts() -> Vec<DecodedRecord> {
    let rows = (BLOCK_BYTES - 24) / (4 + 128);
    let insert = |offset: usize| {
        let info = if offset == 1 { 0x80 } else { 0 };
        record(rmgr::HEAP, info, 100 + 8 * offset as u64, &[offset as u8, 0, 0], &stored_tuple(BODY_BYTES))
    };
    (1..=rows).map(insert).collect()
}

/// Half the rows of a half full page are updated in place of the heap, with prefix and suffix from the old row; then the
/// page is pruned: what TPC-B does to a page of accounts all day.
fn updates(rows: usize) -> Vec<DecodedRecord> {
    let update = |row: usize| {
        let mut main = vec![232, 3, 0, 0, row as u8, 0, 0, 0x60, 0, 0, 0, 0];
        main.extend([(rows + row) as u8, 0]);
        let mut data = vec![8, 0, 80, 0];
        data.extend(stored_tuple(BODY_BYTES - 88));
        record(rmgr::HEAP, 0x40, 2000 + 8 * row as u64, &main, &data)
    };
    (1..=rows).map(update).collect()
}

fn prune(rows: usize) -> DecodedRecord {
    let number = |number: usize| (number as u16).to_le_bytes();
    let mut data = number(rows).to_vec();
    for row in 1..=rows {
        data.extend([number(row), number(rows + row)].concat());
    }
    record(rmgr::HEAP2, 0x20, 3000, &[1, 0x24, 0, 0, 0, 0], &data)
}

/// A heap page becomes all-visible, again and again: its share in such records, which refer to the map's page first.
fn visible() -> Vec<DecodedRecord> {
    let visible = |number: u64| {
        let mut made = record(rmgr::HEAP2, 0x40, 3100 + 8 * number, &[0, 0, 0, 0, 1], &[]);
        let rel = PAGE.rel.rel.fork(ForkNumber::VisibilityMap);
        let map = DecodedBlock { rel, block: BlockNumber(0), ..made.blocks[0].clone() };
        made.blocks[0].id = 1;
        made.blocks.insert(0, map);
        made
    };
    (0..100).map(visible).collect()
}

/// Values of a sequence: each record makes its page anew.
fn sequence() -> Vec<DecodedRecord> {
    let mut main = vec![0; 12 + 41];
    main[12 + 22] = 24;
    let logged = |number: u64| {
        let mut made = record(rmgr::SEQ, 0x00, 7000 + 8 * number, &main, &[]);
        made.blocks[0].will_init = true;
        made
    };
    (0..100).map(logged).collect()
}

/// Pieces of a page, as bloom logs an insertion: the tuple, a counter, and the end of the content.
fn generic() -> Vec<DecodedRecord> {
    let piece =
        |at: u16, bytes: &[u8]| [&at.to_le_bytes()[..], &(bytes.len() as u16).to_le_bytes(), bytes].concat();
    let insert = |number: u16| {
        let end = 24 + 24 * (number + 1);
        let data = [piece(12, &end.to_le_bytes()), piece(end - 24, &[7; 24]), piece(8184, &[1, 0])].concat();
        record(rmgr::GENERIC, 0x00, 8000 + 8 * u64::from(number), &[], &data)
    };
    (0..300).map(insert).collect()
}

/// Images of half full pages, with their holes cut out.
fn images() -> Vec<DecodedRecord> {
    let image = |number: u64| {
        let mut made = record(rmgr::XLOG, 0xB0, 9000 + 8 * number, &[], &[]);
        let bytes = Bytes::from(vec![5; BLOCK_BYTES / 2]);
        let (hole_offset, hole_length) = (1024, (BLOCK_BYTES / 2) as u16);
        let compression = ImageCompression::None;
        made.blocks[0].image = Some(BlockImage { apply: true, hole_offset, hole_length, compression, bytes });
        made
    };
    (0..100).map(image).collect()
}

/// Commits with two subtransactions each.
fn commits() -> Vec<DecodedRecord> {
    let commit = |number: u32| {
        let (xid, time) = (3 * number, 800_000_000_000_000_i64);
        let mut main = time.to_le_bytes().to_vec();
        // XACT_XINFO_HAS_SUBXACTS, their number, and the two.
        main.extend([2, 0, 0, 0, 2, 0, 0, 0]);
        main.extend([xid + 1, xid + 2].map(u32::to_le_bytes).concat());
        let blocks = Vec::new();
        DecodedRecord { xid, blocks, ..record(rmgr::XACT, 0x80, 10_000 + 8 * u64::from(number), &main, &[]) }
    };
    (1..250).map(commit).collect()
}

/// Multixacts of two members.
fn multixacts() -> Vec<DecodedRecord> {
    let created = |number: u32| {
        let fields = [number, 2 * number, 2, 1000 + number, 1, 2000 + number, 1];
        let main = fields.map(u32::to_le_bytes).concat();
        let blocks = Vec::new();
        DecodedRecord { blocks, ..record(rmgr::MULTIXACT, 0x20, 20_000 + 8 * u64::from(number), &main, &[]) }
    };
    (1..500).map(created).collect()
}

/// What `records` change on page 0 of an SLRU.
fn slru(kind: SlruKind, records: &[DecodedRecord]) -> Work {
    let id = SlruPage { kind, page: 0 };
    let mut changes = Vec::new();
    for record in records {
        let mut effects = Vec::new();
        effects_into(record, &mut effects).expect("a known record");
        for effect in effects {
            if let Effect::Slru(SlruEffect::Page { page, value: PageValue::Change { bytes, .. } }) = effect
                && page == id
            {
                changes.push((record.end_lsn, bytes));
            }
        }
    }
    Work::Slru { id, changes }
}

/// What `records` change on `PAGE`.
pub fn relation(page: Page, records: &[DecodedRecord]) -> Work {
    let mut changes = Vec::new();
    for record in records {
        let mut effects = Vec::new();
        effects_into(record, &mut effects).expect("a known record");
        for effect in effects {
            if let Effect::Page { page: PAGE, value: PageValue::Change { bytes, .. } } = effect {
                changes.push((record.end_lsn, bytes));
            }
        }
    }
    Work::Relation { page: Box::new(page), changes }
}

/// The page that a workload leaves.
fn after(work: &Work) -> Page {
    let Work::Relation { page, changes } = work else { unreachable!("a relation's workload") };
    let mut page: Page = **page;
    for (lsn, change) in changes {
        apply(&mut page, PAGE, *lsn, change).expect("the change fits");
    }
    page
}

/// Heap and heap2: TPC-B's rows.
fn heap() -> Vec<Workload> {
    let mut empty = [0; BLOCK_BYTES];
    page::init(&mut empty, 0);
    let insert_records = inserts();
    let rows = insert_records.len() / 2;
    let half_full = after(&relation(empty, &insert_records[..rows]));
    let update = relation(half_full, &updates(rows));
    let updated = after(&update);
    vec![
        Workload { id: "heap_insert", what: "heap inserts", work: relation(empty, &insert_records) },
        Workload { id: "heap_update", what: "heap HOT updates", work: update },
        Workload {
            id: "heap_prune",
            what: "prunes of 30 rows (heap2)",
            work: relation(updated, &[prune(rows)]),
        },
        Workload {
            id: "heap_visible",
            what: "pages that become all-visible (heap2)",
            work: relation(half_full, &visible()),
        },
        Workload {
            id: "heap_insert_effects",
            what: "what heap inserts do, at ingest",
            work: Work::Effects { records: insert_records },
        },
    ]
}

/// One or more of each resource manager that changes pages.
pub fn all() -> Vec<Workload> {
    let mut all = heap();
    all.extend(indexes::all());
    let mut empty = [0; BLOCK_BYTES];
    page::init(&mut empty, 8);
    all.extend([
        Workload {
            id: "sequence",
            what: "values of a sequence",
            work: relation([0; BLOCK_BYTES], &sequence()),
        },
        Workload {
            id: "generic",
            what: "generic records of three pieces",
            work: relation(empty, &generic()),
        },
        Workload {
            id: "xlog_image",
            what: "full-page images with a hole, at ingest (xlog)",
            work: Work::Effects { records: images() },
        },
        Workload {
            id: "clog",
            what: "commits of three transaction ids (clog)",
            work: slru(SlruKind::Clog, &commits()),
        },
        Workload {
            id: "commit_ts",
            what: "commits of three transaction ids (commit timestamps)",
            work: slru(SlruKind::CommitTs, &commits()),
        },
        Workload {
            id: "multixact_offsets",
            what: "multixacts of two members (offsets)",
            work: slru(SlruKind::MultiXactOffsets, &multixacts()),
        },
        Workload {
            id: "multixact_members",
            what: "multixacts of two members (members)",
            work: slru(SlruKind::MultiXactMembers, &multixacts()),
        },
    ]);
    for workload in &all {
        let changes = match &workload.work {
            Work::Relation { changes, .. } | Work::Slru { changes, .. } => changes.len(),
            Work::Effects { records } => records.len(),
        };
        assert!(changes > 0, "{} changes nothing", workload.id);
    }
    all
}
