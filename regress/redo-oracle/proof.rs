//! Proof that the oracle sees: faults are planted into the replay of a small log, and each must be found where it is.

use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use strata_pgwal::{DecodedRecord, RawRecord, record};
use strata_regress::oracle::{Model, Oracle, compare_files};
use strata_regress::postgres::Stop;

use crate::run::{Pair, Settings};

const SCRIPT: &str = "
    CREATE TABLE small (id int PRIMARY KEY, v text);
    INSERT INTO small SELECT i, repeat('v', 50) FROM generate_series(1, 300) i;
    UPDATE small SET v = 'changed' WHERE id % 10 = 0;
    DELETE FROM small WHERE id % 9 = 0;
    CREATE SEQUENCE numbers;
    SELECT count(nextval('numbers')) FROM generate_series(1, 100);
    VACUUM (FREEZE) small;
    DELETE FROM small WHERE id = 1;
    CREATE EXTENSION bloom;
    CREATE TABLE indexed (id int, v text);
    INSERT INTO indexed SELECT i, md5(i::text) FROM generate_series(1, 100) i;
    CREATE INDEX ON indexed USING hash (id);
    CREATE INDEX ON indexed USING spgist (v);
    CREATE INDEX ON indexed USING brin (id);
    CREATE INDEX ON indexed USING bloom (id);
    INSERT INTO indexed SELECT i, md5(i::text) FROM generate_series(101, 130) i;
";

fn small_log() -> Result<(Pair, Vec<RawRecord>)> {
    let mut pair = Pair::new()?;
    let settings = Settings { full_page_writes: "off", wal_log_hints: "off", wal_compression: "lz4" };
    pair.start(&settings)?;
    pair.cluster.sql(SCRIPT)?;
    pair.cluster.stop(Stop::Fast)?;
    let mut records = Vec::new();
    pair.replay(|record| {
        records.push(record.clone());
        Ok(())
    })?;
    Ok((pair, records))
}

/// Replays with `tamper` between decoding and redo; a record for which it says `None` is skipped, but its pages are compared.
fn replay(
    pair: &Pair,
    records: &[RawRecord],
    mut tamper: impl FnMut(DecodedRecord) -> Option<DecodedRecord>,
) -> Result<Oracle> {
    let mut oracle = Oracle::new(Model::new(pair.before.data()));
    for raw in records {
        let original = record::decode(raw)?;
        if let Some(tampered) = tamper(original.clone()) {
            oracle.replay(&tampered)?;
        }
        oracle.compare(&original)?;
    }
    Ok(oracle)
}

/// `bytes` with its last byte changed.
fn with_wrong_byte(bytes: &Bytes) -> Bytes {
    let mut changed = BytesMut::from(&bytes[..]);
    if let Some(last) = changed.last_mut() {
        *last ^= 0x40;
    }
    changed.freeze()
}

#[test]
fn the_oracle_finds_planted_faults() -> Result<()> {
    let (pair, records) = small_log()?;
    let honest = replay(&pair, &records, Some)?;
    ensure!(honest.report.mismatch_count == 0, "without a fault: {}", honest.report);
    // Planted in the last record of its kind, so that earlier ones prove that the oracle does not cry wolf.
    for name in [
        "Heap/INSERT",
        "Heap/HOT_UPDATE",
        "Btree/INSERT_LEAF",
        "Sequence/LOG",
        "Hash/INSERT",
        "SPGist/ADD_LEAF",
        "BRIN/SAMEPAGE_UPDATE",
        "Generic/Generic",
    ] {
        let is_target =
            |record: &&RawRecord| record::decode(record).is_ok_and(|record| record.name() == name);
        let target = records.iter().rfind(is_target).with_context(|| format!("no {name} in the log"))?.lsn;
        let wrong = replay(&pair, &records, |mut record| {
            if record.lsn == target {
                match record.blocks.first_mut().filter(|block| block.has_data) {
                    Some(block) => block.data = with_wrong_byte(&block.data),
                    None => record.main_data = with_wrong_byte(&record.main_data),
                }
            }
            Some(record)
        })?;
        let first = wrong.report.mismatches.first().with_context(|| format!("wrong byte in {name}"))?;
        ensure!(first.lsn == target, "a wrong byte in {name} at {target} was found as: {first}");
        // The last piece of a generic record lies in the special space, where there are no items.
        let in_item = name != "Generic/Generic";
        ensure!(!in_item || first.text.contains("item"), "the mismatch names the item: {first}");

        let skipped = replay(&pair, &records, |record| (record.lsn != target).then_some(record))?;
        let first = skipped.report.mismatches.first().with_context(|| format!("skipped {name}"))?;
        ensure!(first.lsn == target, "a skipped {name} at {target} was found as: {first}");
    }
    Ok(())
}

/// What no image shows is found in the files: a relation that was not made, map bits that were not cleared.
#[test]
fn the_file_comparison_finds_what_images_do_not_show() -> Result<()> {
    let (pair, records) = small_log()?;
    let mut honest = replay(&pair, &records, Some)?;
    let files = compare_files(&mut honest.model, &pair.cluster.data())?;
    ensure!(files.difference_count == 0, "without a fault: {:?}", files.differences);

    let mut without_map = replay(&pair, &records, |mut record| {
        if record.name() == "Heap/DELETE" {
            record.blocks.retain(|block| block.rel.fork == strata_common::ForkNumber::Main);
            // The flag says that map bits were cleared; without it and without the reference they stay.
            let mut main = BytesMut::from(&record.main_data[..]);
            main[7] &= !1;
            record.main_data = main.freeze();
        }
        Some(record)
    })?;
    let files = compare_files(&mut without_map.model, &pair.cluster.data())?;
    ensure!(files.difference_count > 0, "map bits that stayed were not found");

    let mut dropped = replay(&pair, &records, Some)?;
    let rel = records
        .iter()
        .filter_map(|raw| record::decode(raw).ok())
        .find(|record| record.name() == "Sequence/LOG")
        .and_then(|record| record.blocks.first().map(|block| block.rel.rel))
        .context("a sequence in the log")?;
    dropped.model.perform(&strata_redo::Effect::RelDrop(rel), strata_common::Lsn(1))?;
    let files = compare_files(&mut dropped.model, &pair.cluster.data())?;
    ensure!(files.difference_count > 0, "a relation that is missing was not found");
    Ok(())
}
