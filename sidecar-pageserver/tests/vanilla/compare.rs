//! What the pageserver answers against the files of the cluster that wrote the log.
//!
//! Differences that must be: hint bits and what else redo does not reproduce (masked by resource manager, as Postgres does);
//! blocks that vanilla added without log, which are zero (W17); the free space map, which is not logged (V5); visibility
//! bits, of which redo may have fewer and never more (V8).

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelFork, RelTag};
use strata_pageserver::import::datadir::relation_path;
use strata_pageserver::keyspace;
use strata_pageserver::node::EngineTimeline;
use strata_pgwal::rmgr;
use strata_redo::{Page, SlruKind, mask};
use strata_regress::postgres::Cluster;
use strata_regress::replay::{fork_sizes, relation_maps, slru_pages};

use crate::harness::{Harness, id};

/// Resource manager of each relation's pages, by database and file number.
pub type Kinds = HashMap<(u32, u32), u8>;

/// First byte of the bits in a page of the visibility map.
const MAP_AT: usize = 24;

pub fn relation_kinds(cluster: &Cluster) -> Result<Kinds> {
    let mut kinds = Kinds::new();
    let databases = cluster.sql("select oid || ' ' || datname from pg_database where datallowconn")?;
    for line in databases.lines() {
        let (database, name) = line.split_once(' ').context("two columns")?;
        let rows = cluster.sql_in(
            name,
            "select pg_relation_filenode(oid), relkind, relisshared from pg_class where relkind in ('r','i','t','m','S')",
        )?;
        for row in rows.lines() {
            let mut columns = row.split('|');
            let file: u32 = columns.next().context("a file number")?.parse()?;
            let kind = match columns.next().context("a kind")? {
                "i" => rmgr::BTREE,
                "S" => rmgr::SEQ,
                _ => rmgr::HEAP,
            };
            let database = if columns.next() == Some("t") { 0 } else { database.parse()? };
            kinds.insert((database, file), kind);
        }
    }
    Ok(kinds)
}

/// Everything, as of `lsn`, the end of the stopped cluster's log.
pub fn all(harness: &Harness, cluster: &Cluster, kinds: &Kinds, lsn: Lsn) -> Result<()> {
    let timeline = harness.timeline(id())?;
    ensure!(
        timeline.last_record() == lsn,
        "the last record ends at {}, not at {lsn}",
        timeline.last_record()
    );
    let counts = timeline.counts();
    ensure!(counts.references_beyond_end == 0, "{counts:?}");
    relations(harness, cluster, kinds, &timeline, lsn)?;
    slrus(harness, cluster, &timeline, lsn)?;
    for (database, map) in relation_maps(&cluster.data())? {
        let key = keyspace::rel_map(database.tablespace, database.database);
        let found = harness.block_on(timeline.view(lsn).value(key))?;
        ensure!(found.as_ref() == Some(&map), "relation map of {database:?}");
    }
    Ok(())
}

