//! Redo speed on one core: records per second of `apply` for the commonest records of heap and every index type, of `effects`,
//! and of `apply` on two threads at once.
//!
//! Records are made by hand in Postgres's layout, of the size that TPC-B-like loads have. Each measurement repeats its
//! round until `--seconds` (default 1) have passed and takes the median round. The result is one JSON object on standard
//! output; the target is a million records per second and core (B6 of the benchmarks). Times are of `std::time`: a
//! benchmark measures the machine that it runs on.
#![expect(clippy::disallowed_methods, reason = "a benchmark asks for the time")]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelTag};
use strata_pgwal::{DecodedBlock, DecodedRecord, rmgr};
use strata_redo::{Effect, Page, PageId, PageValue, apply, effects_into, page};

const PAGE: PageId = PageId {
    rel: strata_common::RelFork {
        rel: RelTag { tablespace: 1663, database: 5, relation: 16384 },
        fork: ForkNumber::Main,
    },
    block: BlockNumber(7),
};

/// Rows of pgbench_accounts: a header of 24 bytes and 97 bytes of data.
const BODY_BYTES: usize = 98;

/// One record that changes `PAGE`, decoded.
fn record(rmid: u8, info: u8, end: u64, main: &[u8], data: &[u8]) -> DecodedRecord {
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

/// Fills a leaf with tuples of an integer key, each into the middle: half of the line pointers move every time.
fn leaf_inserts() -> Vec<DecodedRecord> {
    let tuple = [0, 0, 7, 0, 1, 0, 16, 0, 42, 0, 0, 0, 0, 0, 0, 0];
    let insert = |count: usize| {
        record(rmgr::BTREE, 0x00, 4000 + 8 * count as u64, &((count / 2 + 1) as u16).to_le_bytes(), &tuple)
    };
    let empty_root = record(rmgr::BTREE, 0xA0, 3992, &[0; 8], &[]);
    let count = (BLOCK_BYTES - 24 - 16) / (4 + tuple.len());
    std::iter::once(empty_root).chain((0..count).map(insert)).collect()
}

/// An empty page of an index: bytes of special space and what its last bytes say (page id or flags).
fn index_page(special_bytes: usize, last: [u8; 4]) -> Page {
    let mut page = [0; BLOCK_BYTES];
    page::init(&mut page, special_bytes);
    page[BLOCK_BYTES - 4..].copy_from_slice(&last);
    page
}

/// An index tuple of 16 bytes.
const TUPLE: [u8; 16] = [0, 0, 7, 0, 1, 0, 16, 0, 42, 0, 0, 0, 0, 0, 0, 0];

/// `count` insertions into a page: `main` and the data before the tuple follow from the number of tuples on the page.
fn index_inserts(
    rmid: u8,
    info: u8,
    count: usize,
    parts: impl Fn(u16) -> (Vec<u8>, Vec<u8>),
) -> Vec<DecodedRecord> {
    let insert = |number: usize| {
        let (main, mut data) = parts(number as u16);
        data.extend(TUPLE);
        record(rmid, info, 5000 + 8 * number as u64, &main, &data)
    };
    (0..count).map(insert).collect()
}

/// A leaf of a posting tree with twenty lists of 200 rows, then rows that come to the last one by one.
fn posting_list_growth() -> (Page, Vec<DecodedRecord>) {
    // DATA, LEAF, COMPRESSED; the lists begin behind the right bound.
    let mut leaf = index_page(8, [0, 0, 0x83, 0]);
    let mut lower = 32;
    for block in 0..20_u8 {
        let mut list = vec![0, 0, block, 0, 1, 0, 200, 0];
        list.extend([1; 200]);
        leaf[lower..lower + list.len()].copy_from_slice(&list);
        lower += list.len();
    }
    page::set_lower(&mut leaf, lower as u16);
    let add = |number: u16| {
        let mut data = vec![1, 0, 19, 4, 1, 0, 0, 0, 20, 0];
        data.extend((number + 1).to_le_bytes());
        record(rmgr::GIN, 0x20, 6000 + 8 * u64::from(number), &[3, 0], &data)
    };
    (leaf, (0..100).map(add).collect())
}

struct Round {
    records: usize,
    seconds: f64,
}

/// Repeats `round` for `seconds` and returns the median of records per second.
fn measure(seconds: f64, mut round: impl FnMut() -> usize) -> f64 {
    let begin = Instant::now();
    let mut rounds = Vec::new();
    while begin.elapsed().as_secs_f64() < seconds || rounds.len() < 5 {
        let start = Instant::now();
        let mut records = 0;
        for _ in 0..200 {
            records += round();
        }
        rounds.push(Round { records, seconds: start.elapsed().as_secs_f64() });
    }
    let mut rates: Vec<f64> = rounds.iter().map(|round| round.records as f64 / round.seconds).collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn changes(records: &[DecodedRecord]) -> Vec<(Lsn, Bytes)> {
    let mut out = Vec::new();
    for record in records {
        let mut effects = Vec::new();
        effects_into(record, &mut effects).expect("a known record");
        for effect in effects {
            if let Effect::Page { page: PAGE, value: PageValue::Change { bytes, .. } } = effect {
                out.push((record.end_lsn, bytes));
            }
        }
    }
    out
}

fn apply_all(page: &mut Page, changes: &[(Lsn, Bytes)]) -> usize {
    for (lsn, change) in changes {
        apply(black_box(page), PAGE, *lsn, black_box(change)).expect("the change fits");
    }
    changes.len()
}

/// The sum of what two threads reach at the same time.
fn on_two_threads(work: impl Fn() -> f64 + Sync) -> f64 {
    std::thread::scope(|scope| {
        let other = scope.spawn(&work);
        work() + other.join().expect("the other thread measured")
    })
}

/// The commonest record of each index type but btree.
fn index_rates(seconds: f64) -> Vec<(&'static str, f64)> {
    let at = |number: u16| (number / 2 + 1).to_le_bytes().to_vec();
    let entry = |number: u16| (vec![2, 0], [&at(number)[..], &[0, 0]].concat());
    let one_more = |_: u16| (vec![0, 0, 1, 0], Vec::new());
    let (posting_leaf, growth) = posting_list_growth();
    let mut hash_inserts = index_inserts(rmgr::HASH, 0x20, 300, |number| (at(number), Vec::new()));
    for insert in &mut hash_inserts {
        // The metapage counts the tuple.
        let metapage = DecodedBlock {
            id: 1,
            block: BlockNumber(0),
            data: Bytes::new(),
            has_data: false,
            ..insert.blocks[0].clone()
        };
        insert.blocks.push(metapage);
    }
    let mut range = index_page(8, [0, 0, 0x93, 0xf0]);
    page::add_item(&mut range, &TUPLE, page::AddItem::IndexBefore(1)).expect("an empty page has room");
    let measured = [
        ("hash_insert_apply", index_page(16, [2, 0, 0x80, 0xff]), hash_inserts),
        ("gin_entry_insert_apply", index_page(8, [0, 0, 2, 0]), index_inserts(rmgr::GIN, 0x20, 300, entry)),
        ("gin_posting_list_add_apply", posting_leaf, growth),
        (
            "gist_insert_apply",
            index_page(16, [1, 0, 0x81, 0xff]),
            index_inserts(rmgr::GIST, 0x00, 300, one_more),
        ),
        ("brin_same_page_update_apply", range, {
            index_inserts(rmgr::BRIN, 0x30, 300, |_| (vec![1, 0], Vec::new()))
        }),
    ];
    let rate = |page: Page, records: &[DecodedRecord]| {
        let changes = changes(records);
        measure(seconds, || apply_all(&mut page.clone(), &changes))
    };
    measured.into_iter().map(|(name, page, records)| (name, rate(page, &records))).collect()
}

fn main() {
    let seconds = std::env::args().skip_while(|arg| arg != "--seconds").nth(1);
    let seconds: f64 = seconds.map_or(1.0, |text| text.parse().expect("--seconds takes a number"));

    let mut empty = [0; BLOCK_BYTES];
    page::init(&mut empty, 0);
    let insert_records = inserts();
    let insert_changes = changes(&insert_records);
    let insert = measure(seconds, || apply_all(&mut empty.clone(), &insert_changes));

    let rows = insert_records.len() / 2;
    let mut half_full = empty;
    apply_all(&mut half_full, &insert_changes[..rows]);
    let update_changes = changes(&updates(rows));
    let update = measure(seconds, || apply_all(&mut half_full.clone(), &update_changes));

    let mut updated = half_full;
    apply_all(&mut updated, &update_changes);
    let prune_change = changes(&[prune(rows)]);
    let prune = measure(seconds, || apply_all(&mut updated.clone(), &prune_change));

    let leaf_changes = changes(&leaf_inserts());
    let leaf_insert = measure(seconds, || apply_all(&mut [0; BLOCK_BYTES], &leaf_changes));

    let mut out = Vec::new();
    let effects_rate = measure(seconds, || {
        for record in &insert_records {
            out.clear();
            effects_into(black_box(record), &mut out).expect("a known record");
            black_box(&out);
        }
        insert_records.len()
    });
    let two_cores = on_two_threads(|| measure(seconds, || apply_all(&mut empty.clone(), &insert_changes)));
    let mut rates = vec![
        ("heap_insert_apply", insert),
        ("heap_hot_update_apply", update),
        ("heap2_prune_apply", prune),
        ("btree_insert_leaf_apply", leaf_insert),
        ("heap_insert_effects", effects_rate),
        ("heap_insert_apply_two_cores", two_cores),
    ];
    rates.extend(index_rates(seconds));
    let fields: String = rates.iter().map(|(name, rate)| format!("\"{name}\":{rate:.0},")).collect();
    let report = format!("{{\"unit\":\"records_per_second_per_core\",{fields}\"prune_rows\":{rows}}}\n");
    std::io::Write::write_all(&mut std::io::stdout(), report.as_bytes())
        .expect("standard output takes the report");
}
