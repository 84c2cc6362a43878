//! PS-1 and G20 against an independent witness: a vanilla hot standby replays a real log and stops at random records; everything that
//! the pageserver answers as of that LSN must be what the standby has on disk there: sizes of all relations, relation maps, SLRUs,
//! prepared transactions, and every page of some relations, byte for byte where nobody but redo writes.
//!
//! The log is a vanilla primary's, with every index type and everything else that `strata_regress::scripts` and `workload` do, side by
//! side. The comparison itself is proven by a second copy of the log with planted mistakes, each of which must be found in its place.
//! The small size has 8 stops and 12 relations at each, the full one (STRATA_TEST_SIZE=full) 200 and 50. STRATA_TEST_SEED repeats the
//! choices of a run on another log.

mod compare;
#[path = "../vanilla/harness.rs"]
#[allow(dead_code, reason = "the comparison with the writer of a log uses all of it")]
mod harness;
#[path = "../vanilla/log_server.rs"]
#[allow(dead_code, reason = "see above")]
mod log_server;
mod planted;
mod workload;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use strata_common::{Lsn, TenantTimelineId, TimelineId};
use strata_pgwal::{RawRecord, WalStreamDecoder};
use strata_regress::points::{self, Chance};
use strata_regress::postgres::{Cluster, Installation, Stop};
use strata_regress::standby::Standby;
use strata_regress::stock;
use strata_regress::wal_files::{LogBytes, control_file, read_log, records_to_end};

use compare::{Counts, Difference, Picked};
use harness::{Harness, TENANT, id};
use log_server::Log;

/// How much is done.
#[derive(Clone, Copy, Debug)]
struct Size {
    stops: usize,
    relations: usize,
    /// Times that the whole workload runs, each in a database of its own.
    rounds: u32,
    large: bool,
}

const SMALL: Size = Size { stops: 8, relations: 12, rounds: 1, large: false };
const FULL: Size = Size { stops: 200, relations: 50, rounds: 3, large: true };

fn size() -> Size {
    if strata_regress::size::is_full() { FULL } else { SMALL }
}

fn seed() -> Result<u64> {
    match std::env::var("STRATA_TEST_SEED") {
        Ok(seed) => seed.parse().context("STRATA_TEST_SEED is a number"),
        Err(_) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
            Ok(now.as_nanos() as u64)
        }
    }
}

/// The timeline whose log has mistakes in it.
fn planted_id() -> TenantTimelineId {
    TenantTimelineId { tenant: TENANT, timeline: TimelineId([3; 16]) }
}

/// A log that was written by a cluster, and the cluster as it was before.
struct Written {
    base: Cluster,
    log: LogBytes,
    records: Vec<RawRecord>,
    /// End of the checkpoint that `base` ends in.
    first: Lsn,
    end: Lsn,
}

fn write_log(installation: &Installation, size: Size) -> Result<Written> {
    let mut primary = Cluster::init(installation, &[])?;
    strata_regress::scripts::move_counters(&primary)?;
    // Once up and down, so that what the settings say is in the control file: a standby asks for it.
    primary.start(&workload::SETTINGS)?;
    primary.stop(Stop::Fast)?;
    let base = primary.copy()?;
    primary.start(&workload::SETTINGS)?;
    workload::run(&primary, size.rounds, size.large)?;
    primary.stop(Stop::Fast)?;

    let control = control_file(&primary.data())?;
    let log = read_log(&primary.data())?;
    let start = control_file(&base.data())?.checkpoint;
    let mut decoder = WalStreamDecoder::new(start, control.segment_bytes()).with_system_id(control.system_id);
    let (records, _) = records_to_end(&mut decoder, log.from(start))?;
    let last = records.last().context("the cluster wrote no log")?;
    ensure!(last.lsn == control.checkpoint, "the log breaks off at {}", last.end_lsn);
    let (first, end) = (records[0].end_lsn, last.end_lsn);
    Ok(Written { base, log, records, first, end })
}

/// Both timelines, with all of their logs taken in.
fn take_in(harness: &Harness, written: &Written, planted: Bytes) -> Result<()> {
    let (start, length) = (written.log.start, (written.end - written.log.start) as usize);
    let logs = [(id(), written.log.bytes.clone()), (planted_id(), planted)];
    for (id, bytes) in logs {
        let imported = harness.import_as(&written.base, id)?;
        ensure!(imported == written.first, "the timeline begins at {imported}, not at {}", written.first);
        harness.serve_log(id, Log { start, bytes: bytes.slice(..length) });
        harness.wait_for_in(id, written.end)?;
    }
    Ok(())
}

fn fail_on(differences: &[Difference], lsn: Lsn) -> Result<()> {
    let shown: Vec<String> =
        differences.iter().take(20).map(|found| format!("{}: {}", found.place, found.text)).collect();
    ensure!(
        differences.is_empty(),
        "as of {lsn} {} things are not what a vanilla standby has:\n{}",
        differences.len(),
        shown.join("\n")
    );
    Ok(())
}

#[test]
fn what_is_read_at_any_lsn_is_what_a_vanilla_standby_has_there() -> Result<()> {
    let (size, seed) = (size(), seed()?);
    let mut chance = Chance::new(seed);
    let begin = Instant::now();
    let installation = Installation::at(stock::tree("vanilla")?.join("bin"))?;
    let written = write_log(&installation, size)?;
    let bytes = written.end - written.first;
    eprintln!("seed {seed}: {bytes} bytes of log, {} records, {:?}", written.records.len(), begin.elapsed());

    let (mistakes, planted) = planted::plant(&written.log, &written.records)?;
    let harness = Harness::new()?;
    take_in(&harness, &written, planted)?;
    eprintln!("both timelines are taken in, {:?}", begin.elapsed());

    // The first record is the checkpoint that the standby starts from: it writes nothing out for that.
    let mut places = points::choose(&written.records[1..], size.stops, &mut chance)?;
    // The end is one more: there everything is compared, and the mistakes are looked for.
    places.retain(|place| *place < written.end);
    let log = LogBytes {
        start: written.log.start,
        bytes: written.log.bytes.clone(),
        file_names: written.log.file_names.clone(),
    };
    let mut standby = Standby::start(&written.base, log, written.first, &workload::SETTINGS)?;
    let mut counts = Counts::default();
    for &lsn in &places {
        standby.advance(lsn)?;
        ensure!(standby.write_out()?, "the standby has nothing to write out at {lsn}");
        let mut picked = Picked::some(size.relations, &mut chance);
        let found = compare::compare(&harness, id(), lsn, &standby.data(), &mut picked, &mut counts)
            .with_context(|| format!("seed {seed}, as of {lsn}"))?;
        fail_on(&found, lsn).with_context(|| format!("seed {seed}"))?;
    }

    standby.advance(written.end)?;
    ensure!(standby.write_out()?, "the standby has nothing to write out at the end");
    let everything = &mut Picked::all();
    let found = compare::compare(&harness, id(), written.end, &standby.data(), everything, &mut counts)?;
    fail_on(&found, written.end)?;
    let mut others = Counts::default();
    let everything = &mut Picked::all();
    let found =
        compare::compare(&harness, planted_id(), written.end, &standby.data(), everything, &mut others)?;
    planted::expect(&mistakes, &found)?;
    standby.stop()?;
    eprintln!("{counts}\n{} mistakes planted and found, {:?}", mistakes.len(), begin.elapsed());
    counts.check(places.len() + 1)
}