fn relations(
    harness: &Harness,
    cluster: &Cluster,
    kinds: &Kinds,
    timeline: &Arc<EngineTimeline>,
    lsn: Lsn,
) -> Result<()> {
    let files = fork_sizes(&cluster.data())?;
    let is_unlogged = |rel: RelTag| files.contains_key(&rel.fork(ForkNumber::Init));
    let mut compared: BTreeMap<u8, usize> = BTreeMap::new();
    for (&rel, &blocks) in &files {
        if rel.fork == ForkNumber::FreeSpaceMap || rel.fork != ForkNumber::Init && is_unlogged(rel.rel) {
            continue;
        }
        let ours = harness.block_on(timeline.rel_blocks(rel, lsn))?;
        // Files that stay empty until the next checkpoint removes them are of dropped relations; a map begins without log.
        let is_map = rel.fork == ForkNumber::VisibilityMap;
        let Some(ours) = ours.or(is_map.then_some(0)) else {
            ensure!(blocks == 0, "{rel} does not exist, vanilla has {blocks} blocks");
            continue;
        };
        ensure!(ours <= blocks, "{rel} has {ours} blocks, vanilla {blocks}");
        let file = File::open(cluster.data().join(relation_path(rel)))?;
        let kind = kinds.get(&(rel.rel.database, rel.rel.relation)).copied();
        for block in 0..blocks {
            let mut theirs: Page = [0; BLOCK_BYTES];
            file.read_exact_at(&mut theirs, u64::from(block) * BLOCK_BYTES as u64)?;
            let page = harness.block_on(timeline.page(rel, BlockNumber(block), ours, lsn))?;
            ensure!(
                block < ours || theirs == [0; BLOCK_BYTES],
                "{rel} block {block} is beyond our end and not zero"
            );
            let own: Page = page[..].try_into()?;
            same(rel, kind, BlockNumber(block), own, theirs)
                .with_context(|| format!("{rel} block {block}"))?;
            *compared.entry(rel.fork.raw()).or_default() += 1;
        }
    }
    ensure!(compared.get(&0).is_some_and(|pages| *pages > 1500), "few pages were compared: {compared:?}");
    ensure!(compared.contains_key(&2) && compared.contains_key(&3), "no maps or init forks: {compared:?}");
    Ok(())
}

fn same(rel: RelFork, kind: Option<u8>, block: BlockNumber, mut ours: Page, mut theirs: Page) -> Result<()> {
    if rel.fork == ForkNumber::VisibilityMap {
        let more = ours[MAP_AT..].iter().zip(&theirs[MAP_AT..]).any(|(ours, theirs)| ours & !theirs != 0);
        ensure!(!more, "visibility bits that vanilla does not have");
        return Ok(());
    }
    if ours == theirs {
        return Ok(());
    }
    // A page that only vanilla has initialised, without log, holds nothing.
    let kind = kind.with_context(|| format!("differs, and nobody knows what {rel} is"))?;
    if ours == [0; BLOCK_BYTES] {
        let empty = strata_pgwal::page::lower(&theirs) == 24;
        ensure!(empty, "is zero here and not empty there");
        return Ok(());
    }
    if kind == rmgr::SEQ {
        logged_ahead(&mut ours, &mut theirs)?;
    }
    mask::mask(kind, block, &mut ours)?;
    mask::mask(kind, block, &mut theirs)?;
    let first = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
    ensure!(first.is_none(), "differs from byte {first:?} on");
    Ok(())
}

/// A sequence's log is ahead of its page by what the page says is logged already (W9); the sequences here count by one.
fn logged_ahead(ours: &mut Page, theirs: &mut Page) -> Result<()> {
    let item = usize::from(u16::from_le_bytes([theirs[24], theirs[25]]) & 0x7fff);
    let at = item + usize::from(theirs[item + 22]);
    let number =
        |page: &Page, at: usize| i64::from_le_bytes(page[at..at + 8].try_into().expect("eight bytes"));
    let (last, ahead) = (number(theirs, at), number(theirs, at + 8));
    ensure!(
        number(ours, at) == last + ahead,
        "the sequence is at {}, not at {last} + {ahead}",
        number(ours, at)
    );
    ours[at..at + 16].fill(0);
    theirs[at..at + 16].fill(0);
    Ok(())
}

fn slrus(harness: &Harness, cluster: &Cluster, timeline: &Arc<EngineTimeline>, lsn: Lsn) -> Result<()> {
    let pages = slru_pages(&cluster.data())?;
    for kind in SlruKind::ALL {
        let segments = harness.block_on(timeline.view(lsn).slru_segments(kind))?;
        let ours: usize = segments.iter().map(|(_, pages)| *pages as usize).sum();
        let theirs = pages.keys().filter(|page| page.kind == kind).count();
        ensure!(ours == theirs, "{} has {ours} pages here and {theirs} there", kind.folder());
    }
    for (page, theirs) in &pages {
        let number = u32::try_from(page.page)?;
        let ours = harness.block_on(timeline.view(lsn).slru_page(page.kind, number))?;
        ensure!(ours[..] == theirs[..], "{page} differs");
    }
    Ok(())
}
