//! Redo speed on one core: records per second of `apply`, `effects` and both, for the commonest records of
//! heap and btree.
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
            if let Effect::Page { value: PageValue::Change { bytes, .. }, .. } = effect {
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
    let report = format!(
        "{{\"unit\":\"records_per_second_per_core\",\"heap_insert_apply\":{insert:.0},\"heap_hot_update_apply\":{update:.0},\
         \"heap2_prune_apply\":{prune:.0},\"prune_rows\":{rows},\"btree_insert_leaf_apply\":{leaf_insert:.0},\"heap_insert_effects\":{effects_rate:.0}}}\n"
    );
    std::io::Write::write_all(&mut std::io::stdout(), report.as_bytes())
        .expect("standard output takes the report");
}
